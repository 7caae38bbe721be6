"""The names that a statement on a database may use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

__all__ = ["Names"]

# What every table has, what SQLite calls columns without names, and what are constants.
_COMMON = ["rowid", "oid", "_rowid_", "true", "false", "main"]
_COMMON += [f"column{i}" for i in range(1, 100)]


@dataclass(frozen=True, eq=False)
class Names:
    """Names in lower case: in `columns` all that an expression may begin with, of the columns
    themselves, tables and functions; in `tables` those of tables and of functions that give one."""

    columns: frozenset[bytes]
    tables: frozenset[bytes]
    functions: frozenset[bytes]
    table_functions: frozenset[bytes]
    _known: Mapping[int, bool] = field(init=False, repr=False)

    @classmethod
    def of(
        cls,
        tables: Mapping[str, Iterable[str]],
        functions: Iterable[str],
        table_functions: Mapping[str, Iterable[str]],
    ) -> Names:
        """Those of `Database`."""
        every = {**tables, **table_functions}
        columns = {column for own in every.values() for column in own}
        called = _lower(functions)
        return cls(
            _lower(columns) | _lower(every) | called | _lower(_COMMON),
            _lower(every) | {b"main"},
            called,
            _lower(table_functions),
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "begins", lru_cache(maxsize=4096)(self.begins))

    def begins(self, prefix: bytes, tables: bool) -> bool:
        """Whether a name of `columns`, or of `tables`, has this prefix."""
        names = self.tables if tables else self.columns
        return any(name.startswith(prefix) for name in names)


def _lower(names: Iterable[str]) -> frozenset[bytes]:
    """Case is of ASCII alone to SQLite, as to bytes."""
    return frozenset(name.encode("utf-8", "surrogateescape").lower() for name in names)
