"""SQLite's SELECT statements, as rules over its tokens.

A little wider than SQLite: expressions are operands between operators, whatever binds closer,
and what depends on it (`BETWEEN` without its `AND`) is left to SQLite. In the rules, words in
upper case are keywords, but for the terminals that `TERMINALS` lists; `[r]` is rule `r` in
brackets, `{case}` a `CASE` up to its `END`, `<r>` rule `r` read as far as it goes. What stands in
these is read on a stack, so no other rule may contain itself. The facts are those of
https://sqlite.org/lang_select.html and https://sqlite.org/lang_expr.html.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing

__all__ = ["KEYWORDS", "RESERVED", "TERMINALS", "rules"]

# Words by where they stand: columns, qualifiers and functions; tables; new names; new
# names of tables in WITH; what follows a dot.
TERMINALS = frozenset(("COLUMN", "TABLE", "NEW", "CTE", "MEMBER", "NUMBER", "STRING", "BLOB"))

_RULES = {
    "statement": "query ';'?",
    "query": "with? core (setop core)* order? limit?",
    "with": "WITH RECURSIVE? cte (',' cte)*",
    "cte": "CTE [names]? AS (NOT? MATERIALIZED)? [body]",
    "body": "query",
    "setop": "UNION ALL? | INTERSECT | EXCEPT",
    "core": "SELECT (DISTINCT | ALL)? item (',' item)* (FROM sources)? (WHERE <expr>)? (GROUP BY "
    "exprs)? (HAVING <expr>)? (WINDOW named (',' named)*)? | VALUES [exprs] (',' [exprs])*",
    "item": "'*' | <value> alias?",
    "alias": "AS? NEW",
    "named": "NEW AS [window]",
    "sources": "source (join source (ON <expr> | USING [names])?)*",
    "source": "table alias? (NOT INDEXED | INDEXED BY NEW)? | [derived] alias?",
    "table": "TABLE ('.' TABLE)? [arguments]?",
    "derived": "query | sources",
    "join": "',' | (NATURAL | LEFT | RIGHT | FULL | INNER | CROSS | OUTER)* JOIN",
    "order": "ORDER BY term (',' term)*",
    "term": "<expr> (ASC | DESC)? (NULLS (FIRST | LAST))?",
    "limit": "LIMIT <expr> ((OFFSET | ',') <expr>)?",
    "names": "NEW (',' NEW)*",
    "exprs": "<expr> (',' <expr>)*",
    "expr": "operand (binary operand | IS (NOT? DISTINCT FROM | NOT)? operand | after)*",
    "value": "expr | COLUMN '.' '*'",
    "binary": "OR | AND | '=' | '==' | '!=' | '<>' | '<' | '<=' | '>' | '>=' | '<<' | '>>' | '&' "
    "| '|' | '+' | '-' | '*' | '/' | '%' | '||' | '->' | '->>' | ESCAPE | NOT? (BETWEEN | match)",
    "after": "ISNULL | NOTNULL | NOT NULL | COLLATE NEW | NOT? IN ([listed] | table)",
    "operand": "(NOT | '-' | '+' | '~')* primary",
    "primary": "NUMBER | STRING | BLOB | NULL | CURRENT_DATE | CURRENT_TIME | CURRENT_TIMESTAMP "
    "| COLUMN ('.' MEMBER ('.' MEMBER)?)? | call | CAST [cast] | EXISTS [query] | [row] | {case}",
    "call": "COLUMN [arguments] (FILTER [filter])? (OVER (NEW | [window]))?",
    "arguments": "('*' | (DISTINCT | ALL)? exprs)?",
    "row": "query | exprs",
    "listed": "query | exprs?",
    "filter": "WHERE <expr>",
    "cast": "<expr> AS NEW+ [sizes]?",
    "sizes": "size (',' size)?",
    "size": "('+' | '-')? NUMBER",
    "window": "NEW? (PARTITION BY exprs)? order? frame?",
    "frame": "(RANGE | ROWS | GROUPS) (BETWEEN bound AND bound | bound) "
    "(EXCLUDE (NO OTHERS | CURRENT ROW | GROUP | TIES))?",
    "bound": "UNBOUNDED (PRECEDING | FOLLOWING) | CURRENT ROW | <expr> (PRECEDING | FOLLOWING)",
    "case": "<expr>? (WHEN <expr> THEN <expr>)+ (ELSE <expr>)?",
}


def rules(functions: Iterable[str]) -> Mapping[str, str]:
    """The rules where `functions` exist; operators that are functions of an extension need it."""
    match = ["LIKE", "GLOB", *(name.upper() for name in ("regexp", "match") if name in functions)]
    found = {**_RULES, "match": " | ".join(match)}
    if sqlite3.sqlite_version_info >= (3, 44):
        found["arguments"] = "('*' | (DISTINCT | ALL)? exprs order?)?"
    return found


_KEYWORDS = """
abort action add after all alter always analyze and as asc attach autoincrement before begin
between by cascade case cast check collate column commit conflict constraint create cross
current current_date current_time current_timestamp database default deferrable deferred delete
desc detach distinct do drop each else end escape except exclude exclusive exists explain fail
filter first following for foreign from full generated glob group groups having if ignore
immediate in index indexed initially inner insert instead intersect into is isnull join key
last left like limit match materialized natural no not nothing notnull null nulls of offset on
or order others outer over partition plan pragma preceding primary query raise range recursive
references regexp reindex release rename replace restrict returning right rollback row rows
savepoint select set table temp temporary then ties to transaction trigger unbounded union
unique update using vacuum values view virtual when where window with without
"""
KEYWORDS = frozenset(_KEYWORDS.split())


def _reserved() -> frozenset[str]:
    """The keywords that cannot be a name anywhere."""
    places = (
        "SELECT 1 AS {0}",
        "SELECT 1 {0}",
        "SELECT {0}.{0} FROM (SELECT 1 AS {0}) AS {0}",
        "SELECT a.{0} FROM (SELECT 1 AS {0}) AS a",
    )
    with closing(sqlite3.connect(":memory:")) as connection:
        return frozenset(
            word
            for word in KEYWORDS
            if not any(_prepares(connection, place.format(word)) for place in places)
        )


def _prepares(connection: sqlite3.Connection, query: str) -> bool:
    try:
        connection.execute(f"EXPLAIN {query}").close()
    except sqlite3.Error:
        return False
    return True


RESERVED = _reserved()
