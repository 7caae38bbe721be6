"""The state of layers after the rows of a pass: taken apart into rows, and put together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import cache_utils
from transformers.cache_utils import Cache, CacheLayerMixin

from awrs_ppl.lm.jobs import Job

if TYPE_CHECKING:
    from awrs_ppl.lm.cache import Store

__all__ = ["State", "apart", "joined", "leap", "rows_of", "size_of"]

_CACHES = (
    Cache,
    CacheLayerMixin,
    getattr(cache_utils, "LinearAttentionCacheLayerMixin", CacheLayerMixin),
)
_LEAP = 0.05  # how much a state may differ by how many tokens were fed at once
_ROWS_AT = {"indexer_position_ids": 1}  # which axis of a tensor counts the rows, if not the first


class _Place(NamedTuple):
    """Where a tensor belongs: its number, and which axis counts the rows; None: it has no rows."""

    number: int
    axis: int | None


class State(NamedTuple):
    """The state after one row: its tensors, and the layers of the cache with their places.

    Rows of one pass share the layers.
    """

    tensors: list[torch.Tensor]
    layers: Any

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


def rows_of(layers: Any, rows: int) -> list[State]:
    """A copy of the state after each of the rows of a pass."""
    tensors: list[tuple[torch.Tensor, _Place]] = []
    layers = _without_tensors(layers, rows, tensors)
    return [
        State(
            [
                (tensor if at.axis is None else tensor.narrow(at.axis, row, 1)).clone()
                for tensor, at in tensors
            ],
            layers,
        )
        for row in range(rows)
    ]


def joined(states: Sequence[State]) -> Any:
    """Layers with the states as the rows of a batch, a copy.

    Raises `ValueError` where they cannot be side by side.
    """
    first = states[0].layers
    for other in {id(state.layers): state.layers for state in states}.values():
        if other is not first and not _equal(first, other):
            raise ValueError("the rows of a pass differ in what a layer counts")
    return _with_tensors(first, [*zip(*(state.tensors for state in states), strict=True)])


def apart(one: State, other: State) -> float:
    """The largest distance of a tensor from the other's, as a share of its norm."""
    shares = [0.0]
    for a, b in zip(one.tensors, other.tensors, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.is_floating_point():
            norm = float(b.float().norm())
            shares.append(float((a.float() - b.float()).norm()) / norm if norm else 0.0)
    return max(shares)


def size_of(thing: Any) -> int:
    """The bytes of all tensors in layers of a cache."""
    tensors: list[tuple[torch.Tensor, _Place]] = []
    _without_tensors(thing, 1, tensors)
    return sum(tensor.nbytes for tensor, at in tensors if at.axis is not None)


def _without_tensors(
    thing: Any, rows: int, found: list[tuple[torch.Tensor, _Place]], axis: int = 0
) -> Any:
    """The same with a `_Place` for each tensor; the tensors are added to `found`."""
    if isinstance(thing, torch.Tensor):
        has_rows = thing.dim() > axis and thing.shape[axis] == rows
        found.append((thing, _Place(len(found), axis if has_rows else None)))
        return found[-1][1]
    if isinstance(thing, dict):
        return {
            k: _without_tensors(v, rows, found, _ROWS_AT.get(k, 0)) if _is_deep(v) else v
            for k, v in thing.items()
        }
    if isinstance(thing, list | tuple):
        return type(thing)(_without_tensors(v, rows, found) for v in thing)
    if _is_cache(thing):
        return _like(thing, _without_tensors(vars(thing), rows, found))
    return thing


def _with_tensors(thing: Any, rows: list[tuple[torch.Tensor, ...]]) -> Any:
    if isinstance(thing, _Place):
        tensors = rows[thing.number]
        return tensors[0].clone() if thing.axis is None else torch.cat(tensors, thing.axis)
    if isinstance(thing, dict):
        return {k: _with_tensors(v, rows) if _is_deep(v) else v for k, v in thing.items()}
    if isinstance(thing, list | tuple):
        return type(thing)(_with_tensors(v, rows) for v in thing)
    return _like(thing, _with_tensors(vars(thing), rows)) if _is_cache(thing) else thing


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if _is_cache(one):
        return type(one) is type(other) and _equal(vars(one), vars(other))
    return one is other or one == other


def _is_deep(value: Any) -> bool:
    return not (value is None or isinstance(value, int | str | torch.dtype | torch.device))


def _is_cache(thing: Any) -> bool:
    """Whether it is a cache or a layer of one, which is copied; what else it holds is shared."""
    return isinstance(thing, _CACHES) or type(thing).__name__.endswith("Cache")  # xLSTM's


def _like(cache: Any, values: dict[str, Any]) -> Any:
    made = copy.copy(cache)
    vars(made).update(values)
    return made


def leap(store: Store, run: Callable[[list[Job]], Any], context: tuple[int, ...]) -> str | None:
    """How the state after several tokens in one pass differs from that after single ones; None if
    it does not.

    Some models forget the state where they get several. In bfloat16 that can pass for rounding
    in the distributions, but not in the states: rounding makes a hundredth, this a tenth.
    """
    long = context[:6]
    if store.snapshots is None or store.layout.steps or len(long) < 6:
        return None
    states = []
    for lengths in ((4, 6), (4, 5, 6)):
        store.clear()
        for length in lengths:
            run([Job(long[:length])])
        states.append(store.snapshots.at(store.find(long)))
    store.clear()
    if None in states or (share := apart(*states)) <= _LEAP:
        return None
    return f"several tokens in one pass leave another state than single ones, by {share:.2g}"
