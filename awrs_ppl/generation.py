"""Texts on the way: one token for every particle that is generating, in batches."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from awrs_ppl.knowledge import Knowledge, start
from awrs_ppl.lifting import Text, Weigher
from awrs_ppl.outcomes import Outcomes
from awrs_ppl.potential import State
from awrs_ppl.products import Target
from awrs_ppl.proposals import Draw, Proposal
from awrs_ppl.tasks import together
from awrs_ppl.vocabulary import stop_tail

__all__ = ["Advance", "Generation", "Meter", "Progress", "begin", "step", "weigh"]


@dataclass(frozen=True, slots=True)
class Generation:
    """What a `generate` statement asks for."""

    target: Target
    max_tokens: int
    proposal: Proposal
    critic: Weigher | None


@dataclass(frozen=True, slots=True)
class Progress:
    """A text on the way: immutable, so that clones share it.

    `states` are those of the Boolean factors; `weights` the log-weights that the weighing
    factors give to the text as a beginning. Of an ended text only `text` is meant.
    """

    text: Text
    states: tuple[State, ...]
    weights: tuple[float, ...]
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Advance:
    """A step of one particle: where it is now and the log-weight of the step.

    `progress` is None if the particle died, and `killer` says by what.
    """

    progress: Progress | None
    log_weight: float
    killer: str | None = None


@dataclass(slots=True)
class Meter:
    """What an inference has cost so far; `seconds` by part, `checks` by potential."""

    tokens: int = 0
    checks: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def lap(self, part: str, started: float) -> float:
        """Charge the time since `started` to a part; returns the time now."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - started
        return now


async def begin(generations: Sequence[Generation]) -> list[Advance]:
    """The empty text of each generation, weighed by its product's `prefix`."""
    # Particles mostly begin the same product: it is asked once.
    targets = {generation.target.key: generation.target for generation in generations}
    begun = dict(zip(targets, await together(map(_begin, targets.values())), strict=True))
    return [begun[generation.target.key] for generation in generations]


async def _begin(target: Target) -> Advance:
    empty = Text()
    states = await start(target, empty)
    if isinstance(states, str):
        return Advance(None, -math.inf, f"{states} (at the empty text)")
    weights = tuple(await weigh([(weigher, empty, False) for weigher in target.weighted]))
    if -math.inf in weights:
        killer = target.weighted[weights.index(-math.inf)].potential
        return Advance(None, -math.inf, f"{killer!r} (at the empty text)")
    return Advance(Progress(empty, states, weights), sum(weights))


@dataclass(slots=True)
class _Group:
    """Particles that are at the same context: same product, same tokens, same end."""

    generation: Generation
    progress: Progress
    forced: bool
    members: list[int] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    knowledge: Knowledge | None = None
    draws: list[Draw] = field(default_factory=list)


async def step(
    items: Sequence[tuple[Generation, Progress, np.random.Generator]], meter: Meter
) -> list[Advance]:
    """Draw one outcome for each item; texts that reach `max_tokens` are ended."""
    groups: dict[Any, _Group] = {}
    for i, (generation, progress, _) in enumerate(items):
        forced = len(progress.text.tokens) >= generation.max_tokens - 1
        key = (generation.target.key, generation.proposal, progress.text.tokens, forced)
        groups.setdefault(key, _Group(generation, progress, forced)).members.append(i)

    now = time.perf_counter()
    await _ask_models(list(groups.values()))
    now = meter.lap("language model", now)
    await together(_draw(group, items) for group in groups.values())
    now = meter.lap("proposal", now)

    advances: list[Advance] = [Advance(None, -math.inf)] * len(items)
    for group in groups.values():
        assert group.knowledge is not None
        for factor, count in group.knowledge.checks_by_name().items():
            meter.checks[factor] += count
        for i, draw in zip(group.members, group.draws, strict=True):
            advances[i] = await _apply(group, draw)
    meter.tokens += len(items)
    advances = await _apply_weighers(items, advances)
    meter.lap("potentials", now)
    return advances


