"""A SQLite database that can only be read, and only so much at a time."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from typing import Any
from urllib.parse import quote

from awrs_ppl._deadline import Deadline
from awrs_ppl._messages import show
from awrs_ppl.errors import PotentialError

__all__ = ["Database", "Stamp", "open_database", "stamp"]

# What a file was when it was looked at: its path, number, time of change in ns, and size.
Stamp = tuple[str, int, int, int]

# Steps of SQLite's machine between two looks at the clock.
STRIDE = 1000
# Bytes of all cells of a result.
RESULT_BYTES = 2**26
SETTINGS = (
    "PRAGMA query_only = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA temp_store = MEMORY",  # a big sort would write to the disk
    "PRAGMA mmap_size = 0",  # a file that shrinks under a mapping ends the process
)
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 50_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 100_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}

# Functions with an effect outside of the query, or of no use but to fill memory.
_UNWANTED = frozenset({"load_extension", "randomblob", "sqlite_log", "zeroblob"})
# Functions that give a table; all others show the database and its machine.
_OF_JSON = ("key", "value", "type", "atom", "id", "parent", "fullkey", "path", "json", "root")
TABLE_FUNCTIONS = {"json_each": _OF_JSON, "json_tree": _OF_JSON}
# Prefixes of the names of tables that describe the database itself.
_OF_SQLITE = ("sqlite_", "pragma_")
_INNOCUOUS = 0x200000
# Codes of errors that lie in the statement: error, too big, mismatch, not authorized, range.
_FAULTS = frozenset({1, 18, 20, 23, 25})


class Database:
    """One file, opened read-only; statements run under an authorizer and within limits.

    `tables` maps the names of tables and views to those of their columns, `table_functions`
    those of functions that give a table to theirs; `functions` are the names of all others.
    Raises `ValueError` if the file is no SQLite database, or has no table that can be read.
    """

    def __init__(self, path: str, steps: float, seconds: float) -> None:
        self.path = path
        self._steps = steps
        self._seconds = seconds
        self._lock = threading.Lock()
        self._left = 0
        self._deadline = Deadline(seconds)
        self._connection = _connect(path, seconds)
        try:
            self.functions = _functions(self._connection)
            self.table_functions = _table_functions(self._connection)
            found = _tables(self._connection)
            hidden = _hidden(self._connection)
        except sqlite3.Error as error:
            raise ValueError(f"Sql({path!r}) cannot be read as a database: {error}") from error
        # In lower case: SQLite has names as they are in the schema, or in the query.
        self._readable = frozenset(map(_lower, (*found, *self.table_functions)))
        self._hidden = hidden - self._readable
        self._connection.set_authorizer(self._authorize)
        self._connection.set_progress_handler(self._watch, STRIDE)
        self.tables = {
            table: columns
            for table, columns in found.items()
            if self.error(f"SELECT * FROM {quoted(table)}") is None
        }
        if not self.tables:
            raise ValueError(f"Sql({path!r}) has no table that can be read")

    def error(self, query: str) -> str | None:
        """Why the query cannot be run, in SQLite's words; None if it can. Nothing is run.

        Raises `PotentialError` where that is not the query's fault: a locked or damaged file.
        """
        with self._limits(query):
            try:
                self._connection.execute(f"EXPLAIN {query}").close()
            except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
                return _fault(error)
        return None

    def rows(self, query: str, limit: float) -> list[tuple[Any, ...]]:
        """The result of a query. Raises `ValueError` if it cannot be run, `PotentialError` at a
        limit or if the file fails."""
        wrong = self.error(query)
        rows: list[tuple[Any, ...]] = []
        if wrong is None:
            with self._limits(query):
                try:
                    with closing(self._connection.execute(query)) as cursor:
                        _fetch(cursor, rows, query, limit)
                except sqlite3.Error as error:
                    wrong = _fault(error)
        if wrong is not None:
            raise ValueError(f"rows cannot run {show(query)}: {wrong}")
        return rows

    @contextmanager
    def _limits(self, query: str) -> Iterator[None]:
        with self._lock:
            self._left = self._steps
            self._deadline = Deadline(self._seconds)
            try:
                yield
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                    raise PotentialError(
                        f"{show(query)} was stopped after {self._steps - self._left:.0f} steps: "
                        f"the limits are steps={self._steps:.0f} and seconds={self._seconds:g}"
                    ) from error
                raise PotentialError(f"{self.path!r} failed on {show(query)}: {error}") from error

    def _watch(self) -> int:
        self._left -= STRIDE
        return self._left < 0 or self._deadline.passed

    def _authorize(
        self, action: int, one: str | None, two: str | None, base: str | None, _: str | None
    ) -> int:
        allowed = (
            action == sqlite3.SQLITE_SELECT
            or (action == sqlite3.SQLITE_READ and base in ("main", None) and self._shows(one, two))
            or (action == sqlite3.SQLITE_FUNCTION and (two or "").lower() in self.functions)
        )
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def _shows(self, table: str | None, column: str | None) -> bool:
        """Whether a column can be read, or without one the rows of a table be counted. SQLite
        calls what a query itself names a table as well."""
        name = "" if table is None else _lower(table)
        if name in self._readable:
            return True
        return not column and name not in self._hidden and not name.startswith(_OF_SQLITE)


def _fetch(cursor: sqlite3.Cursor, rows: list[Any], query: str, limit: float) -> None:
    size = 0
    for row in cursor:
        rows.append(row)
        size += sum(len(cell) for cell in row if isinstance(cell, str | bytes))
        if len(rows) > limit or size > RESULT_BYTES:
            much = f"{limit:.0f} rows" if len(rows) > limit else f"{RESULT_BYTES} bytes"
            raise PotentialError(
                f"{show(query)} has a result of more than {much}: add a LIMIT, or raise max_rows"
            )


def _fault(error: Exception) -> str:
    """What is wrong with a statement; raises an error that is none of its faults."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF not in _FAULTS:
        raise error
    return str(error)


