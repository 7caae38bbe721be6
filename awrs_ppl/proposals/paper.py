"""The estimators of the AWRS paper, and of its authors' later refinements.

Lipkin et al., "Fast Controlled Generation from Language Models with Adaptive Weighted
Rejection Sampling", COLM 2025 (arXiv 2504.05410). All of them draw without replacement, by
removing what was rejected, until something is accepted; they differ in the weight.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from awrs_ppl.knowledge import Knowledge
from awrs_ppl.outcomes import Outcomes
from awrs_ppl.proposals.proposal import DEAD, Draw
from awrs_ppl.urn import Urn

__all__ = ["ESTIMATORS", "LocalAWRS"]


async def _until_accepted(
    urn: Urn, knowledge: Knowledge, rng: np.random.Generator
) -> tuple[int | None, int]:
    """Draw and remove until an outcome is accepted: it (left in the urn) and the rejections."""
    rejections = 0
    while urn.mass > 0.0:
        outcome = urn.draw(rng)
        if await knowledge.check(outcome):
            return outcome, rejections
        urn.remove(outcome)
        rejections += 1
    return None, rejections


async def two_loop(outcomes: Outcomes, knowledge: Knowledge, rng: np.random.Generator) -> Draw:
    """Definition 2: W = (mass left after the first loop) / (1 + rejections in both loops).

    The second loop goes on with the urn that the first one left.
    """
    urn = outcomes.urn().copy()
    accepted, first = await _until_accepted(urn, knowledge, rng)
    if accepted is None:
        return DEAD
    left = urn.mass
    _, second = await _until_accepted(urn, knowledge, rng)
    return Draw(accepted, outcomes.log_scale + math.log(left) - math.log1p(first + second))


async def recursive(outcomes: Outcomes, knowledge: Knowledge, rng: np.random.Generator) -> Draw:
    """W = (mass left) times 1 or the share of the accepted outcome x, by one further draw.

    Of the mass left when x is drawn, x is allowed for certain; a draw from what is left
    without x decides about the rest.
    """
    urn = outcomes.urn().copy()
    accepted, _ = await _until_accepted(urn, knowledge, rng)
    if accepted is None:
        return DEAD
    left = urn.mass
    weight = urn.remove(accepted)
    if urn.mass > 0.0 and await knowledge.check(urn.draw(rng)):
        weight = left
    return Draw(accepted, outcomes.log_scale + math.log(weight))


async def geometric(outcomes: Outcomes, knowledge: Knowledge, rng: np.random.Generator) -> Draw:
    """W = mass / (trials - 1) of rejection sampling with replacement until two acceptances.

    Trials that would have hit an outcome already rejected are not made but counted: before
    each draw their number is geometric. (trials - 1)^-1 is the unbiased estimate of the
    probability of acceptance from a negative binomial with two successes.
    """
    urn = outcomes.urn().copy()
    mass = urn.mass
    first: int | None = None
    rejections = 0
    while urn.mass > 0.0:
        if (hit := urn.mass / mass) < 1.0:
            rejections += int(rng.geometric(hit)) - 1
        outcome = urn.draw(rng)
        if not await knowledge.check(outcome):
            urn.remove(outcome)
            rejections += 1
        elif first is None:
            first = outcome
        else:
            return Draw(first, outcomes.log_scale + math.log(mass) - math.log1p(rejections))
    return DEAD


Estimator = Callable[[Outcomes, Knowledge, np.random.Generator], Awaitable[Draw]]

ESTIMATORS: dict[str, Estimator] = {
    "two-loop": two_loop,
    "recursive": recursive,
    "geometric": geometric,
}


@dataclass(frozen=True, slots=True)
class LocalAWRS:
    """The paper's locally constrained decoding: the first accepted outcome, with weight 1.

    Valid texts, but from the wrong law: what local masking does. There is no evidence, so
    `log_ml` is NaN.

    >>> LocalAWRS().is_proper
    False
    """

    uses_masks = True
    uses_knowledge = False
    is_proper = False

    async def draw(
        self, outcomes: Outcomes, knowledge: Knowledge, rngs: Sequence[np.random.Generator]
    ) -> list[Draw]:
        """One draw for each generator; see `Proposal`."""
        draws = []
        for rng in rngs:
            accepted, _ = await _until_accepted(outcomes.urn().copy(), knowledge, rng)
            draws.append(DEAD if accepted is None else Draw(accepted, 0.0))
        return draws
