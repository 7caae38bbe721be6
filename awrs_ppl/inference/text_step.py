"""One token of every text that is being generated, in batches.

1. The empty text of new particles is weighed.
2. Particles at one context share one `TokenStep`.
3. Each language model gives the rows of all contexts in one pass.
4. The outcomes are weighed and drawn, or the children of all particles compete.
5. Factors that weigh multiply by prefix(xv)/prefix(x), or at the end by complete(x)/prefix(x).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from awrs_ppl._concurrency import together
from awrs_ppl.constraints.target import start
from awrs_ppl.constraints.weighing import require_weights, weigh_texts
from awrs_ppl.errors import ContextLengthError
from awrs_ppl.inference.blame import killer
from awrs_ppl.inference.change import Change, Shared
from awrs_ppl.inference.competition import Drawn, compete
from awrs_ppl.proposals import Draw, token_step
from awrs_ppl.proposals.room import left_near
from awrs_ppl.proposals.rows import Rows, rows_of, stacked
from awrs_ppl.proposals.token_step import Progress, TokenStep
from awrs_ppl.rng import Purpose
from awrs_ppl.tokens.text import Text

__all__ = ["draw_tokens"]

# The contexts of a step, each with the particles that are there.
_Steps = dict[TokenStep, list[Change]]


async def draw_tokens(changes: Sequence[Change], shared: Shared) -> list[Change]:
    """Draw one outcome for each; texts that reach `max_tokens` are ended.

    Where children compete, a particle then has several changes, or none.
    """
    await _begin([change for change in changes if change.progress is None])
    with shared.recorder.part("proposal"):
        steps = _steps([change for change in changes if change.progress is not None], shared)
    with shared.recorder.part("language model"):
        rows = await _rows(steps)
    with shared.recorder.part("proposal"):
        steps = {step: steps[step] for step in rows}
        _weigh_outcomes(steps, rows, shared)
        over = [change for change in changes if change.progress is None]
        if shared.contest is None:
            drawn = await _draw(steps, shared)
        else:
            drawn = await compete(steps, [c.slot for c in over if not c.completes], shared)
        texts = sorted((c for members, _ in drawn.values() for c in members), key=_slot)
        starts = [change.log_weight for change in texts]
        before = [change.progress for change in texts]
        for step, (members, draws) in drawn.items():
            await _commit(step, members, draws)
            shared.recorder.met.draw(step, members, draws)
        shared.recorder.met.come(steps)
        shared.recorder.count(step.verdicts for step in rows)
    shared.recorder.tokens += len(texts)
    with shared.recorder.part("potentials"):
        await _weigh(texts, before)
    for change, log_weight in zip(texts, starts, strict=True):
        change.log_weight = log_weight + change.log_weight
    return sorted([*over, *texts], key=_slot)


def _slot(change: Change) -> int:
    return change.slot


async def _begin(fresh: Sequence[Change]) -> None:
    """The empty text of each, weighed by its product's `prefix`."""
    # Most particles start the same product: it is evaluated once.
    firsts: dict[Any, Change] = {}
    for change in fresh:
        firsts.setdefault(change.generate.key, change)
    await together(map(_begin_one, firsts.values()))
    for change in fresh:
        first = firsts[change.generate.key]
        if change is not first:
            change.log_weight, change.killer = first.log_weight, first.killer
            change.progress = first.progress
            if first.error is not None:
                change.fail(first.error)


async def _begin_one(change: Change) -> None:
    target, empty = change.generate.target, Text()
    states = await start(target, empty)
    if isinstance(states, str):
        change.die(f"{states} (at the empty text)")
        return
    try:
        weights = require_weights(
            await weigh_texts([(weigher, empty, False) for weigher in target.weighted])
        )
    except ContextLengthError as error:
        change.fail(error)
        return
    if -math.inf in weights:
        potential = target.weighted[weights.index(-math.inf)].potential
        change.die(f"{potential!r} (at the empty text)")
        return
    change.progress, change.log_weight = Progress(empty, states, weights), sum(weights)


def _steps(growing: Sequence[Change], shared: Shared) -> _Steps:
    found: dict[Any, TokenStep] = {}
    steps: _Steps = {}
    for change in growing:
        generate, progress = change.generate, change.progress
        assert progress is not None
        tokens = progress.text.tokens
        last = len(tokens) >= generate.max_tokens - 1
        left = None if shared.contest is None else left_near(generate.max_tokens, len(tokens))
        key = (generate.draw_key, tokens, last, left)
        step = found.get(key)
        if step is None:
            step = found[key] = TokenStep.at(
                generate.target,
                progress,
                shared.cache,
                generate.proposal,
                last=last,
                ends=generate.ends,
                keys=generate.keys,
                left=left,
            )
            steps[step] = []
        steps[step].append(change)
    return steps


async def _rows(steps: _Steps) -> Rows:
    """The rows of all steps; particles whose context is too long fail, and their step has none."""
    rows, failed = await rows_of(list(steps))
    for step, error in failed.items():
        for change in steps[step]:
            change.fail(error)
    return rows


def _weigh_outcomes(steps: _Steps, rows: Rows, shared: Shared) -> None:
    kinds: dict[Any, list[TokenStep]] = defaultdict(list)
    for step in steps:
        target = step.verdicts.target
        kinds[target.vocabulary, len(target.dense)].append(step)
    for (_, count), alike in kinds.items():
        tensors = [stacked([rows[step][j] for step in alike]) for j in range(count)]
        shares = [math.fsum(map(shared.share, steps[step])) for step in alike]
        token_step.weigh(alike, tensors, shares)


async def _draw(steps: _Steps, shared: Shared) -> Drawn:
    """One draw for each particle."""
    drawn: Drawn = {}

    async def draw(step: TokenStep) -> None:
        rngs = [shared.stream(change.particle, Purpose.TOKEN) for change in steps[step]]
        drawn[step] = steps[step], await step.draw(rngs)

    await token_step.side_by_side(list(steps), draw)
    return drawn


async def _commit(step: TokenStep, members: Sequence[Change], draws: Sequence[Draw]) -> None:
    blamed: str | None = None
    for change, draw, progress in zip(members, draws, await step.commit(draws), strict=True):
        if progress is None:
            if blamed is None:
                blamed = await killer(step, change.generate.max_tokens)
            change.die(blamed)
        else:
            change.log_weight, change.progress = draw.log_weight, progress
            change.twist = progress.twist


async def _weigh(growing: Sequence[Change], before: Sequence[Progress | None]) -> None:
    """Multiply by the factors that weigh; `before` are the texts before the draws."""
    requests = [
        (weigher, change.progress.lasting(change.generate.target.stops), change.progress.ended)
        for change in growing
        if change.progress is not None
        for weigher in change.generate.target.weighted
    ]
    if not requests:
        return
    given = iter(await weigh_texts(requests))
    for change, was in zip(growing, before, strict=True):
        weighted = change.generate.target.weighted
        if change.progress is None or not weighted:
            continue
        assert was is not None
        answers = [next(given) for _ in weighted]
        try:
            weights = require_weights(answers)
        except ContextLengthError as error:
            change.fail(error)
            continue
        if -math.inf in weights:
            change.die(repr(weighted[weights.index(-math.inf)].potential))
        else:
            change.log_weight = change.log_weight + sum(weights) - sum(was.weights)
            change.weigh_text(weights)
