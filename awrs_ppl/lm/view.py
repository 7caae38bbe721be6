"""What one forward pass sees of the cache.

*Positions.* Rows that feed fewer new tokens than others are padded on the left, so that the last
column holds the last token of each. Masks compare true positions, per kind of layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Self

import torch
from transformers.cache_utils import Cache

from awrs_ppl.lm.cache import Node, Store
from awrs_ppl.lm.jobs import Job

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
        bases = [store.find(job.past) for job in jobs]
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

    def __init__(self, store: Store, jobs: list[Job], bases: list[Node], free: list[int]) -> None:
        super().__init__(layers=[])
        self.store = store
        # Models with several kinds of layers take a mask for each.
        self.reaches = sorted({layer.reach for layer in store.layers if layer.shapes})
        self.columns = max(len(job.fed) for job in jobs)
        rows = store.place(bases, self.columns)
        order: Sequence[int] = range(len(jobs)) if rows is None else rows
        self.jobs = [jobs[i] for i in order]
        self.bases = [bases[i] for i in order]
        self.new = [j.fed[b.depth :] for j, b in zip(self.jobs, self.bases, strict=True)]
        self.width = max(map(len, self.new))
        self.pads = [self.width - len(new) for new in self.new]
        spare = iter(free)
        self.slots = [list(islice(spare, len(new))) for new in self.new]
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
        else:
            whole = [b.path() + s for b, s in zip(self.bases, self.slots, strict=True)]
            self.paths = self._tensor([p + [0] * (self.columns - len(p)) for p in whole])

    def _tensor(self, numbers: list[Any]) -> torch.Tensor:
        return torch.tensor(numbers, device=self.store.device)

    def positions(self) -> torch.Tensor:
        """The positions of the new tokens, `[rows, width]`; padding stands at 0.

        There it sees the first token: a row of a mask must not be empty. (Nothing sees the padding:
        it is never stored.)
        """
        rows = zip(self.pads, self.bases, self.jobs, strict=True)
        return self._tensor([[0] * pad + [*range(b.depth, len(j.fed))] for pad, b, j in rows])

    def masks(self, where: torch.Tensor) -> Any:
        """The attention masks, as models want them, for queries at positions `where`."""
        columns = torch.arange(self.columns, device=where.device)
        where = where[:, None, :, None]
        lowest = torch.finfo(self.store.dtype).min
        masks = {}
        for reach in self.reaches:
            seen = reach.seen(columns[self.first[reach] :], where)
            mask = torch.zeros(seen.shape, dtype=self.store.dtype, device=where.device)
            masks[reach.kind] = mask.masked_fill_(~seen, lowest)
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
        return self._extend(layer_idx, 0, key_states), self._extend(layer_idx, 1, value_states)

    def update_indexer(
        self, indexer_key_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """The same for the keys of a layer's indexer, `[rows, columns, dim]`."""
        return self._extend(layer_idx, 2, indexer_key_states[:, None])[:, 0]

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

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """The column of the first new token."""
        return self.columns - self.width

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many columns a mask has, and the first of them."""
        return self.columns, 0