async def _ask_models(groups: list[_Group]) -> None:
    """The rows of all groups, one batch for each language model."""
    wanted: dict[Any, list[tuple[_Group, int, tuple[int, ...], float]]] = defaultdict(list)
    for group in groups:
        dense = group.generation.target.dense
        group.rows = [np.empty(0)] * len(dense)
        for j, lm in enumerate(dense):
            context = lm.prompt + group.progress.text.tokens
            wanted[lm.lm].append((group, j, context, lm.temperature))

    async def ask(lm: Any) -> None:
        batch = wanted[lm]
        rows = await lm.log_probs([b[2] for b in batch], [b[3] for b in batch])
        for (group, j, _, _), row in zip(batch, rows, strict=True):
            group.rows[j] = row

    await together(map(ask, wanted))


async def _draw(
    group: _Group, items: Sequence[tuple[Generation, Progress, np.random.Generator]]
) -> None:
    target, proposal, text = group.generation.target, group.generation.proposal, group.progress.text
    vocabulary = target.vocabulary
    assert vocabulary is not None
    closings = vocabulary.closings(target.stops, stop_tail(text.data, target.stops))
    group.knowledge = knowledge = Knowledge(target, text, group.progress.states, closings)
    knowledge.compute_masks()
    outcomes = Outcomes.of(
        group.rows,
        vocabulary,
        closings,
        allowed=knowledge.allowed if proposal.uses_masks else None,
        forced=group.forced,
    )
    rngs = [items[i][2] for i in group.members]
    group.draws = await proposal.draw(outcomes, knowledge, rngs)


async def _apply(group: _Group, draw: Draw) -> Advance:
    knowledge, progress = group.knowledge, group.progress
    assert knowledge is not None
    if draw.log_weight == -math.inf:
        return Advance(None, -math.inf, knowledge.killer(forced=group.forced))
    size = knowledge.vocabulary.size
    if draw.outcome < size:
        data = bytes(knowledge.vocabulary.tokens[draw.outcome])
        text = progress.text.then(draw.outcome, data)
        states = await knowledge.states_after(draw.outcome)
        return Advance(Progress(text, states, progress.weights), draw.log_weight)
    closing = knowledge.closings.ends[draw.outcome - size]
    text = Text(closing.apply(progress.text.data), progress.text.tokens)
    return Advance(replace(progress, text=text, ended=True), draw.log_weight)


async def _apply_weighers(
    items: Sequence[tuple[Generation, Progress, Any]], advances: list[Advance]
) -> list[Advance]:
    """Multiply by prefix(xv)/prefix(x), or at the end by complete(x)/prefix(x)."""
    asked = [
        (weigher, advance.progress.text, advance.progress.ended)
        for (generation, _, _), advance in zip(items, advances, strict=True)
        if advance.progress is not None
        for weigher in generation.target.weighted
    ]
    given = iter(await weigh(asked))
    weighed = []
    for (generation, before, _), advance in zip(items, advances, strict=True):
        if advance.progress is not None and generation.target.weighted:
            weights = tuple(next(given) for _ in generation.target.weighted)
            if -math.inf in weights:
                which = generation.target.weighted[weights.index(-math.inf)]
                advance = Advance(None, -math.inf, repr(which.potential))
            else:
                advance = Advance(
                    replace(advance.progress, weights=weights),
                    advance.log_weight + sum(weights) - sum(before.weights),
                )
        weighed.append(advance)
    return weighed


async def weigh(asked: Sequence[tuple[Weigher, Text, bool]]) -> list[float]:
    """The log-weights of texts, one batch for each potential and kind of question."""
    batches: dict[Any, list[int]] = defaultdict(list)
    for i, (weigher, _, ends) in enumerate(asked):
        alphabet = weigher.alphabet
        batches[id(weigher.potential), alphabet.kind, id(alphabet.tokens), ends].append(i)
    weights = [0.0] * len(asked)

    async def ask(members: list[int], ends: bool) -> None:
        weigher = asked[members[0]][0]
        texts = [asked[i][1] for i in members]
        answers = await (weigher.completes(texts) if ends else weigher.prefixes(texts))
        for i, answer in zip(members, answers, strict=True):
            weights[i] = answer

    await together(ask(members, key[-1]) for key, members in batches.items())
    return weights
