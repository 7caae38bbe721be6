"""The words of SQLite, as terminals in llguidance's variant of Lark.

llguidance reads the longest terminal that fits, and never goes back. So every terminal carries
the blanks around it, and where one begins like another nothing else may follow the shorter one:
a keyword behind an operand has its blanks in front, all others behind.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing

from awrs_ppl.potentials._sql_database import AGGREGATES

__all__ = ["BOUNDARIES", "arities", "name_pattern", "terminals"]

# Words after which the sources of a SELECT are known.
BOUNDARIES = ("where", "group", "having", "order", "limit", "union", "intersect", "except")
# Other words that are no alias.
_RESERVED = (
    "select|distinct|all|from|as|on|using|join|inner|left|right|full|outer|cross|natural|and|"
    "or|not|in|is|like|glob|between|exists|case|when|then|else|end|cast|null|true|false|asc|"
    "desc|offset|by|set|values|with|escape|collate|isnull|notnull|match|regexp|over|filter|"
    "window|create|drop|delete|insert|update|alter|table|index|add|check|default|foreign|"
    "primary|references|to|transaction|unique|commit|deferrable|constraint|if|returning|"
    "nothing"
)

# At most so many blanks in a row, so that a text cannot go on without saying anything.
_S = r"[ \t\r\n]{1,20}"
_O = r"[ \t\r\n]{0,20}"
_IDENT = r"[A-Za-z_][A-Za-z0-9_]{0,39}"
# An alias of a table. With longer ones every word could become one, and few do.
_SHORT = r"[A-Za-z_]{1,4}[0-9]{0,2}"
_QUOTED = r'"[^"\x00-\x1f]{1,60}"|`[^`\x00-\x1f]{1,60}`|\[[^\]\x00-\x1f]{1,60}\]'


def terminals(functions: Mapping[str, frozenset[int]]) -> list[str]:
    """The terminals that do not depend on the tables; `CALL_i` calls those of `arities`' i-th."""
    reserved = "|".join(map(_word, _RESERVED.split("|")))
    boundaries = "|".join(map(_word, BOUNDARIES))
    sides = ["left"] if sqlite3.sqlite_version_info < (3, 39) else ["left", "right", "full"]
    side = f"({'|'.join(map(_word, sides))})({_S}{_word('outer')})?"
    inner = "|".join(_word(word) for word in ("inner", "cross", "natural"))
    not_ = f"({_word('not')}{_S})?"
    found = {
        "LEAD": _S,
        "TAIL": f"{_S}|{_O};{_O}",
        "SELECT": f"{_word('select')}{_S}",
        "DISTINCT": f"{_word('distinct')}{_S}",
        "SETOP": f"{_S}({_word('union')}({_S}{_word('all')})?|{_word('intersect')}"
        f"|{_word('except')}){_S}",
        "FROM": _between("from"),
        "JOIN": f"{_S}(({side}|{inner}){_S})?{_word('join')}{_S}",
        "ON": _between("on"),
        "USING": f"{_S}{_word('using')}{_O}\\({_O}",
        "AS": _between("as"),
        "WHERE": _between("where"),
        "GROUP": f"{_S}{_word('group')}{_S}{_word('by')}{_S}",
        "HAVING": _between("having"),
        "ORDER": f"{_S}{_word('order')}{_S}{_word('by')}{_S}",
        "DIRECTION": f"{_S}({_word('asc')}|{_word('desc')})",
        "LIMIT": f"{_S}{_word('limit')}{_S}[0-9]{{1,9}}",
        "OFFSET": f"({_S}{_word('offset')}{_S}|{_O},{_O})[0-9]{{1,9}}",
        "OR": _between("or"),
        "AND": _between("and"),
        "NOT": f"{_word('not')}{_S}",
        "EXISTS": f"{_word('exists')}{_O}\\({_O}",
        "LIKE": f"{_S}{not_}({_word('like')}|{_word('glob')}){_S}",
        "BETWEEN": f"{_S}{not_}{_word('between')}{_S}",
        "IN": f"{_S}{not_}{_word('in')}{_O}\\({_O}",
        "IS_NULL": f"{_S}{_word('is')}{_S}{not_}{_word('null')}",
        "CASE": f"{_word('case')}{_S}{_word('when')}{_S}",
        "WHEN": _between("when"),
        "THEN": _between("then"),
        "ELSE": _between("else"),
        "END": f"{_S}{_word('end')}",
        "CAST": f"{_word('cast')}\\({_O}",
        "AS_TYPE": f"{_S}{_word('as')}{_S}"
        f"({'|'.join(map(_word, ('integer', 'int', 'real', 'float', 'text', 'numeric')))})",
        "CMP": f"{_O}(=|==|!=|<>|<|<=|>|>=){_O}",
        "ADD": f"{_O}(\\+|-|\\|\\|){_O}",
        "MUL": f"{_O}[*\\/%]{_O}",
        "SIGN": "-",
        "OPEN": f"\\({_O}",
        "CLOSE": f"{_O}\\)",
        "COMMA": f"{_O},{_O}",
        "STAR": r"\*",
        "NUMBER": r"[0-9]{1,15}(\.[0-9]{1,15})?",
        "STRING": r"'([^'\x00-\x1f]|'')*'",
        # What is no column in double quotes is a string to SQLite.
        "QUOTED_STRING": r'"([^"\x00-\x1f]|"")*"',
        "CONSTANT": "|".join(_word(word) for word in ("null", "true", "false")),
        "COUNT": f"{_word('count')}\\({_O}",
        "AGGREGATE": _calls(AGGREGATES.intersection(functions) - {"count"}),
    }
    lines = [f"{name}: /{pattern}/" for name, pattern in found.items()]
    lines += [
        f"NAME: /{_IDENT}/ & ~/{reserved}|{boundaries}/",
        f"NEW_NAME: NAME | /{_QUOTED}/",
        f"ALIAS: /{_SHORT}/ & ~/{reserved}|{boundaries}/",
        f"ALIAS_DOT: /{_SHORT}\\./ & ~/({reserved}|{boundaries})\\./",
        # A boundary is known by its last letter: no alias without AS begins like one.
        f"NEXT_ALIAS: /{_S}{_SHORT}/ & ~/{_S}({reserved}|({boundaries})[A-Za-z0-9_]*)/",
    ]
    return lines + [
        f"CALL_{i}: /{_calls(names)}/" for i, names in enumerate(arities(functions).values())
    ]


