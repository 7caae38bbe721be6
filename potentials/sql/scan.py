"""A partial statement: its text, where it stands, and what SQLite says of it."""

from __future__ import annotations

import re
from codecs import utf_8_decode
from collections.abc import Callable
from dataclasses import dataclass, field

from awrs_ppl._messages import show
from awrs_ppl.potentials.sql.place import CALL, Place, Rejected
from awrs_ppl.potentials.sql.place import START as BEGIN
from awrs_ppl.potentials.sql.quotes import meant_as_names
from awrs_ppl.potentials.sql.reader import Reader
from awrs_ppl.potentials.sql.tokens import BLANKS, TOKEN, WORD
from awrs_ppl.tokens.text import decode

__all__ = ["START", "Scanned", "Scanner", "incomplete"]

# SQLite's errors that stay, whatever follows what was understood so far.
_LASTING = (
    "no such column",
    "no such function",
    "no such collation sequence",
    "ambiguous column name",
    "not authorized",
    "access to ",
    "SELECTs to the left and right",
    "cannot join using column",
    "a NATURAL join may not have",
    "unknown join type",
    "circular reference",
    "recursive reference",
    "multiple references to recursive",
)
# Those that stay if no call is open, since max(a, b) is no aggregate, and if no aggregate may
# become a window function behind what was understood.
_OF_CALLS = ("misuse of ", "aggregate functions are not allowed", "wrong number of arguments")
_FROM = re.compile(rb"\bfrom\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Scanned:
    """The text so far; what else is here follows from it."""

    text: bytes = b""
    # Where the last token begins, which may continue, and where in a statement that is.
    open: int = field(default=0, compare=False)
    place: Place = field(default=BEGIN, compare=False)

    @property
    def last(self) -> bytes:
        """The last token."""
        return self.text[self.open :]


START = Scanned()


class Scanner:
    """Reads statements. `error` says why SQLite cannot run one, in its words, or None."""

    def __init__(self, reader: Reader, error: Callable[[str], str | None]) -> None:
        self.reader = reader
        self._error = error

    def read(self, state: Scanned, data: bytes) -> Scanned:
        """The state after `data`. Raises `Rejected`."""
        if not data:
            return state
        text = state.text + data
        _check_characters(state.text, data)

        def judge(_: Place, at: int, close: bytes) -> None:
            self.judge(text[: state.open + at], close)

        place, at = self.reader.read(state.place, text[state.open :], judge)
        return Scanned(text, state.open + at, place)

    def end(self, state: Scanned) -> None:
        """Read the end of the text. Raises `Rejected` if SQLite cannot run it."""

        def judge(_: Place, at: int, close: bytes) -> None:
            self.judge(state.text[: state.open + at], close)

        self.reader.end(state.place, state.last, judge)
        text, pending = decode(state.text)
        if pending:
            raise Rejected("the text ends within a character")
        if (error := self._error(text)) is not None:
            raise Rejected(f"SQLite says: {error}")
        if b'"' in state.text:
            named = meant_as_names(self.reader, state.text).decode()
            if (error := self._error(named)) is not None:
                raise Rejected(f"SQLite takes a name in double quotes for a string: {error}")

    def why(self, text: bytes) -> str | None:
        """Why no statement begins with a text, or why that is none; None if it is a statement,
        or is not written to its end."""
        state = START
        for at in range(len(text)):
            before = state
            try:
                state = self.read(state, text[at : at + 1])
            except Rejected as error:
                end, reason = self._whole(before, text, at, error)
                return f"no statement begins {show(text[:end])}: {reason}"
        try:
            self.end(state)
        except Rejected as error:
            if not self._is_unfinished(state):
                return f"{show(text)} cannot be run: {error}"
        return None

    def _whole(self, state: Scanned, text: bytes, at: int, error: Rejected) -> tuple[int, str]:
        """Where the token ends with the byte that was rejected, and why in terms of all of it."""
        place, begin = state.place, state.open
        while True:
            match = TOKEN.match(text, begin)
            assert match is not None
            token, end = match[0], match.end()
            if not text[:begin].strip(BLANKS) and WORD.match(token):
                return end, "it begins with SELECT, WITH or VALUES, and only reads"
            try:
                place = self.reader.take(place, token, begin, text[end : end + 1], _nothing)
            except Rejected as found:
                return end, str(found)
            if end > at:
                return at + 1, str(error)
            begin = end

    def _is_unfinished(self, state: Scanned) -> bool:
        """Whether a text seems to be no statement only because it is unfinished."""
        try:
            self.reader.end(state.place, state.last, _nothing)
        except Rejected:
            return True
        text, pending = decode(state.text)
        if pending:
            return True
        error = self._error(text)
        if error is None or state.text.rstrip(BLANKS).endswith(b";"):
            return False
        # The sources may still come, and the last word may still grow.
        named = re.split(r"[\s.]+", error)[-1].lower()
        last = state.last.decode("utf-8", "replace").lower()
        return error == "incomplete input" or named == last or not _FROM.search(state.text)

    def judge(self, part: bytes, close: bytes) -> None:
        """Raises `Rejected` if a part, its brackets closed, has an error that stays."""
        # Behind a comment only what is on a line of its own is read.
        error = self._error((part.rstrip(BLANKS) + b"\n" + close).decode())
        if error is None:
            return
        if error.startswith(_LASTING) or (
            error.startswith(_OF_CALLS) and CALL not in close and b"order" not in part.lower()
        ):
            raise Rejected(f"SQLite says: {error}")


def _nothing(_: Place, at: int, close: bytes) -> None:
    """Judges nothing."""


def incomplete(text: bytes) -> bytes:
    """The bytes at the end of a text that begin a character."""
    for length in range(1, min(len(text), 3) + 1):
        if text[-length] < 0x80:
            break
        if text[-length] >= 0xC0:
            tail = text[-length:]
            return b"" if utf_8_decode(tail, "strict", False)[1] else tail
    return b""


def _check_characters(text: bytes, data: bytes) -> None:
    if b"\0" in data:
        raise Rejected("a statement has no null character")
    if data.isascii() and (not text or text[-1] < 0x80):
        return
    try:
        utf_8_decode(incomplete(text) + data, "strict", False)
    except UnicodeDecodeError:
        raise Rejected("the bytes are not UTF-8") from None
