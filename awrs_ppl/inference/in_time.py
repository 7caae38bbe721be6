"""Children that can end in time compete among themselves.

A refinement of the competition of children, near `max_tokens`. Where it costs nothing to go on and
something to end, as in a string of JSON, children that go on outweigh those that end at every
token, and at the limit all die. So the late ones and those in time (`proposals/room.py`) compete
apart, each for some of the places. A child's weight is what it is in the one competition, and which
children are in which is no matter for that: the choice is unbiased in each.

Those in time have the places that their weight is worth, at least half of all; the late ones the
others, at least one, for that they are late is a guess.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from awrs_ppl.inference.children import Child, choose
from awrs_ppl.log_weights import log_sum
from awrs_ppl.proposals import Pool

__all__ = ["Entry", "choose_apart"]

# The number of a parent, its log-weight, and its pool or a part of it.
Entry = tuple[int, float, Pool]


def choose_apart(
    in_time: Sequence[Entry], late: Sequence[Entry], count: int, rng: np.random.Generator
) -> tuple[list[Child], float]:
    """At most `count` children, by parent, and which share they had of the weight of all; see
    `choose`. Entries must have weight; where both are there, `count` is at least 2."""
    if not in_time or not late:
        return _chosen([*in_time, *late], count, rng)
    weights = [
        log_sum([log_weight + pool.log_mass for _, log_weight, pool in entries])
        for entries in (in_time, late)
    ]
    share = 1.0 / (1.0 + math.exp(min(weights[1] - weights[0], 700.0)))
    most = min(max(math.ceil(count / 2), round(share * count)), count - 1)
    # What one of them has too few children for the other has.
    most = max(most, count - sum(pool.size for _, _, pool in late))
    first, survived = _chosen(in_time, most, rng)
    second, of_late = _chosen(late, count - len(first), rng)
    children = sorted([*first, *second], key=lambda child: (child.parent, child.outcome))
    return children, share * survived + (1.0 - share) * of_late


def _chosen(
    entries: Sequence[Entry], count: int, rng: np.random.Generator
) -> tuple[list[Child], float]:
    log_weights = [log_weight for _, log_weight, _ in entries]
    children, survived = choose(log_weights, [pool for _, _, pool in entries], count, rng)
    return [child._replace(parent=entries[child.parent][0]) for child in children], survived
