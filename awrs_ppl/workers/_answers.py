"""What another process answers: a value or an exception, as bytes."""

from __future__ import annotations

import pickle
import traceback
from typing import Any, TypeAlias

import cloudpickle

__all__ = ["Answer", "failed", "opened", "returned"]

# Whether it went well, the pickled value or exception, and a traceback.
Answer: TypeAlias = tuple[bool, bytes, str]


def returned(value: Any) -> Answer:
    """Raises what `cloudpickle` raises."""
    return True, cloudpickle.dumps(value), ""


def failed(error: BaseException) -> Answer:
    """An exception, with its notes; one that cannot be sent is a `RuntimeError` of its text."""
    trace = traceback.TracebackException.from_exception(error)
    trace.__notes__ = None  # it takes them along itself
    shown = "".join(trace.format()).rstrip()
    try:
        data = cloudpickle.dumps(error)
        pickle.loads(data)
    except Exception:
        stand_in = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            stand_in.add_note(note)
        data = pickle.dumps(stand_in)
    return False, data, f"In a worker process:\n{shown}"


def opened(answer: Answer) -> tuple[bool, Any]:
    """Whether it went well, and the value or the exception."""
    went_well, data, note = answer
    try:
        found = pickle.loads(data)
    except Exception as error:
        return False, RuntimeError(f"what a worker process answered cannot be read: {error!r}")
    if not went_well:
        found.add_note(note)
    return went_well, found
