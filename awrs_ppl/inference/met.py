"""What the particles of one inference met, and between what the evidence is by that for certain.

A refinement, which changes nothing of an inference. Every context that a particle came to shows
what all allowed tokens weigh together there, and the tokens drawn what they weigh each; what no
particle looked at weighs between nothing and all of it. So the executions that were met bound the
evidence as the trie of `exact` does (`awrs_ppl.envelope`), without a row more. They bound nothing
where a statement may weigh more than 1, or draws from a density: `unbounded` then names it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from awrs_ppl.constraints.ends import known_ends
from awrs_ppl.envelope.programs import is_at_most_one, support
from awrs_ppl.inference.change import Change
from awrs_ppl.log_weights import log_sum
from awrs_ppl.posterior.by_value import entry
from awrs_ppl.program.log import Log
from awrs_ppl.program.statements import Call, Sample, Statement
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.proposals import Draw
from awrs_ppl.proposals.token_step import TokenStep
from awrs_ppl.tokens.text import as_bytes
from awrs_ppl.tokens.underflow import LEAST

__all__ = ["Met"]

# Rows are computed in float32: the sum of their weights has an error of this share at most, and so
# much of a context always counts as not looked at.
_ROUNDING = 1e-6

_Key = tuple[int, tuple[int, ...]]


@dataclass(slots=True)
class _Place:
    """An execution up to a draw, or between two statements. `log_mass` is that of all allowed
    outcomes; `ways` are those that were taken, each with its log-weight and where it leads."""

    log_mass: float = 0.0
    ways: dict[Hashable, tuple[float, _Key]] = field(default_factory=dict)


class Met:
    """The executions that the particles of one inference went through."""

    def __init__(self) -> None:
        self.unbounded = ""
        self._numbers: dict[Hashable, int] = {}  # of equal choices, in the order they were met
        self._of_log: dict[int, tuple[Log, int]] = {}
        self._places: dict[_Key, _Place] = {(0, ()): _Place()}
        self._depths: dict[int, int] = {0: 0}
        self._ends: set[int] = set()

    # --- what is met ----------------------------------------------------------------------

    def come(self, steps: Mapping[TokenStep, Sequence[Change]]) -> None:
        """Particles were at contexts where outcomes have been drawn; what was learned for that
        counts."""
        for step, changes in steps.items():
            generate, outcomes = changes[0].generate, step.outcomes
            if generate.target.weighted or generate.critic is not None:
                weighs = [*(one.potential for one in generate.target.weighted), generate.critic]
                self.unbounded = self.unbounded or repr(weighs[0])
            if self.unbounded or outcomes is None:
                return
            # What float32 holds no digits of cannot be separated from nothing.
            verdicts = step.verdicts
            _, rejected = verdicts.learned_since(outcomes.restriction.version)
            rejected = np.array([*rejected, *known_ends(verdicts)[1]], np.int64)
            mass = outcomes.mass_without(rejected) if len(rejected) else outcomes.mass
            log_mass = math.log(max(mass, 2 * LEAST)) + outcomes.log_scale
            for change in changes:
                place = self._at((self._walk(change.particle.log), step.progress.text.tokens))
                place.log_mass = min(place.log_mass, log_mass)

    def draw(self, step: TokenStep, changes: Sequence[Change], draws: Sequence[Draw]) -> None:
        """Outcomes were drawn at one context."""
        if self.unbounded or step.outcomes is None:
            return
        for change, draw in zip(changes, draws, strict=True):
            after, number = change.progress, self._walk(change.particle.log)
            ways = self._at((number, step.progress.text.tokens)).ways
            if draw.log_weight == -math.inf or after is None or draw.outcome in ways:
                continue
            if after.ended:
                there = self._number((number, after.text.data), number), ()
            else:
                there = number, after.text.tokens
            ways[draw.outcome] = step.outcomes.log_probability(draw.outcome), there

    def judge(self, changes: Iterable[Change]) -> None:
        """Particles end a statement that draws no text; those of weight zero end here."""
        for change in changes:
            statement = change.particle.statement
            if self.unbounded or isinstance(statement, Generate) or statement is None:
                continue
            if change.log_weight == -math.inf:
                if not is_at_most_one(statement):
                    self.unbounded = _named(statement)
                self._at((self._walk(change.particle.log), ())).log_mass = -math.inf

    def end(self, log: Log | None) -> None:
        """A particle has finished."""
        self._ends.add(self._walk(log))

    def _walk(self, log: Log | None) -> int:
        """The number of the choices of a log; the statements between are noted."""
        fresh = []
        while log is not None and id(log) not in self._of_log:
            fresh.append(log)
            log = log.before
        number = 0 if log is None else self._of_log[id(log)][1]
        for one in reversed(fresh):
            record = one.record
            before, statement = number, record.statement
            if isinstance(statement, Generate):
                if record.error is not None:
                    self.unbounded = self.unbounded or _named(statement)
                    break
                number = self._number((before, as_bytes(record.value)), before)
            else:
                number = self._number((before, record.chosen), before)
                weight = self._weight(statement, record.value, record.log_weight)
                place = self._at((before, ()))
                place.ways.setdefault(number, (weight, (number, ())))
                if not isinstance(statement, Sample):
                    place.log_mass = weight
                    if len(place.ways) > 1:  # a call that gave this, and then that
                        self.unbounded = self.unbounded or _named(statement)
            self._of_log[id(one)] = one, number  # the log, so that its id stays its own
        return number

    def _weight(self, statement: Statement, value: Any, weight: float) -> float:
        if isinstance(statement, Sample):
            pairs = support(statement)
            if pairs is None:
                self.unbounded = self.unbounded or _named(statement)
                return 0.0
            known = {entry(one): log_prob for one, log_prob in pairs}
            return known.get(entry(value), 0.0)
        if not is_at_most_one(statement):
            self.unbounded = self.unbounded or _named(statement)
        elif not isinstance(statement, Call):
            return min(weight, 0.0)
        return 0.0

    def _number(self, choices: Hashable, before: int) -> int:
        number = self._numbers.setdefault(choices, len(self._numbers) + 1)
        self._depths.setdefault(number, self._depths[before] + 1)
        return number

    def _at(self, key: _Key) -> _Place:
        return self._places.setdefault(key, _Place())

    # --- what it says ---------------------------------------------------------------------

    def bounds(self) -> tuple[float, float] | None:
        """The bounds of the log evidence; None if there are none."""
        if self.unbounded:
            return None
        known: dict[_Key, tuple[float, float]] = {(number, ()): (0.0, 0.0) for number in self._ends}
        order = sorted(self._places, key=lambda key: (self._depths[key[0]], len(key[1])))
        for key in reversed(order):
            if key in known:
                continue
            place = self._places[key]
            if place.log_mass == -math.inf:
                known[key] = -math.inf, -math.inf
                continue
            # Relative to all that is allowed here, so that nothing is too small for a float.
            ways = [(w - place.log_mass, *known.get(to, _OPEN)) for w, to in place.ways.values()]
            looked_at = math.fsum(math.exp(weight) for weight, _, _ in ways)
            rest = math.log(max(1.0 - looked_at, _ROUNDING))
            low = log_sum([weight + below for weight, below, _ in ways])
            high = log_sum([rest, *(weight + above for weight, _, above in ways)])
            known[key] = place.log_mass + low, min(place.log_mass + high, 0.0)
        return known.get((0, ()), _OPEN)


_OPEN = (-math.inf, 0.0)


def _named(statement: Statement) -> str:
    return f"{statement.kind} {statement.name!r}"
