"""The engine for language models of `transformers`: one forward pass for many contexts, cached.

*Store.* Keys and values of every token that was fed lie in a store, one slot a token; a tree over
contexts knows the slots. A prefix shared by many contexts is stored once, forks cost nothing, and
the leaf that was not used for the longest time goes first.

*Workspace.* Attention wants the keys of a row in one piece, so the rows of the last pass are also
laid out in a workspace, where column = position. A row that only grew is extended in place, others
are copied from the store; a batch too big for the workspace is gathered layer by layer.

*Positions.* Rows that feed fewer new tokens than others are padded on the left, so that the last
column holds the last token of each. Masks compare true positions, per kind of layer.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import inspect
import logging
import math
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import Any, NamedTuple, Self

import torch
from genlm.backend.llm.base import AsyncLM
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from awrs_ppl.errors import AwrsError

__all__ = ["Stats", "TransformersEngine"]

_log = logging.getLogger(__name__)

_CHUNK = 512  # new tokens of one row in one pass
_PASS_TOKENS = 4096  # new tokens of one pass, padding included
_PASS_BYTES = 2**29  # logits of one pass
_PASS_COST = 32  # a pass costs about as much as so many tokens: when to pad, when to split
_SHARED = 8  # a new prefix that contexts share is fed on its own from this length


@dataclass(slots=True)
class Stats:
    """What an engine has done so far; the numbers only grow.

    `rows`: contexts asked, repeats counted. `tokens`: tokens fed to the model. `passes`: forward
    passes. `seconds`: time spent in the worker thread.
    """

    rows: int = 0
    tokens: int = 0
    passes: int = 0
    seconds: float = 0.0


class _Job(NamedTuple):
    """Next-token logits after `context`; or, with `targets`, the log-probabilities of these."""

    context: tuple[int, ...]
    targets: tuple[int, ...] = ()
    temperature: float = 1.0

    @property
    def fed(self) -> tuple[int, ...]:
        return self.context + self.targets[:-1]

    @property
    def start(self) -> int:
        """The first position whose logits are needed: it is fed even where it is cached."""
        return len(self.context) - 1

    @property
    def keep(self) -> int:
        return max(1, len(self.targets))


@dataclass(slots=True)
class _Line:
    """The requests of one event loop that wait for the next pass."""

    waiting: list[tuple[list[_Job], asyncio.Future]] = field(default_factory=list)
    busy: bool = False


class TransformersEngine(AsyncLM):
    """A causal language model of `transformers`, as an `AsyncLM` of genlm-backend.

    `vocab_size` is the length of a row of logits as the model gives it. A model may pad its
    vocabulary: then rows are longer than the tokenizer has tokens.

    `memory` bounds the keys and values that are kept, in bytes. A model with layers other than full
    and sliding-window attention is run without a cache, every context in full.
    """

    def __init__(self, model: Any, tokenizer: Any, *, memory: int = 2 * 2**30) -> None:
        super().__init__(tokenizer)
        self.model = model.eval()
        self.device: torch.device = model.device
        self.vocab_size = int(model.get_output_embeddings().weight.shape[0])
        self.stats = Stats()
        self._known = int(model.get_input_embeddings().weight.shape[0])
        self._runner = _Runner(self.model, self.stats, memory)
        # One thread: a pass uses all cores anyway, and the store needs no lock.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="awrs_ppl-lm")
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = (
            weakref.WeakKeyDictionary()
        )

    @classmethod
    def load(
        cls,
        name_or_path: str,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        memory: int = 2 * 2**30,
    ) -> Self:
        """Load a model by the name or the folder that `transformers` knows it by.

        `device="auto"` is the GPU if there is one; `dtype="auto"` is float32 on a CPU and bfloat16
        on a GPU. Only safetensors are read, and no code that comes with a model is run.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto":
            dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            name_or_path, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        return cls(model.to(device), tokenizer, memory=memory)

    async def next_logits(self, contexts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Next-token logits, `[len(contexts), vocab_size]`, float32, on the device.

        Raises `AwrsError` for an empty context, for a token that the model does not have, and for a
        context too long for `memory`.
        """
        rows = await self._ask([self._job(context) for context in contexts])
        return torch.stack(rows) if rows else torch.empty(0, self.vocab_size, device=self.device)

    async def sequence_logprobs(
        self,
        requests: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
        temperature: float = 1.0,
    ) -> list[torch.Tensor]:
        """For each (context, continuation) the log-probability of every token of the continuation.

        Under softmax(logits / temperature) over the whole vocabulary; float32, on the device.
        """
        if not temperature > 0:
            raise AwrsError(f"the temperature must be positive, not {temperature!r}")
        pieces: list[list[_Job]] = []
        step = max(1, _PASS_BYTES // (4 * self.vocab_size))
        for context, continuation in requests:
            whole = self._job(context, continuation, temperature)
            cuts = range(0, len(whole.targets), step)
            pieces.append(
                [
                    whole._replace(
                        context=whole.context + whole.targets[:cut],
                        targets=whole.targets[cut : cut + step],
                    )
                    for cut in cuts
                ]
            )
        answers = iter(await self._ask([job for jobs in pieces for job in jobs]))
        empty = torch.empty(0, device=self.device)
        return [torch.cat([empty, *(next(answers) for _ in jobs)]) for jobs in pieces]

    async def next_token_logprobs(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, token_ids: Sequence[int], lora_name: str | None = None
    ) -> torch.Tensor:
        """Normalised next-token log-probabilities, `[vocab_size]`, float32."""
        return (await self.batch_next_token_logprobs([token_ids], lora_name))[0]

    async def batch_next_token_logprobs(
        self, token_ids_list: Sequence[Sequence[int]], lora_name: str | None = None
    ) -> torch.Tensor:
        """The same for many contexts, `[len(token_ids_list), vocab_size]`."""
        _refuse_adapter(lora_name)
        logits = await self.next_logits([tuple(ids) for ids in token_ids_list])
        return torch.log_softmax(logits, dim=-1)

    def next_token_logprobs_sync(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, token_ids: Sequence[int], lora_name: str | None = None
    ) -> torch.Tensor:
        """The same without an event loop; waits for the passes that are under way."""
        _refuse_adapter(lora_name)
        jobs = [self._job(token_ids)]
        return torch.log_softmax(self._worker.submit(self._runner.run, jobs).result()[0], dim=-1)

    def clear_cache(self) -> None:
        """Forget all contexts; waits for the passes that are under way."""
        self._worker.submit(self._runner.store.clear).result()

    def _job(
        self, context: Sequence[int], targets: Sequence[int] = (), temperature: float = 1.0
    ) -> _Job:
        job = _Job(tuple(context), tuple(targets), temperature)
        if not job.context:
            raise AwrsError(f"a language model needs at least one token of context, not {context}")
        # Here and not in the pass, where it would fail other callers too (and end a GPU's process).
        wrong = next((t for t in job.context + job.targets if not 0 <= t < self._known), None)
        if wrong is not None:
            raise AwrsError(f"the model has no token {wrong!r}: it has 0 to {self._known - 1}")
        if len(job.fed) > self._runner.store.limit:
            raise AwrsError(
                f"a context of {len(job.fed)} tokens is more than the {self._runner.store.limit} "
                "that fit into the engine's memory; give it more with memory=..."
            )
        return job

    async def _ask(self, jobs: list[_Job]) -> list[torch.Tensor]:
        """Have jobs done together with those of other tasks of this event loop."""
        if not jobs:
            return []
        loop = asyncio.get_running_loop()
        line = self._lines.setdefault(loop, _Line())
        future = loop.create_future()
        line.waiting.append((jobs, future))
        if not line.busy:
            line.busy = True
            loop.call_soon(self._dispatch, loop, line, len(line.waiting))
        return await future

    def _dispatch(self, loop: asyncio.AbstractEventLoop, line: _Line, seen: int) -> None:
        """Start a pass as soon as one turn of the event loop brings no further request.

        Not in a caller's task: a cancelled caller would take the others with it.
        """
        if len(line.waiting) > seen:
            loop.call_soon(self._dispatch, loop, line, len(line.waiting))
            return
        batch, line.waiting = [entry for entry in line.waiting if not entry[1].done()], []
        line.busy = bool(batch)
        if not batch:
            return
        work = self._worker.submit(self._runner.run, [job for jobs, _ in batch for job in jobs])

        def deliver() -> None:
            line.busy = bool(line.waiting)
            if line.busy:
                loop.call_soon(self._dispatch, loop, line, len(line.waiting))
            error = work.exception()
            answers = iter(() if error else work.result())
            for jobs, future in batch:
                mine = [] if error else [next(answers) for _ in jobs]
                if future.done():
                    continue
                if error:
                    future.set_exception(error)
                else:
                    future.set_result(mine)

        def wake(_: Future) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(deliver)

        work.add_done_callback(wake)


def _refuse_adapter(lora_name: str | None) -> None:
    if lora_name is not None:
        raise ValueError(f"this engine has no adapters, so lora_name must be None: {lora_name!r}")


# What follows runs in the worker thread: jobs become passes, and the store remembers them.


class _Runner:
    """Turns jobs into forward passes."""

    def __init__(self, model: Any, stats: Stats, memory: int) -> None:
        self.model, self.stats = model, stats
        self.device: torch.device = model.device
        self.vocab_size = int(model.get_output_embeddings().weight.shape[0])
        self.pass_cost = _PASS_COST * (16 if self.device.type == "cuda" else 1)
        parameters = inspect.signature(model.forward).parameters
        self.takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self.takes = set(parameters)
        self.store = self._try_cache(memory)
        self.stats.rows = self.stats.tokens = self.stats.passes = 0
        self.stats.seconds = 0.0

    def _try_cache(self, memory: int) -> _Store:
        """A store that gives the same answers as the model alone, or one that keeps nothing.

        Models differ in what they make of masks and positions (ALiBi counts its own), so this is
        tried out rather than looked up.
        """
        self.store = plain = _Store([], self.model.dtype, self.device, memory)
        long, other = _Job((0, 1, 2, 3)), _Job((0, 1, 3))
        try:
            expected = torch.stack(self.run([long, other]))
            self.store = _Store(_layers(self.model), self.model.dtype, self.device, memory)
            self.run([_Job((0, 1))])
            found = torch.stack(self.run([other, long])[::-1])
            apart = (found.softmax(-1) - expected.softmax(-1)).abs().sum(-1).max() / 2
            problem = f"it differs by {apart:.2g} in total variation" if apart > 0.1 else None
        except AwrsError:
            raise  # too little memory
        except Exception as error:
            problem = repr(error)
        if problem is None:
            self.store.clear()
            return self.store
        _log.warning(
            "%s cannot be cached and is run in full each time: %s",
            type(self.model).__name__,
            problem,
        )
        return plain

    @torch.inference_mode()
    def run(self, jobs: list[_Job]) -> list[torch.Tensor]:
        """Answer jobs, in order: `[vocab_size]` logits or `[len(targets)]` log-probabilities."""
        start = perf_counter()
        self.stats.rows += len(jobs)
        try:
            distinct = list(dict.fromkeys(jobs))
            self._prefill(distinct)
            answers: dict[_Job, torch.Tensor] = {}
            for group in self._groups(distinct):
                self._pass(group, answers)
            return [answers[job] for job in jobs]
        finally:
            self.stats.seconds += perf_counter() - start

    def _prefill(self, jobs: list[_Job], level: int = 0) -> None:
        """Feed once what several jobs share, and long contexts in chunks."""
        long = sorted(job for job in jobs if job.start - self.store.depth(job) >= _SHARED)
        if not long or not self.store.layers:
            return
        stems: dict[tuple[int, ...], None] = {}
        for one, other in pairwise(long):
            limit = min(one.start, other.start)
            pairs = zip(one.fed[:limit], other.fed, strict=False)
            shared = next((i for i, (a, b) in enumerate(pairs) if a != b), limit)
            if shared - self.store.depth(one) >= _SHARED:
                stems[one.fed[:shared]] = None
        if stems:
            shared_jobs = [_Job(stem) for stem in stems]
            if level < 3:  # stems of stems; deeper, feeding a little twice beats another pass
                self._prefill(shared_jobs, level + 1)
            for group in self._groups(shared_jobs):
                self._pass(group, {})
        for job in long:
            for end in range(self.store.depth(job) + _CHUNK, job.start, _CHUNK):
                self._pass([_Job(job.fed[:end])], {})

    def _groups(self, jobs: list[_Job]) -> Iterator[list[_Job]]:
        """Split jobs into passes: as few as possible, but not at the price of much padding."""
        group: list[_Job] = []
        needed = waste = tokens = keep = 0
        for need, job in sorted(
            ((len(job.fed) - self.store.depth(job), job) for job in jobs), key=lambda it: -it[0]
        ):
            rows = len(group) + 1
            if group and (
                waste + needed - need > self.pass_cost
                or rows * needed > _PASS_TOKENS
                or rows * max(keep, job.keep) * self.vocab_size * 4 > _PASS_BYTES
                or tokens + len(job.fed) > self.store.limit
            ):
                yield group
                group, waste, tokens, keep = [], 0, 0, 0
            if not group:
                needed = need
            waste += needed - need
            tokens += len(job.fed)
            keep = max(keep, job.keep)
            group.append(job)
        if group:
            yield group

    def _pass(self, jobs: list[_Job], answers: dict[_Job, torch.Tensor]) -> None:
        """One forward pass; its answers are added to `answers`."""
        with self.store.view(jobs) as view:
            width = max(map(len, view.new))
            pads = [width - len(new) for new in view.new]
            ids = [[0] * pad + list(new) for pad, new in zip(pads, view.new, strict=True)]
            positions = [
                [0] * pad + list(range(base.depth, base.depth + width - pad))
                for pad, base in zip(pads, view.bases, strict=True)
            ]
            where = torch.tensor(positions, device=self.device)
            arguments = {
                "input_ids": torch.tensor(ids, device=self.device),
                "position_ids": where,
                "attention_mask": view.masks(where, pads),
                "logits_to_keep": max(job.keep for job in jobs),
                "use_cache": bool(self.store.layers),
            }
            if self.store.layers:
                arguments["past_key_values"] = view
            elif not self.takes_any:
                arguments = {k: v for k, v in arguments.items() if k in self.takes}
            logits = self.model(**arguments).logits
        self.stats.passes += 1
        self.stats.tokens += sum(map(len, view.new))
        for job, row in zip(view.jobs, logits, strict=True):
            answers[job] = _answer(job, row)


def _answer(job: _Job, logits: torch.Tensor) -> torch.Tensor:
    """What a job asks, from logits `[positions, vocab_size]` that end at its last token."""
    if not job.targets:
        return logits[-1].float()
    logits = logits[-len(job.targets) :].float() / job.temperature
    targets = torch.tensor(job.targets, device=logits.device)
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)


class _Layer(NamedTuple):
    """One attention layer. Shapes are (heads, dim) of its keys and its values."""

    shapes: tuple[tuple[int, int], tuple[int, int]]
    window: int | None  # how many positions back it sees, itself included; None: all
    named: bool  # whether the model asks for masks by kind of layer


def _layers(model: Any) -> list[_Layer]:
    """The attention layers of a model. Raises `ValueError` where one cannot be cached by token."""
    config = model.config.get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if config._attn_implementation not in ("eager", "sdpa"):
        raise ValueError(f"{config._attn_implementation!r} attention does not take our masks")
    cache: Any = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(
            input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    named = bool(kinds) and "sliding_attention" in kinds
    kinds = kinds or ["sliding_attention" if window else "full_attention"] * len(cache.layers)
    if len(kinds) != len(cache.layers) or {*kinds} - {"full_attention", "sliding_attention"}:
        raise ValueError(f"layers of other kinds: {sorted({*kinds})}")
    layers = []
    for kind, layer in zip(kinds, cache.layers, strict=True):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) or layer.keys is None:
            raise ValueError(f"a layer without keys of its own: {layer}")
        keys, values = ((t.shape[1], t.shape[3]) for t in (layer.keys, layer.values))
        layers.append(
            _Layer((keys, values), window if kind == "sliding_attention" else None, named)
        )
    return layers


class _Node:
    """A token after its context, which is the path from the root."""

    __slots__ = ("children", "depth", "parent", "slot", "token", "used")

    def __init__(self, parent: _Node | None, token: int, slot: int) -> None:
        self.parent, self.token, self.slot = parent, token, slot
        self.depth: int = parent.depth + 1 if parent else 0
        self.children: dict[int, _Node] = {}
        self.used = 0

    def path(self) -> list[int]:
        """The slots of the context, first token first."""
        slots, node = [], self
        while node.parent is not None:
            slots.append(node.slot)
            node = node.parent
        return slots[::-1]


class _Store:
    """Keys and values by context, within `memory` bytes; without layers it keeps nothing.

    Two thirds of the memory go to the store, one to the workspace.
    """

    def __init__(
        self, layers: list[_Layer], dtype: torch.dtype, device: torch.device, memory: int
    ) -> None:
        self.layers, self.dtype, self.device = layers, dtype, device
        self.windows = sorted({layer.window for layer in layers}, key=bool)
        # Models with several kinds of layers take a mask for each, by name.
        self.by_kind = any(layer.named for layer in layers)
        size = sum(heads * dim for layer in layers for heads, dim in layer.shapes) * dtype.itemsize
        self.limit: float = memory * 2 // (3 * size) if layers else math.inf  # slots
        self.room = memory // (3 * size) if layers else 0  # cells of the workspace
        if self.limit < 8:
            raise AwrsError(
                f"memory={memory} bytes hold the keys and values of {self.limit} tokens only; "
                f"one token takes {size}, and a third of the memory is for the rows at work"
            )
        self.clear()

    def clear(self) -> None:
        self.root = _Node(None, -1, -1)
        self.clock = 0
        self.recent: dict[tuple[int, ...], _Node] = {}  # the ends of recent rows
        self.size, self.free = 0, list[int]()
        # Zeros and not whatever the memory holds: what is masked must still be finite.
        self.slots = [self._tensors(layer, 0) for layer in self.layers]
        self.rows = self.columns = 0
        self.ends: list[_Node] = []  # by row of the workspace: what it holds
        self.cells = [self._tensors(layer, 0, 0) for layer in self.layers]

    def _tensors(self, layer: _Layer, *size: int) -> list[torch.Tensor]:
        return [
            torch.zeros(*size, *shape, dtype=self.dtype, device=self.device)
            for shape in layer.shapes
        ]

    def find(self, job: _Job) -> _Node:
        """The longest context that is known of what precedes the job's first position."""
        node = self.recent.get(job.fed[: job.start])
        if node is not None and node.slot >= 0:
            return node
        node = self.root
        for token in job.fed[: job.start]:
            child = node.children.get(token)
            if child is None:
                break
            node = child
        return node

    def depth(self, job: _Job) -> int:
        return self.find(job).depth

    @contextlib.contextmanager
    def view(self, jobs: list[_Job]) -> Iterator[_View]:
        """The cache for one pass over jobs. What the pass computed is known only if it succeeds."""
        self.clock += 1
        bases = [self.find(job) for job in jobs]
        for base in bases:
            base.used = self.clock
        if not self.layers:
            yield _View(self, jobs, bases, [])
            return
        slots = self._claim(sum(len(job.fed) - b.depth for job, b in zip(jobs, bases, strict=True)))
        try:
            view = _View(self, jobs, bases, slots)
            yield view
        except BaseException:
            self.free += slots
            self.ends = [self.root] * len(self.ends)
            raise
        self._learn(view)

    def _learn(self, view: _View) -> None:
        if len(self.recent) > 4096:
            self.recent.clear()
        for row, (job, node, slots) in enumerate(
            zip(view.jobs, view.bases, view.slots, strict=True)
        ):
            for token, slot in zip(job.fed[node.depth :], slots, strict=True):
                child = node.children.get(token)
                if child is None:
                    child = node.children[token] = _Node(node, token, slot)
                else:  # fed again for its logits, or by another row of this pass
                    self.free.append(slot)
                child.used = self.clock
                node = child
            self.recent[job.fed] = node
            if view.cells is not None:
                self.ends[row] = node

    def _claim(self, count: int) -> list[int]:
        """Free slots; makes room where there are too few."""
        missing = count - len(self.free)
        if missing > 0 and self.size < self.limit:
            self._grow(int(min(self.limit, max(self.size + missing, 2 * self.size, 1024))))
        if count > len(self.free):
            self._evict(count + self.size // 16)  # some more: finding leaves costs a walk
        slots = self.free[len(self.free) - count :]
        del self.free[len(self.free) - count :]
        return slots

    def _grow(self, size: int) -> None:
        for layer, tensors in zip(self.layers, self.slots, strict=True):
            for i, larger in enumerate(self._tensors(layer, size)):
                larger[: self.size] = tensors[i]
                tensors[i] = larger
        self.free = [*range(size - 1, self.size - 1, -1), *self.free]
        self.size = size

    def _evict(self, count: int) -> None:
        """Forget leaves, least recently used first, until `count` slots are free."""
        leaves, todo = [], [self.root]
        while todo:
            node = todo.pop()
            todo += node.children.values()
            if not node.children and node is not self.root:
                leaves.append((node.used, len(leaves), node))
        heapq.heapify(leaves)
        number = len(leaves)
        while leaves and len(self.free) < count:
            used, _, node = heapq.heappop(leaves)
            parent = node.parent
            if used >= self.clock or parent is None:
                break  # what this pass builds on
            del parent.children[node.token]
            self.free.append(node.slot)
            node.slot = -1
            parent.used = max(parent.used, used)
            if not parent.children and parent is not self.root:
                number += 1
                heapq.heappush(leaves, (parent.used, number, parent))

    def place(self, bases: list[_Node], columns: int) -> list[int] | None:
        """Rows of the workspace, one for each base, that hold it; None if they do not fit.

        The rows are the first `len(bases)`.
        """
        count = len(bases)
        if count * columns > self.room:
            return None
        if count > self.rows or columns > self.columns:
            rows, wide = max(count, self.rows), max(self.columns, columns + columns // 2 + 32)
            if rows * wide > self.room:
                rows, wide = count, columns
            self.rows, self.columns = rows, wide
            self.cells = []  # freed before the new ones are made
            self.cells = [self._tensors(layer, rows, wide) for layer in self.layers]
            self.ends = [self.root] * rows
        # A row also holds the parent of what it holds: asked again for its logits.
        holds = {id(end.parent): row for row, end in enumerate(self.ends[:count])}
        holds |= {id(end): row for row, end in enumerate(self.ends[:count])}
        found = [holds.pop(id(base), None) for base in bases]
        taken: dict[int, None] = {}
        for i, row in enumerate(found):
            if row is None or row in taken:
                found[i] = None
            else:
                taken[row] = None
        spare = iter([row for row in range(count) if row not in taken])
        copied = [(next(spare), i) for i, row in enumerate(found) if row is None]
        for row, i in copied:
            found[i] = row
        wide = max((bases[i].depth for _, i in copied), default=0)
        if wide:
            paths = [bases[i].path() for _, i in copied]
            index = torch.tensor([p + [0] * (wide - len(p)) for p in paths], device=self.device)
            rows_at = torch.tensor([row for row, _ in copied], device=self.device)
            for tensors, cells in zip(self.slots, self.cells, strict=True):
                for tensor, cell in zip(tensors, cells, strict=True):
                    cell[rows_at, :wide] = tensor[index]
        return [row for row in found if row is not None]


class _View(Cache):
    """The cache that one forward pass sees.

    `jobs`, `bases`, `new` (tokens to feed), `slots`: by row of the batch.
    """

    def __init__(self, store: _Store, jobs: list[_Job], bases: list[_Node], free: list[int]):
        super().__init__(layers=[])
        self.store = store
        self.columns = max(len(job.fed) for job in jobs)
        rows = store.place(bases, self.columns) if store.layers else None
        order = sorted(range(len(jobs)), key=rows.__getitem__) if rows else range(len(jobs))
        self.jobs = [jobs[i] for i in order]
        self.bases = [bases[i] for i in order]
        self.new = [j.fed[b.depth :] for j, b in zip(self.jobs, self.bases, strict=True)]
        self.slots, self.cells, self.paths = [], None, None
        if not store.layers:
            return
        spare = iter(free)
        self.slots = [[next(spare) for _ in new] for new in self.new]
        width = max(map(len, self.new))
        # Where the new tokens stand in the padded batch, in the store, in the workspace.
        self.fed = None
        if any(len(new) < width for new in self.new):
            self.fed = self._tensor(
                [
                    row * width + i
                    for row, new in enumerate(self.new)
                    for i in range(width - len(new), width)
                ]
            )
        self.target = self._tensor([slot for slots in self.slots for slot in slots])
        self.offset = 0  # the first column that sliding layers see
        if rows is not None:
            self.cells = self._tensor(
                [
                    row * store.columns + column
                    for row, (job, base) in enumerate(zip(self.jobs, self.bases, strict=True))
                    for column in range(base.depth, len(job.fed))
                ]
            )
            window = min((w for w in store.windows if w), default=0)
            self.offset = max(0, min(base.depth for base in self.bases) - window + 1) * bool(window)
        else:
            whole = [b.path() + s for b, s in zip(self.bases, self.slots, strict=True)]
            self.paths = self._tensor([p + [0] * (self.columns - len(p)) for p in whole])

    def _tensor(self, numbers: list[Any]) -> torch.Tensor:
        return torch.tensor(numbers, device=self.store.device)

    def masks(self, where: torch.Tensor, pads: list[int]) -> Any:
        """The attention masks, as models want them, for queries at positions `where`.

        `where` is `[rows, width]`, `pads` how much of each row is padding.

        Padding stands at position 0, where it sees the first token: a row of a mask must not be
        empty. (Nobody sees the padding: it is never stored.)
        """
        if not self.store.layers:
            pad = torch.tensor(pads, device=where.device)
            return torch.arange(where.shape[1], device=where.device) >= pad[:, None]
        columns = torch.arange(self.columns, device=where.device)
        where = where[:, None, :, None]
        lowest = torch.finfo(self.store.dtype).min

        def additive(allowed: torch.Tensor) -> torch.Tensor:
            zeros = torch.zeros(allowed.shape, dtype=self.store.dtype, device=allowed.device)
            return zeros.masked_fill_(~allowed, lowest)

        masks = {}
        for window in self.store.windows:
            allowed = columns <= where
            if window is None:
                masks["full_attention"] = additive(allowed)
            else:
                allowed = allowed & (columns > where - window)
                masks["sliding_attention"] = additive(allowed[..., self.offset :])
        return masks if self.store.by_kind else next(iter(masks.values()))

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the new tokens of a layer; all keys and values of the rows."""
        first = self.offset if self.store.layers[layer_idx].window else 0
        keys, values = (
            self._extend(layer_idx, i, states, first)
            for i, states in enumerate((key_states, value_states))
        )
        return keys, values

    def _extend(self, layer: int, which: int, states: torch.Tensor, first: int) -> torch.Tensor:
        fresh = states.transpose(1, 2).flatten(0, 1)
        if self.fed is not None:
            fresh = fresh[self.fed]
        slots = self.store.slots[layer][which]
        slots.index_copy_(0, self.target, fresh)
        if self.cells is None:
            assert self.paths is not None
            return slots[self.paths].transpose(1, 2)[:, :, first:]
        cells = self.store.cells[layer][which]
        cells.flatten(0, 1).index_copy_(0, self.cells, fresh)
        return cells[: len(self.jobs), first : self.columns].transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many columns come before the new ones."""
        return self.columns - max(map(len, self.new))
