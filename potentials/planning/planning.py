"""Goals of planning problems, written in PDDL.

A text is what follows `(:goal (and` in a problem: literals over the problem's own objects, then
the brackets that close: `(on b1 b2) (clear b1)))`. Small and capital letters are the same, blanks
may stand between any two words or brackets (comments may not), and the bracket that closes the
whole problem may stand at the end too. Negations may be written where the domain or the problem
requires `:negative-preconditions` or `:adl`. A goal has at least one literal.

Domains and problems have their sections in any order, and names of one kind may be those of
another. They may have types (`either`, too: an object of either type is of both), constants,
equality, negations, disjunctions, quantifiers, conditional effects, action costs, and numbers,
which only `PlanAchieves` follows. A `ValueError` names what is not supported: actions that last,
derived predicates, processes, events, tasks, constraints, preferences, functions that are no
numbers, what is true from a later time on, and names that are not ASCII.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

from awrs_ppl._extras import install
from awrs_ppl.constraints.arguments import Argument, hidden
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.potentials._llguidance import Language
from awrs_ppl.potentials.planning import pddl
from awrs_ppl.potentials.planning.formulas import Literal, written
from awrs_ppl.potentials.planning.goal_texts import (
    CLOSED,
    atom_pattern,
    language,
    negation_pattern,
    split,
)
from awrs_ppl.potentials.planning.grounding import ground, literals
from awrs_ppl.potentials.planning.plans import after
from awrs_ppl.potentials.planning.strips import Task

__all__ = ["PddlGoal", "PlanAchieves", "Reachable"]

Source = str | PathLike[str]


class _About(BooleanPotential):
    """Goals about a problem. A value: its texts, and the name of the problem."""

    arguments = (Argument("_name", str, str, key=None), hidden("_texts"))

    _texts: tuple[str, ...]
    _name: str


class _Goals(_About):
    """Goals of a regular language. The state is the partial literal, behind an example of one.

    Which literals precede it makes no difference to what may follow.
    """

    _language: Language
    _example: bytes

    def __init__(self) -> None:
        super().__init__()
        self.mask = self._mask

    def start(self) -> bytes:
        """The state of the empty text."""
        return b""

    def advance(self, state: Any, data: bytes) -> bytes | None:
        """The state after `data`; `None` if no goal has this prefix."""
        text = self._language.advance(state, data)
        if text is None:
            return None
        whole, rest = split(text)
        return self._example + rest if whole else rest

    def accepts(self, state: Any) -> bool:
        """Whether the goal is closed."""
        return self._language.accepts(state)

    def is_over(self, state: Any) -> bool:
        """What `accepts` says: a text that need not end is over here."""
        return self.accepts(state)

    def _mask(self, state: Any, vocabulary: Any) -> Any:
        return self._language.mask(state, vocabulary)


class PddlGoal(_Goals):
    """The goals that can be written about a problem: its predicates, with objects that fit them.

    `domain` and `problem` are PDDL, or paths of files. The goal of the problem itself is not
    read, and the problem may end at its goal or inside it, as a prompt does. Objects must be of
    the types that the domain gives to a predicate, constants included. Not written are `or`,
    quantifiers and numbers. All next tokens are known at once, by a mask.

    Raises `ValueError` for what is no PDDL, or not supported.

    >>> domain = '''(define (domain switches) (:predicates (on ?x) (off ?x))
    ...   (:action press :parameters (?x) :precondition (off ?x)
    ...    :effect (and (on ?x) (not (off ?x)))))'''
    >>> problem = '''(define (problem two) (:domain switches) (:objects a b)
    ...   (:init (off a) (off b)) (:goal (and'''
    >>> import asyncio
    >>> goal = PddlGoal(domain, problem)
    >>> asyncio.run(goal.prefix(b" (on a) (off")), asyncio.run(goal.complete(b" (on a)))"))
    (0.0, 0.0)
    >>> asyncio.run(goal.complete(b" (on a)")), asyncio.run(goal.prefix(b" (on c"))
    (-inf, -inf)
    """

    def __init__(self, domain: Source, problem: Source) -> None:
        self._texts = _text(domain), _text(problem)
        self._language, self._example, self._name = _any_goal(*self._texts)
        super().__init__()


class PlanAchieves(_Goals):
    """The goals that a plan reaches: every literal holds after its last step.

    `plan` is text, an action a line as in `(stack b1 b2)`, or a path of a file. It is followed
    once, from the start of the problem; that gives a mask over the literals that then hold.
    What is said of goals is as for `PddlGoal`.

    Raises `ValueError` for a step that is no action of the domain or is not possible there.

    >>> domain = '''(define (domain switches) (:predicates (on ?x) (off ?x))
    ...   (:action press :parameters (?x) :precondition (off ?x)
    ...    :effect (and (on ?x) (not (off ?x)))))'''
    >>> problem = '''(define (problem two) (:domain switches) (:objects a b)
    ...   (:init (off a) (off b)) (:goal (and'''
    >>> import asyncio
    >>> reached = PlanAchieves("(press a)", domain, problem)
    >>> asyncio.run(reached.complete(b"(on a) (off b)))")), asyncio.run(reached.prefix(b"(on b"))
    (0.0, -inf)
    """

    def __init__(self, plan: Source, domain: Source, problem: Source) -> None:
        self._texts = _text(plan, "plan"), _text(domain), _text(problem)
        self._language, self._example, self._name = _reached_goal(*self._texts)
        super().__init__()


class Reachable(_About):
    """The goals that can be reached from the start of a problem.

    A goal is rejected at the first letter after which every literal contradicts those before it:
    a block on two others, or a tower in a circle. That is found in the actions, for any domain:
    pairs of literals that exclude each other (h², computed once), and sets of literals none of
    which can be made true last. What contradicts nothing that is found so is checked by a planner
    (pyperplan) at the bracket that closes the goal, so a goal that may end has a plan.

    Goals that are no goals of `PddlGoal` are rejected too. `PddlGoal(...) * Reachable(...)` says
    the same as `Reachable(...)` with fewer checks.

    Raises `ValueError` for what is no PDDL, not supported, or has conditions on numbers; action
    costs are ignored. Where the planner takes more than 30 seconds, that is a `PotentialError`.
    Needs the extra `planning`.

    >>> domain = '''(define (domain switches) (:predicates (on ?x) (off ?x))
    ...   (:action press :parameters (?x) :precondition (off ?x)
    ...    :effect (and (on ?x) (not (off ?x)))))'''
    >>> problem = '''(define (problem two) (:domain switches) (:objects a b)
    ...   (:init (off a) (off b)) (:goal (and'''
    >>> import asyncio
    >>> goal = Reachable(domain, problem)
    >>> asyncio.run(goal.complete(b" (on a) (off b)))")), asyncio.run(goal.prefix(b" (on a) (off"))
    (0.0, 0.0)
    >>> asyncio.run(goal.prefix(b" (on a) (off a"))
    -inf
    """

    def __init__(self, domain: Source, problem: Source) -> None:
        super().__init__()
        self._texts = _text(domain), _text(problem)
        self._task, self._literals, self._name = _possible_goals(*self._texts)

    def __reduce__(self) -> tuple[Any, ...]:
        return Reachable, self._texts  # what was learned of the problem stays here

    def start(self) -> tuple[int, bytes]:
        """The state of the empty text: the set of literals, and the partial literal.

        The set is forgotten once the goal is closed.
        """
        return 0, b""

    def advance(self, state: Any, data: bytes) -> tuple[int, bytes] | None:
        """The state after `data`; `None` if no goal with this prefix is known to be possible."""
        goal, before = state
        whole, rest = split(before + data)
        if before.startswith(b")"):
            closed = not whole and rest in CLOSED
            return (0, rest) if closed else None
        for literal in whole:
            bit = self._bit(literal)
            if not bit or not self._task.consistent(goal | bit):
                return None
            goal |= bit
        if rest.startswith(b")"):
            closed = goal and rest in CLOSED and self._task.plan(goal) is not None
            return (0, rest) if closed else None
        return (goal, rest) if not rest or self._some(goal, rest) else None

    def accepts(self, state: Any) -> bool:
        """Whether the goal is closed."""
        return state[1] in CLOSED[1:]

    def is_over(self, state: Any) -> bool:
        """What `accepts` says: a text that need not end is over here."""
        return self.accepts(state)

    def _bit(self, literal: bytes) -> int:
        at = bisect_left(self._literals, (literal,))
        found = at < len(self._literals) and self._literals[at][0] == literal
        return self._literals[at][1] if found else 0

    def _some(self, goal: int, begun: bytes) -> bool:
        """Whether a literal with this prefix contradicts none of the goal."""
        name = begun.removesuffix(b" ")
        for literal, bit in self._literals[bisect_left(self._literals, (name,)) :]:
            if not literal.startswith(name):
                break
            # A blank ends a name: "(on b1 " does not begin "(on b10 b2)".
            if (name == begun or literal[len(name)] in b" ()") and self._task.consistent(
                goal | bit
            ):
                return True
        return False


def _text(source: Source, what: str = "PDDL") -> str:
    if isinstance(source, PathLike):
        # A mark of its byte order is no PDDL, and comments are in any encoding.
        return Path(source).read_text(encoding="utf-8-sig", errors="replace")
    if not isinstance(source, str):
        raise TypeError(f"got {source!r}: give the {what} as a str, or a pathlib.Path of a file")
    # The empty plan is one, also behind a comment.
    if "(" not in source and source.strip() and not source.lstrip().startswith(";"):
        raise ValueError(f"got {source!r}, which is no {what}: for a file give a pathlib.Path")
    return source


@lru_cache(maxsize=64)
def _any_goal(domain: str, problem: str) -> tuple[Language, bytes, str]:
    found = pddl.read(domain, problem)
    atoms = [[[name], *fitting] for name, fitting in found.predicates.items() if all(fitting)]
    if not atoms:
        raise ValueError(f"no goal can be written about {found.name}: no object fits a predicate")
    patterns = list(map(atom_pattern, atoms))
    if found.negative:
        patterns.append(negation_pattern("|".join(patterns)))
    example = written(Literal(tuple(words[0] for words in atoms[0]), True))
    return language(patterns, f"PddlGoal({found.name})"), example.encode(), found.name


@lru_cache(maxsize=64)
def _reached_goal(plan: str, domain: str, problem: str) -> tuple[Language, bytes, str]:
    found = pddl.read(domain, problem)
    true = after(domain, problem, plan)
    reached = [it for it in literals(found) if (it.atom in true) == it.true]
    if not reached:
        raise ValueError(f"nothing holds after the plan {plan!r}, so it reaches no goal")
    patterns = []
    for it in reached:
        atom = atom_pattern([[word] for word in it.atom])
        patterns.append(atom if it.true else negation_pattern(atom))
    example = written(reached[0]).encode()
    return language(patterns, f"PlanAchieves({found.name})"), example, found.name


@lru_cache(maxsize=64)
def _possible_goals(domain: str, problem: str) -> tuple[Task, list[tuple[bytes, int]], str]:
    try:
        import pyperplan  # noqa: F401  # imported where it plans
    except ImportError as error:
        raise ImportError(f"Reachable needs pyperplan: {install('planning')}") from error
    task, found = ground(domain, problem), pddl.read(domain, problem)
    bits = {name: 1 << i for i, name in enumerate(task.names)}
    possible = sorted(
        (name.encode(), bits[name])
        for name in map(written, literals(found))
        if name in bits and task.consistent(bits[name])
    )
    return task, possible, found.name
