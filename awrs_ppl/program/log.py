"""The log of one execution: its statements and what they gave."""

from __future__ import annotations

import copy
import pickle
import sys
from dataclasses import dataclass
from typing import Any

from awrs_ppl.program.statements import Statement

__all__ = ["Log", "Record", "copied"]

_IMMUTABLE = (str, bytes, int, float, complex, bool, type(None), frozenset, type)


@dataclass(frozen=True, slots=True)
class Record:
    """A completed statement, and the value or the exception it gave.

    `log_weight` is what the statement did to the weight, in all its steps; `forced`, that the end
    of a text was, at `max_tokens`.
    """

    statement: Statement
    value: Any
    log_weight: float
    error: BaseException | None = None
    forced: bool = False

    @property
    def chosen(self) -> Any:
        """Equal only for what a model cannot tell apart, as a key."""
        value = self.value
        if self.error is None and (value is None or type(value) in (str, bytes, int, bool)):
            return type(value), value
        try:
            return pickle.dumps((value, self.error))
        except Exception:
            return object()  # equal to nothing else


@dataclass(frozen=True, slots=True)
class Log:
    """The records of an execution, newest first, sharing its past with its ancestors'."""

    record: Record
    before: Log | None
    length: int

    @staticmethod
    def append(log: Log | None, record: Record) -> Log:
        """The log with one more record."""
        return Log(record, log, 1 if log is None else log.length + 1)

    @staticmethod
    def records(log: Log | None) -> list[Record]:
        """The records, oldest first."""
        found = []
        while log is not None:
            found.append(log.record)
            log = log.before
        return found[::-1]


def copied(value: Any) -> Any:
    """A value that user code may change without changing the record.

    What cannot be copied (an open connection, say) is handed out as it is, and so are language
    models and potentials, which do not change.
    """
    if isinstance(value, _IMMUTABLE):
        return value
    genlm = sys.modules.get("genlm.control.potential.base")
    if genlm is not None and isinstance(value, genlm.Potential):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:
        return value
