"""What a forward pass sees of the cache where its contexts are one row: the tree of their tokens.

Contexts behind one long prompt have most tokens in common. Row by row these would be laid out, and
read, once for each; here every token is one column, whoever has it in common, and the mask says
which new token sees which: those of its own context. (As drafts are verified in tree attention:
SpecInfer, arXiv 2305.09781.) So there is neither padding nor a workspace. It needs a model to which
columns mean nothing: positions come with the tokens, and the mask is all that tells contexts apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from transformers.cache_utils import Cache

from awrs_ppl.lm.acceptance import rows_apart
from awrs_ppl.lm.cache import Node, Store
from awrs_ppl.lm.jobs import Job
from awrs_ppl.lm.view import View

__all__ = ["TreeView", "Trees"]

# Tokens times columns of a mask, 64 MiB in float32. Beyond it the new tokens are many, and what
# they attend to in vain costs more than what is read once for all.
_MOST = 2**24
# A column must be shared by so many rows that to attend to it for all of them, most of them in
# vain, is less than to copy and read it for each.
_SHARED = 3
# How far the distributions of the two may be from each other, in total variation: more than
# rounding makes, far less than a model that counts columns.
_APART = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


class _Tree:
    """The tokens of cached prefixes, each once: slots and positions, by branch.

    `sees` says for each prefix up to which position it sees each branch.
    """

    def __init__(self, bases: list[Node]) -> None:
        self.slots: list[int] = []
        self.positions: list[int] = []
        self.branches: list[int] = []
        self.sees: list[dict[int, int]] = []
        below: list[dict[int, int]] = []  # for each branch: what is seen from its first token
        branch_of: dict[int, int] = {}
        for base in bases:
            node, number = base, len(below)
            while node.parent is not None and id(node) not in branch_of:
                branch_of[id(node)] = number
                self.slots.append(node.slot)
                self.positions.append(node.depth - 1)
                node = node.parent
            seen: dict[int, int] = {}
            if node.parent is not None:
                joined = branch_of[id(node)]
                seen = {**below[joined], joined: node.depth - 1}
            if node is not base:
                below.append(seen)
                self.branches += [number] * (base.depth - node.depth)
                seen = {**seen, number: base.depth - 1}
            self.sees.append(seen)
        self.count = len(below)


class TreeView(View):
    """The cache that a pass sees whose contexts are one row."""

    def __init__(self, store: Store, jobs: list[Job], bases: list[Node], free: list[int]) -> None:
        Cache.__init__(self, layers=[])
        self.store, self.jobs, self.bases = store, jobs, bases
        self.reaches = sorted({layer.reach for layer in store.layers})
        self.new = [job.fed[base.depth :] for job, base in zip(jobs, bases, strict=True)]
        spare = iter(free)
        self.slots = [list(islice(spare, len(new))) for new in self.new]
        self.fed = self.cells = self.paths = self._own = None
        tree = _Tree(bases)
        # Of each new token: its context, position, slot. Those whose logits are needed come last.
        new = [
            (len(job.fed) - base.depth - i <= job.keep, row, base.depth + i, slot)
            for row, (job, base, slots) in enumerate(zip(jobs, bases, self.slots, strict=True))
            for i, slot in enumerate(slots)
        ]
        new.sort(key=lambda token: token[0])
        self._tokens = [jobs[row].fed[position] for _, row, position, _ in new]
        self._where = [position for _, _, position, _ in new]
        self._rows = self._tensor([row for _, row, _, _ in new])
        self._keep = sum(token[0] for token in new)
        self.target = self._tensor([slot for *_, slot in new])
        self._columns = torch.cat([self._tensor_of(tree.slots), self.target])
        self._at = self._tensor_of(tree.positions + self._where)
        self._branches = self._tensor_of(tree.branches + [tree.count + row for _, row, _, _ in new])
        # Up to which position each context sees each branch; its own new tokens are one more.
        sees = [[-1] * (tree.count + len(jobs)) for _ in jobs]
        for row, (own, seen) in enumerate(zip(sees, tree.sees, strict=True)):
            for branch, depth in seen.items():
                own[branch] = depth
            own[tree.count + row] = len(jobs[row].fed)
        self._sees = self._tensor(sees)
        self.width, self.columns = len(new), len(self._columns)
        lowest = min(self._where)
        self._seen = {
            reach: (self._at >= first).nonzero()[:, 0] if first else slice(None)
            for reach in self.reaches
            for first in [reach.first(lowest)]
        }

    def _tensor_of(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.store.device)

    def inputs(self) -> torch.Tensor:
        """The new tokens, `[1, width]`."""
        return self._tensor([self._tokens])

    def positions(self) -> torch.Tensor:
        """Their positions, `[1, width]`."""
        return self._tensor([self._where])

    def masks(self, where: torch.Tensor) -> Any:
        """The attention masks, as models want them."""
        own = self._at <= self._sees[self._rows][:, self._branches]
        queries = where[0][:, None]
        return self._as_masks(
            {
                reach: (own[:, columns] & reach.seen(self._at[columns], queries))[None, None]
                for reach, columns in self._seen.items()
            }
        )

    @property
    def keep(self) -> int:
        """Of how many tokens the logits are needed, the last."""
        return self._keep

    def answers(self, logits: torch.Tensor) -> Iterator[tuple[Job, torch.Tensor]]:
        """Each job with the logits that it needs."""
        rows = iter(logits[0, -self._keep :])
        for job in self.jobs:
            yield job, torch.stack([*islice(rows, job.keep)])

    def _extend(self, layer: int, which: int, states: torch.Tensor) -> torch.Tensor:
        slots = self.store.slots[layer][which]
        slots.index_copy_(0, self.target, states[0].transpose(0, 1))
        columns = self._columns[self._seen[self.store.layers[layer].reach]]
        return slots[columns].transpose(0, 1)[None]


class Trees:
    """Whether passes are of one row: where that pays, and the model takes it.

    The first that would be is made both ways, and the answers are compared.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._most = _APART.get(dtype, 1e-3)
        self.fit: bool | None = None  # unknown

    def pay(self, store: Store, jobs: list[Job]) -> bool:
        """Whether a pass is less work so: rows too many for the workspace, with much in common."""
        columns = max(len(job.fed) for job in jobs)
        if self.fit is False or len(jobs) * columns <= store.room or not store.layers:
            return False
        if store.layout.even or store.snapshots is not None:
            return False
        bases = [store.find(job.past) for job in jobs]
        new = sum(len(job.fed) - base.depth for job, base in zip(jobs, bases, strict=True))
        held = len(_Tree(bases).slots) + new
        return new * held <= _MOST and held * _SHARED <= len(jobs) * columns

    def compare(
        self,
        make: Callable[[type[View], list[Job], dict[Job, torch.Tensor]], None],
        jobs: list[Job],
        answers: dict[Job, torch.Tensor],
    ) -> None:
        """Make a pass row by row, then as one row, of the last tokens again."""
        make(View, jobs, answers)
        plain = [Job(job.fed) for job in jobs]
        rows: dict[Job, torch.Tensor] = {}
        tree: dict[Job, torch.Tensor] = {}
        try:
            make(View, plain, rows)
            make(TreeView, plain, tree)
        except Exception:
            self.fit = False
            return
        self.fit = max(float(rows_apart(rows[job], tree[job])) for job in plain) <= self._most
