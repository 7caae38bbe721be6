"""From jobs to forward passes. All of this runs in the engine's worker thread."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch

from awrs_ppl.errors import AwrsError
from awrs_ppl.lm.cache import Node, Store, cache_argument, layers_of
from awrs_ppl.lm.jobs import Job
from awrs_ppl.lm.stats import Stats
from awrs_ppl.lm.view import View

__all__ = ["PASS_BYTES", "Runner"]

_log = logging.getLogger(__name__)

PASS_BYTES = 2**29  # logits of one pass
_CHUNK = 512  # new tokens of one row in one pass
_PASS_TOKENS = 4096  # new tokens of one pass, padding included
_PASS_COST = 32  # a pass costs about as much as so many tokens: when to pad, when to split
_SHARED = 8  # a new prefix that contexts share is fed on its own from this length


class Runner:
    """Turns jobs into forward passes."""

    def __init__(self, model: Any, memory: int) -> None:
        self.model = model
        self.device: torch.device = model.device
        self.vocab_size = int(model.get_output_embeddings().weight.shape[0])
        self._cache_argument = cache_argument(model)
        self.pass_cost = _PASS_COST * (16 if self.device.type == "cuda" else 1)
        self.stats = Stats()
        self.store = plain = Store([], model.dtype, self.device, memory)
        problem = self._try_cache(memory)
        if problem is not None:
            _log.warning(
                "%s cannot be cached and is run in full each time: %s",
                type(model).__name__,
                problem,
            )
            self.store = plain
        self.store.clear()
        self.stats = Stats()

    def _try_cache(self, memory: int) -> str | None:
        """Set the store; what is wrong if it does not give the answers of the model alone.

        Models differ in what they make of masks and positions (ALiBi counts its own), so this is
        tried out rather than looked up.
        """
        long, other = Job((0, 1, 2, 3)), Job((0, 1, 3))
        try:
            expected = torch.stack(self.run([long, other]))
            self.store = Store(layers_of(self.model), self.model.dtype, self.device, memory)
            self.run([Job((0, 1))])
            found = torch.stack(self.run([other, long])[::-1])
            apart = (found.softmax(-1) - expected.softmax(-1)).abs().sum(-1).max() / 2
        except AwrsError:
            raise  # too little memory
        except Exception as error:
            return repr(error)
        return f"it differs by {apart:.2g} in total variation" if apart > 0.1 else None

    @torch.inference_mode()
    def run(self, jobs: list[Job]) -> list[torch.Tensor]:
        """Answer jobs, in order: `[vocab_size]` logits or `[len(targets)]` log-probabilities."""
        start = perf_counter()
        self.stats.rows += len(jobs)
        try:
            distinct = list(dict.fromkeys(jobs))
            self._prefill(distinct)
            answers: dict[Job, torch.Tensor] = {}
            for group in self._groups(distinct):
                self._try(group, answers)
            return [answers[job] for job in jobs]
        finally:
            self.stats.seconds += perf_counter() - start

    def _depth(self, job: Job) -> int:
        return self.store.find(job.past).depth

    def _prefill(self, jobs: list[Job], level: int = 0) -> None:
        """Feed once what several jobs share, and long contexts in chunks."""
        if not self.store.layers:
            return
        long = sorted(job for job in jobs if len(job.past) - self._depth(job) >= _SHARED)
        stems: dict[Job, None] = {}
        for one, other in pairwise(long):
            pairs = enumerate(zip(one.past, other.past, strict=False))
            limit = min(len(one.past), len(other.past))
            shared = next((i for i, (a, b) in pairs if a != b), limit)
            if shared - self._depth(one) >= _SHARED:
                stems[Job(one.past[:shared])] = None
        if stems:
            if level < 3:  # stems of stems; deeper, feeding a little twice beats another pass
                self._prefill(list(stems), level + 1)
            for group in self._groups(list(stems)):
                self._try(group, {})
        for job in long:
            for end in range(self._depth(job) + _CHUNK, len(job.past), _CHUNK):
                self._try([Job(job.past[:end])], {})

    def _groups(self, jobs: list[Job]) -> Iterator[list[Job]]:
        """Split jobs into passes: as few as possible, but not at the price of much padding."""
        group: list[Job] = []
        needed = waste = keep = 0
        slots = _Slots(self.store)
        for need, job in sorted(
            ((len(job.fed) - self._depth(job), job) for job in jobs), key=lambda it: -it[0]
        ):
            rows = len(group) + 1
            if group and (
                waste + needed - need > self.pass_cost
                or rows * needed > _PASS_TOKENS
                or rows * max(keep, job.keep) * self.vocab_size * 4 > PASS_BYTES
                or not slots.fit(job)
            ):
                yield group
                group, waste, keep = [], 0, 0
                slots = _Slots(self.store)
            if not group:
                needed = need
            waste += needed - need
            slots.add(job)
            keep = max(keep, job.keep)
            group.append(job)
        if group:
            yield group

    def _try(self, jobs: list[Job], answers: dict[Job, torch.Tensor]) -> None:
        """A pass; if the memory is not enough for it, two halves of it."""
        try:
            self._pass(jobs, answers)
            return
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            told = str(error).strip().partition("\n")[0]
        # Here and not in the handler: the error's traceback holds on to what did not fit.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(jobs) == 1:
            raise AwrsError(
                f"out of memory in a forward pass of one context of {len(jobs[0].fed)} tokens "
                f"({told}): give the engine less with memory=..., or load the model with "
                "dtype='bfloat16'"
            )
        middle = len(jobs) // 2
        self._try(jobs[:middle], answers)
        self._try(jobs[middle:], answers)

    def _pass(self, jobs: list[Job], answers: dict[Job, torch.Tensor]) -> None:
        """One forward pass; its answers are added to `answers`."""
        with View.over(self.store, jobs) as view:
            rows = zip(view.pads, view.new, strict=True)
            where = view.positions()
            arguments = {
                "input_ids": torch.tensor([[0] * p + [*n] for p, n in rows], device=self.device),
                "position_ids": where,
                "attention_mask": view.masks(where),
                "logits_to_keep": max(job.keep for job in jobs),
                "use_cache": bool(self.store.layers),
            }
            if self.store.layers:
                arguments[self._cache_argument] = view
            else:
                takes = inspect.signature(self.model.forward).parameters
                if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
                    arguments = {k: v for k, v in arguments.items() if k in takes}
            logits = self.model(**arguments).logits
        self.stats.passes += 1
        self.stats.tokens += sum(map(len, view.new))
        for job, row in zip(view.jobs, logits, strict=True):
            answers[job] = job.answer(row)


def _is_out_of_memory(error: BaseException) -> bool:
    # The allocator of the CPU raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "can't allocate memory" in str(error)
    )


class _Slots:
    """The slots of the store that a pass over some jobs needs, shared beginnings once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs: list[Job] = []
        self._most = 0  # if nothing were shared
        self._nodes: set[int] | None = None
        self._new = 0

    def fit(self, job: Job) -> bool:
        """Whether one more job fits the store."""
        limit = self._store.limit
        if self._most + len(job.fed) <= limit:
            return True
        if self._nodes is None:  # counting costs a walk: only where it matters
            self._nodes = set()
            for one in self._jobs:
                self._count(one)
        base = self._store.find(job.past)
        unseen = sum(1 for _ in self._unseen(base))
        return len(self._nodes) + self._new + unseen + len(job.fed) - base.depth <= limit

    def add(self, job: Job) -> None:
        """Take a job into the pass."""
        self._jobs.append(job)
        self._most += len(job.fed)
        if self._nodes is not None:
            self._count(job)

    def _count(self, job: Job) -> None:
        assert self._nodes is not None
        base = self._store.find(job.past)
        self._nodes.update([id(node) for node in self._unseen(base)])
        self._new += len(job.fed) - base.depth

    def _unseen(self, node: Node) -> Iterator[Node]:
        assert self._nodes is not None
        while node.parent is not None and id(node) not in self._nodes:
            yield node
            node = node.parent
