"""Broken versions of competing children, for `planted_faults.py` and `test_children.py`."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np

from awrs_ppl import AWRS
from awrs_ppl.inference import children, competition, in_time, inference
from awrs_ppl.inference.change import Parent
from awrs_ppl.log_weights import log_sum
from awrs_ppl.proposals import Pool

Planted = AbstractContextManager[Any]

_choose, _merge, _spread = children.choose, competition.merge, Pool.spread
_draw_tail, _child = AWRS._draw_tail, Parent.child


def equal_draws_dropped() -> Planted:
    """A token that was drawn twice weighs what one draw does."""

    def spread(self: Pool, count: int) -> None:
        if self.urn is not None:
            _spread(self, count)
            return
        ids, first = np.unique(self.ids, return_index=True)
        self.ids, self.weights, self.twists = ids, self.weights[first], self.twists[first]

    return patch.object(Pool, "spread", spread)


def one_child_for_the_tail() -> Planted:
    """Of what was drawn from the tail only the first is a child."""

    async def draw_tail(self: AWRS, head: Any, *rest: Any) -> Pool:
        known = len(head.frozen()[0])
        pool = await _draw_tail(self, head, *rest)
        pool.ids, pool.weights = pool.ids[: known + 1], pool.weights[: known + 1]
        pool.twists = pool.twists[: known + 1]
        return pool

    return patch.object(AWRS, "_draw_tail", draw_tail)


def equal_particles_dropped() -> Planted:
    """Of particles that are equal the first goes on, with its own weight."""

    def merge(particles: Any) -> Any:
        weights = {id(p): p.log_weight for p in particles}
        lost = _merge(particles)
        for particle in particles:
            if particle.log_weight > -math.inf:
                particle.log_weight = weights[id(particle)]
        return lost

    return patch.object(inference, "merge", merge)


def twist_left() -> Planted:
    """A child keeps what its parent's critic thought, and gets what its own thinks as well."""

    def child(self: Parent, new_slot: int | None, log_weight: float) -> Any:
        made = _child(self, new_slot, log_weight)
        made.log_weight += made.particle.twist
        return made

    stack = ExitStack()
    stack.enter_context(
        patch.object(competition, "_log_weight", lambda c: c.particle.log_weight + c.log_weight)
    )
    stack.enter_context(patch.object(Parent, "child", child))
    return stack


def own_weight() -> Planted:
    """A light child that is taken weighs what it did, not the threshold."""

    def choose(log_weights: Any, pools: Any, count: int, rng: Any) -> Any:
        taken, survived = _choose(log_weights, pools, count, rng)
        found = []
        for child in taken:
            pool = pools[child.parent]
            (i,) = np.flatnonzero(pool.ids == child.outcome)
            weight = math.log(pool.weights[i] * pool.twists[i]) + pool.log_scale
            found.append(child._replace(log_weight=log_weights[child.parent] + weight))
        return found, survived

    return patch.object(in_time, "choose", choose)


def normalized() -> Planted:
    """What the children weigh together is forgotten when they are compared."""

    def choose(log_weights: Any, pools: Any, count: int, rng: Any) -> Any:
        taken, survived = _choose(log_weights, pools, count, rng)
        total = log_sum([child.log_weight for child in taken]) - math.log(len(log_weights))
        return [child._replace(log_weight=child.log_weight - total) for child in taken], survived

    return patch.object(in_time, "choose", choose)


def shuffled() -> Planted:
    """Right, but in a random order: where all weigh the same, lineages are lost for nothing."""

    def choose(log_weights: Any, pools: Any, count: int, rng: Any) -> Any:
        for pool in pools:
            pool.spread(100)
        alone = [
            (i, Pool(pool.log_scale, pool.ids[j : j + 1], pool.weights[j : j + 1], np.ones(1)))
            for i, pool in enumerate(pools)
            for j in range(len(pool.ids))
        ]
        alone = [alone[k] for k in rng.permutation(len(alone))]
        taken, survived = _choose(
            [log_weights[i] for i, _ in alone], [pool for _, pool in alone], count, rng
        )
        return [child._replace(parent=alone[child.parent][0]) for child in taken], survived

    return patch.object(in_time, "choose", choose)


def unsplit() -> Planted:
    """Right, but a heavy particle stays one where it tosses a coin."""
    return patch.object(inference, "draw_only_from_pools", lambda particles: True)
