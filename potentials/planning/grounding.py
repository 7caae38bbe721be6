"""Planning problems without variables: an operator for each action and each choice of objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple, TypeVar

from awrs_ppl.potentials.planning import pddl
from awrs_ppl.potentials.planning.formulas import (
    Both,
    Compare,
    Each,
    Either,
    Formula,
    Literal,
    Same,
    When,
    choices,
    written,
)
from awrs_ppl.potentials.planning.pddl import Action, Problem
from awrs_ppl.potentials.planning.strips import Operator, Task
from awrs_ppl.potentials.planning.text import Atom, Binding, grounded, show

__all__ = ["ground", "literals"]

# Beyond these a problem would take minutes and gigabytes: it is rejected.
MAX_CASES = 10_000
MAX_STEPS = 200_000

# A condition is true in each of its cases: literals that are true together.
Case = frozenset[Literal]
Cases = frozenset[Case]
_Sized = TypeVar("_Sized", Cases, list[tuple[Case, Case]])
ALWAYS: Cases = frozenset([Case()])
NEVER: Cases = frozenset()


class _Step(NamedTuple):
    """An action with its objects, in one case of its conditions."""

    name: str
    needs: Case
    adds: frozenset[Atom]
    deletes: frozenset[Atom]


def literals(problem: Problem) -> Iterator[Literal]:
    """The literals of goals: all atoms, and their negations where goals may have such."""
    for atom in problem.atoms():
        yield Literal(atom, True)
        if problem.negative:
            yield Literal(atom, False)


@lru_cache(maxsize=64)
def ground(domain: str, problem: str) -> Task:
    """The grounded problem. Raises `ValueError` where it has conditions on numbers."""
    found = pddl.read(domain, problem)
    grounding = _Grounding(found)
    try:
        steps = grounding.steps()
    except ValueError as error:
        raise ValueError(f"the domain {show(domain)} cannot be planned in: {error}") from None
    negated = found.negative or any(not it.true for step in steps for it in step.needs)
    # What is never true is of use only in a negation.
    atoms = list(found.atoms()) if found.negative else sorted(grounding.possible)
    names = [Literal(*it) for it in product(atoms, (True, False) if negated else (True,))]
    bits = {literal: 1 << i for i, literal in enumerate(names)}

    def those(atoms: Iterable[Atom], true: bool) -> int:
        return sum(bits[Literal(it, true)] for it in atoms) if true or negated else 0

    start = those(found.start, True) | those(set(atoms) - found.start, False)
    operators = [
        Operator(
            step.name,
            sum(bits[it] for it in step.needs),
            those(step.adds, True) | those(step.deletes, False),
            those(step.deletes, True) | those(step.adds, False),
        )
        for step in steps
    ]
    return Task([written(it) for it in names], start, sorted(operators))


class _Grounding:
    """The steps of a problem, and the atoms that are true after some of them if none deletes."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.possible = set(problem.start)
        self.changing = {
            it.atom[0] for action in problem.actions.values() for it in _changes(action.effect)
        }

    def steps(self) -> list[_Step]:
        while True:
            found = list(self._steps())
            more = {atom for step in found for atom in step.adds} - self.possible
            if not more:
                return found
            self.possible |= more

    def _steps(self) -> Iterator[_Step]:
        count = 0
        for action in self.problem.actions.values():
            try:
                for step in self._steps_of(action):
                    count += 1
                    if count > MAX_STEPS:
                        raise ValueError(
                            f"has, with those before it, more than {MAX_STEPS} choices of objects: "
                            "use a smaller problem"
                        )
                    yield step
            except ValueError as error:
                raise ValueError(f"the action {action.name} {error}") from None

    def _steps_of(self, action: Action) -> Iterator[_Step]:
        for binding in self._bindings(action):
            name = f"({' '.join([action.name, *binding.values()])})"
            for needs, changes in self._variants(action, binding):
                adds = frozenset(it.atom for it in changes if it.true)
                deletes = frozenset(it.atom for it in changes if not it.true)
                # What an action both deletes and adds is true after it.
                yield _Step(name, needs, adds, (deletes - adds) & self.possible)

    def _bindings(self, action: Action) -> Iterator[dict[str, str]]:
        """The objects for the parameters of an action that its condition may be true for."""
        variables = list(action.parameters)
        # Each literal is looked at as soon as its last variable has an object.
        tests: list[list[Formula]] = [[] for _ in range(len(variables) + 1)]
        for test in _conjuncts(action.condition):
            words = test.atom if isinstance(test, Literal) else (test.left, test.right)
            tests[max(map(variables.index, set(words) & {*variables}), default=-1) + 1].append(test)

        def extended(binding: dict[str, str]) -> Iterator[dict[str, str]]:
            depth = len(binding)
            if all(self._cases(test, binding) for test in tests[depth]):
                if depth == len(variables):
                    yield binding
                else:
                    for it in action.parameters[variables[depth]]:
                        yield from extended({**binding, variables[depth]: it})

        yield from extended({})

    def _variants(self, action: Action, binding: Binding) -> Iterable[tuple[Case, Case]]:
        """What an action needs and changes, by which of its conditions are true."""
        together: dict[tuple[Cases, Cases], Case] = {}
        for fires, fails, change in self._effects(action.effect, binding):
            together[fires, fails] = together.get((fires, fails), Case()) | {change}
        variants = [(needs, Case()) for needs in self._cases(action.condition, binding)]
        for (fires, fails), changes in together.items():
            variants = [
                (case, made | more)
                for needs, made in variants
                for cases, more in ((fires, changes), (fails, Case()))
                for case in _both(frozenset([needs]), cases)
            ]
            _bounded(variants)
        return variants

    def _effects(
        self, effect: Formula, binding: Binding, fires: Cases = ALWAYS, fails: Cases = NEVER
    ) -> Iterator[tuple[Cases, Cases, Literal]]:
        """The changes an action makes, with the cases in which it does, or does not."""
        match effect:
            case Both(parts):
                for part in parts:
                    yield from self._effects(part, binding, fires, fails)
            case Each(variables, part):
                for it in choices(variables, binding):
                    yield from self._effects(part, it, fires, fails)
            case When(condition, otherwise, part):
                fires = _both(fires, self._cases(condition, binding))
                fails |= self._cases(otherwise, binding)
                if fires:
                    yield from self._effects(part, binding, fires, fails)
            case Literal(words, true) if self.problem.fits(atom := grounded(words, binding)):
                yield fires, fails, Literal(atom, true)

    def _cases(self, condition: Formula, binding: Binding) -> Cases:
        match condition:
            case Both(parts):
                return _all(self._cases(part, binding) for part in parts)
            case Either(parts):
                return _some(self._cases(part, binding) for part in parts)
            case Each(variables, part, every):
                found = (self._cases(part, it) for it in choices(variables, binding))
                return _all(found) if every else _some(found)
            case Literal(words, true):
                atom = grounded(words, binding)
                if atom not in self.possible:
                    return NEVER if true else ALWAYS
                if atom[0] not in self.changing:
                    return ALWAYS if true else NEVER
                return frozenset([frozenset([Literal(atom, true)])])
            case Same(left, right, true):
                same = binding.get(left, left) == binding.get(right, right)
                return ALWAYS if same == true else NEVER
            case Compare(tree):
                raise ValueError(
                    f"has conditions on numbers, {show(tree)}: leave them out, only true and "
                    "false atoms are planned for"
                )
        raise TypeError(f"{condition} is an effect")


