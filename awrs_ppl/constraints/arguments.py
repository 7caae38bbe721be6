"""What a potential was made of, declared once: for readers, for replays, and as a key."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from awrs_ppl.constraints.function_key import function_key

__all__ = ["Argument", "function", "hidden"]


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
