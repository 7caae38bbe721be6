"""How documents are written: the order of keys, and the space between parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ESCAPE", "GAP", "PLAIN", "Form", "Order", "is_in_order"]

# The space between two parts of a document: at most one line break, then an indentation.
GAP = r"(\r?\n)?[ \t]{0,40}"

# The escapes of a compact document, and its strings, as llguidance reads them.
ESCAPE = r"\\(?:[bfnrt\x22\x5c]|u00[01][0-9a-fA-F])"
PLAIN = rf"\x22(?:[^\x22\x5c]|{ESCAPE})*\x22"


@dataclass(frozen=True, slots=True)
class Form:
    """What is demanded of a document beside its schema.

    `ordered`: the keys that `properties` names stand in its order, and others behind them where
    the same schema has `additionalProperties`. `compact`: no space between parts, and in strings no
    escape for a character that needs none.
    """

    ordered: bool = False
    compact: bool = False

    @property
    def gap(self) -> str:
        """The space between two parts, as a regular expression."""
        return "" if self.compact else GAP


class Order:
    """The order of the keys of one schema: which can follow those that are written."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.index = _index(schema)
        self.is_first = _is_first(schema)
        required = schema.get("required", ())
        self.required = sorted(self.index[name] for name in required if name in self.index)

    def following(self, keys: frozenset[str], names: Iterable[str]) -> frozenset[str]:
        """Those of the names that can be the next key after these keys."""
        at = [self.index[key] for key in keys if key in self.index]
        written, last = set(at), max(at, default=-1)
        # None of them can be left out for good.
        limit = next((i for i in self.required if i not in written), len(self.index))
        only_others = self.is_first and len(at) < len(keys)
        found = []
        for name in names:
            i = self.index.get(name)
            if i is None:
                fits = not self.is_first or limit == len(self.index)
            else:
                fits = last < i <= limit and not only_others
            if fits:
                found.append(name)
        return frozenset(found)


def is_in_order(keys: Iterable[str], schema: Mapping[str, Any]) -> bool:
    """Whether all the keys of an object stand as the `properties` of a schema demand."""
    index, is_first = _index(schema), _is_first(schema)
    last = -1
    for key in keys:
        i = index.get(key)
        if i is None:
            last = len(index) if is_first else last
        elif i < last:
            return False
        else:
            last = i
    return True


def _index(schema: Mapping[str, Any]) -> dict[str, int]:
    return {name: i for i, name in enumerate(schema.get("properties", ()))}


def _is_first(schema: Mapping[str, Any]) -> bool:
    """Whether the keys that are named stand before all others."""
    return "additionalProperties" in schema
