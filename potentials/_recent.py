"""A bounded mapping."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

__all__ = ["Recent"]


class Recent:
    """A mapping that forgets what was not asked for longest, when its values cost too much."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._cost = 0
        self._known: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable) -> Any | None:
        found = self._known.get(key)
        if found is None:
            return None
        self._known.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: Any, cost: int = 1) -> None:
        self._known[key] = (value, cost)
        self._cost += cost
        while self._cost > self._limit and len(self._known) > 1:
            self._cost -= self._known.popitem(last=False)[1][1]
