"""Where in a program something went wrong, as a note on the user's own exception."""

from __future__ import annotations

from collections.abc import Sequence

from awrs_ppl._messages import show
from awrs_ppl.program.log import Record
from awrs_ppl.program.statements import Sample
from awrs_ppl.program.text_statements import Generate

__all__ = ["MARK", "add", "is_noted", "where"]

MARK = "awrs_ppl:"


def add(error: BaseException, note: str) -> None:
    """Add a note, unless there is one of the library's."""
    if not is_noted(error):
        error.add_note(f"{MARK} {note}")


def is_noted(error: BaseException) -> bool:
    """Whether the library has added a note."""
    return any(note.startswith(MARK) for note in getattr(error, "__notes__", ()))


def where(records: Sequence[Record]) -> str:
    """After which statement of an execution, and what it had drawn."""
    place = "before its first statement"
    if records:
        preposition = "after" if records[-1].error is None else "at"
        place = f"{preposition} {records[-1].statement.name!r}"
    texts = [
        f"{record.statement.name} = {show(str(record.value))}"
        for record in records
        if isinstance(record.statement, Generate | Sample) and record.error is None
    ]
    return place + ("; so far " + ", ".join(texts) if texts else "")