def _connect(path: str, seconds: float) -> sqlite3.Connection:
    # With a log or journal beside it the file alone is not the database.
    alone = not any(Path(f"{path}{end}").exists() for end in ("-wal", "-journal"))
    uri = f"file:{quote(path)}?mode=ro" + ("&immutable=1" if alone else "")
    connection = sqlite3.connect(
        uri, uri=True, timeout=seconds, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    for setting in SETTINGS:
        connection.execute(setting).close()
    for limit, value in LIMITS.items():
        connection.setlimit(limit, value)
    return connection


def _functions(connection: sqlite3.Connection) -> frozenset[str]:
    """The functions that only compute: those that SQLite lets a schema use, and of JSON."""
    query = "SELECT name, flags FROM pragma_function_list WHERE builtin"
    return frozenset(
        name
        for name, flags in connection.execute(query)
        if name not in _UNWANTED and (flags & _INNOCUOUS or name.startswith(("json", "->")))
    )


def _table_functions(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    found = {name for (name,) in connection.execute("SELECT name FROM pragma_module_list")}
    found &= TABLE_FUNCTIONS.keys()
    for name in found:
        # The first use declares them, which the authorizer would take for a change of the schema.
        connection.execute(f"SELECT 1 FROM {name}('[]')").close()
    return {name: TABLE_FUNCTIONS[name] for name in sorted(found)}


def _hidden(connection: sqlite3.Connection) -> frozenset[str]:
    """All that a query could name without being given it, in lower case."""
    query = "SELECT name FROM sqlite_master UNION SELECT name FROM pragma_module_list"
    return frozenset(_lower(name) for (name,) in connection.execute(query))


def _tables(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    ).fetchall()
    found = {}
    for (table,) in names:
        try:
            columns = connection.execute(f"PRAGMA table_xinfo({quoted(table)})").fetchall()
        except sqlite3.Error:  # a view of what is gone, a virtual table without its module
            continue
        found[table] = tuple(column[1] for column in columns if column[6] != 1)
    return found


def _lower(name: str) -> str:
    """Case is of ASCII alone to SQLite."""
    return "".join(c.lower() if c.isascii() else c for c in name)


def quoted(name: str) -> str:
    """A name as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def stamp(path: str) -> Stamp:
    """What the file is now. Raises `OSError`."""
    path = os.path.abspath(path)
    found = os.stat(path)
    if not S_ISREG(found.st_mode):
        raise OSError("it is no file")
    return (path, found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=32)
def open_database(mark: Stamp, steps: float, seconds: float) -> Database:
    """The database of a file as it is now, opened once."""
    return Database(mark[0], steps, seconds)
