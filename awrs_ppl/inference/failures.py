"""How an exception in a model, and an interrupt, reach the user: as themselves, with one note."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from awrs_ppl.inference.population import Particle
from awrs_ppl.program import notes
from awrs_ppl.program.log import Log

__all__ = ["interrupted", "report", "without_engine"]

E = TypeVar("E", bound=BaseException)

_LIBRARY = Path(__file__).parent.parent
_FOR_USERS = {_LIBRARY / "models", _LIBRARY / "potentials"}


def report(failed: Sequence[Particle]) -> BaseException:
    """The exception of the lowest particle that failed, with a note on where it happened."""
    first = failed[0]
    assert first.run is not None
    error = first.run.failure
    assert error is not None
    note = f"in particle {first.slot}, {notes.where(Log.records(first.log))}"
    alike = sum(type(p.run.failure) is type(error) for p in failed[1:] if p.run)
    if alike:
        note += f"; {alike} other particle{'s' if alike > 1 else ''} failed alike"
    notes.add(error, note)
    return without_engine(error)


def without_engine(error: E) -> E:
    """An exception of the user's code without the frames of the library; any other as it is."""
    return error.with_traceback(_users(error.__traceback__)) if notes.is_noted(error) else error


def interrupted(error: BaseException, steps: int | None = None) -> BaseException:
    """An interrupt with a note on what to do, and without a traceback: it could be anywhere.

    It stays what it is, to the very class: `asyncio.timeout` looks for no other. Anything but a
    cancellation and an interrupt by the keyboard is as it was.
    """
    if not isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return error
    after = "" if steps is None else f" after {steps:,} step{'' if steps == 1 else 's'}"
    lines = [
        f"{notes.MARK} the inference was stopped{after}, and nothing of it is kept. To get what",
        "there is, write infer(..., partial=True), or infer(..., timeout=60) to stop after 60 s.",
    ]
    if not notes.is_noted(error):
        error.add_note("\n".join(lines))
        # What IPython, and so every notebook, shows in place of a traceback.
        vars(error)["_render_traceback_"] = lambda: [type(error).__name__, *lines]
    return error.with_traceback(None)


def _users(traceback: types.TracebackType | None) -> types.TracebackType | None:
    """A traceback without the library's own frames; example models and potentials stay."""
    frames = []
    while traceback is not None:
        folders = Path(traceback.tb_frame.f_code.co_filename).parents
        if _LIBRARY not in folders or not _FOR_USERS.isdisjoint(folders):
            frames.append(traceback)
        traceback = traceback.tb_next
    result = None
    for frame in reversed(frames):
        result = types.TracebackType(result, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return result
