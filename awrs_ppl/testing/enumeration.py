"""Small programs by brute force: every execution, every text, every token.

Everything is computed the slow and plain way, from the models' rows and from the potentials on
whole texts, so that it can judge what the library computes step by step. Weights are summed by
arsenal and not by our `log_weights`, which are judged too.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from arsenal.maths import logsumexp

from awrs_ppl.constraints.target import Target
from awrs_ppl.distributions import Bernoulli, Categorical
from awrs_ppl.errors import ModelError
from awrs_ppl.posterior.by_value import ByValue, entry
from awrs_ppl.program.execution import Model, Run, require_model
from awrs_ppl.program.log import Record, copied
from awrs_ppl.program.statements import Call, Condition, Factor, Sample, Statement
from awrs_ppl.program.text_statements import Generate, Observe
from awrs_ppl.tokens.stops import first_stop
from awrs_ppl.tokens.text import Text, as_bytes, as_str

__all__ = ["Exact", "continuations", "enumerate_posterior", "enumerate_texts", "is_allowed"]


@dataclass(frozen=True)
class Exact:
    """The posterior of a program by enumeration: probabilities by value, and the evidence.

    >>> Exact({"a": 1.0}, log_ml=-0.5).probabilities["a"]
    1.0
    """

    probabilities: dict[Any, float]
    log_ml: float


async def enumerate_posterior(model: Model, *args: Any) -> Exact:
    """The exact posterior of a small program on a `ToyLM`, by running every execution.

    `sample` must be from `Categorical` or `Bernoulli`, and texts few:
    the number of token sequences is vocabulary ** max_tokens. Raises `ModelError` otherwise.

    >>> from awrs_ppl import Categorical
    >>> async def model(ctx):
    ...     die = await ctx.sample(Categorical([1, 2, 3]))
    ...     await ctx.condition(die > 1)
    ...     return die
    >>> exact = asyncio.run(enumerate_posterior(model))
    >>> sorted((value, round(p, 3)) for value, p in exact.probabilities.items())
    [(2, 0.5), (3, 0.5)]
    """
    require_model(model)
    masses: dict[Any, list[float]] = defaultdict(list)
    paths: list[tuple[list[Record], float]] = [([], 0.0)]
    while paths:
        records, log_weight = paths.pop()
        statement, value = await _run_on(model, args, records)
        if statement is None:
            masses[entry(value)].append(log_weight)
            continue
        for choice, weight in await _choices(statement):
            if weight > -math.inf:
                record = Record(statement, choice, weight)
                paths.append(([*records, record], log_weight + weight))
    if not masses:
        return Exact({}, -math.inf)
    log_masses = {value: float(logsumexp(weights)) for value, weights in masses.items()}
    log_ml = float(logsumexp(list(log_masses.values())))
    shares = {value: math.exp(mass - log_ml) for value, mass in log_masses.items()}
    return Exact(ByValue(shares.items()), log_ml)


async def _run_on(
    model: Model, args: Sequence[Any], records: list[Record]
) -> tuple[Statement | None, Any]:
    """Run a model on its record: the statement that comes next, or the value it returns."""
    blocked = asyncio.Event()
    run = Run(model, args, records, blocked.set)
    try:
        while not run.finished and run.statement is None:
            blocked.clear()
            await blocked.wait()
        if run.failure is not None:
            raise run.failure
        return (run.statement, None) if run.statement is not None else (None, run.value)
    finally:
        await run.drop()


async def _choices(statement: Statement) -> list[tuple[Any, float]]:
    """Every value a statement can give, with its log-weight."""
    if isinstance(statement, Generate):
        return list((await enumerate_texts(statement)).items())
    if isinstance(statement, Observe):
        return [(None, await _observed(statement))]
    if isinstance(statement, Factor | Condition):
        return [await statement.weigh(np.random.default_rng)]
    if isinstance(statement, Call):
        value = statement.function(*statement.args)
        return [(copied(await value if asyncio.iscoroutine(value) else value), 0.0)]
    assert isinstance(statement, Sample)
    distribution = statement.distribution
    if isinstance(distribution, Bernoulli):
        support: Iterable[Any] = (True, False)
    elif isinstance(distribution, Categorical):
        support = {entry(value): value for value in distribution.values}.values()
    else:
        raise ModelError(
            f"{statement.shows()} draws from {distribution!r}: only Categorical and Bernoulli can "
            "be enumerated"
        )
    return [(value, distribution.log_prob(value)) for value in support]


async def _observed(observation: Observe) -> float:
    """The log-probability of a value, token by token and apart from the library's own scoring."""
    target = observation.source
    if not isinstance(target, Target):
        return target.log_prob(observation.value)
    data = as_bytes(observation.value)
    ids = target.dense[0].encode(observation.value) if target.dense else ()
    if target.vocabulary is not None and max(ids, default=0) >= len(target.vocabulary.tokens):
        return -math.inf  # a byte that no token of a `ToyLM` spells
    log_p, prefix = 0.0, Text()
    for token in ids:
        after = Text(prefix.data + bytes(target.vocabulary.tokens[token]), (*prefix.tokens, token))  # pyright: ignore
        found = await continuations(target, prefix.tokens, prefix.data, forced=False)
        log_p += next((w for t, text, w in found if (t, text) == (token, after.data)), -math.inf)
        prefix = after
    if observation.ends and target.dense:
        found = await continuations(target, ids, data, forced=True)
        log_p += float(np.logaddexp.reduce([weight for _, _, weight in found]))
    log_p += await other_weight(target, Text(data, ids), ends=observation.ends)
    if log_p > -math.inf and not observation.ends:
        log_p -= await other_weight(target, Text(), ends=False)
    return log_p


