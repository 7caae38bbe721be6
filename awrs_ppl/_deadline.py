"""How long something may still take."""

from __future__ import annotations

import time

__all__ = ["Deadline"]


class Deadline:
    """A time, some seconds from now.

    >>> Deadline(0.0).passed, Deadline(60.0).passed
    (True, False)
    """

    __slots__ = ("_at",)

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """The seconds until then, negative after it."""
        return self._at - time.monotonic()

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.left <= 0
