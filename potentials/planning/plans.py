"""Plans, followed step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

from awrs_ppl.potentials.planning import pddl
from awrs_ppl.potentials.planning.formulas import (
    Both,
    Compare,
    Each,
    Formula,
    Literal,
    Number,
    Same,
    When,
    choices,
    holds,
    written,
)
from awrs_ppl.potentials.planning.numbers import changed
from awrs_ppl.potentials.planning.pddl import Action, Problem
from awrs_ppl.potentials.planning.text import Atom, Binding, Tree, grounded, show, trees, write

__all__ = ["after"]


class _State(NamedTuple):
    """The atoms that are true, and the numbers."""

    true: frozenset[Atom]
    numbers: Mapping[Atom, Fraction]


def after(domain: str, problem: str, plan: str) -> frozenset[Atom]:
    """The atoms that are true after a plan. Raises `ValueError` if it cannot be followed."""
    found = pddl.read(domain, problem)
    try:
        steps = [_step(it, found) for it in trees(plan)]
    except ValueError as error:
        raise ValueError(
            f"the plan {show(plan)} is not read: {error}; write actions of the domain, one a "
            "line: (pickup b1)"
        ) from None
    state = _State(found.start, found.numbers)
    for number, (action, binding) in enumerate(steps, 1):
        if not holds(action.condition, binding, *state):
            raise ValueError(
                f"step {number} of the plan, {action.name}({', '.join(binding.values())}), is "
                f"not possible there: it needs {_lack(action.condition, binding, state)}"
            )
        state = _next(state, _effects(action.effect, binding, state), found)
    return state.true


def _step(tree: Tree, problem: Problem) -> tuple[Action, dict[str, str]]:
    match tree:
        case [str(name), *objects] if name in problem.actions:
            action = problem.actions[name]
        case _:
            raise ValueError(f"{show(tree)} is none of the actions {' '.join(problem.actions)}")
    if len(objects) != len(action.parameters):
        raise ValueError(
            f"{show(tree)} has {len(objects)} objects, and {name} takes {len(action.parameters)}"
        )
    binding = dict(zip(action.parameters, map(write, objects), strict=True))
    for variable, it in binding.items():
        if it not in action.parameters[variable]:
            raise ValueError(f"{it} in {show(tree)} is no object for {variable}")
    return action, binding


def _effects(
    effect: Formula, binding: Binding, state: _State
) -> Iterator[tuple[Literal | Number, Binding]]:
    """The changes that an effect makes in a state."""
    match effect:
        case Both(parts):
            for part in parts:
                yield from _effects(part, binding, state)
        case Each(variables, part):
            for it in choices(variables, binding):
                yield from _effects(part, it, state)
        case When(condition, _, part):
            if holds(condition, binding, *state):
                yield from _effects(part, binding, state)
        case Literal() | Number():
            yield effect, binding


def _next(
    state: _State, effects: Iterable[tuple[Literal | Number, Binding]], problem: Problem
) -> _State:
    """The state with changes. An atom that is both deleted and added is true in it."""
    adds, deletes, numbers = set[Atom](), set[Atom](), dict(state.numbers)
    for effect, binding in effects:
        match effect:
            case Literal(words, true):
                (adds if true else deletes).add(grounded(words, binding))
            case Number(tree):
                changed(tree, binding, state.numbers, numbers)
    return _State(state.true - deletes | set(filter(problem.fits, adds)), numbers)


def _lack(condition: Formula, binding: Binding, state: _State) -> str:
    """What is missing for a condition to be true, as text."""
    match condition:
        case Both(parts):
            lacking = next(it for it in parts if not holds(it, binding, *state))
            return _lack(lacking, binding, state)
        case Literal(words, true):
            return written(Literal(grounded(words, binding), true))
        case Same(left, right, true):
            return written(Literal(grounded(("=", left, right), binding), true))
        case Compare(tree):
            return show(tree)
    return "one of the cases of its :precondition"
