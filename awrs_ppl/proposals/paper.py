"""The estimators of the AWRS paper, and of its authors' later refinements.

Lipkin et al., "Fast Controlled Generation from Language Models with Adaptive Weighted
Rejection Sampling", COLM 2025 (arXiv 2504.05410). All of them draw without replacement, by
removing what was rejected, until something is accepted; they differ in the weight.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from awrs_ppl._messages import quoted
from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.proposals.pool import masked_pool
from awrs_ppl.proposals.proposal import DEAD, Draw
from awrs_ppl.tokens.next_token import Outcomes
from awrs_ppl.tokens.underflow import Underflow, require_digits, rescaled, underflows
from awrs_ppl.tokens.urn import Urn

__all__ = ["ESTIMATORS", "LocalAWRS", "PaperAWRS"]

_RARE = -36.0  # about 2^-52: below it one trial more or less changes no digit of a float


class _Rest:
    """The outcomes at a context without those removed, on a finer scale where few are left.

    `mass` is on that scale: it is zero only if nothing is left, however small.
    """

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes, self._urn = outcomes, outcomes.urn().copy()
        self._removed: list[int] = []
        self._refine()

    @property
    def mass(self) -> float:
        return self._urn.mass

    @property
    def log_mass(self) -> float:
        return self._log(self._urn.mass)

    def draw(self, rng: np.random.Generator) -> int:
        """Draw an outcome by its weight, and leave it in. There must be mass."""
        return self._urn.draw(rng)

    def remove(self, outcome: int) -> float:
        """Take an outcome out; the logarithm of what it weighed."""
        log_weight = self._log(self._urn.remove(outcome))
        self._removed.append(outcome)
        self._refine()
        return log_weight

    def _log(self, weight: float) -> float:
        return self._outcomes.log_scale + math.log(weight) if weight > 0.0 else -math.inf

    def _refine(self) -> None:
        if underflows(self._urn.mass):
            finer = rescaled(self._outcomes, np.array(self._removed, dtype=np.int64))
            if finer is not None:
                self._outcomes, self._urn = finer, finer.urn()


async def _until_accepted(
    urn: Urn | _Rest, verdicts: NextVerdicts, rng: np.random.Generator
) -> tuple[int | None, int]:
    """Draw and remove until an outcome is accepted: it (left in the urn) and the rejections."""
    rejections = 0
    while urn.mass > 0.0:
        outcome = urn.draw(rng)
        if await verdicts.check(outcome):
            return outcome, rejections
        urn.remove(outcome)
        rejections += 1
    return None, rejections


async def two_loop(outcomes: Outcomes, verdicts: NextVerdicts, rng: np.random.Generator) -> Draw:
    """Definition 2: W = (mass left after the first loop) / (1 + rejections in both loops).

    The second loop continues with what the first one left. Where that is zero on this scale, all
    is done again on a finer one, and no rejection counts: half of the estimate would otherwise
    depend on a first draw that never comes.
    """
    urn = outcomes.urn().copy()
    accepted, first = await _until_accepted(urn, verdicts, rng)
    if accepted is None:
        return DEAD
    left = urn.mass
    _, second = await _until_accepted(urn, verdicts, rng)
    return Draw(accepted, outcomes.log_scale + math.log(left) - math.log1p(first + second))


async def recursive(outcomes: Outcomes, verdicts: NextVerdicts, rng: np.random.Generator) -> Draw:
    """W = (mass left) times 1 or the share of the accepted outcome x, by one further draw.

    Of the mass left when x is drawn, x is allowed for certain; a draw from what is left
    without x decides about the rest.
    """
    rest = _Rest(outcomes)
    accepted, _ = await _until_accepted(rest, verdicts, rng)
    if accepted is None:
        return DEAD
    left = rest.log_mass
    log_weight = rest.remove(accepted)
    if rest.mass > 0.0 and await verdicts.check(rest.draw(rng)):
        log_weight = left
    return Draw(accepted, log_weight)


async def geometric(outcomes: Outcomes, verdicts: NextVerdicts, rng: np.random.Generator) -> Draw:
    """W = mass / (trials - 1) of rejection sampling with replacement until two acceptances.

    Trials that would have hit an outcome already rejected are not made but counted: before
    each draw their number is geometric. (trials - 1)^-1 is the unbiased estimate of the
    probability of acceptance from a negative binomial with two successes.
    """
    rest = _Rest(outcomes)
    log_mass = rest.log_mass
    first: int | None = None
    log_trials = 0.0  # without the second success
    while rest.mass > 0.0:
        missed = _log_missed(rest.log_mass - log_mass, rng)
        log_trials = float(np.logaddexp(log_trials, missed))
        outcome = rest.draw(rng)
        if not await verdicts.check(outcome):
            rest.remove(outcome)
            log_trials = float(np.logaddexp(log_trials, 0.0))
        elif first is None:
            first = outcome
        else:
            return Draw(first, log_mass - log_trials)
    return DEAD


def _log_missed(log_hit: float, rng: np.random.Generator) -> float:
    """The logarithm of how many trials miss before one hits, which has the log-chance `log_hit`."""
    if log_hit >= 0.0:
        return -math.inf
    if log_hit > _RARE:
        missed = int(rng.geometric(math.exp(log_hit))) - 1
        return math.log(missed) if missed else -math.inf
    # Whole numbers of numpy end at 2^63. This far out rounding down changes no digit.
    return math.log(rng.standard_exponential()) - log_hit


Estimator = Callable[[Outcomes, NextVerdicts, np.random.Generator], Awaitable[Draw]]

ESTIMATORS: dict[str, Estimator] = {
    "two-loop": two_loop,
    "recursive": recursive,
    "geometric": geometric,
}


@dataclass(frozen=True, slots=True)
class PaperAWRS:
    """An estimator of the paper: it knows nothing but masks, and learns nothing for others.

    `estimator` is `"two-loop"`, the paper's Definition 2, or one of its authors' later refinements
    `"recursive"` and `"geometric"`, without a cut-off at small mass. Where all factors have masks
    the weight is the mass. Raises `ValueError` for any other.

    >>> PaperAWRS("geometric")
    PaperAWRS(estimator='geometric')
    """

    estimator: Literal["two-loop", "recursive", "geometric"] = "two-loop"

    uses_masks = True
    uses_verdicts = False
    is_proper = True

    def __post_init__(self) -> None:
        if not isinstance(self.estimator, str) or self.estimator not in ESTIMATORS:
            raise ValueError(
                f"PaperAWRS got estimator={quoted(self.estimator)}: choose one of "
                f"{list(ESTIMATORS)}"
            )

    async def draw(
        self, outcomes: Outcomes, verdicts: NextVerdicts, rngs: Sequence[np.random.Generator]
    ) -> list[Draw]:
        """One draw for each generator; see `Proposal`."""
        if verdicts.is_masked:
            return (await masked_pool(outcomes, verdicts)).draw(len(rngs), rngs[0])
        estimate = ESTIMATORS[self.estimator]
        draws = [await estimate(outcomes, verdicts, rng) for rng in rngs]
        if all(draw is DEAD for draw in draws):
            raise Underflow  # or nothing is left: they stop where all with mass is rejected
        require_digits(outcomes.mass)
        return draws


@dataclass(frozen=True, slots=True)
class LocalAWRS:
    """The paper's locally constrained decoding: the first accepted outcome, with weight 1.

    Valid texts, but from the wrong distribution: what local masking does. There is no evidence, so
    `log_ml` is NaN.

    >>> LocalAWRS().is_proper
    False
    """

    uses_masks = True
    uses_verdicts = False
    is_proper = False

    async def draw(
        self, outcomes: Outcomes, verdicts: NextVerdicts, rngs: Sequence[np.random.Generator]
    ) -> list[Draw]:
        """One draw for each generator; see `Proposal`."""
        draws = []
        for rng in rngs:
            accepted, _ = await _until_accepted(_Rest(outcomes), verdicts, rng)
            draws.append(DEAD if accepted is None else Draw(accepted, 0.0))
        return draws
