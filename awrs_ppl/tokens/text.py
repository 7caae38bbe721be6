"""Texts: bytes and the tokens that spell them, and what of the bytes is whole characters."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from awrs_ppl.tokens.stops import lasting

__all__ = ["EMPTY", "Text", "as_bytes", "as_str", "continuing", "decode"]


@dataclass(frozen=True, slots=True)
class Text:
    """A partial text: its bytes and the tokens that spell it."""

    data: bytes = b""
    tokens: tuple[int, ...] = ()

    def then(self, token: int, data: bytes) -> Text:
        """The text one token later."""
        return Text(self.data + data, (*self.tokens, token))

    def without_pending(self, stops: tuple[bytes, ...]) -> Text:
        """The text without the bytes at its end that may still become one of `stops`."""
        return Text(lasting(self.data, stops), self.tokens)


EMPTY = Text()


def as_str(text: str | bytes) -> str:
    """A text as a `str`; bytes that are no UTF-8 by `surrogateescape`, so that none is lost.

    >>> as_str(b"n\\xc3")
    'n\\udcc3'
    """
    return text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")


def as_bytes(text: str | bytes) -> bytes:
    """A text as bytes; the inverse of `as_str`."""
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


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
