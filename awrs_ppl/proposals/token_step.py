"""Texts on the way: one token for every particle that is generating, in batches."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from awrs_ppl._concurrency import together
from awrs_ppl.constraints.adapters import Text, Weigher
from awrs_ppl.constraints.next_verdicts import Knowledge, start
from awrs_ppl.constraints.potential import State
from awrs_ppl.constraints.product import Target
from awrs_ppl.constraints.verdict_cache import Memory
from awrs_ppl.errors import ContextLengthError
from awrs_ppl.proposals import Draw, Proposal
from awrs_ppl.tokens.next_token import Outcomes, Place, weigh_outcomes
from awrs_ppl.tokens.vocabulary import stop_tail

__all__ = [
    "Advance",
    "Generation",
    "Item",
    "Meter",
    "Progress",
    "begin",
    "known",
    "place_of",
    "step",
    "weigh",
]


class Generation(Protocol):
    """What a text is drawn from: the statement `Generate` of a program.

    `keys` are those of the Boolean factors; statements with equal `key` say the same of every
    text, those with equal `draw_key` draw alike, whatever weighs later.
    """

    @property
    def target(self) -> Target: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def proposal(self) -> Proposal: ...
    @property
    def key(self) -> Hashable: ...
    @property
    def keys(self) -> tuple[Hashable, ...]: ...
    @property
    def draw_key(self) -> Hashable: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """A text on the way: immutable, so that clones share it.

    `states` are those of the Boolean factors; `weights` the log-weights that the weighing
    factors give to the text as a beginning. Of an ended text only `text` is meant. `origin` is
    where the last token was drawn, and this token; `twist` is that of its draw.
    """

    text: Text
    states: tuple[State, ...]
    weights: tuple[float, ...]
    ended: bool = False
    origin: tuple[Hashable, int] | None = None
    twist: float = 0.0


@dataclass(frozen=True, slots=True)
class Item:
    """A particle in a step: what it asks for, how far it is, how to make its random numbers, and
    its share of the population's weight."""

    generation: Generation
    progress: Progress
    stream: Callable[[], np.random.Generator]
    share: float


@dataclass(frozen=True, slots=True)
class Advance:
    """A step of one particle: where it is now and the log-weight of the step.

    `progress` is None if the particle died, and `killer` says by what; or if a language model could
    not take its context: then `error` is raised in the particle's model, at the statement.
    """

    progress: Progress | None
    log_weight: float
    killer: str | None = None
    error: ContextLengthError | None = None


@dataclass(slots=True)
class Meter:
    """What an inference has cost: `seconds` by part, the rest by potential."""

    tokens: int = 0
    checks: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    check_seconds: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def count(self, questions: Iterable[Knowledge]) -> None:
        """Charge what was asked to the potentials, which are named once: names may be long."""
        names: dict[int, str] = {}
        for knowledge in questions:
            # Whoever was asked has taken time.
            for i, seconds in knowledge.seconds.items():
                potential = knowledge.target.boolean[i].potential
                name = names.get(id(potential))
                if name is None:
                    name = names[id(potential)] = repr(potential)
                self.check_seconds[name] = self.check_seconds.get(name, 0.0) + seconds
                for asked, total in (
                    (knowledge.checks, self.checks),
                    (knowledge.rejections, self.refusals),
                ):
                    if i in asked:
                        total[name] += asked[i]

    def lap(self, part: str, started: float) -> float:
        """Charge the time since `started` to a part; returns the time now."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - started
        return now


async def begin(generations: Sequence[Generation]) -> list[Advance]:
    """The empty text of each generation, weighed by its product's `prefix`."""
    # Particles mostly begin the same product: it is asked once.
    targets = {generation.key: generation.target for generation in generations}
    begun = dict(zip(targets, await together(map(_begin, targets.values())), strict=True))
    return [begun[generation.key] for generation in generations]


async def _begin(target: Target) -> Advance:
    empty = Text()
    states = await start(target, empty)
    if isinstance(states, str):
        return Advance(None, -math.inf, f"{states} (at the empty text)")
    try:
        weights = known(await weigh([(weigher, empty, False) for weigher in target.weighted]))
    except ContextLengthError as error:
        return Advance(None, 0.0, error=error)
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
    knowledge: Knowledge
    members: list[int] = field(default_factory=list)
    # By language model: the rows of all contexts, and which one is this context's.
    rows: list[tuple[torch.Tensor, int]] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    error: ContextLengthError | None = None


