"""What one forward pass sees of the cache.

*Positions.* Rows that feed fewer new tokens than others are padded on the left, so that the last
column holds the last token of each. Masks compare true positions, per kind of layer. Where there
are states, all rows of a pass feed equally many, so that there is no padding.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Self

import torch
from transformers.cache_utils import Cache

from awrs_ppl.errors import AwrsError
from awrs_ppl.lm.cache import Node, Store
from awrs_ppl.lm.jobs import Job
from awrs_ppl.lm.reach import Reach
from awrs_ppl.lm.states import rows_of

__all__ = ["View"]


class View(Cache):
    """The cache that one forward pass sees.

    `jobs`, `bases` (the cached prefix of each), `new` (tokens to feed), `pads` (how much padding
    comes before them), `slots`: by row of the batch.
    """

    @classmethod
    @contextlib.contextmanager
    def over(cls, store: Store, jobs: list[Job]) -> Iterator[Self]:
        """A view for one pass over jobs. What the pass computed is kept only if it succeeds."""
        bases = [store.base(job) for job in jobs]
        new = sum(len(job.fed) - base.depth for job, base in zip(jobs, bases, strict=True))
        slots = store.claim(bases, new)
        try:
            view = cls(store, jobs, bases, slots)
            yield view
        except BaseException:
            store.free += slots
            store.ends = [store.root] * len(store.ends)
            raise
        rows = zip(view.jobs, view.bases, view.slots, strict=True)
        ends = [store.learn(job.fed, base, own) for job, base, own in rows]
        if view.cells is not None:
            store.ends[: len(ends)] = ends
        if store.snapshots is not None:
            states = rows_of(view.states, len(ends))
            for end, base, state in zip(ends, view.bases, states, strict=True):
                store.snapshots.keep(end, base, view.width, state)

    def __init__(self, store: Store, jobs: list[Job], bases: list[Node], free: list[int]) -> None:
        looked_at = store.layout.even or store.snapshots is not None
        super().__init__(layers=[*store.layout.blank] if looked_at else [])
        self.store = store
        # Models with several kinds of layers take a mask for each.
        self.reaches = sorted({layer.reach for layer in store.layers})
        self.columns = max(len(job.fed) for job in jobs)
        rows = store.place(bases, self.columns) if store.layers else None
        order: Sequence[int] = range(len(jobs)) if rows is None else rows
        self.jobs = [jobs[i] for i in order]
        self.bases = [bases[i] for i in order]
        self.new = [j.fed[b.depth :] for j, b in zip(self.jobs, self.bases, strict=True)]
        self.width = max(map(len, self.new))
        self.pads = [self.width - len(new) for new in self.new]
        spare = iter(free)
        self.slots = [list(islice(spare, len(new))) for new in self.new]
        if store.snapshots is not None:
            _require_no_padding(self.pads)
        # Where the new tokens stand in the padded batch, in the store, in the workspace.
        self.fed = self.cells = self.paths = None
        if any(self.pads):
            self.fed = self._tensor(
                [
                    row * self.width + i
                    for row, pad in enumerate(self.pads)
                    for i in range(pad, self.width)
                ]
            )
        self.target = self._tensor([slot for slots in self.slots for slot in slots])
        # The first column that any of the new tokens sees.
        depth = min(base.depth for base in bases)
        self.first = {reach: reach.first(depth) for reach in self.reaches}
        if rows is not None:
            self.cells = self._tensor(
                [
                    row * store.columns + column
                    for row, (job, base) in enumerate(zip(self.jobs, self.bases, strict=True))
                    for column in range(base.depth, len(job.fed))
                ]
            )
        elif store.layers:
            paths = [b.path() + s for b, s in zip(self.bases, self.slots, strict=True)]
            self.paths = self._tensor([p + [0] * (self.columns - len(p)) for p in paths])
        self._own = None
        if store.snapshots is not None:
            states = store.snapshots.batch(self.bases)
            if store.layout.own:
                self._own = states
            else:
                fresh = (copy.deepcopy(self.layers[index]) for index in store.layout.states)
                for index, state in zip(store.layout.states, states or fresh, strict=True):
                    self.layers[index] = state

    def _tensor(self, numbers: list[Any]) -> torch.Tensor:
        return torch.tensor(numbers, device=self.store.device)

    def inputs(self) -> torch.Tensor:
        """The new tokens, `[rows, width]`, padded on the left."""
        rows = zip(self.pads, self.new, strict=True)
        return self._tensor([[0] * pad + [*new] for pad, new in rows])

    @property
    def keep(self) -> int:
        """Of how many tokens of a row the logits are needed, its last."""
        return max(job.keep for job in self.jobs)

    def answers(self, logits: torch.Tensor) -> Iterator[tuple[Job, torch.Tensor]]:
        """Each job with the logits after its last tokens."""
        return zip(self.jobs, logits, strict=True)

    def positions(self) -> torch.Tensor:
        """The positions of the new tokens, `[rows, width]`; padding stands at 0.

        There it sees the first token: a row of a mask must not be empty. (Nothing sees the padding:
        it is never stored.)
        """
        rows = zip(self.pads, self.bases, self.jobs, strict=True)
        return self._tensor([[0] * pad + [*range(b.depth, len(j.fed))] for pad, b, j in rows])

    def arguments(self) -> dict[str, Any]:
        """The cache; and positions and masks, where the model does not make them itself."""
        layout = self.store.layout
        if layout.own:
            given = {} if self._own is None else {layout.argument: self._own}
            return {**given, "position_ids": self.positions()}
        if layout.even or not self.store.layers:
            return {layout.argument: self}
        where = self.positions()
        return {layout.argument: self, "position_ids": where, "attention_mask": self.masks(where)}

    @property
    def states(self) -> Any:
        """The states of the rows: before the pass, and when it is over after it."""
        if self.store.layout.own:
            return self._own
        return [self.layers[index] for index in self.store.layout.states]

    def take(self, output: Any) -> None:
        """Take the state out of what the model gives, if it has a cache of its own."""
        if self.store.layout.own:
            self._own = getattr(output, self.store.layout.argument)

    def masks(self, where: torch.Tensor) -> Any:
        """The attention masks, as models want them, for queries at positions `where`."""
        columns = torch.arange(self.columns, device=where.device)
        where = where[:, None, :, None]
        return self._as_masks(
            {reach: reach.seen(columns[self.first[reach] :], where) for reach in self.reaches}
        )

    def _as_masks(self, seen: dict[Reach, torch.Tensor]) -> Any:
        lowest = torch.finfo(self.store.dtype).min
        masks: dict[str, Any] = dict.fromkeys(self.store.layout.unmasked)
        for reach, columns in seen.items():
            mask = torch.zeros(columns.shape, dtype=self.store.dtype, device=columns.device)
            masks[reach.kind] = mask.masked_fill_(~columns, lowest)
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the new tokens of a layer; all keys and values of the rows."""
        layer = self.store.number.get(layer_idx)
        if layer is None:  # kept as a state
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        return self._extend(layer, 0, key_states), self._extend(layer, 1, value_states)

    def update_indexer(
        self, indexer_key_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """The same for the keys of a layer's indexer, `[rows, columns, dim]`."""
        layer = self.store.number.get(layer_idx)
        if layer is None:
            return super().update_indexer(indexer_key_states, layer_idx, *args, **kwargs)
        return self._extend(layer, 2, indexer_key_states[:, None])[:, 0]

    def _extend(self, layer: int, which: int, states: torch.Tensor) -> torch.Tensor:
        fresh = states.transpose(1, 2).flatten(0, 1)
        if self.fed is not None:
            fresh = fresh[self.fed]
        slots = self.store.slots[layer][which]
        slots.index_copy_(0, self.target, fresh)
        first = self.first[self.store.layers[layer].reach]
        if self.cells is None:
            assert self.paths is not None
            return slots[self.paths[:, first:]].transpose(1, 2)
        cells = self.store.cells[layer][which]
        cells.flatten(0, 1).index_copy_(0, self.cells, fresh)
        return cells[: len(self.jobs), first : self.columns].transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many columns come before the new ones."""
        return self.columns - self.width

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many columns of keys a layer sees, and which is the first."""
        number = self.store.number.get(layer_idx, 0)
        if not self.store.layers:
            return super().get_mask_sizes(query_length, layer_idx)
        first = self.first[self.store.layers[number].reach]
        return self.columns - first, first


def _require_no_padding(pads: list[int]) -> None:
    if any(pads):
        raise AwrsError(f"padding of {pads} tokens would enter the states of a pass")
