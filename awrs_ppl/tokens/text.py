"""Texts: bytes and the tokens that spell them, and what of the bytes is whole characters."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

__all__ = ["EMPTY", "Text", "continuing", "decode"]


@dataclass(frozen=True, slots=True)
class Text:
    """A partial text: its bytes and the tokens that spell it."""

    data: bytes = b""
    tokens: tuple[int, ...] = ()

    def then(self, token: int, data: bytes) -> Text:
        """The text one token later."""
        return Text(self.data + data, (*self.tokens, token))


EMPTY = Text()


def decode(data: bytes) -> tuple[str, bytes]:
    """The characters of `data`, and the bytes at its end of one that is not complete.

    Raises `UnicodeDecodeError` on bytes that no continuation makes valid UTF-8.

    >>> decode("né".encode()[:-1])
    ('n', b'\\xc3')
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    text = decoder.decode(data)
    pending = decoder.getstate()[0]
    # Python's decoder waits for a third byte here, but these would be surrogates.
    if pending[:1] == b"\xed" and pending[1:] >= b"\xa0":
        start = len(data) - len(pending)
        raise UnicodeDecodeError("utf-8", data, start, len(data), "a surrogate")
    return text, pending


# Where not every byte from 80 to BF can be the second: the character would be longer than it
# need be, a surrogate, or beyond Unicode.
_SECOND = {0xE0: (0xA0, 0xC0), 0xED: (0x80, 0xA0), 0xF0: (0x90, 0xC0), 0xF4: (0x80, 0x90)}


def continuing(data: bytes) -> range | None:
    """The bytes that may follow `data` if it ends in a multi-byte character, else None.

    >>> continuing("🙂".encode()[:2]) == range(0x80, 0xC0), continuing(b"n")
    (True, None)
    """
    pending = decode(data)[1]
    if not pending:
        return None
    return range(*_SECOND.get(pending[0] if len(pending) == 1 else 0, (0x80, 0xC0)))
