"""Adaptive weighted rejection sampling: learn the head, draw from the tail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from awrs_ppl.knowledge import Knowledge
from awrs_ppl.outcomes import Outcomes, Urn, pick
from awrs_ppl.proposals.paper import ESTIMATORS
from awrs_ppl.proposals.proposal import DEAD, Draw

__all__ = ["AWRS"]


@dataclass(frozen=True, slots=True)
class AWRS:
    """Draw from the LM restricted to a black-box constraint, with few checks.

    `estimator="head-tail"` (the default) learns the verdicts on the likeliest outcomes and
    then draws from the rest. With A the outcomes known to be accepted and U the unknown ones,
    frozen before the first random number, an accepted one of k draws from U weighs
    T = p(U)/(rho k); W = p(A) + sum T, and the outcome is one of A with probability p(A)/W,
    else one of the accepted draws. Given the knowledge at the freeze, E[W 1{x = v}] = p(v)c(v).

    - `fair_share`: an outcome is checked while it holds this share of p(U);
    - `negligible`: the tail is small beside the head below this ratio p(U)/p(A), and then
      visited only now and then (roulette), such that W <= (1 + negligible) p(A);
    - `max_checks`: outcomes checked in the head, per context.

    The others are the paper's: `"two-loop"` (Definition 2 of Lipkin et al., "Fast Controlled
    Generation from Language Models with Adaptive Weighted Rejection Sampling", COLM 2025),
    and its later refinements `"recursive"` and `"geometric"`, without a cut-off at small mass.

    >>> AWRS(estimator="geometric").estimator
    'geometric'
    """

    estimator: Literal["head-tail", "two-loop", "recursive", "geometric"] = "head-tail"
    fair_share: float = 0.15
    negligible: float = 0.05
    max_checks: int = 512

    uses_masks: ClassVar[bool] = True
    is_proper: ClassVar[bool] = True

    def __post_init__(self) -> None:
        names = ["head-tail", *ESTIMATORS]
        if self.estimator not in names:
            raise ValueError(f"AWRS got estimator={self.estimator!r}: choose one of {names}")
        if not 0 < self.fair_share <= 1 or not 0 <= self.negligible < 1 or self.max_checks < 1:
            raise ValueError(
                f"AWRS got fair_share={self.fair_share}, negligible={self.negligible}, "
                f"max_checks={self.max_checks}: they must be in (0, 1], [0, 1) and at least 1"
            )

    async def draw(
        self, outcomes: Outcomes, knowledge: Knowledge, rngs: Sequence[np.random.Generator]
    ) -> list[Draw]:
        """One draw for each generator; see `Proposal`."""
        if knowledge.is_masked:
            await knowledge.settle_closings(outcomes.p)
            return _draw_known(outcomes, rngs)
        if self.estimator == "head-tail":
            head = await self._learn(outcomes, knowledge)
            exhausted = not head.accepted and head.unknown.mass == 0.0
            draws = [await self._draw(head, outcomes, knowledge, rng) for rng in rngs]
        else:
            estimate = ESTIMATORS[self.estimator]
            draws = [await estimate(outcomes, knowledge, rng) for rng in rngs]
            # These give up only when everything is rejected.
            exhausted = all(draw is DEAD for draw in draws)
        if exhausted and (lost := outcomes.underflowed()) is not None:
            return await self.draw(lost, knowledge, rngs)
        return draws

    async def _learn(self, outcomes: Outcomes, knowledge: Knowledge) -> _Head:
        """Check the likeliest outcomes while it pays. No random number is used here."""
        unknown = Urn(outcomes.p)
        accepted: list[int] = []
        weights: list[float] = []
        rejected = 0.0
        head = 0.0
        ranked = unknown.ranked()
        for _ in range(self.max_checks):
            rest = unknown.mass
            if rest <= self.negligible * head:
                break
            outcome = next(ranked, None)
            if outcome is None:
                break
            if accepted and unknown.weight(outcome) < self.fair_share * rest:
                break
            weight = unknown.remove(outcome)
            if await knowledge.check(outcome):
                accepted.append(outcome)
                weights.append(weight)
                head = math.fsum(weights)
            else:
                rejected += weight
        return _Head(accepted, np.cumsum(weights), unknown, *self._tail(head, rejected, unknown))

    def _tail(self, head: float, rejected: float, unknown: Urn) -> tuple[int, float]:
        """How many draws from the tail, and with what probability it is visited at all."""
        rest = unknown.mass
        if rest == 0.0:
            return 0, 0.0
        if rest <= self.negligible * head:
            return 1, rest / (self.negligible * head)
        # The share of the tail that is allowed is guessed from the verdicts so far; enough
        # draws that the standard deviation of W is a quarter of its mean, but at most four.
        share = (head + 0.5 * rest) / (head + rejected + rest)
        mean = head + share * rest
        variance = rest * rest * share * (1.0 - share)
        return min(4, max(1, math.ceil(variance / (0.25 * mean) ** 2))), 1.0

    async def _draw(
        self, head: _Head, outcomes: Outcomes, knowledge: Knowledge, rng: np.random.Generator
    ) -> Draw:
        mass = head.mass
        found: list[int] = []
        worth = 0.0
        if head.draws and (head.visits == 1.0 or rng.random() < head.visits):
            worth = head.unknown.mass / (head.visits * head.draws)
            tail = [head.unknown.draw(rng) for _ in range(head.draws)]
            # Repeated draws count again: merging them would halve the weight of their sum.
            found = [outcome for outcome in tail if await knowledge.check(outcome)]
        total = mass + worth * len(found)
        if total <= 0.0:
            return DEAD
        log_weight = outcomes.log_scale + math.log(total)
        if rng.random() * total < mass:
            place = pick(head.cumulative, rng.random() * mass)
            return Draw(head.accepted[place], log_weight)
        return Draw(found[int(rng.integers(len(found)))], log_weight)


@dataclass(frozen=True, slots=True)
class _Head:
    """What is known when the randomness begins: A with its cumulative weights, and U."""

    accepted: list[int]
    cumulative: np.ndarray
    unknown: Urn
    draws: int
    visits: float

    @property
    def mass(self) -> float:
        return float(self.cumulative[-1]) if len(self.cumulative) else 0.0


def _draw_known(outcomes: Outcomes, rngs: Sequence[np.random.Generator]) -> list[Draw]:
    """All verdicts are known and in `p`: W is the mass, without noise."""
    urn = Urn(outcomes.p)
    mass = urn.mass
    if mass == 0.0:
        return [DEAD] * len(rngs)
    log_weight = outcomes.log_scale + math.log(mass)
    return [Draw(urn.draw(rng), log_weight) for rng in rngs]
