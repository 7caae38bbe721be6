"""From jobs to forward passes. All of this runs in the engine's worker thread."""

from __future__ import annotations

import copy
import logging
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch

from awrs_ppl.errors import AwrsError
from awrs_ppl.lm.acceptance import Trial
from awrs_ppl.lm.cache import Store
from awrs_ppl.lm.forward import Forward
from awrs_ppl.lm.groups import PASS_BYTES, Groups
from awrs_ppl.lm.jobs import Job
from awrs_ppl.lm.layers import Layout, layouts_of
from awrs_ppl.lm.own_positions import OwnPositions
from awrs_ppl.lm.states import leap
from awrs_ppl.lm.stats import Stats
from awrs_ppl.lm.tree_view import Trees, TreeView
from awrs_ppl.lm.trial_result import TrialResult
from awrs_ppl.lm.view import View

__all__ = ["Runner"]

_log = logging.getLogger(__name__)
_CHUNK = 512  # new tokens of one row in one pass
_PASS_COST = 32  # a pass costs about as much as so many tokens: when to pad, when to split
_SHARED = 8  # a new prefix that contexts share is fed on its own from this length


class Runner:
    """Turns jobs into forward passes.

    With a cache; where it would not give what the model alone gives, in batches of whole contexts;
    where padding changes these too, one context a pass. Contexts beyond `window.switch` are always
    run alone, and only for what comes after their last token. Raises `ValueError` for a model that
    is no causal language model.
    """

    def __init__(self, model: Any, memory: int, known: TrialResult | None = None) -> None:
        self.model = model
        self.device: torch.device = model.device
        self._forward = Forward(model)
        self._own_positions = OwnPositions(model)
        self._trees = Trees(model.dtype)
        self._pass_cost = _PASS_COST * (16 if self.device.type == "cuda" else 1)
        self.stats = Stats()
        self._warned = self._said_scarce = False
        if known is None:
            with torch.inference_mode():
                trial = Trial(self._forward)
                self.vocab_size, self.window = trial.vocab_size, trial.window
                self._groups = Groups(self._forward, self._pass_cost, self.vocab_size)
                self.store, layout = self._store_of(trial, memory)
                known = TrialResult(trial.vocab_size, trial.window, trial.tokens, layout)
        else:
            self.vocab_size, self.window, tokens, layout = known
            self._groups = Groups(self._forward, self._pass_cost, self.vocab_size)
            self.store = self._store(layouts_of(model)[layout], memory)
            self.store.with_room_for(tokens)
        self.trial_result = known if self.store.keeps else None
        self.stats = Stats()

    def sibling(self, memory: int) -> Runner:
        """Another one of this model, with a store of its own."""
        other = copy.copy(self)
        other.stats = Stats()
        other.store = self.store.within(memory)
        other._groups, other._said_scarce = copy.copy(self._groups), False
        other._groups.scarce = False
        return other

    def _store(self, layout: Layout, memory: int) -> Store:
        return Store(layout, self.model.dtype, self.device, memory)

    def _store_of(self, trial: Trial, memory: int) -> tuple[Store, int]:
        """The store for a model, and the number of its layout; or one that keeps nothing.

        Models differ in what they make of masks and positions (ALiBi counts its own), so this is
        tried out rather than looked up. What is said of the first layout is the reason.
        """
        plain = self._store(Layout([]), memory)
        name = type(self.model).__name__
        problem = None
        try:
            for number, layout in enumerate(layouts_of(self.model)):
                store = self._store(layout, memory)
                found = self._problem(trial, store.with_room_for(trial.tokens))
                if found is None:
                    return store, number
                problem = problem or found
        except AwrsError:
            raise  # too little memory
        except Exception as error:
            problem = _said(error)
        trial.require_past_only()
        _log.warning("%s cannot be cached and is run in full each time: %s", name, problem)
        if (problem := self._problem(trial, plain)) is not None:
            _log.warning("%s cannot be run in batches either: %s", name, problem)
            self._groups.most_rows = 1
        return plain, 0

    def _problem(self, trial: Trial, store: Store) -> str | None:
        """How answers by way of a store differ from the model alone; None if they do not."""
        self.store = store
        try:
            found = trial.difference(self.run, store.snapshots is not None)
            return found or leap(store, self.run, trial.longest)
        except AwrsError:
            raise
        except Exception as error:
            return _said(error)

    @torch.inference_mode()
    def run(self, jobs: list[Job]) -> list[torch.Tensor]:
        """Answer jobs, in order: `[vocab_size]` logits or `[len(targets)]` log-probabilities."""
        start = perf_counter()
        self.stats.rows += len(jobs)
        try:
            distinct = list(dict.fromkeys(jobs))
            answers: dict[Job, torch.Tensor] = {}
            far = [job for job in distinct if len(job.fed) > self.window.switch]
            if far:
                self._run_far(far, answers)
                distinct = [job for job in distinct if job not in answers]
            self._prefill(distinct)
            for group in self._groups.of(distinct, self.store):
                self._try(group, answers)
            if self._groups.scarce and not self._said_scarce:
                self._say_scarce(distinct)
            return [answers[job] for job in jobs]
        finally:
            self.stats.seconds += perf_counter() - start

    def _say_scarce(self, jobs: list[Job]) -> None:
        """Warn that a step needs more than the memory holds, and say how much."""
        self._said_scarce = True
        ordered = sorted(job.fed for job in jobs)
        needed = sum(map(len, ordered)) - sum(_common(*pair) for pair in pairwise(ordered))
        _log.warning(
            "the contexts of one step have %d tokens, and memory=%d holds those of %.0f: what does "
            "not fit is computed again at each step, which is slow; give the engine memory=%d",
            needed,
            self.store.memory,
            self.store.limit,
            self.store.memory * 1.25 * needed / self.store.limit,
        )

    def pieces(self, job: Job) -> list[Job]:
        """The same as jobs whose logits fit one pass, those beyond the switch target by target."""
        size = max(1, PASS_BYTES // (4 * self.vocab_size))
        near = int(max(0, min(len(job.targets), self.window.switch - len(job.context) + 1)))
        head = job._replace(targets=job.targets[:near])
        tail = job._replace(context=job.context + head.targets, targets=job.targets[near:])
        return [*head.pieces(size), *tail.pieces(1)]

    def _run_far(self, jobs: list[Job], answers: dict[Job, torch.Tensor]) -> None:
        """Contexts in which the model treats first tokens differently than in shorter ones."""
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s may treat the first tokens of a context of more than %d tokens differently "
                "than in a shorter one: such contexts are run in full, one at a time",
                type(self.model).__name__,
                self.window.switch,
            )
        for job in jobs:
            try:
                self._try([job], answers, alone=True)
            finally:
                self._forward.forget()

    def _depth(self, job: Job) -> int:
        return self.store.base(job).depth

    def _prefill(self, jobs: list[Job], level: int = 0) -> None:
        """Feed once what several jobs share, and long contexts in chunks."""
        if not self.store.keeps:
            return
        long = sorted(job for job in jobs if len(job.past) - self._depth(job) >= _SHARED)
        stems: dict[Job, None] = {}
        for one, other in pairwise(long):
            shared = _common(one.past, other.past)
            if shared - self._depth(one) >= _SHARED:
                stems[Job(one.past[:shared])] = None
        if stems:
            if level < 3:  # stems of stems; deeper, feeding a little twice beats another pass
                self._prefill(list(stems), level + 1)
            for group in self._groups.of(list(stems), self.store):
                self._try(group, {})
        if self.store.layout.steps:
            self._step(jobs)
        else:
            for job in long:
                for end in range(self._depth(job) + _CHUNK, len(job.past), _CHUNK):
                    self._try([Job(job.past[:end])], {})
        if self.store.snapshots is not None and not level:
            # The end of a prompt is asked for again, and a state cannot be cut back to it.
            ends = [Job(end) for end in dict.fromkeys(job.past for job in long)]
            for group in self._groups.of(ends, self.store):
                self._try(group, {})

    def _step(self, jobs: list[Job]) -> None:
        """Feed single tokens behind states, where that costs less than to begin anew."""
        for _ in range(max((len(job.past) for job in jobs), default=0) // self._pass_cost):
            ahead = dict[Job, None]()
            for job in jobs:
                depth = self.store.find(job.past).depth
                left = len(job.past) - depth
                if depth and left and left * self._pass_cost <= len(job.past) and not job.targets:
                    ahead[Job(job.past[: depth + 1])] = None
            if not ahead:
                return
            for group in self._groups.of(list(ahead), self.store):
                self._try(group, {})

    def _try(
        self, jobs: list[Job], answers: dict[Job, torch.Tensor], *, alone: bool = False
    ) -> None:
        """A pass; if the memory is not enough for it, two halves of it."""
        if not (alone or self._groups.are_alike(jobs, self.store)):  # a state was dropped meanwhile
            for group in self._groups.of(jobs, self.store):
                self._try(group, answers)
            return
        try:
            if alone or not self.store.keeps:
                self._plain_pass(jobs, answers)
            else:
                self._pass(jobs, answers)
            return
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0]
        # Here and not in the handler: the error's traceback holds on to what did not fit.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(jobs) == 1:
            raise AwrsError(
                f"out of memory in a forward pass of one context of {len(jobs[0].fed)} tokens "
                f"({reason}): give the engine less with memory=..., or load the model with "
                "dtype='bfloat16'"
            )
        for half in (jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]):
            self._try(half, answers)

    def _pass(self, jobs: list[Job], answers: dict[Job, torch.Tensor]) -> None:
        """One forward pass over what is new; its answers are added to `answers`."""
        if not self._trees.pay(self.store, jobs):
            self._pass_by(View, jobs, answers)
        elif self._trees.fit:
            self._pass_by(TreeView, jobs, answers)
        else:
            self._trees.compare(self._pass_by, jobs, answers)

    def _pass_by(self, kind: type[View], jobs: list[Job], answers: dict[Job, torch.Tensor]) -> None:
        with kind.over(self.store, jobs) as view:
            given = view.arguments()
            with self._own_positions.told(given, view.get_seq_length()) as given:
                output = self._forward.output(
                    input_ids=view.inputs(),
                    **self._forward.taken(logits_to_keep=view.keep, **given),
                    use_cache=True,
                )
            view.take(output)
        self._count(sum(map(len, view.new)))
        for job, row in view.answers(output.logits):
            answers[job] = job.answer(row)

    def _plain_pass(self, jobs: list[Job], answers: dict[Job, torch.Tensor]) -> None:
        """One forward pass over whole contexts."""
        logits = self._forward.alone([job.fed for job in jobs], [job.keep for job in jobs])
        self._count(sum(len(job.fed) for job in jobs))
        for job, row in zip(jobs, logits, strict=True):
            answers[job] = job.answer(row)

    def _count(self, tokens: int) -> None:
        self.stats.passes += 1
        self.stats.tokens += tokens


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many first tokens two contexts have in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _is_out_of_memory(error: BaseException) -> bool:
    # The allocator of the CPU raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "can't allocate memory" in str(error)
    )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
