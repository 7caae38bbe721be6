"""SELECT statements that a SQLite database can run."""

from __future__ import annotations

import os
from functools import lru_cache, partial
from typing import Any

import numpy as np

from awrs_ppl._values import is_number
from awrs_ppl.constraints.arguments import Argument, hidden
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.potentials.sql.automaton import automaton
from awrs_ppl.potentials.sql.database import Database, Stamp, open_database, stamp
from awrs_ppl.potentials.sql.grammar import TERMINALS, rules
from awrs_ppl.potentials.sql.masks import Masks
from awrs_ppl.potentials.sql.names import Names
from awrs_ppl.potentials.sql.place import Rejected
from awrs_ppl.potentials.sql.reader import Reader
from awrs_ppl.potentials.sql.scan import START, Scanned, Scanner
from awrs_ppl.tokens.text import as_bytes
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["Sql"]


class Sql(BooleanPotential):
    """One statement that a SQLite database can run and that only reads, with or without a `;`.

    An automaton made of SQLite's grammar gives masks, with the names of the database and those
    that the text gives itself. As soon as the sources of a SELECT are known, whatever has been
    said is prepared on the database, so that a wrong column or alias is rejected where it stands;
    before, a subquery in FROM could still bring it. The whole statement is prepared at the end.
    `why` says in a sentence what is wrong with a text.

    It is SELECT and VALUES as SQLite has them: with `WITH`, subqueries, joins, `UNION` and the
    like, window functions, row values, comments, JSON and all functions that only compute. What
    stays out: recursion in `WITH`; `EXPLAIN`, `PRAGMA` and all that writes; parameters; tables of
    SQLite itself, of `PRAGMA` and of other modules than JSON's; functions of extensions, with
    effects, or that only fill memory (`load_extension`, `randomblob`, `zeroblob`); several
    statements; a column called `window` without quotes as an alias; and names in double quotes
    that SQLite would take for strings where a string makes no sense: as a whole result column, a
    whole term of GROUP BY or ORDER BY, or all that is aggregated. The version of SQLite that
    Python has decides what else it can.

    The file is opened read-only. An authorizer denies all but reading its tables: no writing,
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
    >>> asyncio.run(music.prefix(b"SELECT name FROM singer WHERE salary"))
    -inf
    >>> music.why("SELECT salary FROM singer")
    "'SELECT salary FROM singer' cannot be run: SQLite says: no such column: salary."
    >>> music.rows("SELECT name FROM singer WHERE age < 40")
    [('Amy',)]
    """

    arguments = (Argument("_file_name", key=None), hidden("_stamp"), hidden("_limits"))

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

    def __reduce__(self) -> tuple[Any, ...]:
        steps, seconds, max_rows = self._limits
        return partial(Sql, steps=steps, seconds=seconds, max_rows=max_rows), (self.database,)

    @property
    def _file_name(self) -> str:
        return os.path.basename(self.database)

    @property
    def schema(self) -> dict[str, tuple[str, ...]]:
        """The names of the tables and views, and of their columns."""
        return dict(self._engine.database.tables)

    def start(self) -> Scanned:
        """The state of the empty text: a state is the text so far."""
        return START

    def advance(self, state: Any, data: bytes) -> Scanned | None:
        """The text with `data`; None if no statement has this prefix."""
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

    def is_over(self, state: Any) -> bool:
        """What `accepts` says: a text that need not end is over here."""
        return self.accepts(state)

    def mask(self, state: Any, vocabulary: Vocabulary) -> np.ndarray:
        """Which tokens may follow, shape `[vocabulary.size]`."""
        return self._engine.masks.mask(state, vocabulary)

    def why(self, text: str) -> str | None:
        """Why a text is rejected, in a sentence; None if it is accepted, or is only unfinished.

        >>> import sqlite3, tempfile
        >>> path = tempfile.mkdtemp() + "/music.sqlite"
        >>> with sqlite3.connect(path) as connection:
        ...     _ = connection.execute("CREATE TABLE singer (name TEXT, age INT)")
        >>> connection.close()
        >>> music = Sql(path)
        >>> music.why("DELETE FROM singer")
        "No statement begins 'DELETE': it begins with SELECT, WITH or VALUES, and only reads."
        >>> music.why("SELECT name FROM singer WHERE salary > 3")  # doctest: +ELLIPSIS
        "No statement begins '...WHERE salary': there is no column, table or function 'salary'..."
        """
        if not isinstance(text, str):
            raise TypeError(f"why got {text!r}: the text must be a str")
        try:
            data = as_bytes(text)  # a text of `ctx.generate` may end within a character
        except UnicodeEncodeError:
            data = text.encode("utf-8", "surrogatepass")
        reason = self._engine.scanner.why(data)
        return reason and f"{reason[0].upper()}{reason[1:]}."

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The result of a query, within the limits; for critics.

        Runs whatever the authorizer lets pass, also `EXPLAIN` and parameters left empty. Raises
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