async def step(items: Sequence[Item], meter: Meter, memory: Memory) -> list[Advance]:
    """Draw one outcome for each item; texts that reach `max_tokens` are ended."""
    now = time.perf_counter()
    groups = list(_groups(items, memory))
    now = meter.lap("proposal", now)
    await _ask_models(groups)
    now = meter.lap("language model", now)
    advances: list[Advance] = [Advance(None, -math.inf)] * len(items)
    for group in groups:
        if group.error is not None:
            for i in group.members:
                advances[i] = Advance(None, 0.0, error=group.error)
    groups = [group for group in groups if group.error is None]
    await _draw_all(groups, items)
    for group in groups:
        for i, draw in zip(group.members, group.draws, strict=True):
            advances[i] = await _apply(group, items[i].progress, draw)
        # Now and not before: what others meet must not hang on who is done first.
        dead = any(advances[i].progress is None for i in group.members)
        if dead and not group.forced and group.knowledge.is_dead_end():
            memory.bury(group.knowledge.place, group.progress.origin)
        group.knowledge.settle()
    meter.count(group.knowledge for group in groups)
    now = meter.lap("proposal", now)
    meter.tokens += len(items)
    advances = await _apply_weighers(items, advances)
    meter.lap("potentials", now)
    return advances


def _groups(items: Sequence[Item], memory: Memory) -> Iterable[_Group]:
    groups: dict[Any, _Group] = {}
    for i, item in enumerate(items):
        generation, progress = item.generation, item.progress
        text = progress.text
        forced = len(text.tokens) >= generation.max_tokens - 1
        key = (generation.draw_key, text.tokens, forced)
        group = groups.get(key)
        if group is None:
            target = generation.target
            vocabulary = target.vocabulary
            assert vocabulary is not None
            closings = vocabulary.closings(target.stops, stop_tail(text.data, target.stops))
            knowledge = Knowledge.at(
                target,
                text,
                progress.states,
                closings,
                memory,
                generation.keys,
                progress.twist,
            )
            group = groups[key] = _Group(generation, progress, forced, knowledge)
        group.members.append(i)
    return groups.values()


async def _ask_models(groups: list[_Group]) -> None:
    """The rows of all groups, one batch for each language model."""
    wanted: dict[Any, list[tuple[_Group, int, tuple[int, ...], float]]] = defaultdict(list)
    for group in groups:
        dense = group.generation.target.dense
        group.rows = [(torch.empty(0), 0)] * len(dense)
        for j, lm in enumerate(dense):
            context = lm.prompt + group.progress.text.tokens
            wanted[lm.lm].append((group, j, context, lm.temperature))

    async def ask(lm: Any) -> None:
        batch = wanted[lm]
        try:
            rows = await lm.logits([b[2] for b in batch], [b[3] for b in batch])
        except ContextLengthError:
            await together(ask_one(lm, *one) for one in batch)  # the rest has its rows
            return
        for i, (group, j, _, _) in enumerate(batch):
            group.rows[j] = rows, i

    async def ask_one(
        lm: Any, group: _Group, j: int, context: tuple[int, ...], temperature: float
    ) -> None:
        try:
            group.rows[j] = await lm.logits([context], [temperature]), 0
        except ContextLengthError as error:
            group.error = error

    await together(map(ask, wanted))


async def _draw_all(groups: list[_Group], items: Sequence[Item]) -> None:
    """Weigh the outcomes of all groups at once, and draw."""
    kinds: dict[Any, list[_Group]] = defaultdict(list)
    for group in groups:
        target = group.generation.target
        kinds[target.vocabulary, len(target.dense)].append(group)
    drawn: list[tuple[_Group, Outcomes]] = []
    for (vocabulary, count), members in kinds.items():
        rows = [_rows([group.rows[j] for group in members]) for j in range(count)]
        places = [
            place_of(
                group.generation.proposal,
                group.knowledge,
                group.forced,
                math.fsum(items[i].share for i in group.members),
            )
            for group in members
        ]
        drawn += zip(members, weigh_outcomes(rows, vocabulary, places), strict=True)

    # Groups that learn about the same state draw one after the other, so that what they know does
    # not hang on whose checks are done first; others draw side by side.
    chains: list[tuple[set[int], list[tuple[_Group, Outcomes]]]] = []
    for group, outcomes in drawn:
        shared = {id(verdicts) for verdicts in group.knowledge.known.values()}
        alike = [chain for chain in chains if chain[0] & shared]
        merged = set[int]().union(shared, *(chain[0] for chain in alike))
        links = [link for chain in alike for link in chain[1]]
        chains = [chain for chain in chains if not chain[0] & shared]
        chains.append((merged, [*links, (group, outcomes)]))

    async def draw(links: list[tuple[_Group, Outcomes]]) -> None:
        for group, outcomes in links:
            rngs = [items[i].stream() for i in group.members]
            proposal = group.generation.proposal
            group.draws = await proposal.draw(outcomes, group.knowledge, rngs)

    await together(draw(links) for _, links in chains)


