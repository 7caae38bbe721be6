"""Stops: texts before whose first occurrence a text ends."""

from __future__ import annotations

__all__ = ["first_stop", "lasting", "stop_prefix"]


def first_stop(text: bytes, stops: tuple[bytes, ...]) -> int | None:
    """Where the stop that is complete first begins; of those complete at once, the longest.

    The first to be complete, not the first to begin: a text read byte by byte ends there too.

    >>> first_stop(b"xabc", (b"abc", b"b"))
    2
    """
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return min(found)[1] if found else None


def stop_prefix(text: bytes, stops: tuple[bytes, ...]) -> bytes:
    """The longest end of `text` that is a proper prefix of a stop.

    >>> stop_prefix(b"one EN", (b"END",))
    b'EN'
    """
    longest = max((len(stop) for stop in stops), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        tail = text[-length:]
        if any(stop.startswith(tail) and len(stop) > length for stop in stops):
            return tail
    return b""


def lasting(text: bytes, stops: tuple[bytes, ...]) -> bytes:
    """A partial text without what may still become a stop.

    >>> lasting(b"one\\n", (b"\\n\\n",))
    b'one'
    """
    return text[: len(text) - len(stop_prefix(text, stops))]
