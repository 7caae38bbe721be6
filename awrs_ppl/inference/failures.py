"""How an exception in a model reaches the user: as itself, with one note."""

from __future__ import annotations

import types
from collections.abc import Sequence
from pathlib import Path

from awrs_ppl._messages import show
from awrs_ppl.inference.population import Particle
from awrs_ppl.program.log import Log
from awrs_ppl.program.statements import Sample
from awrs_ppl.program.text_statements import Generate

__all__ = ["report"]

_LIBRARY = Path(__file__).parent.parent
_FOR_USERS = {_LIBRARY / "models", _LIBRARY / "potentials"}


def report(failed: Sequence[Particle]) -> BaseException:
    """The exception of the lowest particle that failed, with a note on where it happened."""
    first = failed[0]
    assert first.run is not None
    error = first.run.failure
    assert error is not None
    records = Log.records(first.log)
    where = "before its first statement"
    if records:
        preposition = "after" if records[-1].error is None else "at"
        where = f"{preposition} {records[-1].statement.name!r}"
    texts = [
        f"{record.statement.name} = {show(str(record.value))}"
        for record in records
        if isinstance(record.statement, Generate | Sample) and record.error is None
    ]
    note = f"awrs_ppl: in particle {first.slot}, {where}"
    if texts:
        note += "; so far " + ", ".join(texts)
    alike = sum(type(p.run.failure) is type(error) for p in failed[1:] if p.run)
    if alike:
        note += f"; {alike} other particle{'s' if alike > 1 else ''} failed alike"
    if not any(n.startswith("awrs_ppl:") for n in getattr(error, "__notes__", ())):
        error.add_note(note)
    return error.with_traceback(_users(error.__traceback__))


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
