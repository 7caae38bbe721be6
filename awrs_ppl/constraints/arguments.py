"""What a potential was made of, declared once: for readers, for replays, and as a key.

A first reading can skip it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from awrs_ppl._messages import quoted
from awrs_ppl._values import count_of, is_number
from awrs_ppl.constraints.function_key import function_key

__all__ = [
    "Argument",
    "MadeOf",
    "check_workers",
    "function",
    "hidden",
    "is_async",
    "require_cost",
]


def _itself(value: Any) -> Hashable:
    return value


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a potential, by the attribute that keeps it.

    `shown` writes it for readers, `compared` for a replay, which is loose; `key` makes of it what
    is strictly compared, before verdicts are shared. None leaves it out. An `option` is written
    with its name, and only where it is not the `default`.
    """

    attribute: str
    shown: Callable[[Any], str] | None = repr
    compared: Callable[[Any], str] | None = repr
    key: Callable[[Any], Hashable] | None = _itself
    option: str = ""
    default: Any = None

    def written(self, potential: Any, write: Callable[[Any], str] | None) -> str | None:
        """The argument in the brackets after the potential's name; None if it is left out."""
        if write is None:
            return None
        value = getattr(potential, self.attribute)
        if not self.option:
            return write(value)
        return None if value == self.default else f"{self.option}={write(value)}"


class MadeOf:
    """Objects with a key, a fingerprint, a repr and equality by what they were made of."""

    # What it was made of. Where a class declares this its objects are values: equal ones say the
    # same of every text.
    arguments: ClassVar[tuple[Argument, ...] | None] = None
    # The name before the arguments, where it is not that of the class.
    called: ClassVar[str] = ""

    @property
    def key(self) -> Hashable:
        """Equal for potentials that say the same of every text. By default: this very object."""
        kind = type(self)
        if kind.arguments is None:
            return self
        keys = [it.key(getattr(self, it.attribute)) for it in kind.arguments if it.key is not None]
        return (kind, *keys)

    @property
    def fingerprint(self) -> str:
        """What a replay compares: the kind of potential, and of its arguments no details."""
        arguments = type(self).arguments
        if arguments is None:
            return type(self).__qualname__
        return self._written(it.written(self, it.compared) for it in arguments)

    def __repr__(self) -> str:
        return self._written(it.written(self, it.shown) for it in type(self).arguments or ())

    def _written(self, arguments: Iterable[str | None]) -> str:
        name = type(self).called or type(self).__name__
        return f"{name}({', '.join(it for it in arguments if it is not None)})"

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, MadeOf):
            return self is other
        key = self.key
        return key is not self and key == other.key

    def __hash__(self) -> int:
        return hash(type(self))  # the key of a function changes with the values that it names


def hidden(attribute: str, key: Callable[[Any], Hashable] = _itself) -> Argument:
    """An argument that only the key depends on."""
    return Argument(attribute, None, None, key)


def function(attribute: str) -> Argument:
    """A function of the user's: written by its name, compared by its code and what that names."""
    return Argument(attribute, _name, _qualified_name, function_key)


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _qualified_name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def check_workers(
    name: str, workers: int | None, time_limit: float | None, functions: Sequence[Any]
) -> None:
    """Raise `ValueError` if functions cannot be called so in worker processes."""
    if workers is not None and count_of(workers, least=1) is None:
        raise ValueError(f"{name} got workers={workers!r}: give a number of processes")
    if time_limit is not None and not (isinstance(time_limit, int | float) and time_limit > 0):
        raise ValueError(f"{name} got time_limit={time_limit!r}: give a number of seconds")
    if time_limit is not None and workers is None:
        raise ValueError(
            f"{name} got time_limit={time_limit!r} without workers: only a check in a "
            "process of its own can be ended, so add workers=1 or more"
        )
    if workers is not None and any(map(is_async, functions)):
        raise ValueError(
            f"{name} got workers={workers!r} and an async function: that waits here, in "
            "the event loop, so leave out workers"
        )


def require_cost(cost: Any, what: object) -> float:
    """The cost of a check. Raises `ValueError` unless it is a number, positive and finite."""
    if not (is_number(cost) and 0 < cost < math.inf):
        raise ValueError(
            f"{what} got cost={quoted(cost)}: give the rows of the language model that one check "
            "is worth, a positive number, such as 1/1024 for a check that takes microseconds"
        )
    return float(cost)


def is_async(function: Any) -> bool:
    """Whether a function must be awaited, as far as is known before it is called."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004
    )
