"""Planning problems, read from PDDL.

Names of one kind do not meet those of another (an action may be called as a predicate, a type as
an object), and neither does their order; small and capital letters are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise, product
from typing import NamedTuple

from awrs_ppl.potentials.planning.formulas import Formula
from awrs_ppl.potentials.planning.numbers import is_number
from awrs_ppl.potentials.planning.scope import Scope
from awrs_ppl.potentials.planning.text import Atom, Tree, show, trees, write
from awrs_ppl.potentials.planning.types import Types, check_name

__all__ = ["Action", "Problem", "read"]

NO_TIME = "actions take no time here: write it as an :action"
NO_RULES = "write what follows from other atoms into the effects of the actions"
ALONE = "only actions change what is true: leave it out"
NO_TASKS = "goals are sets of literals here: leave it out"
# What is known and not supported: what to do instead.
UNSUPPORTED = {
    ":durative-action": NO_TIME,
    ":derived": NO_RULES,
    ":axiom": NO_RULES,
    ":process": ALONE,
    ":event": ALONE,
    ":task": NO_TASKS,
    ":method": NO_TASKS,
    ":htn": NO_TASKS,
    ":constraints": "the way to a goal is free here: leave it out",
}
DOMAIN = (":requirements", ":types", ":constants", ":predicates", ":functions", ":action")
# Whatever says which plan is best makes no difference to whether there is one.
PROBLEM = (":domain", ":requirements", ":objects", ":init", ":goal", ":metric", ":length")
ACTION = (":parameters", ":precondition", ":effect")


class Action(NamedTuple):
    """An action, with the objects that fit each of its parameters."""

    name: str
    parameters: dict[str, list[str]]
    condition: Formula
    effect: Formula


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem without its goal.

    `predicates` have for each argument the objects that fit it. `start` are the atoms that are
    true at the start, and `numbers` the numbers. `negative` is whether conditions are said to have
    negations.
    """

    name: str
    predicates: dict[str, list[list[str]]]
    actions: dict[str, Action]
    start: frozenset[Atom]
    numbers: dict[Atom, Fraction]
    negative: bool

    def atoms(self) -> Iterator[Atom]:
        """All atoms whose objects fit them."""
        for name, arguments in self.predicates.items():
            yield from product([name], *arguments)

    def fits(self, atom: Atom) -> bool:
        """Whether the objects of an atom fit it. One that they do not fit is never true."""
        name, *objects = atom
        return all(map(list.__contains__, self.predicates[name], objects))


@lru_cache(maxsize=64)
def read(domain: str, problem: str) -> Problem:
    """The problem, whose text may end at its goal or inside it.

    Raises `ValueError` for what is no PDDL, and for what is not supported.
    """
    with _reading("domain", domain):
        _, world = _sections(trees(domain), "domain", DOMAIN)
        types = Types(_all(world, ":types"))
        types.add(_all(world, ":constants"))
    with _reading("problem", problem):
        name, task = _sections(trees(problem, unfinished=":goal"), "problem", PROBLEM)
        types.add(_all(task, ":objects"))
    with _reading("domain", domain):
        predicates = _signatures(_all(world, ":predicates"), types)
        predicates.pop("=", None)  # it need not be declared, and is no literal of a goal
        for keyword in ("and", "or"):
            if predicates.get(keyword) == []:
                raise ValueError(f"({keyword}) is the empty condition: rename the predicate")
        functions = {"total-cost": [], **_functions(_all(world, ":functions"), types)}
        scope = Scope(predicates, functions, types.objects, types.fitting)
    with _reading("problem", problem):
        start, numbers = set[Atom](), dict[Atom, Fraction]()
        for item in _all(task, ":init"):
            _add_fact(item, scope, start, numbers)
    with _reading("domain", domain):
        actions = dict[str, Action]()
        for section in world[":action"]:
            action = _action(section, scope)
            if action.name in actions:
                raise ValueError(f"the action {action.name} is defined twice: rename one")
            actions[action.name] = action
    needs = _all(world, ":requirements") + _all(task, ":requirements")
    negative = ":negative-preconditions" in needs or ":adl" in needs
    return Problem(name, predicates, actions, frozenset(start), numbers, negative)


