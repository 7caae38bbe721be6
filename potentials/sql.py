"""SELECT statements that a SQLite database can run."""

from __future__ import annotations

import os
from functools import lru_cache, partial
from typing import Any

import numpy as np

from awrs_ppl._values import is_number
from awrs_ppl.potential import BooleanPotential
from awrs_ppl.potentials._sql_automaton import automaton
from awrs_ppl.potentials._sql_database import Database, Stamp, open_database, stamp
from awrs_ppl.potentials._sql_grammar import TERMINALS, rules
from awrs_ppl.potentials._sql_masks import Masks
from awrs_ppl.potentials._sql_names import Names
from awrs_ppl.potentials._sql_reader import Reader, Rejected
from awrs_ppl.potentials._sql_scan import START, Scanned, Scanner
from awrs_ppl.vocabulary import Vocabulary

__all__ = ["Sql"]

class Sql(BooleanPotential):
    """One SELECT statement that a SQLite database can run, with or without a `;` at its end.

    A grammar made of the database's own tables, columns and functions gives masks. As soon as
    the sources of a SELECT are known, whatever has been said is prepared on the database, so
    that a wrong column or alias is refused where it stands; and the whole statement is prepared
    at the end. Names in double quotes must be in scope, or stand where a string is compared:
    SQLite takes any other for a string as well.

    The grammar has joins, subqueries, `UNION` and its like, `CASE`, `CAST` and the functions that
    only compute. It leaves out `WITH`, window functions, comments, row values, and new names for
    the columns of a subquery in FROM; aliases of tables are as short as `T1` or `song`.

    The file is opened read-only. An authorizer refuses all but reading its tables: no writing,
    no `PRAGMA`, `ATTACH` or extension, no recursion. `steps` of SQLite's machine and `seconds`
    bound each query, `max_rows` its result. If the file changes, build the potential anew.

    Raises `ValueError` if `database` is not the path of a readable database with a table.

    >>> import asyncio, sqlite3, tempfile
    >>> path = tempfile.mkdtemp() + "/music.sqlite"
    >>> with sqlite3.connect(path) as connection:
    ...     _ = connection.execute("CREATE TABLE singer (name TEXT, age INT)")
    ...     _ = connection.execute("INSERT INTO singer VALUES ('Joe', 52), ('Amy', 31)")
    >>> connection.close()
    >>> music = Sql(path)
    >>> music
    Sql('music.sqlite')
    >>> asyncio.run(music.complete(b"SELECT name FROM singer WHERE age < 40"))
    0.0
    >>> asyncio.run(music.prefix(b"SELECT salary "))
    -inf
    >>> music.rows("SELECT name FROM singer WHERE age < 40")
    [('Amy',)]
    """

    def __init__(
        self,
        database: str | os.PathLike[str],
        *,
        steps: float = 10_000_000,
        seconds: float = 5.0,
        max_rows: float = 10_000,
    ) -> None:
        if not isinstance(database, str | os.PathLike) or isinstance(os.fspath(database), bytes):
            raise TypeError(f"Sql got {database!r}: give it the path of a SQLite database")
        limits = {"steps": steps, "seconds": seconds, "max_rows": max_rows}
        for name, limit in limits.items():
            if not is_number(limit) or not limit > 0:
                raise ValueError(f"Sql got {name}={limit!r}: give a positive number")
        super().__init__()
        path = os.fspath(database)
        try:
            self._stamp = stamp(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"Sql got {path!r}: no such database ({error})") from error
        self.database = path
        # As floats: numpy's integers would wrap below zero.
        self._limits = (float(steps), float(seconds), float(max_rows))
        self._engine = _engine(self._stamp, *self._limits[:2])

    @property
    def key(self) -> tuple[type, Stamp, tuple[float, float, float]]:
        """Equal for the same file, unchanged, under the same limits."""
        return (type(self), self._stamp, self._limits)

    @property
    def fingerprint(self) -> str:
        """The name of the file."""
        return f"Sql({os.path.basename(self.database)!r})"

    def __repr__(self) -> str:
        return self.fingerprint

    def __reduce__(self) -> tuple[Any, ...]:
        steps, seconds, max_rows = self._limits
        return partial(Sql, steps=steps, seconds=seconds, max_rows=max_rows), (self.database,)

    @property
    def schema(self) -> dict[str, tuple[str, ...]]:
        """The names of the tables and views, and of their columns."""
        return dict(self._engine.database.tables)

    def start(self) -> Scanned:
        """The state of the empty text: a state is the text so far."""
        return START

    def advance(self, state: Any, data: bytes) -> Scanned | None:
        """The text with `data`; None if no statement begins so."""
        try:
            return self._engine.scanner.read(state, data)
        except Rejected:
            return None

    def accepts(self, state: Any) -> bool:
        """Whether the text is a statement that the database can run."""
        try:
            self._engine.scanner.end(state)
        except Rejected:
            return False
        return True

    def mask(self, state: Any, vocabulary: Vocabulary) -> np.ndarray:
        """Which tokens may follow, shape `[vocabulary.size]`."""
        return self._engine.masks.mask(state, vocabulary)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The result of a query, within the limits; for critics.

        Runs whatever the authorizer lets pass, also what the grammar leaves out. Raises
        `ValueError` for a query that cannot be run, `PotentialError` at a limit.
        """
        if not isinstance(query, str):
            raise TypeError(f"rows got {query!r}: the query must be a str")
        return self._engine.database.rows(query, self._limits[2])


class _Engine:
    """What is expensive, shared by all potentials on one file."""

    def __init__(self, database: Database) -> None:
        self.database = database
        names = Names.of(database.tables, database.functions, database.table_functions)
        reader = Reader(automaton(rules(database.functions), TERMINALS), names)
        self.scanner = Scanner(reader, lru_cache(maxsize=4096)(database.error))
        self.masks = Masks(self.scanner)


@lru_cache(maxsize=32)
def _engine(mark: Stamp, steps: float, seconds: float) -> _Engine:
    return _Engine(open_database(mark, steps, seconds))
