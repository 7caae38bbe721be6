"""Bounds of a trie, from its leaves to its root, and weights, from its root to its leaves."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from itertools import count

from awrs_ppl.envelope.node import Node

__all__ = ["masses", "settle"]


def settle(nodes: Iterable[Node]) -> None:
    """Bring what was learned at these nodes up to the root."""
    order = count()
    waiting: list[tuple[tuple[int, int], int, Node]] = []
    queued: set[Node] = set()

    def push(node: Node) -> None:
        if node not in queued:
            queued.add(node)
            records, tokens = node.rank
            # The deepest first: what comes to a node comes from below.
            heapq.heappush(waiting, ((-records, -tokens), next(order), node))

    for node in nodes:
        push(node)
    while waiting:
        node = heapq.heappop(waiting)[2]
        if node.table is None:
            continue
        low, high = node.table.bounds()
        if (low, high) == (node.low, node.high):
            continue
        node.low, node.high = low, high
        for edge in node.edges:
            edge.parent.note(edge.place, low + edge.log_weight, high + edge.log_weight)
            push(edge.parent)


def masses(root: Node, log_weight: float) -> list[tuple[Node, float]]:
    """The ends that were found below a node of this log-weight, and that of each, over all ways
    that lead to it."""
    order = count()
    found: list[tuple[Node, float]] = []
    weights = {root: log_weight}
    waiting = [(root.rank, next(order), root)]
    while waiting:
        node = heapq.heappop(waiting)[2]
        here = weights[node]
        if node.is_end:
            found.append((node, here + node.low))
            continue
        for place, (child, weight) in node.children.items():
            if child.low == -math.inf:
                continue
            assert node.table is not None
            there = here + float(node.table.weights[place]) + weight
            if child in weights:
                weights[child] = _log_add(weights[child], there)
            else:
                weights[child] = there
                heapq.heappush(waiting, (child.rank, next(order), child))
    return found


def _log_add(a: float, b: float) -> float:
    top = max(a, b)
    return top + math.log1p(math.exp(min(a, b) - top)) if top > -math.inf else top
