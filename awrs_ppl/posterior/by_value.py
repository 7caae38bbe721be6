"""Numbers by values of any kind, those that cannot be hashed too."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping
from typing import Any

from awrs_ppl._values import key, same

__all__ = ["ByValue", "Entry", "entry", "merged"]


class Entry:
    """What stands in a dict for a value that cannot be hashed, or is not equal to itself: equal to
    what the value is equal to."""

    __slots__ = ("_hash", "value")

    def __init__(self, value: Any, hash_: int) -> None:
        self.value, self._hash = value, hash_

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return same(self.value, other.value if isinstance(other, Entry) else other)

    def __repr__(self) -> str:
        return repr(self.value)


class ByValue(dict[Any, float]):
    """A dict whose keys are values of any kind, found by their equality as `same` sees it.

    Where all of them can be hashed it is as any dict. Arrays are equal by their elements, and a
    NaN is a NaN. A list is no tuple.

    >>> found = ByValue([({"a": 1}, 0.75), ([1, 2], 0.25)])
    >>> found
    {{'a': 1}: 0.75, [1, 2]: 0.25}
    >>> found[{"a": 1}], [1, 2] in found, (1, 2) in found, found.get([3])
    (0.75, True, False, None)
    """

    def __init__(self, pairs: Iterable[tuple[Any, float]] = ()) -> None:
        super().__init__()
        for value, number in pairs:
            self[value] = number

    def __getitem__(self, value: Any) -> float:
        return super().__getitem__(entry(value))

    def __setitem__(self, value: Any, number: float) -> None:
        super().__setitem__(entry(value), number)

    def __missing__(self, found: Any) -> float:
        raise KeyError(_value(found))

    def __contains__(self, value: object) -> bool:
        return super().__contains__(entry(value))

    def get(self, value: Any, default: Any = None) -> Any:
        """The number of a value, or the default."""
        return super().get(entry(value), default)

    def __iter__(self) -> Iterator[Any]:
        return map(_value, super().__iter__())

    def __reversed__(self) -> Iterator[Any]:
        return map(_value, super().__reversed__())

    def keys(self) -> KeysView[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The values, in their order."""
        return KeysView(self)

    def items(self) -> ItemsView[Any, float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The values with their numbers."""
        return ItemsView(self)

    def copy(self) -> ByValue:
        """Another one of the same."""
        return ByValue(self.items())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return len(self) == len(other) and all(
            value in self and self[value] == number for value, number in other.items()
        )

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{value!r}: {number!r}' for value, number in self.items())}}}"


def entry(value: Any) -> Any:
    """A key of a dict that finds what is equal to a value: the value itself if that will do.

    >>> entry(1), entry((1, "a")), {entry([1]): 2}[entry([1.0])]
    (1, (1, 'a'), 2)
    """
    # Equal things of unknown types have the same type, and perhaps no repr that says more.
    found = key(value, rest=type)
    return value if found is value is not math.nan else Entry(value, hash(found))


def merged(values: Iterable[Any], shares: Iterable[float]) -> list[tuple[Any, Any, float]]:
    """Entry, the first value that has it, and the sum of its shares, the largest first.

    >>> merged(["a", "b", "a"], [0.25, 0.25, 0.5])
    [('a', 'a', 0.75), ('b', 'b', 0.25)]
    """
    found: dict[Any, tuple[Any, list[float]]] = {}
    for value, share in zip(values, shares, strict=True):
        found.setdefault(entry(value), (value, []))[1].append(share)
    summed = [(name, value, math.fsum(parts)) for name, (value, parts) in found.items()]
    return sorted(summed, key=lambda result: -result[2])


def _value(found: Any) -> Any:
    return found.value if isinstance(found, Entry) else found
