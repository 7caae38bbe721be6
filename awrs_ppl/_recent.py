"""A bounded mapping."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

__all__ = ["Recent"]


class Recent:
    """A mapping that drops what was least recently used, when its values cost too much.

    One value is always kept, whatever it costs. Threads may share it.

    >>> known = Recent(2)
    >>> for key in "abc":
    ...     known.put(key, key.upper())
    >>> known.get("a"), known.get("c")
    (None, 'C')
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._cost = 0
        self._known: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def cost(self) -> int:
        """What all values cost together."""
        return self._cost

    def get(self, key: Hashable) -> Any | None:
        """The value; None if it was never put, or was dropped."""
        with self._lock:
            found = self._known.get(key)
            if found is None:
                return None
            self._known.move_to_end(key)
            return found[0]

    def forget(self, belongs: Callable[[Any], bool]) -> None:
        """Forget the values of the keys for which `belongs` is true."""
        with self._lock:
            for key in [key for key in self._known if belongs(key)]:
                self._cost -= self._known.pop(key)[1]

    def put(self, key: Hashable, value: Any, cost: int = 1) -> None:
        """Keep a value, and drop others while all cost more than the limit."""
        with self._lock:
            self._cost += cost - self._known.pop(key, (None, 0))[1]
            self._known[key] = (value, cost)
            while self._cost > self._limit and len(self._known) > 1:
                self._cost -= self._known.popitem(last=False)[1][1]
