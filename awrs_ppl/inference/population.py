"""The particles of an inference, and how one is continued by several."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from awrs_ppl.log_weights import log_mean
from awrs_ppl.program.execution import Run
from awrs_ppl.program.log import Log, Record, copied
from awrs_ppl.program.statements import Statement
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.program.trace import Partial, Trace
from awrs_ppl.proposals.token_step import Progress
from awrs_ppl.tokens.text import as_str

__all__ = ["Particle", "continued", "is_forced"]


def is_forced(statement: Statement, progress: Progress | None) -> bool:
    """Whether a text has as many tokens as `max_tokens` allows, so that its end is all that can
    come, or came; one that need not end has none."""
    if not isinstance(statement, Generate) or not statement.ends:
        return False
    tokens = 0 if progress is None else len(progress.text.tokens)
    return tokens >= statement.max_tokens - 1


@dataclass(slots=True)
class Particle:
    """One execution in the population: data, and a live coroutine or none.

    `log` holds the completed statements, `statement` the one in progress, `progress` its
    partial text, `spent` what it has done to the weight so far. `level` counts completed
    weighted statements. `twist` is provisional weight on top of `log_weight`. A slot `is_free`
    whose particle was one with another, or had no child that was chosen: it did not die.
    """

    slot: int
    log_weight: float = 0.0
    twist: float = 0.0
    log: Log | None = None
    level: int = 0
    statement: Statement | None = None
    progress: Progress | None = None
    spent: float = 0.0
    run: Run | None = None
    finished: bool = False
    value: Any = None
    killer: str | None = None
    is_free: bool = False

    @property
    def total(self) -> float:
        """The log-weight with the twist: what synchronizations look at."""
        return self.log_weight + self.twist

    @property
    def is_growing(self) -> bool:
        """Whether its text is growing."""
        return self.is_live and self.progress is not None and not self.progress.ended

    @property
    def is_ahead(self) -> bool:
        """Whether it has some weight and waits while the texts of others grow."""
        return self.log_weight > -math.inf and not self.is_growing

    @property
    def is_live(self) -> bool:
        """Whether there is more to do: not finished, and of some weight."""
        return not self.finished and self.log_weight > -math.inf

    def weigh(
        self, log_weight: float, twist: float, killer: str | None, chosen: float = 0.0
    ) -> None:
        """Multiply the weight and replace the twist; a weight of zero stays zero. `chosen` is the
        part of it that the statement has not done."""
        self.log_weight += log_weight
        self.spent += log_weight - chosen
        self.twist = twist
        if self.log_weight == -math.inf or twist == -math.inf:
            self.log_weight, self.twist, self.killer = -math.inf, 0.0, killer

    def complete(self, value: Any, error: BaseException | None = None) -> None:
        """End the statement in progress with a value, and let the coroutine continue."""
        statement, progress = self.statement, self.progress
        assert statement is not None
        forced = error is None and is_forced(statement, progress)
        # Copied twice: the model may change what it is given, and so may whoever made it.
        kept = copied(value)
        self.log = Log.append(self.log, Record(statement, kept, self.spent, error, forced))
        self.level += statement.is_weighted
        self.statement, self.progress, self.spent = None, None, 0.0
        if self.run is not None:
            self.run.resume(copied(kept), error)

    def branch(self, slot: int) -> Particle:
        """Another particle with the same past, in the midst of the same text."""
        return replace(self, slot=slot, run=None, killer=None)

    def leave(self) -> list[Run]:
        """Free the slot; the run that nothing continues, if there is one."""
        lost = [] if self.run is None else [self.run]
        self.log_weight, self.twist, self.is_free = -math.inf, 0.0, True
        self.statement, self.progress, self.run = None, None, None
        return lost

    def trace(self) -> Trace:
        """The choices made so far, and the text in progress."""
        partial = None
        if self.statement is not None and self.progress is not None:
            text = as_str(self.progress.text.data)
            partial = Partial(self.statement.name, text, self.progress.ended)
        records = Log.records(self.log)
        return Trace(self.value, self.log_weight, records, finished=self.finished, partial=partial)


def continued(
    particles: list[Particle], ancestors: np.ndarray, kept: Container[int]
) -> tuple[list[Particle], list[Run]]:
    """The next population, and the runs that no particle continues.

    Those in the slots `kept` are their own ancestors and keep their weight; the others get their
    mean weight. The first child of an ancestor keeps its live coroutine; the others have none
    until their statement ends, and are then rebuilt from the log.
    """
    mean = log_mean([p.total for slot, p in enumerate(particles) if slot not in kept])
    parents: set[int] = set()
    children = []
    for slot, ancestor in enumerate(ancestors.tolist()):
        parent = particles[ancestor]
        if slot in kept:
            children.append(parent)
            parents.add(ancestor)
            continue
        # A statement that changes the weight is plain data and continues without a coroutine; any
        # other may hold objects of the parent's, so the child makes its own.
        statement = parent.statement
        if ancestor in parents and statement is not None and not statement.is_weighted:
            statement = None
        children.append(
            Particle(
                slot,
                # The twist is inside the mean: it is undone at the next step as before.
                log_weight=mean - parent.twist,
                twist=parent.twist,
                log=parent.log,
                level=parent.level,
                statement=statement,
                progress=parent.progress,
                spent=parent.spent,
                run=None if ancestor in parents else parent.run,
                finished=parent.finished,
                value=parent.value,
            )
        )
        parents.add(ancestor)
    dropped = [
        particle.run
        for i, particle in enumerate(particles)
        if i not in parents and particle.run is not None
    ]
    return children, dropped
