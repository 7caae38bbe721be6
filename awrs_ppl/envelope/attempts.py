"""Attempts: walks through a trie, each of which ends in an exact draw or is rejected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from awrs_ppl._concurrency import together
from awrs_ppl.envelope.bounds import settle
from awrs_ppl.envelope.node import Node
from awrs_ppl.envelope.trie import Trie
from awrs_ppl.log_weights import log_sum
from awrs_ppl.tokens.urn import pick

__all__ = ["Attempt", "Attempts"]


@dataclass(slots=True, eq=False)
class Attempt:
    """A walk that has come to `node`, None once it is over; `end` is then where the program
    returned, None if the walk was rejected.

    `held` is the logarithm of the bound of what follows by which this place was chosen, `log_root`
    that of the evidence when the walk began. `start`: of the node's outcomes only those from this
    place on are left, because one of the rest of its table was drawn. `place` is what was drawn.
    """

    rng: np.random.Generator
    node: Node | None
    held: float
    log_root: float
    start: int = 0
    place: int = 0
    end: Node | None = None

    def survives(self, now: float) -> bool:
        """Whether it goes on, where no more than `now` is left of the bound by which it came."""
        if math.log1p(-self.rng.random()) < now - self.held:
            self.held = now
            return True
        self.node = None
        return False


class Attempts:
    """Walks from the root of a trie, side by side.

    At a node u with the bound E(u) of what follows, a walk takes the outcome a with probability
    p(a) E(ua) / E(u). Where more is known of ua when the walk comes there, so that its bound is now
    E'(ua), it goes on with probability E'(ua) / E(ua), and is rejected else. So an execution x
    comes out with probability p(x) / E(root), with E(root) as it was when the walk began, whatever
    was learned meanwhile, by this walk or by others: all factors between cancel. What comes out are
    independent draws from the posterior, and E(root) times the share of walks that come out is an
    unbiased estimate of the evidence. A context that was never met has the bound 1, and its mask
    rejects by its mass.

    Source: constrained adaptive rejection sampling (arXiv 2510.01902), where nothing is learned
    during an attempt.
    """

    def __init__(self, trie: Trie) -> None:
        self.trie = trie

    def begin(self, rng: np.random.Generator) -> Attempt:
        """A walk at the root."""
        root = self.trie.root
        high = -math.inf if root is None else root.high
        return Attempt(rng, root if high > -math.inf else None, high, self.trie.log_high)

    async def walk(self, attempts: Sequence[Attempt]) -> None:
        """Take all of them on until they are over or need a row; all these rows come in one
        forward pass."""
        touched: dict[Node, None] = {}
        try:
            while drawn := [attempt for attempt in attempts if _draws(attempt)]:
                touched.update((a.node, None) for a in drawn if a.node is not None)
                await self._follow(drawn)
            waiting = dict.fromkeys(a.node for a in attempts if a.node is not None)
            touched.update(waiting)  # pyright: ignore[reportArgumentType, reportCallIssue]
            if waiting:
                await self.trie.tabulate([*filter(None, waiting)])
        finally:
            settle(touched)

    async def _follow(self, drawn: Sequence[Attempt]) -> None:
        places: dict[Node, dict[int, None]] = {}
        # By what they came here, before more is known.
        held = [0.0] * len(drawn)
        for i, attempt in enumerate(drawn):
            node = attempt.node
            assert node is not None
            if node.table is not None:
                held[i] = node.table.high.get(attempt.place, 0.0)
                places.setdefault(node, {})[attempt.place] = None
        await together(self.trie.follow(node, list(which)) for node, which in places.items())
        opaque = [a for a in drawn if a.node is not None and a.node.opaque]
        found = await together(self.trie.sampled(a.node, a.rng) for a in opaque if a.node)
        reached = dict(zip(map(id, opaque), found, strict=True))
        for attempt, bound in zip(drawn, held, strict=True):
            node = attempt.node
            assert node is not None
            default = None, -math.inf
            child, weight = reached.get(id(attempt)) or node.children.get(attempt.place, default)
            attempt.node, attempt.start = child, 0
            if child is not None:
                attempt.held = bound - weight
                attempt.survives(child.high)


def _draws(attempt: Attempt) -> bool:
    """Draw an outcome where it is known what there is; whether one was drawn."""
    node = attempt.node
    if node is None:
        return False
    if node.is_end:
        attempt.end, attempt.node = node, None
        return False
    if node.opaque:
        return True
    table = node.table
    if table is None or 0 < attempt.start == len(table.outcomes):
        return False
    highs = np.append(table.highs(), table.rest)
    highs[: attempt.start] = -math.inf
    total = log_sum(highs)
    if not attempt.survives(total):
        return False
    cumulative = np.cumsum(np.exp(highs - total))
    attempt.place = pick(cumulative, attempt.rng.random() * cumulative[-1])
    if attempt.place < len(table.outcomes):
        return True
    # Which one it is takes the row again.
    attempt.start, attempt.held = attempt.place, table.rest
    return False