def _all(several: Iterable[Cases]) -> Cases:
    found = ALWAYS
    for cases in several:
        found = _bounded(_both(found, cases))
        if not found:
            break
    return found


def _some(several: Iterable[Cases]) -> Cases:
    found = NEVER
    for cases in several:
        if cases == ALWAYS:
            return ALWAYS
        found = _bounded(found | cases)
    return found


def _both(one: Cases, other: Cases) -> Cases:
    if one == ALWAYS or other == ALWAYS:
        return other if one == ALWAYS else one
    return frozenset(
        a | b for a in one for b in other if not any(Literal(it.atom, not it.true) in b for it in a)
    )


def _bounded(cases: _Sized) -> _Sized:
    if len(cases) > MAX_CASES:
        raise ValueError(
            f"has conditions with more than {MAX_CASES} cases: use fewer of or, exists and when, "
            "or a smaller problem"
        )
    return cases


def _conjuncts(condition: Formula) -> Iterator[Literal | Same]:
    """The literals that a condition needs in any case."""
    match condition:
        case Both(parts):
            for part in parts:
                yield from _conjuncts(part)
        case Literal() | Same():
            yield condition


def _changes(effect: Formula) -> Iterator[Literal]:
    """The changes of an effect, whatever their conditions."""
    match effect:
        case Both(parts):
            for part in parts:
                yield from _changes(part)
        case Each(_, part) | When(_, _, part):
            yield from _changes(part)
        case Literal():
            yield effect
