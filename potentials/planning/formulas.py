"""Conditions and effects of planning problems.

A negation is pushed down to what it negates, and variables keep the objects that fit them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from fractions import Fraction
from itertools import product
from typing import NamedTuple, TypeAlias

from awrs_ppl.potentials.planning.numbers import COMPARISONS, value
from awrs_ppl.potentials.planning.text import Atom, Binding, Tree, grounded

__all__ = [
    "Both",
    "Compare",
    "Each",
    "Either",
    "Formula",
    "Literal",
    "Number",
    "Same",
    "When",
    "choices",
    "holds",
    "written",
]


class Both(NamedTuple):
    """All parts; of no parts, what is always true."""

    parts: list[Formula]


class Either(NamedTuple):
    """One of the parts; of no parts, what is never true."""

    parts: list[Formula]


class Each(NamedTuple):
    """A part for every choice of objects, or for some."""

    variables: dict[str, list[str]]
    part: Formula
    every: bool


class Literal(NamedTuple):
    """An atom that is true, or false; as an effect, one that becomes so."""

    atom: Atom
    true: bool


class Same(NamedTuple):
    """Two objects are one, or two."""

    left: str
    right: str
    true: bool


class Compare(NamedTuple):
    """A comparison of numbers, as it is written."""

    tree: list[Tree]
    true: bool


class When(NamedTuple):
    """An effect under a condition; `otherwise` is the condition's negation."""

    condition: Formula
    otherwise: Formula
    part: Formula


class Number(NamedTuple):
    """A change of a number, as it is written."""

    tree: list[Tree]


Formula: TypeAlias = Both | Either | Each | Literal | Same | Compare | When | Number


def written(literal: Literal) -> str:
    """A literal as text: `(on b1 b2)` or `(not(on b1 b2))`."""
    atom = f"({' '.join(literal.atom)})"
    return atom if literal.true else f"(not{atom})"


def choices(variables: Mapping[str, list[str]], binding: Binding) -> Iterator[dict[str, str]]:
    """A binding with objects for more variables, in every way."""
    for objects in product(*variables.values()):
        yield {**binding, **dict(zip(variables, objects, strict=True))}


def holds(
    formula: Formula, binding: Binding, true: Set[Atom], numbers: Mapping[Atom, Fraction]
) -> bool:
    """Whether a condition is true where the atoms `true` are, and no others."""
    match formula:
        case Both(parts):
            return all(holds(part, binding, true, numbers) for part in parts)
        case Either(parts):
            return any(holds(part, binding, true, numbers) for part in parts)
        case Each(variables, part, every):
            found = (holds(part, it, true, numbers) for it in choices(variables, binding))
            return all(found) if every else any(found)
        case Literal(words, wanted):
            return (grounded(words, binding) in true) == wanted
        case Same(left, right, wanted):
            return (binding.get(left, left) == binding.get(right, right)) == wanted
        case Compare([str(name), left, right], wanted):
            values = [value(it, binding, numbers) for it in (left, right)]
            return None not in values and COMPARISONS[name](*values) == wanted
    raise TypeError(f"{formula} is an effect")
