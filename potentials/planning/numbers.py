"""Numbers of planning problems: what terms stand for, and how actions change them."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from fractions import Fraction

from awrs_ppl.potentials.planning.text import Atom, Binding, Tree, grounded

__all__ = ["ARITHMETIC", "CHANGES", "COMPARISONS", "changed", "is_number", "value"]

COMPARISONS = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
}
ARITHMETIC = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
CHANGES = {
    "increase": "+",
    "decrease": "-",
    "scale-up": "*",
    "scale-down": "/",
    "assign": "",
}
_DECIMAL = re.compile(r"-?\d{1,300}(\.\d{1,300})?")


def is_number(word: Tree) -> bool:
    """Whether a word is a decimal number."""
    return isinstance(word, str) and bool(_DECIMAL.fullmatch(word))


def value(tree: Tree, binding: Binding, numbers: Mapping[Atom, Fraction]) -> Fraction | None:
    """The number that a term stands for; `None` where a part of it has none."""
    if isinstance(tree, str):
        return Fraction(tree)
    name, *parts = tree
    if name not in ARITHMETIC:
        return numbers.get(grounded(tree, binding))
    values = [value(part, binding, numbers) for part in parts]
    if len(values) == 1:
        values = [Fraction(0), *values]
    result = values[0]
    for other in values[1:]:
        result = _combined(str(name), result, other)
    return result


def changed(
    tree: list[Tree], binding: Binding, numbers: Mapping[Atom, Fraction], new: dict[Atom, Fraction]
) -> None:
    """Change in `new` what an effect such as `(increase (fuel ?t) 3)` says of `numbers`."""
    name, term, by = tree
    assert isinstance(term, list)
    key, by = grounded(term, binding), value(by, binding, numbers)
    sign = CHANGES[str(name)]
    result = _combined(sign, new.pop(key, None), by) if sign else by
    if result is not None:
        new[key] = result


def _combined(sign: str, one: Fraction | None, other: Fraction | None) -> Fraction | None:
    if one is None or other is None or (sign == "/" and not other):
        return None
    return ARITHMETIC[sign](one, other)
