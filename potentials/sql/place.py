"""Where in a statement a token stands: what is open there, and what was said last."""

from __future__ import annotations

from typing import NamedTuple

from awrs_ppl.errors import AwrsError

__all__ = [
    "CALL",
    "CLOSED",
    "CLOSES",
    "COLUMN",
    "FUNCTION",
    "HAS_SOURCES",
    "MAIN",
    "MEMBER",
    "NONE",
    "NOTHING",
    "SELECT",
    "START",
    "Open",
    "Place",
    "Rejected",
    "have_sources",
]

# What is open: no SELECT, one whose sources are not all named, one whose sources are.
NONE, SELECT, HAS_SOURCES = range(3)
# What was said last, where SQLite has not judged it yet: nothing; a name that may be a qualifier,
# or a function as well; the name of the database; a column behind its qualifier; a bracket.
NOTHING, COLUMN, FUNCTION, MAIN, MEMBER, CLOSED = range(6)


# What closes a frame, if not a bracket alone. A call closed so may still get more arguments.
CALL = b" )"
CLOSES = {"arguments": CALL, "body": b") SELECT 1 FROM ", "case": b" END"}


class Rejected(AwrsError):
    """No statement has this prefix; the message says why."""


class Open(NamedTuple):
    """A frame that is open: where its end leads, what was open before it, and the bytes that
    close it, none where it ends by itself."""

    target: int
    flag: int
    frame: str
    close: bytes


class Place(NamedTuple):
    """Where in a statement a token stands. Equal places continue alike."""

    state: int = 0
    flag: int = NONE
    stack: tuple[Open, ...] = ()
    # The names that the statement gives so far, of all kinds and of tables.
    names: frozenset[bytes] = frozenset()
    tables: frozenset[bytes] = frozenset()
    last: int = NOTHING
    cte: bytes = b""

    @property
    def has_sources(self) -> bool:
        """Whether every SELECT that is open has all its sources."""
        return self.flag != SELECT and have_sources(self.stack)


START = Place()


def have_sources(stack: tuple[Open, ...]) -> bool:
    """Whether every SELECT of these frames has all its sources."""
    return all(entry.flag != SELECT for entry in stack)