@contextmanager
def _reading(what: str, text: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"the {what} {show(text)} is not read as PDDL: {error}") from None


def _sections(
    found: list[Tree], what: str, known: tuple[str, ...]
) -> tuple[str, dict[str, list[list[Tree]]]]:
    """The name of a domain or problem, and what its sections hold by their names."""
    match found:
        case [["define", [str(kind), str(name)], *sections]] if kind == what:
            pass
        case _:
            raise ValueError(f"write (define ({what} NAME) …)")
    contents: dict[str, list[list[Tree]]] = {it: [] for it in known}
    for section in sections:
        match section:
            case [str(head), *rest] if head in known:
                contents[head].append(rest)
            case [str(head), *_] if head in UNSUPPORTED:
                raise ValueError(f"{show(section)} is not supported: {UNSUPPORTED[head]}")
            case _:
                raise ValueError(
                    f"{show(section)} is no section of a {what}: write {', '.join(known)}"
                )
    return name, contents


def _all(sections: dict[str, list[list[Tree]]], name: str) -> list[Tree]:
    return [item for section in sections[name] for item in section]


def _signatures(declared: list[Tree], types: Types) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for it in declared:
        match it:
            case [str(name), *parameters]:
                check_name(name)
                signature = [objects for _, objects in types.arguments(parameters)]
            case _:
                raise ValueError(f"{show(it)} declares nothing: write (name ?x ?y - type)")
        if found.setdefault(name, signature) != signature:
            raise ValueError(f"{show(it)} is declared twice, with different parameters: rename one")
    return found


def _functions(declared: list[Tree], types: Types) -> dict[str, list[list[str]]]:
    kinds = [b for a, b in pairwise(declared) if a == "-"]
    for it in kinds:
        if it != "number":
            raise ValueError(f"(:functions … - {write(it)}) is not supported: only - number is")
    return _signatures([it for it in declared if it not in ("-", "number")], types)


def _add_fact(item: Tree, scope: Scope, start: set[Atom], numbers: dict[Atom, Fraction]) -> None:
    match item:
        case [str(name), *words] if name in scope.predicates and not any(
            isinstance(it, list) for it in words
        ):
            start.add(scope.atom(item))
        case ["and", *parts]:
            for part in parts:
                _add_fact(part, scope, start, numbers)
        case ["not", [*_] as part]:  # what is not said is false
            scope.atom(part)
        case ["=", [str(function), *_] as term, str(number)] if (
            function in scope.functions and is_number(number)
        ):
            scope.check_number(term)
            numbers[tuple(map(str, term))] = Fraction(number)
        case ["at", str(), [*_]]:
            raise ValueError(f"{show(item)} is not supported: {ALONE}")
        case [*_]:
            scope.atom(item)
        case _:
            raise ValueError(f"{show(item)} is no atom: write it in brackets")


def _action(section: list[Tree], scope: Scope) -> Action:
    match section:
        case [str(name), *rest] if not name.startswith(":"):
            pass
        case _:
            raise ValueError(f"{show([':action', *section])} has no name")
    try:
        parts: dict[str, Tree] = {}
        for at in range(0, len(rest), 2):
            head = rest[at]
            if head not in ACTION or head in parts or at + 1 == len(rest):
                raise ValueError(
                    f"{show(write(rest[at : at + 2])[1:-1])} is not supported: an action has, each "
                    "once, :parameters, :precondition and :effect"
                )
            parts[str(head)] = rest[at + 1]
        variables = scope.fitting(parts.get(":parameters", []))
        scope = scope.within(variables)
        condition = scope.condition(parts.get(":precondition", []))
        return Action(name, variables, condition, scope.effect(parts.get(":effect", [])))
    except ValueError as error:
        raise ValueError(f"in the action {name}: {error}") from None
