"""States after contexts, for layers whose state is no list of tokens.

*Snapshot.* A layer of a state space, a convolution or linear attention carries a state from token
to token. It cannot be cut back to an earlier one, and padding would enter it. So the state of a
row is kept whole, where a pass ended: at the ends of rows and of prompts. A row is copied out of
the pass that made it and into each pass that continues it, so that forks share nothing; one whose
snapshot is gone starts at the nearest before it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import cache_utils
from transformers.cache_utils import Cache, CacheLayerMixin

from awrs_ppl.errors import AwrsError

__all__ = ["Snapshots", "joined", "row_of", "size_of"]

_CACHES = (
    Cache,
    CacheLayerMixin,
    getattr(cache_utils, "LinearAttentionCacheLayerMixin", CacheLayerMixin),
)
_ROWS_AT = {"indexer_position_ids": 1}  # which axis of a tensor counts the rows, if not the first


@dataclass(slots=True, eq=False)
class _Snapshot:
    """The state after a context, which `fed` tokens led to from an earlier one.

    `after` says after which nodes the rows ended that went on from it.
    """

    state: list[Any]
    fed: int
    size: int
    after: set[Any] = field(default_factory=set)

    @property
    def is_passed(self) -> bool:
        """Whether this was a step of one row that has gone on: nobody is likely to return."""
        return self.fed == 1 and len(self.after) == 1


class Snapshots:
    """Snapshots by node of the tree of contexts, within two thirds of `memory` bytes.

    One third is for the rows at work. `size` is what a state takes after one token.
    """

    def __init__(self, memory: int, size: int) -> None:
        self.memory, self.size = memory, max(1, size)
        self.limit = memory * 2 // 3
        if self.limit < 2 * size:
            raise AwrsError(
                f"{memory} bytes of memory=... are left for the states of layers without keys, "
                f"{size} bytes each: give more than {6 * size} bytes"
            )
        self.clear()

    def clear(self) -> None:
        self.nbytes = 0
        self._kept: dict[Any, _Snapshot] = {}  # least recently used first

    def __contains__(self, node: object) -> bool:
        return node in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def rows_at_work(self, node: Any) -> int:
        """How many rows like the one that goes on from `node` a pass may have."""
        kept = self._kept.get(node)
        size = max(self.size, kept.size if kept else 0)
        return max(1, self.memory // (6 * size))  # what goes in, and what comes out

    def batch(self, nodes: Sequence[Any]) -> list[Any] | None:
        """A copy of the states after some nodes as one batch; None: they are all at the root."""
        for node in nodes:
            if node in self._kept:
                self._kept[node] = self._kept.pop(node)
        if nodes[0] not in self._kept:
            return None
        return joined([self._kept[node].state for node in nodes])

    def keep(self, node: Any, base: Any, fed: int, state: list[Any]) -> None:
        """Keep the state after a node, which `fed` tokens led to from `base`."""
        if base in self._kept:
            self._kept[base].after.add(node)
        if node in self._kept or node is base:
            return
        size = size_of(state)
        self._make_room(size)
        if self.nbytes + size <= self.limit:
            self._kept[node] = _Snapshot(state, fed, size)
            self.nbytes += size

    def drop(self, node: Any) -> None:
        found = self._kept.pop(node, None)
        if found is not None:
            self.nbytes -= found.size

    def _make_room(self, size: int) -> None:
        if self.nbytes + size <= self.limit or size > self.limit:
            return
        passed = [node for node, kept in self._kept.items() if kept.is_passed]
        for node in [*passed, *self._kept]:
            if self.nbytes + size <= self.limit:
                return
            self.drop(node)


def row_of(thing: Any, row: int, rows: int, axis: int = 0) -> Any:
    """A copy of one row of a batch: of its tensors, in layers of a cache, lists and dicts."""
    if isinstance(thing, torch.Tensor):
        if thing.dim() > axis and thing.shape[axis] == rows:
            return thing.narrow(axis, row, 1).clone()
        return thing.clone()
    if isinstance(thing, dict):
        return {k: row_of(v, row, rows, _ROWS_AT.get(k, 0)) for k, v in thing.items()}
    if isinstance(thing, list | tuple):
        return type(thing)(row_of(v, row, rows) for v in thing)
    if _is_cache(thing):
        return _with(thing, row_of(vars(thing), row, rows))
    return thing


def joined(things: Sequence[Any], axis: int = 0) -> Any:
    """The batch of these rows, a copy. Raises `ValueError` where they cannot be side by side."""
    first = things[0]
    if isinstance(first, torch.Tensor):
        return torch.cat([*things], axis) if first.dim() > axis else first.clone()
    if isinstance(first, dict):
        return {k: joined([t[k] for t in things], _ROWS_AT.get(k, 0)) for k in first}
    if isinstance(first, list | tuple):
        return type(first)(joined(part) for part in zip(*things, strict=True))
    if _is_cache(first):
        return _with(first, joined([vars(t) for t in things]))
    if any(t is not first and t != first for t in things):
        raise ValueError(f"the rows of a pass differ in what a layer counts: {[*things]}")
    return first


def _with(layer: Any, values: dict[str, Any]) -> Any:
    made = copy.copy(layer)
    vars(made).update(values)
    return made


def size_of(thing: Any) -> int:
    """The bytes of all tensors in it."""
    if isinstance(thing, torch.Tensor):
        return thing.numel() * thing.element_size() if thing.dim() else 0
    if isinstance(thing, dict):
        return sum(map(size_of, thing.values()))
    if isinstance(thing, list | tuple):
        return sum(map(size_of, thing))
    return size_of(vars(thing)) if _is_cache(thing) else 0


def _is_cache(thing: Any) -> bool:
    """Whether it is a cache or a layer of one, which is copied; what else it holds is shared."""
    return isinstance(thing, _CACHES) or type(thing).__name__.endswith("Cache")  # xLSTM's