def _rows(parts: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
    """Rows as one tensor; mostly they are all of one already, in order."""
    whole = parts[0][0]
    if len(whole) == len(parts) and all(r is whole and i == k for k, (r, i) in enumerate(parts)):
        return whole
    return torch.stack([rows[i] for rows, i in parts])


def place_of(proposal: Proposal, knowledge: Knowledge, forced: bool, share: float) -> Place:
    """What a proposal lets the outcomes be restricted by."""
    allowed = knowledge.allowed if proposal.uses_masks else None
    place = Place(knowledge.closings, allowed, forced, share=share)
    if not proposal.uses_knowledge:
        return place
    return replace(
        place,
        accepted=knowledge.accepted(),
        rejected=knowledge.rejected(),
        version=knowledge.version,
    )


async def _apply(group: _Group, progress: Progress, draw: Draw) -> Advance:
    knowledge = group.knowledge
    if draw.log_weight == -math.inf:
        return Advance(None, -math.inf, knowledge.killer(forced=group.forced))
    size = knowledge.vocabulary.size
    if draw.outcome < size:
        data = bytes(knowledge.vocabulary.tokens[draw.outcome])
        text = progress.text.then(draw.outcome, data)
        states = await knowledge.states_after(draw.outcome)
        origin = (knowledge.place, draw.outcome)
        drawn = Progress(text, states, progress.weights, origin=origin, twist=draw.twist)
        return Advance(drawn, draw.log_weight)
    closing = knowledge.closings.ends[draw.outcome - size]
    text = Text(closing.apply(progress.text.data), progress.text.tokens)
    return Advance(replace(progress, text=text, ended=True, twist=0.0), draw.log_weight)


async def _apply_weighers(items: Sequence[Item], advances: list[Advance]) -> list[Advance]:
    """Multiply by prefix(xv)/prefix(x), or at the end by complete(x)/prefix(x)."""
    asked = [
        (weigher, advance.progress.text, advance.progress.ended)
        for item, advance in zip(items, advances, strict=True)
        if advance.progress is not None
        for weigher in item.generation.target.weighted
    ]
    given = iter(await weigh(asked))
    weighed = []
    for item, advance in zip(items, advances, strict=True):
        weighted = item.generation.target.weighted
        if advance.progress is not None and weighted:
            answers = [next(given) for _ in weighted]
            try:
                weights = known(answers)
            except ContextLengthError as error:
                weighed.append(replace(advance, progress=None, error=error))
                continue
            if -math.inf in weights:
                which = weighted[weights.index(-math.inf)]
                advance = Advance(None, -math.inf, repr(which.potential))
            else:
                advance = Advance(
                    replace(advance.progress, weights=weights),
                    advance.log_weight + sum(weights) - sum(item.progress.weights),
                )
        weighed.append(advance)
    return weighed


Weight = float | ContextLengthError


async def weigh(asked: Sequence[tuple[Weigher, Text, bool]]) -> list[Weight]:
    """The log-weights of texts, one batch for each potential and kind of question.

    Of a text too long for a language model that weighs it, the error.
    """
    batches: dict[Any, list[int]] = defaultdict(list)
    for i, (weigher, _, ends) in enumerate(asked):
        alphabet = weigher.alphabet
        batches[id(weigher.potential), alphabet.kind, id(alphabet.tokens), ends].append(i)
    weights: list[Weight] = [0.0] * len(asked)

    async def ask(members: list[int], ends: bool) -> None:
        weigher = asked[members[0]][0]
        texts = [asked[i][1] for i in members]
        try:
            answers = await (weigher.completes(texts) if ends else weigher.prefixes(texts))
        except ContextLengthError as error:
            if len(members) > 1:
                await together(ask([i], ends) for i in members)
                return
            answers = [error]
        for i, answer in zip(members, answers, strict=True):
            weights[i] = answer

    await together(ask(members, key[-1]) for key, members in batches.items())
    return weights


def known(weights: Sequence[Weight]) -> tuple[float, ...]:
    """The weights of one text. Raises the error that is among them."""
    for weight in weights:
        if isinstance(weight, ContextLengthError):
            raise weight
    return tuple(w for w in weights if not isinstance(w, ContextLengthError))
