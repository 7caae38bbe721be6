"""Grounded planning problems: what can hold together, and plans by pyperplan.

Sets of literals are integers, one bit for each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from awrs_ppl._deadline import Deadline
from awrs_ppl.errors import PotentialError

__all__ = ["Operator", "Task"]

# Seconds for one plan.
TIME_LIMIT = 30.0


class Operator(NamedTuple):
    """A grounded action: what it needs, makes true and makes false."""

    name: str
    needs: int
    adds: int
    deletes: int


class Task:
    """A grounded problem: which literals can hold together, and plans for those that do."""

    def __init__(self, names: list[str], start: int, operators: Iterable[Operator]) -> None:
        self.names = names
        self.start = start
        self.operators = list(operators)
        # Row i: the literals that are not known to exclude literal i.
        self.pairs = _pairs(len(names), start, self.operators)
        self.operators = [it for it in self.operators if self._compatible(it.needs, it.needs)]
        self._adders: dict[int, list[Operator]] = {i: [] for i in range(len(names))}
        for operator in self.operators:
            for i in _bits(operator.adds):
                self._adders[i].append(operator)
        self.consistent = lru_cache(maxsize=2**14)(self._consistent)
        self.plan = lru_cache(maxsize=2**12)(self._plan)

    def _compatible(self, some: int, others: int) -> bool:
        return all(others & ~self.pairs[i] == 0 for i in _bits(some))

    def _consistent(self, goal: int) -> bool:
        """False if it is certain that no state reached from the start has these literals.

        That is where two of them exclude each other; or where a part of them is not true at the
        start and has no last step: each action that makes one of that part true makes another
        one false, or needs what excludes another one. What is said of a set holds of all larger
        ones.
        """
        if not self._compatible(goal, goal):
            return False
        # What some action can make true last belongs to no such part: it is peeled off.
        rest = goal
        while rest & ~self.start:
            last = sum(1 << i for i in _bits(rest) if self._can_be_last(i, rest))
            if not last:
                return False
            rest &= ~last
        return True

    def _can_be_last(self, literal: int, goal: int) -> bool:
        return any(
            not operator.deletes & goal
            and self._compatible(operator.needs, goal & ~operator.adds | operator.needs)
            for operator in self._adders[literal]
        )

    def _plan(self, goal: int) -> tuple[str, ...] | None:
        """Steps to a state that has these literals; None if there is none.

        By greedy best-first search with the FF heuristic: pyperplan's, first along the actions of
        relaxed plans alone, which is quicker and may miss a plan. Raises `PotentialError` where
        that takes more than `TIME_LIMIT` seconds.
        """
        search, heuristic, task = _planner(self, goal)
        # pyperplan logs, and the first to log gives the root logger a handler if it has none.
        silent = logging.NullHandler()
        logging.getLogger().addHandler(silent)
        try:
            found = search(task, heuristic, use_relaxed_plan=True)
            if found is None:
                found = search(task, heuristic)
        finally:
            logging.getLogger().removeHandler(silent)
        return None if found is None else tuple(step.name for step in found)


def _pairs(size: int, start: int, operators: list[Operator]) -> list[int]:
    """For each literal those that it may hold together with: the pairs of h² that are finite.

    From: Haslum and Geffner, "Admissible Heuristics for Optimal Planning", AIPS 2000.
    """
    rows = [start if start >> i & 1 else 0 for i in range(size)]
    possible = start
    parts = [(op, list(_bits(op.needs)), list(_bits(op.adds))) for op in operators]
    changed = True
    while changed:
        changed = False
        for op, needs, adds in parts:
            if op.needs & ~possible:
                continue
            beside = possible
            for i in needs:
                beside &= rows[i]
            if op.needs & ~beside:
                continue
            then = beside & ~op.deletes | op.adds
            for i in adds:
                if new := then & ~rows[i]:
                    changed = True
                    rows[i] |= new
                    for j in _bits(new):
                        rows[j] |= 1 << i
            possible |= op.adds
    return rows


def _planner(task: Task, goal: int) -> tuple[Any, Any, Any]:
    from pyperplan.heuristics.relaxation import hFFHeuristic
    from pyperplan.search import greedy_best_first_search
    from pyperplan.task import Operator as PyperplanOperator
    from pyperplan.task import Task as PyperplanTask

    class Limited(PyperplanTask):
        deadline = Deadline(TIME_LIMIT)

        def get_successor_states(self, state: Any) -> Any:
            if self.deadline.passed:
                wanted = " ".join(task.names[i] for i in _bits(goal))
                raise PotentialError(
                    f"the planner found in {TIME_LIMIT:g} s neither a plan for {wanted} nor that "
                    "there is none: use a smaller problem"
                )
            return super().get_successor_states(state)

    def those(bits: int) -> frozenset[int]:
        return frozenset(_bits(bits))

    limited = Limited(
        "task",
        those((1 << len(task.names)) - 1),
        those(task.start),
        those(goal),
        [
            PyperplanOperator(op.name, those(op.needs), those(op.adds), those(op.deletes))
            for op in task.operators
        ],
    )
    return greedy_best_first_search, hFFHeuristic(limited), limited


def _bits(number: int) -> Iterator[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low
