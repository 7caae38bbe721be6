"""Sql beside sqlite3: random statements of SQLite's SELECT grammar over random databases."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from awrs_ppl.potentials.sql import Sql

PLAIN = [
    "singer",
    "Concert",
    "song_1",
    "T1",
    "år",
    "total",
    "x",
    "a_very_long_name_of_a_table_it_is_x",
]
QUOTED = ["order", "two words", "a`b", "select", "x]y", "Größe (cm)", "group", "100%", "it's"]
COLUMNS = ["id", "Name", "age", "year", "rank", "value", "key", "date", "count", "cast", "filter"]
COLUMNS += ["left", "desc_", "Released_In_The_Year_Of_Their_Birth_Or_Later", "n", "row", "end"]
TYPES = ["INT", "TEXT", "REAL", "VARCHAR(20)", "DECIMAL(10, 5)", "DATE", ""]
STRINGS = ["''", "'a'", "'it''s'", "'%a_'", "'-- no'", "'SELECT ('", "'é🙂'", "'$.a'", "'%Y-%m'"]
# Without 0: SQLite does not look at the names in `x AND 0`.
NUMBERS = ["10", "1", "42", "3.5", ".5", "1.5e3", "2E-1", "7.", "0x1F", "100000000000000000000"]
BINARY = ["+", "-", "*", "/", "%", "||", "=", "==", "<>", "!=", "<", "<=", ">", ">=", "&", "|"]
BINARY += ["<<", ">>", "AND", "OR", "IS", "IS NOT", "LIKE", "NOT LIKE", "GLOB", "->", "->>"]
BINARY += ["IS DISTINCT FROM", "IS NOT DISTINCT FROM", "AND", "OR", "=", ">"]
CALLS = ["abs", "upper", "length", "date", "trim", "typeof", "json", "hex", "round", "coalesce"]
CALLS += [
    "ifnull",
    "nullif",
    "iif",
    "substr",
    "replace",
    "instr",
    "printf",
    "strftime",
    "max",
    "min",
]
ARGUMENTS = {"coalesce": 2, "ifnull": 2, "nullif": 2, "iif": 3, "substr": 3, "replace": 3}
ARGUMENTS |= {"instr": 2, "printf": 2, "strftime": 2, "max": 2, "min": 2}
AGGREGATES = ["count", "sum", "avg", "min", "max", "total", "group_concat", "json_group_array"]
WINDOWS = ["row_number()", "rank()", "dense_rank()", "cume_dist()", "percent_rank()"]
WORD = re.compile(r"[\w$]")


def quoted(name: str, rng: random.Random) -> str:
    ways = [f'"{name.replace(chr(34), chr(34) * 2)}"', f"`{name.replace('`', '``')}`"]
    ways += [f"[{name}]"] if "]" not in name else []
    return rng.choice(ways)


@dataclass
class Writer:
    """Writes statements; `scopes` are the sources in reach: aliases with their columns."""

    rng: random.Random
    tables: dict[str, list[str]]
    scopes: list[list[tuple[str, list[str]]]] = field(default_factory=list)
    given: list[tuple[str, list[str]]] = field(default_factory=list)
    # Tables of WITH that nothing has read yet: SQLite does not look at a query that nothing uses.
    unused: list[tuple[str, list[str]]] = field(default_factory=list)
    made: int = 0

    def maybe(self, share: float, *words: str) -> list[str]:
        return list(words) if self.rng.random() < share else []

    def name(self, name: str) -> str:
        plain = re.fullmatch(r"[^\W\d]\w*", name) and name.lower() not in (
            "order",
            "group",
            "select",
        )
        if not plain or self.rng.random() < 0.15:
            return quoted(name, self.rng)
        return self.rng.choice([name, name, name.upper() if name.isascii() else name])

    def new(self) -> str:
        self.made += 1
        return self.rng.choice(["a", "T", "new_name_", "Übrig", "total"]) + str(self.made)

    def statement(self) -> list[str]:
        words = self.query(3, self.rng.choice([1, 1, 2, 3]))
        return words + self.maybe(0.2, ";")

    def query(self, depth: int, width: int, ordered: bool = True) -> list[str]:
        mark = len(self.given)
        words = self.with_(depth) if depth > 1 and self.rng.random() < 0.15 else []
        words += self.core(depth, width)
        while self.rng.random() < 0.12:
            words += [self.rng.choice(["UNION", "UNION ALL", "INTERSECT", "EXCEPT"])]
            words += self.core(depth, width, alone=False)
            ordered = False
        if ordered and words[0] != "VALUES" and self.rng.random() < 0.3:
            words += self.order(depth)
        elif self.rng.random() < 0.1:
            words += ["ORDER BY", "1"]
        words += self.maybe(0.2, "LIMIT", "5")
        if words[-2:] == ["LIMIT", "5"]:
            words += self.rng.choice([[], ["OFFSET", "2"], [",", "3"]])
        if self.scopes:
            self.scopes.pop()
        del self.given[mark:]
        return words

    def with_(self, depth: int) -> list[str]:
        words = self.rng.choice([["WITH"], ["WITH"], ["WITH RECURSIVE"]])
        for i in range(self.rng.choice([1, 1, 2, 3])):
            name, width = self.new(), self.rng.choice([1, 2])
            columns = [self.new() for _ in range(width)]
            inside, self.scopes = self.scopes, []
            waiting, self.unused = self.unused, []
            body = self.query(depth - 1, width)
            self.scopes, self.unused = inside, waiting
            words += [","] if i else []
            words += [self.name(name), "(", *self.listed([[c] for c in columns]), ")", "AS"]
            words += [*self.maybe(0.1, "NOT MATERIALIZED"), "(", *body, ")"]
            self.given.append((name, columns))
            self.unused.append((name, columns))
        return words

    def core(self, depth: int, width: int, alone: bool = True) -> list[str]:
        if not alone:
            self.scopes.pop()
        if self.rng.random() < 0.04 and not self.unused:
            self.scopes.append([])
            rows = [["(", *self.listed([[self.literal()] for _ in range(width)]), ")"]]
            return ["VALUES", *self.listed(rows * self.rng.choice([1, 2]))]
        self.scopes.append([])
        sources = self.sources(depth) if self.unused or self.rng.random() < 0.93 else []
        grouped = bool(sources) and self.rng.random() < 0.3
        words = ["SELECT", *self.maybe(0.15, "DISTINCT"), *self.maybe(0.03, "ALL")]
        items = []
        for _ in range(width):
            item = (
                self.aggregate(depth) if grouped and self.rng.random() < 0.6 else self.expr(depth)
            )
            if sources and self.rng.random() < 0.08:
                item = self.window(depth)
            if self.rng.random() < 0.3:
                alias = self.new()
                shown = self.rng.choice([self.name(alias), f"'{alias}'", f'"{alias} it is"'])
                item = [*item, *self.maybe(0.7, "AS"), shown]
            items.append(item)
        words += self.listed(items) + sources
        words += ["WHERE", *self.expr(depth)] if sources and self.rng.random() < 0.45 else []
        if grouped:
            terms = [self.column() for _ in range(self.rng.choice([1, 2]))]
            words += ["GROUP BY", *self.listed(terms)]
            if self.rng.random() < 0.4:
                words += ["HAVING", *self.aggregate(depth), self.rng.choice([">", "="]), "1"]
        return words

    def sources(self, depth: int) -> list[str]:
        own = self.scopes[-1]
        words = ["FROM", *self.source(depth, own)]
        while self.unused or (self.rng.random() < 0.35 and len(own) < 4):
            join = self.rng.choice([",", "JOIN", "JOIN", "INNER JOIN", "LEFT JOIN", "CROSS JOIN"])
            join = self.rng.choice([join, join, "LEFT OUTER JOIN", "RIGHT JOIN", "FULL OUTER JOIN"])
            words += [join, *self.source(depth, own)]
            if join != "," and self.rng.random() < 0.85:
                words += ["ON", *self.column(), "=", *self.column()]
        return words

    def source(self, depth: int, own: list[tuple[str, list[str]]]) -> list[str]:
        alias = self.new()
        if self.unused:
            table, columns = self.unused.pop()
            own.append((alias, columns))
            return [self.name(table), *self.maybe(0.6, "AS"), self.name(alias)]
        if depth > 0 and self.rng.random() < 0.2:
            columns = [self.new() for _ in range(self.rng.choice([1, 2]))]
            inside, self.scopes = self.scopes, []
            words = ["(", *self.query(depth - 1, len(columns)), ")"]
            self.scopes = inside
            # Known by the star alone.
            own.append((alias, ["*"]))
            return [*words, *self.maybe(0.7, "AS"), self.name(alias)]
        if self.rng.random() < 0.05:
            own.append((alias, ["key", "value"]))
            return ["json_each", "(", "'[1, 2]'", ")", "AS", self.name(alias)]
        table, columns = self.rng.choice([*self.tables.items(), *self.given])
        if table in self.tables and self.rng.random() < 0.05:
            own.append((alias, columns))
            return ["main", ".", self.name(table), "AS", self.name(alias)]
        if self.rng.random() < 0.5 or any(table == known for known, _ in own):
            own.append((alias, columns))
            return [self.name(table), *self.maybe(0.6, "AS"), self.name(alias)]
        own.append((table, columns))
        return [self.name(table)]

    def column(self) -> list[str]:
        scopes = [scope for scope in self.scopes if scope]
        if not scopes:
            return [self.literal()]
        scope = scopes[-1] if self.rng.random() < 0.85 else self.rng.choice(scopes)
        source, columns = self.rng.choice(scope)
        column = self.rng.choice(columns)
        if column == "*":
            return [self.rng.choice(NUMBERS)]
        if self.rng.random() < 0.85:
            return [self.name(source), ".", self.name(column)]
        return [self.name(column)]

    def literal(self) -> str:
        others = ["NULL", "x'ab01'", "true", "CURRENT_DATE"]
        return self.rng.choice([*STRINGS, *NUMBERS, *others])

    def expr(self, depth: int) -> list[str]:
        if depth <= 0 or self.rng.random() < 0.35:
            return self.column() if self.rng.random() < 0.7 else [self.literal()]
        return self.rng.choice(self._forms())(depth - 1)

    def _forms(self) -> list[Callable[[int], list[str]]]:
        e, rng = self.expr, self.rng
        return [
            lambda d: [*e(d), *rng.choice(BINARY).split(), *e(d)],
            lambda d: [*e(d), *rng.choice(BINARY).split(), *e(d)],
            lambda d: ["(", *e(d), ")"],
            lambda d: [rng.choice(["-", "+", "~", "NOT"]), *self.column()],
            lambda d: [
                *self.column(),
                *rng.choice(["IS NULL", "ISNULL", "NOTNULL", "NOT NULL"]).split(),
            ],
            lambda d: [
                *self.column(),
                *self.maybe(0.3, "NOT"),
                "BETWEEN",
                *self.column(),
                "AND",
                *e(d),
            ],
            lambda d: [
                *self.column(),
                *self.maybe(0.3, "NOT"),
                "IN",
                "(",
                *self.listed([e(d), e(d)]),
                ")",
            ],
            lambda d: [*self.column(), *self.maybe(0.3, "NOT"), "IN", "(", *self.query(d, 1), ")"],
            lambda d: (
                [*self.column(), "IN", self.name(table)] if (table := self.one_column()) else e(d)
            ),
            lambda d: ["(", *self.query(d, 1), ")"],
            lambda d: [*self.maybe(0.3, "NOT"), "EXISTS", "(", *self.query(d, 2), ")"],
            lambda d: (
                ["CASE", *self.maybe(0.4, *self.column()), "WHEN", *e(d), "THEN", *e(d)]
                + (["ELSE", *e(d)] if rng.random() < 0.6 else [])
                + ["END"]
            ),
            lambda d: [
                "CAST",
                "(",
                *e(d),
                "AS",
                *rng.choice(TYPES[:-1])
                .replace("(", " ( ")
                .replace(")", " )")
                .replace(",", " ,")
                .split(),
                ")",
            ],
            lambda d: self.call(d),
            lambda d: self.call(d),
            lambda d: [*self.column(), "COLLATE", "NOCASE", "=", "'a'"],
            lambda d: [*self.column(), "LIKE", "'a!%'", "ESCAPE", "'!'"],
            lambda d: ["(", *e(d), ",", *e(d), ")", "=", "(", *e(d), ",", *e(d), ")"],
        ]

    def one_column(self) -> str | None:
        return next(
            (t for t, columns in [*self.tables.items(), *self.given] if len(columns) == 1), None
        )

    def call(self, depth: int) -> list[str]:
        name = self.rng.choice(CALLS)
        values = [self.expr(depth) for _ in range(ARGUMENTS.get(name, 1))]
        shown = self.rng.choice([name, name.upper(), name.capitalize()])
        return [shown, "(", *self.listed(values), ")"]

    def aggregate(self, depth: int) -> list[str]:
        name = self.rng.choice(AGGREGATES)
        value = [*self.maybe(0.2, "DISTINCT"), *self.column()]
        value = ["*"] if name == "count" and self.rng.random() < 0.5 else value
        value += [",", "', '"] if name == "group_concat" and value[0] != "DISTINCT" else []
        filtered = ["FILTER", "(", "WHERE", *self.column(), ">", "1", ")"]
        return [name, "(", *value, ")", *self.maybe(0.15, *filtered)]

    def window(self, depth: int) -> list[str]:
        words = ["PARTITION BY", *self.column()] if self.rng.random() < 0.5 else []
        words += ["ORDER BY", *self.column(), *self.maybe(0.4, "DESC")]
        frames = ["ROWS BETWEEN 1 PRECEDING AND CURRENT ROW", "GROUPS UNBOUNDED PRECEDING", ""]
        frames += ["RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE TIES"]
        words += self.rng.choice(frames).split()
        name = self.rng.choice([*WINDOWS, "sum(1)"])
        return [*name[:-1].replace("(", " (").split(), ")", "OVER", "(", *words, ")"]

    def order(self, depth: int) -> list[str]:
        terms = []
        for _ in range(self.rng.choice([1, 1, 2])):
            nulls = self.maybe(0.2, self.rng.choice(["NULLS FIRST", "NULLS LAST"]))
            way = self.rng.choice([[], ["ASC"], ["DESC"]])
            terms.append([*self.rng.choice([["1"], self.expr(1), self.column()]), *way, *nulls])
        return ["ORDER BY", *self.listed(terms)]

    def listed(self, items: list[list[str]]) -> list[str]:
        return [word for item in items for word in [",", *item]][1:]


def spelled(words: list[str], rng: random.Random) -> str:
    """Words as a text, with blanks and comments where they may be, and some in another case."""
    text = rng.choice(["", "", " ", "\n"])
    for word in words:
        if word.isascii() and word.isupper() and rng.random() < 0.3:
            word = rng.choice([word.lower(), word.capitalize()])
        word = word.replace(" ", rng.choice([" ", "\n"])) if word[0].isalpha() else word
        glued = text and WORD.match(text[-1]) and WORD.match(word[0])
        symbols = text and not (text[-1] in "(),;" or word[0] in "(),;")
        glued = glued or re.search(r"\d\.$", text)
        if glued or (symbols and "." not in (word, text[-1])) or rng.random() < 0.3:
            text += rng.choice([" "] * 12 + ["\n", "\t", "  ", " " * 30, " /* c ' */ ", " -- c\n"])
        text += word
    return text + rng.choice(["", "", " ", "\n", "-- end"])


@contextmanager
def database(
    path: Path, rng: random.Random
) -> Iterator[tuple[sqlite3.Connection, dict[str, list[str]]]]:
    tables: dict[str, list[str]] = {}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in rng.sample(PLAIN + QUOTED, rng.choice([1, 2, 3])):
            columns = rng.sample(COLUMNS + QUOTED[:4], rng.choice([1, 2, 3, 5]))
            shown = ", ".join(f"{quoted(c, rng)} {rng.choice(TYPES)}" for c in columns)
            connection.execute(f"CREATE TABLE {quoted(table, rng)} ({shown})")
            tables[table] = columns
        yield connection, tables


def error(connection: sqlite3.Connection, text: str) -> str | None:
    try:
        connection.execute(f"EXPLAIN {text}").close()
    except (sqlite3.Error, sqlite3.Warning) as found:
        return str(found)
    return None


def named(words: list[str]) -> list[str]:
    """With backticks for double quotes: what is no name then is no string either."""
    return [
        f"`{word[1:-1].replace('`', '``').replace(chr(34) * 2, chr(34))}`"
        if word[0] == '"'
        else word
        for word in words
    ]


def rejected_at(potential: Sql, text: str) -> int | None:
    """How many bytes were read when the text was rejected; None if it is allowed."""
    state: Any = potential.start()
    data = text.encode()
    for at in range(len(data)):
        state = potential.advance(state, data[at : at + 1])
        if state is None:
            return at
    return None if potential.accepts(state) else len(data)


@pytest.mark.slow
def test_statements_that_sqlite_prepares_are_accepted_at_every_prefix(fuzz: Any, tmp_path: Path):
    prepared = 0
    for number, rng in enumerate(fuzz.rngs(12)):
        with database(tmp_path / f"{number}.sqlite", rng) as (connection, tables):
            potential = Sql(tmp_path / f"{number}.sqlite")
            for _ in range(25):
                words = Writer(rng, tables).statement()
                text = spelled(words, rng)
                fault = error(connection, text)
                at = rejected_at(potential, text)
                if fault is None and at is not None and error(connection, " ".join(named(words))):
                    continue  # a string in double quotes where none makes sense
                if fault is None:
                    prepared += 1
                    assert at is None, (text, text.encode()[:at], potential.why(text))
                    assert potential.why(text) is None
                else:
                    assert at is not None, (text, fault)
    assert prepared > 12 * 25 * 0.5


def corrupted(words: list[str], rng: random.Random) -> list[str]:
    for _ in range(rng.choice([1, 1, 2])):
        at = rng.randrange(len(words))
        new = rng.choice([[], [rng.choice(PIECES)], [rng.choice(words)]])
        words[at : at + rng.choice([0, 1])] = new
        words = words or ["SELECT"]
    return words


PIECES = [
    "(",
    ")",
    ",",
    "SELECT",
    "FROM",
    "nope",
    "AS",
    "*",
    "=",
    "'x'",
    "1",
    "x",
    ".",
    "AND",
    "END",
]


def test_statements_that_sqlite_does_not_prepare_are_rejected(fuzz: Any, tmp_path: Path):
    wrong = 0
    for number, rng in enumerate(fuzz.rngs(12)):
        with database(tmp_path / f"{number}.sqlite", rng) as (connection, tables):
            potential = Sql(tmp_path / f"{number}.sqlite")
            for _ in range(25):
                words = corrupted(Writer(rng, tables).statement(), rng)
                text = spelled(words, rng)
                fault = error(connection, text)
                rejected = rejected_at(potential, text)
                if fault is not None:
                    wrong += 1
                    assert rejected is not None, (text, fault)
    assert wrong > 12 * 25 * 0.3