async def enumerate_texts(generation: Generate) -> dict[str, float]:
    """The log-weight of every text that a `generate` statement can give."""
    target = generation.target
    masses: dict[str, list[float]] = defaultdict(list)
    partial: list[tuple[tuple[int, ...], bytes, float]] = []
    if await other_weight(target, Text(), ends=False) > -math.inf:
        partial.append(((), b"", 0.0))
    while partial:
        ids, data, log_p = partial.pop()
        last = len(ids) == generation.max_tokens - 1
        for token, text, weight in await continuations(
            target, ids, data, forced=last and generation.ends, ends=generation.ends
        ):
            if weight == -math.inf:
                continue
            after = Text(text, ids if token is None else (*ids, token))
            over = token is None
            if token is not None and not generation.ends:
                over = await is_over(target, after, last=last)
                if last and not over:
                    continue
            if over:
                total = log_p + weight + await other_weight(target, after, ends=True)
                if generation.critic is not None:
                    total += (await generation.critic.completes([after]))[0]
                # The sum of weights that are all zero would be NaN.
                if total > -math.inf:
                    masses[as_str(text)].append(total)
            elif await other_weight(target, after, ends=False) > -math.inf:
                partial.append((after.tokens, text, log_p + weight))
    return {text: float(logsumexp(parts)) for text, parts in masses.items()}


async def continuations(
    target: Target, ids: tuple[int, ...], data: bytes, *, forced: bool, ends: bool = True
) -> list[tuple[int | None, bytes, float]]:
    """Every next token of the LMs: (token, text), or (None, finished text), and its log p.

    A text that need not end, without `ends`, is not ended by an end token, nor while it is empty.
    """
    vocabulary = target.vocabulary
    assert vocabulary is not None
    rows = []
    for lm in target.dense:
        logits = (await lm.lm.engine.next_logits([lm.prompt + ids]))[0].double()
        rows.append(torch.log_softmax(logits / lm.temperature, dim=-1).numpy())
    found: list[tuple[int | None, bytes, float]] = []
    if ends:
        log_end = sum(float(np.logaddexp.reduce(row[vocabulary.ends])) for row in rows)
        found.append((None, data, log_end))
    for token in vocabulary.text_ids.tolist():
        weight = float(sum(row[token] for row in rows))
        text = data + bytes(vocabulary.tokens[token])
        stop = first_stop(text, target.stops)
        if stop is None:
            if not forced:
                found.append((token, text, weight))
        elif (not forced or text[:stop] == data) and (ends or stop > 0):
            found.append((None, text[:stop], weight))
    return found


async def other_weight(target: Target, text: Text, *, ends: bool) -> float:
    """The log-weight of a text under all factors that are no language models."""
    if not await is_allowed(target, text, ends=ends):
        return -math.inf
    weight = 0.0
    if not ends:
        text = Text(_without_begun_stop(text.data, target.stops), text.tokens)
    for weigher in target.weighted:
        weight += (await (weigher.completes if ends else weigher.prefixes)([text]))[0]
    return weight


async def is_allowed(target: Target, text: Text, *, ends: bool) -> bool:
    """Whether all Boolean factors allow a text; as a prefix without what may become a stop."""
    data = text.data if ends else _without_begun_stop(text.data, target.stops)
    for factor in target.boolean:
        factor = getattr(factor, "factor", factor)
        state = await factor.begin(Text(data, text.tokens))
        if state is None or (ends and not await factor.accepts(state)):
            return False
    return True


async def is_over(target: Target, text: Text, *, last: bool) -> bool:
    """Whether a text that need not end is over after its last token."""
    if not await is_allowed(target, text, ends=True):
        return False
    if last:
        return True
    if _without_begun_stop(text.data, target.stops) != text.data:
        return False
    plain = [getattr(factor, "factor", factor) for factor in target.boolean]
    return any([await factor.is_over(await factor.begin(text)) for factor in plain])


def _without_begun_stop(data: bytes, stops: Sequence[bytes]) -> bytes:
    """Without the longest end that begins a stop of several bytes."""
    begun = [stop[:n] for stop in stops for n in range(1, len(stop)) if data.endswith(stop[:n])]
    return data[: len(data) - max(map(len, begun), default=0)]