def arities(functions: Mapping[str, frozenset[int]]) -> dict[frozenset[int], list[str]]:
    """Functions that are no aggregates, by how many arguments they take; -2: two or more."""
    found: dict[frozenset[int], list[str]] = {}
    for name, counts in functions.items():
        if name in ("min", "max", "coalesce"):
            counts = frozenset({-2})
        elif name in AGGREGATES:
            continue
        found.setdefault(counts, []).append(name)
    return found


def _calls(names: Iterable[str]) -> str:
    return f"({'|'.join(_word(name) for name in sorted(names))})\\({_O}"


def _between(word: str) -> str:
    return f"{_S}{_word(word)}{_S}"


def _word(word: str) -> str:
    """A word in any case; case is of ASCII alone to SQLite."""
    return "".join(
        f"[{c.upper()}{c.lower()}]" if c.isascii() and c.isalpha() else _escaped(c) for c in word
    )


def _escaped(character: str) -> str:
    plain = character == "_" or character.isalnum() or not character.isascii()
    return character if plain else f"\\x{ord(character):02x}"


def name_pattern(name: str) -> str:
    """A name as SQLite reads it: bare where it can be, or in one of three kinds of quotes."""
    ways = [f'"{_word(name.replace(chr(34), chr(34) * 2))}"', f"`{_word(name.replace('`', '``'))}`"]
    if "]" not in name:
        ways.append(rf"\[{_word(name)}\]")
    if _is_bare(name):
        ways.append(_word(name))
    return "|".join(ways)


def _is_bare(name: str) -> bool:
    if not re.fullmatch(r"[^\W\d]\w*", name):
        return False
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute(f"SELECT {name}.{name} FROM (SELECT 1 AS {name}) AS {name}")
        except sqlite3.Error:
            return False
    return True
