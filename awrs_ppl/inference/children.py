"""Competing children: of all allowed next tokens of all particles, the heaviest stay.

A refinement of resampling. Copies of a few particles, each of which draws one token, all go where
a text has begun well. Where next tokens are known, the next generation is chosen among the
*children* instead, every allowed outcome of every particle with its exact weight:

1. *Merge*: particles that have made the same choices are one, with the sum of their weights
   (`merge`, in `competition.py`).
2. *Pool*: the children are weighed; those of one particle come from its proposal's `Pool`.
3. *Choose*: 1/c is found so that sum min(c w, 1) is the number of slots. Children that weigh at
   least 1/c stay as they are; of the others a systematic sample is taken, with probability c w
   each, and each of these weighs 1/c.

No two particles are equal afterwards, the sum of the weights is what it was, and a child's weight
is w in expectation; of all such schemes it has the least expected squared error of weights.

The order of the sample decides what it is worth: by particle, and within one by outcome. With
equal weights each particle then keeps one child. A random order would be as unbiased, and lose
lineages for nothing.

Source: Fearnhead, Clifford, "On-line inference for hidden Markov models via particle filters",
Journal of the Royal Statistical Society B 65, 2003.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from awrs_ppl.proposals import Pool
from awrs_ppl.tokens.urn import pick

__all__ = ["Child", "choose", "threshold"]

_IN_URN = -1
_FEW = 64  # outcomes of an urn that are looked at one by one, at first


class Child(NamedTuple):
    """An outcome of the parent with this index; its log-weight includes its log-twist."""

    parent: int
    outcome: int
    log_weight: float
    log_twist: float


def threshold(weights: np.ndarray, rest: float, count: int) -> float:
    """The weight 1/c with sum min(c w, 1) = `count`; 0 if there are at most so many.

    `weights` are the heaviest, in any order, `rest` is the sum of all others: none of these may
    be above the threshold, and none is if `weights` has the `count` heaviest of each parent.

    >>> threshold(np.array([8.0, 1.0, 1.0, 1.0]), 0.0, 2), threshold(np.array([1.0]), 0.0, 2)
    (3.0, 0.0)
    """
    ordered = np.sort(weights[weights > 0.0])[::-1]
    if len(ordered) <= count and rest <= 0.0:
        return 0.0
    # Summed from the lightest, so that what is small is not lost beside what is heavy.
    left = np.cumsum(np.append(ordered, rest)[::-1])[::-1]
    levels = left[:count] / (count - np.arange(min(count, len(left))))
    # With so many heavy ones, the first is light that is below the mean of what is left.
    light = np.flatnonzero(np.append(ordered, 0.0)[: len(levels)] < levels)
    return float(levels[light[0]]) if len(light) else float(ordered[count - 1])


def choose(
    log_weights: Sequence[float], pools: Sequence[Pool], count: int, rng: np.random.Generator
) -> tuple[list[Child], float]:
    """At most `count` children of parents with these log-weights, by parent; and which share they
    had of the weight of all.

    `pools` are the parents', and are used up; parents at one context may share one. A child weighs
    what its parent does times what the outcome does in the pool, twist included. Not all pools may
    be empty.
    """
    top = max(weight + pool.log_mass for weight, pool in zip(log_weights, pools, strict=True))
    factors = [
        math.exp(weight + pool.log_scale - top)
        for weight, pool in zip(log_weights, pools, strict=True)
    ]
    parents, outcomes, twists, weights, level = _spread(pools, factors, count)
    alone = outcomes != _IN_URN
    heavy = alone & (weights >= level) & (weights > 0.0)
    # By where they lie, so that children come by parent.
    found = {(int(i), int(outcomes[i])): float(weights[i]) for i in np.flatnonzero(heavy)}
    survived = math.fsum(found.values())
    missing = count - len(found)
    light = np.where(heavy, 0.0, weights)
    cumulative = np.cumsum(light)
    if level > 0.0 and missing > 0 and cumulative[-1] > 0.0:
        level = float(cumulative[-1]) / missing
        for reach in (rng.random() + np.arange(missing)) * level:
            i = pick(cumulative, reach)
            outcome, weight = int(outcomes[i]), float(weights[i])
            if outcome == _IN_URN:
                pool, factor = pools[parents[i]], factors[parents[i]]
                assert pool.urn is not None
                outcome = pool.urn.at((reach - (cumulative[i] - light[i])) / light[i])
                weight = pool.urn.weight(outcome) * factor
            survived += weight
            # One that rounding hits twice has both weights.
            found[i, outcome] = found.get((i, outcome), 0.0) + level
    children = [
        Child(int(parents[i]), outcome, top + math.log(weight), math.log(twists[i]))
        for (i, outcome), weight in sorted(found.items())
    ]
    return children, survived / math.fsum(weights)


def _spread(
    pools: Sequence[Pool], factors: Sequence[float], count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """The children by parent, those that stand alone and then all others together: their parents,
    outcomes, twists and weights; and the threshold.

    Few of each urn are looked at first, and more only where one of those left may be heavy.
    """
    most = min(count, _FEW)
    while True:
        for pool in {id(pool): pool for pool in pools}.values():
            pool.spread(most)
        rests = [pool.urn.mass if pool.urn else 0.0 for pool in pools]
        parts = [np.append(p.weights * p.twists, r) for p, r in zip(pools, rests, strict=True)]
        weights = np.concatenate([part * f for part, f in zip(parts, factors, strict=True)])
        outcomes = np.concatenate([np.append(pool.ids, _IN_URN) for pool in pools])
        alone = outcomes != _IN_URN
        level = threshold(weights[alone], math.fsum(weights[~alone]), count)
        if most == count or not any(
            rest > 0.0 and part[:-1].min() * factor >= level
            for rest, part, factor in zip(rests, parts, factors, strict=True)
        ):
            break
        most = min(4 * most, count)
    parents = np.repeat(np.arange(len(pools)), [len(part) for part in parts])
    twists = np.concatenate([np.append(pool.twists, 1.0) for pool in pools])
    return parents, outcomes, twists, weights, level
