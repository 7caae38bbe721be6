"""Pools: the allowed outcomes at one context, from which draws are made or children taken.

A pool stands for the distribution of weights that a proposal found: an outcome known to be
allowed by its own weight, one that was drawn from the unknown ones by the weight of its draw. So
the expectation of what an outcome weighs in it is p(v) c(v).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.proposals.proposal import DEAD, Draw
from awrs_ppl.tokens.next_token import NOTHING, Outcomes
from awrs_ppl.tokens.underflow import require_digits
from awrs_ppl.tokens.urn import Urn, pick, strata

__all__ = ["Pool", "masked_pool"]

_NO_WEIGHTS = np.empty(0)


@dataclass(slots=True)
class Pool:
    """Outcomes `ids` with their `weights` times `exp(log_scale)`, and those left in `urn`, all of
    which are allowed.

    They are drawn by their weights times `twists`, guesses of verdicts that are still to come
    (1 in the urn); what is drawn is divided by its twist.
    """

    log_scale: float
    ids: np.ndarray = field(default_factory=lambda: NOTHING)
    weights: np.ndarray = field(default_factory=lambda: _NO_WEIGHTS)
    twists: np.ndarray = field(default_factory=lambda: _NO_WEIGHTS)
    urn: Urn | None = None

    @property
    def log_mass(self) -> float:
        """The logarithm of what all outcomes weigh, with their twists."""
        mass = float(self.weights @ self.twists) + (self.urn.mass if self.urn else 0.0)
        return self.log_scale + math.log(mass) if mass > 0.0 else -math.inf

    def draw(self, count: int, rng: np.random.Generator) -> list[Draw]:
        """Draws at stratified positions; each alone has the distribution of the pool."""
        if self.urn is not None:
            log_weight = self.log_scale + math.log(self.urn.mass)
            return [Draw(self.urn.at(position), log_weight) for position in strata(count, rng)]
        cumulative = np.cumsum(self.weights * self.twists)
        if len(cumulative) == 0 or cumulative[-1] <= 0.0:
            return [DEAD] * count
        total = float(cumulative[-1])
        log_weight = self.log_scale + math.log(total)
        draws = []
        for reach in strata(count, rng) * total:
            i = pick(cumulative, reach)
            log_twist = math.log(self.twists[i])
            draws.append(Draw(int(self.ids[i]), log_weight - log_twist, log_twist))
        return draws

    @property
    def size(self) -> int:
        """How many outcomes have weight."""
        if self.urn is not None:
            return self.urn.count()
        return len(np.unique(self.ids[self.weights > 0.0]))

    def share_of(self, outcomes: np.ndarray) -> float:
        """What share of all these outcomes weigh, each of which is given once."""
        if self.urn is not None:
            return self.urn.mass_of(outcomes) / self.urn.mass
        weights = self.weights * self.twists
        return float(weights[np.isin(self.ids, outcomes)].sum()) / float(weights.sum())

    def divided(self, outcomes: np.ndarray) -> tuple[Pool | None, Pool | None]:
        """Two pools of one that has weight: these outcomes, and all others; None for one without
        weight. The pool is used up."""
        if self.urn is not None:
            weights = np.array([self.urn.remove(outcome) for outcome in outcomes.tolist()])
            parts = Pool(self.log_scale, outcomes, weights, np.ones(len(outcomes))), self
        else:
            inside = np.isin(self.ids, outcomes)
            parts = tuple(
                Pool(self.log_scale, self.ids[which], self.weights[which], self.twists[which])
                for which in (inside, ~inside)
            )
        first, second = (part if part.log_mass > -math.inf else None for part in parts)
        return first, second

    def spread(self, count: int) -> None:
        """Take the `count` heaviest outcomes, or all that there are, out of the urn into `ids`;
        those taken before count. `ids` are then in order, each once, with all that it weighs.

        An outcome drawn several times is one of the sum of these weights: dropping the repeats
        would bias it.
        """
        if self.urn is not None:
            ids, weights = self.urn.take(count - len(self.ids))
            self.ids = np.concatenate([self.ids, ids])
            self.weights = np.concatenate([self.weights, weights])
            self.twists = np.ones(len(self.ids))
        ids, first, places = np.unique(self.ids, return_index=True, return_inverse=True)
        self.ids, self.twists = ids, self.twists[first]
        self.weights = np.bincount(places, self.weights, len(ids))


async def masked_pool(outcomes: Outcomes, verdicts: NextVerdicts) -> Pool:
    """The pool where every factor has a mask: its mass has no noise."""
    urn = outcomes.urn()
    # Ends are in no mask; with their verdicts nothing is unknown.
    size = verdicts.vocabulary.size
    for outcome in range(size, size + len(verdicts.closings.ends)):
        if urn.weight(outcome) > 0.0 and not await verdicts.check(outcome):
            urn.remove(outcome)
    require_digits(urn.mass)
    return Pool(outcomes.log_scale, urn=urn)
