"""Planning problems in PDDL, read and grounded by unified-planning.

A literal is an atom, or its negation, over a problem's own objects, and is written as in
`(on b1 b2)` and `(not(on b1 b2))`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import Any

from awrs_ppl.potentials._strips import Operator, Task

__all__ = ["after", "ground", "literals", "negatives", "read", "signatures"]

NUMERIC = "has conditions on numbers: leave them out, only true and false atoms are planned for"


@lru_cache(maxsize=64)
def read(domain: str, problem: str) -> Any:
    """The problem without its goal, as unified-planning has it.

    Raises `ValueError` with the parser's reason for what is no PDDL.
    """
    try:
        from unified_planning.io import PDDLReader
    except ImportError as error:
        raise _missing(error) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its own use of pyparsing
            found: Any = PDDLReader().parse_problem_string(domain, _without_goal(problem))
    except (RecursionError, MemoryError):
        raise
    except Exception as error:
        # The reader raises errors of many kinds, its own assertions among them.
        reason = str(error).strip() or type(error).__name__
        raise ValueError(
            f"{_show(domain)} and {_show(problem)} are not read as PDDL: {reason}"
        ) from error
    if any(not hasattr(action, "preconditions") for action in found.actions):
        raise ValueError(f"{_show(domain)} has actions that last: only instantaneous ones can be")
    return found


def signatures(problem: Any) -> Iterator[tuple[str, list[list[str]]]]:
    """Each predicate, with the objects that fit each of its parameters."""
    for fluent in problem.fluents:
        if fluent.type.is_bool_type():
            yield (
                fluent.name,
                [[it.name for it in problem.objects(part.type)] for part in fluent.signature],
            )


def negatives(domain: str) -> bool:
    """Whether a domain asks for negations in its conditions."""
    needs = re.search(r"\(\s*:requirements([^()]*)\)", re.sub(r";.*", "", domain.lower()))
    return needs is not None and not {":negative-preconditions", ":adl"}.isdisjoint(
        needs[1].split()
    )


def literals(problem: Any, *, negated: bool) -> Iterator[str]:
    """All literals, an atom next to its negation if `negated`."""
    for name, parameters in signatures(problem):
        for objects in product(*parameters):
            atom = f"({' '.join((name, *objects))})"
            yield atom
            if negated:
                yield _negation(atom)


def after(domain: str, problem: str, plan: str) -> set[str]:
    """The atoms that hold after a plan. Raises `ValueError` for a plan that cannot be followed."""
    from unified_planning.engines.sequential_simulator import UPSequentialSimulator
    from unified_planning.io import PDDLReader

    found = read(domain, problem)
    try:
        steps: Any = PDDLReader().parse_plan_string(found, plan)
    except (RecursionError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"the plan {_show(plan)} is not read: {str(error).strip() or type(error).__name__}; "
            "write actions of the domain, one a line: (pickup b1)"
        ) from error
    with UPSequentialSimulator(found, error_on_failed_checks=False) as simulator:
        state = simulator.get_initial_state()
        for number, step in enumerate(steps.actions, 1):
            then = simulator.apply(state, step)
            if then is None:
                lacks = simulator.get_unsatisfied_conditions(state, step)[0]
                raise ValueError(
                    f"step {number} of the plan, {step}, is not possible there: "
                    f"it needs {', '.join(map(str, lacks))}"
                )
            state = then
        return {_atom(it) for it in found.initial_values if _is_true(state, it)}


@lru_cache(maxsize=64)
def ground(domain: str, problem: str) -> Task:
    """The grounded problem. Raises `ValueError` where it has conditions on numbers."""
    try:
        import pyperplan  # noqa: F401
        from unified_planning.engines import CompilationKind
        from unified_planning.engines import compilers as by
    except ImportError as error:
        raise _missing(error) from error

    found = read(domain, problem)
    simpler = found
    for compiler, kind in (
        (by.QuantifiersRemover, CompilationKind.QUANTIFIERS_REMOVING),
        (by.DisjunctiveConditionsRemover, CompilationKind.DISJUNCTIVE_CONDITIONS_REMOVING),
        (by.ConditionalEffectsRemover, CompilationKind.CONDITIONAL_EFFECTS_REMOVING),
    ):
        if not compiler.supports(simpler.kind):
            raise ValueError(f"{_show(domain)} has what {compiler.__name__} cannot take out")
        simpler = compiler().compile(simpler, kind).problem
    # Its own choice of instances fails where a parameter has two conditions that never change.
    chosen = {action: list(_instances(simpler, action)) for action in simpler.actions}
    grounder = by.Grounder(grounding_actions_map=chosen)
    simpler = grounder.compile(simpler, CompilationKind.GROUNDING).problem
    operators = [_parts(action, domain) for action in simpler.actions]
    negated = negatives(domain) or any("(not" in it for parts in operators for it in parts[1])
    names = list(literals(found, negated=negated))
    bits = {name: 1 << i for i, name in enumerate(names)}
    true = {_atom(it) for it, value in found.initial_values.items() if value.is_true()}

    def those(named: Iterable[str]) -> int:
        return sum({bits[name] for name in named})

    grounded = []
    for name, needs, adds, deletes in operators:
        made, undone = adds, deletes
        if negated:
            made, undone = adds | _negations(deletes), deletes | _negations(adds)
        grounded.append(Operator(name, those(needs), those(made), those(undone)))
    if negated:
        true |= _negations(set(names[::2]) - true)
    return Task(names, those(true), grounded)


def _instances(problem: Any, action: Any) -> Iterator[tuple[Any, ...]]:
    """The objects for the parameters of an action, by what of its conditions never changes."""
    objects = [problem.objects(it.type) for it in action.parameters]
    at = {it.name: i for i, it in enumerate(action.parameters)}
    never_changes = problem.get_static_fluents()
    needed = []
    for condition in action.preconditions:
        for it in condition.args if condition.is_and() else [condition]:
            if it.is_fluent_exp() and it.fluent() in never_changes:
                of = [(at[a.parameter().name] if a.is_parameter_exp() else a) for a in it.args]
                needed.append((it.fluent(), of))
    true = {
        (it.fluent(), *it.args) for it, value in problem.initial_values.items() if value.is_true()
    }
    for chosen in product(
        *[[problem.environment.expression_manager.ObjectExp(o) for o in some] for some in objects]
    ):
        if all(
            (fluent, *(chosen[a] if isinstance(a, int) else a for a in of)) in true
            for fluent, of in needed
        ):
            yield chosen


def _parts(action: Any, domain: str) -> tuple[str, set[str], set[str], set[str]]:
    """The name of a grounded action, the literals it needs, the atoms it adds and deletes."""
    needs, adds, deletes = set(), set(), set()
    conditions = list(action.preconditions)
    while conditions:
        it = conditions.pop()
        if it.is_and():
            conditions.extend(it.args)
        elif it.is_fluent_exp():
            needs.add(_atom(it))
        elif it.is_not() and it.arg(0).is_fluent_exp():
            needs.add(_negation(_atom(it.arg(0))))
        elif not it.is_true():
            raise ValueError(f"{_show(domain)}: {action.name} {NUMERIC}")
    for effect in action.effects:
        if effect.fluent.type.is_bool_type():
            (adds if effect.value.is_true() else deletes).add(_atom(effect.fluent))
    # What an action both deletes and adds is true after it.
    return action.name, needs, adds, deletes - adds


def _without_goal(problem: str) -> str:
    """The problem with the goal of nothing. It may end inside its goal: that is its beginning."""
    text = re.sub(r";.*", "", problem)
    found = re.search(r"\(\s*:goal\b", text, re.IGNORECASE)
    rest = ""
    if found is not None:
        depth = 0
        for at in range(found.start(), len(text)):
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            if not depth:
                rest = text[at + 1 :]
                break
        text = text[: found.start()]
    elif (end := text.rstrip()).endswith(")") and text.count("(") == text.count(")"):
        text, rest = end[:-1], ")"
    text = f"{text} (:goal (and)) {rest}"
    return text + ")" * (text.count("(") - text.count(")"))


def _atom(it: Any) -> str:
    return f"({' '.join([it.fluent().name, *map(str, it.args)])})"


def _negation(atom: str) -> str:
    return f"(not{atom})"


def _negations(atoms: set[str]) -> set[str]:
    return set(map(_negation, atoms))


def _is_true(state: Any, it: Any) -> bool:
    return it.fluent().type.is_bool_type() and state.get_value(it).is_true()


def _show(text: str) -> str:
    shown = " ".join(text.split())
    return repr(shown if len(shown) <= 60 else f"{shown[:40]}…{shown[-20:]}")


def _missing(error: ImportError) -> ImportError:
    return ImportError(f'{error}: potentials for plans need pip install "awrs-ppl[planning]"')
