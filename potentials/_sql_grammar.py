"""The SELECT statements over given tables, as a grammar in llguidance's variant of Lark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from awrs_ppl.potentials._sql_terminals import arities, name_pattern, terminals

__all__ = ["grammar"]


def grammar(tables: Mapping[str, Iterable[str]], functions: Mapping[str, frozenset[int]]) -> str:
    """The grammar of one SELECT over `tables` with `functions`, as `Database` gives them.

    A SELECT from one table has unqualified columns of that table alone, one from several has
    columns of any. There are no aggregates where SQLite has none, subqueries that stand for a
    value have one column, and a name that is no column stands for an alias only in GROUP BY,
    HAVING and ORDER BY.
    """
    return "\n".join([*terminals(functions), *_queries(tables), *_scopes(tables, functions)])


def _queries(tables: Mapping[str, Iterable[str]]) -> list[str]:
    columns = sorted({column.lower() for table in tables.values() for column in table})
    number = {column: i for i, column in enumerate(columns)}
    lines = [f"COLUMN_{i}: /{name_pattern(column)}/" for column, i in number.items()]
    lines += [f"column_m: {' | '.join(f'COLUMN_{i}' for i in number.values())}"]
    single = [str(i) for i in range(len(tables))]
    for i, (table, own) in enumerate(tables.items()):
        lines.append(f"TABLE_{i}: /{name_pattern(table)}/")
        lines.append(f"TABLE_DOT_{i}: /({name_pattern(table)})\\./")
        numbers = sorted({number[column.lower()] for column in own})
        lines.append(f"column_{i}: {' | '.join(f'COLUMN_{j}' for j in numbers)}")
        lines.append(f"sources_{i}: table_{i}")
        lines.append(f"table_{i}: TABLE_{i} alias?")
    every = [*single, "m"]
    for kind, scopes in (("row", [*every, "z"]), ("one", [*every, "z"])):
        for s in scopes:
            items = "value_{0}" if kind == "one" else "item_{0} (COMMA item_{0})*"
            lines.append(f"{kind}_core_{s}: SELECT DISTINCT? {items.format(s)} rest_{s}")
        cores = [f"{kind}_core_{s}" for s in scopes]
        ordered = [f"{kind}_core_{s} order_{s}? limit?" for s in every]
        lines.append(f"{kind}_core: {' | '.join(cores)}")
        lines.append(
            f"{kind}_query: {' | '.join(ordered)} | {kind}_core_z"
            f" | {kind}_core (SETOP {kind}_core)+ compound_order? limit?"
        )
    for s in every:
        lines += [
            f"rest_{s}: FROM sources_{s} (WHERE or_{s}w)? (GROUP group_{s} (COMMA group_{s})*"
            f" (HAVING or_{s}a)?)?",
            f"group_{s}: or_{s}w | NAME",
            f"order_{s}: ORDER term_{s} (COMMA term_{s})*",
            f"term_{s}: or_{s}a DIRECTION?",
        ]
    return [
        "start: LEAD? row_query TAIL?",
        *lines,
        'rest_z: ""',
        "limit: LIMIT OFFSET?",
        "compound_order: ORDER compound_term (COMMA compound_term)*",
        "compound_term: (column_m | NAME | NUMBER) DIRECTION?",
        "alias: AS ALIAS | NEXT_ALIAS",
        f"table: {' | '.join(f'table_{s}' for s in single)}",
        f"qualifier: ALIAS_DOT | {' | '.join(f'TABLE_DOT_{s}' for s in single)}",
        "sources_m: derived | source (join)+",
        "source: table | derived",
        "derived: OPEN row_query CLOSE alias?",
        "join: JOIN source (ON or_mw | USING column_m (COMMA column_m)* CLOSE)? | COMMA source",
    ]


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where an expression stands: `s` names its rules, `columns` those of the columns.

    In `calls` aggregates can be called, in `names` a name can be an alias.
    """

    s: str
    columns: str | None
    calls: str | None = None
    names: bool = False


def _scopes(
    tables: Mapping[str, Iterable[str]], functions: Mapping[str, frozenset[int]]
) -> list[str]:
    lines = []
    for s in [*map(str, range(len(tables))), "m"]:
        column = f"column_{s}"
        for scope in (
            _Scope(s, column, f"{s}w"),
            _Scope(f"{s}w", column),
            _Scope(f"{s}a", column, f"{s}w", names=True),
        ):
            lines += _expressions(scope, functions)
        lines += [
            f"value_{s}: or_{s} (AS NEW_NAME)?",
            f"item_{s}: value_{s} | STAR | qualifier STAR",
        ]
    lines += _expressions(_Scope("z", None), functions)
    return [*lines, "value_z: or_z (AS NEW_NAME)?", "item_z: value_z"]


def _expressions(scope: _Scope, functions: Mapping[str, frozenset[int]]) -> list[str]:
    s = scope.s
    primary = [
        *("NUMBER", "STRING", "CONSTANT", f"OPEN or_{s} CLOSE", "OPEN one_query CLOSE"),
        f"CASE or_{s} THEN or_{s} (WHEN or_{s} THEN or_{s})* (ELSE or_{s})? END",
        f"CAST or_{s} AS_TYPE CLOSE",
    ]
    if scope.columns is not None:
        primary += [scope.columns, "qualifier column_m"]
    if scope.names:
        primary.append("NAME")
    if scope.calls is not None:
        w = scope.calls
        primary += [
            f"COUNT (STAR | DISTINCT? or_{w}) CLOSE",
            f"AGGREGATE DISTINCT? or_{w} CLOSE",
        ]
    for i, counts in enumerate(arities(functions)):
        primary += [f"CALL_{i} {_arguments(s, count)} CLOSE" for count in sorted(counts)]
    return [
        f"or_{s}: and_{s} (OR and_{s})*",
        f"and_{s}: not_{s} (AND not_{s})*",
        f"not_{s}: NOT not_{s} | test_{s}",
        f"test_{s}: sum_{s} | sum_{s} (CMP | LIKE) operand_{s}"
        f" | sum_{s} BETWEEN operand_{s} AND operand_{s} | sum_{s} IS_NULL"
        f" | sum_{s} IN (one_query | operand_{s} (COMMA operand_{s})*) CLOSE"
        " | EXISTS row_query CLOSE",
        f"operand_{s}: sum_{s} | QUOTED_STRING",
        # No two signs meet: they would begin a comment.
        f"sum_{s}: SIGN? product_{s} (ADD product_{s})*",
        f"product_{s}: primary_{s} (MUL SIGN? primary_{s})*",
        f"primary_{s}: {' | '.join(primary)}",
    ]


def _arguments(s: str, count: int) -> str:
    if count == 0:
        return ""
    more = f" (COMMA or_{s})"
    return f"or_{s}" + (more * (count - 1) if count > 0 else f"{more * (-count - 1)}{more}*")
