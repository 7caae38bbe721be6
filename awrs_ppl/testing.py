"""For tests of programs, potentials and proposals: exact answers on small cases.

Everything here is computed the slow and plain way, from the potentials' `prefix` and
`complete` on whole texts, so that it can judge what the library computes step by step.
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
from genlm.control.potential.base import Potential

from awrs_ppl.distributions import Bernoulli, Categorical
from awrs_ppl.engine import Model, Run
from awrs_ppl.errors import ModelError
from awrs_ppl.generation import Generation
from awrs_ppl.knowledge import Knowledge, start
from awrs_ppl.lifting import Alphabet, Text, Weigher
from awrs_ppl.outcomes import Outcomes
from awrs_ppl.products import Target
from awrs_ppl.proposals import Proposal
from awrs_ppl.smc import infer
from awrs_ppl.statements import Observation, target_of
from awrs_ppl.trace import Record, Request, copied
from awrs_ppl.vocabulary import first_stop, stop_tail
from awrs_ppl.weights import log_sum

__all__ = [
    "Exact",
    "assert_prefix_closed",
    "assert_properly_weighted",
    "assert_unbiased",
    "enumerate_posterior",
    "enumerate_texts",
]


@dataclass(frozen=True)
class Exact:
    """The posterior of a program by enumeration: probabilities by value, and the evidence."""

    probabilities: dict[Any, float]
    log_ml: float


async def enumerate_posterior(model: Model, *args: Any) -> Exact:
    """The exact posterior of a small program on a `ToyLM`, by running every execution.

    `sample` must be from `Categorical` or `Bernoulli`, values must be hashable, and texts few:
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
    masses: dict[Any, list[float]] = defaultdict(list)
    paths: list[tuple[list[Record], float]] = [([], 0.0)]
    while paths:
        records, log_weight = paths.pop()
        request, value = await _run_on(model, args, records)
        if request is None:
            masses[value].append(log_weight)
            continue
        for choice, weight in await _choices(request):
            if weight > -math.inf:
                record = Record(request, choice, weight)
                paths.append(([*records, record], log_weight + weight))
    log_masses = {value: log_sum(weights) for value, weights in masses.items()}
    log_ml = log_sum(list(log_masses.values()))
    return Exact({value: math.exp(mass - log_ml) for value, mass in log_masses.items()}, log_ml)


async def _run_on(
    model: Model, args: Sequence[Any], records: list[Record]
) -> tuple[Request | None, Any]:
    """Run a model on its record: the request that comes next, or the value it returns."""
    blocked = asyncio.Event()
    run = Run(model, args, records, blocked.set)
    try:
        while not run.finished and run.request is None:
            blocked.clear()
            await blocked.wait()
        if run.failure is not None:
            raise run.failure
        return (run.request, None) if run.request is not None else (None, run.value)
    finally:
        await run.drop()


async def _choices(request: Request) -> list[tuple[Any, float]]:
    """Every value a statement can give, with its log-weight."""
    if request.kind == "generate":
        return list((await enumerate_texts(request.arguments)).items())
    if request.kind == "observe":
        return [(None, await _observed(request.arguments))]
    if request.kind == "factor":
        return [(None, request.arguments)]
    if request.kind == "condition":
        return [(None, 0.0 if request.arguments else -math.inf)]
    if request.kind == "call":
        function, args = request.arguments
        value = function(*args)
        return [(copied(await value if asyncio.iscoroutine(value) else value), 0.0)]
    distribution = request.arguments[0]
    if isinstance(distribution, Bernoulli):
        support: Iterable[Any] = (True, False)
    elif isinstance(distribution, Categorical):
        support = dict.fromkeys(distribution.values)
    else:
        raise ModelError(
            f"{request.shows()} draws from {distribution!r}: only Categorical and Bernoulli can "
            "be enumerated"
        )
    return [(value, distribution.log_prob(value)) for value in support]


async def _observed(asked: Observation) -> float:
    """The log-probability of a value, token by token and apart from the library's own scoring."""
    if asked.distribution is not None:
        return asked.distribution.log_prob(asked.value)
    target = asked.target
    assert target is not None
    data = asked.value.encode("utf-8", "surrogateescape")
    ids = target.dense[0].lm.encode(asked.value) if target.dense else ()
    log_p, begun = 0.0, Text()
    for token in ids:
        after = Text(begun.data + bytes(target.vocabulary.tokens[token]), (*begun.tokens, token))  # pyright: ignore
        found = await _continuations(target, begun.tokens, begun.data, forced=False)
        log_p += next((w for t, text, w in found if (t, text) == (token, after.data)), -math.inf)
        begun = after
    if asked.ends and target.dense:
        found = await _continuations(target, ids, data, forced=True)
        log_p += float(np.logaddexp.reduce([weight for _, _, weight in found]))
    log_p += await _weight(target, Text(data, ids), ends=asked.ends)
    if log_p > -math.inf and not asked.ends:
        log_p -= await _weight(target, Text(), ends=False)
    return log_p


async def enumerate_texts(generation: Generation) -> dict[str, float]:
    """The log-weight of every text that a `generate` statement can give."""
    target = generation.target
    masses: dict[str, list[float]] = defaultdict(list)
    beginnings: list[tuple[tuple[int, ...], bytes, float]] = []
    if await _weight(target, Text(), ends=False) > -math.inf:
        beginnings.append(((), b"", 0.0))
    while beginnings:
        ids, data, log_p = beginnings.pop()
        forced = len(ids) == generation.max_tokens - 1
        for token, text, weight in await _continuations(target, ids, data, forced=forced):
            if weight == -math.inf:
                continue
            if token is None:
                total = log_p + weight + await _weight(target, Text(text, ids), ends=True)
                if generation.critic is not None:
                    total += (await generation.critic.completes([Text(text, ids)]))[0]
                masses[text.decode("utf-8", "surrogateescape")].append(total)
            else:
                longer = (*ids, token)
                if await _weight(target, Text(text, longer), ends=False) > -math.inf:
                    beginnings.append((longer, text, log_p + weight))
    sums = {text: float(np.logaddexp.reduce(parts)) for text, parts in masses.items()}
    return {text: weight for text, weight in sums.items() if weight > -math.inf}


async def _continuations(
    target: Target, ids: tuple[int, ...], data: bytes, *, forced: bool
) -> list[tuple[int | None, bytes, float]]:
    """Every next token of the LMs: (token, text), or (None, finished text), and its log p."""
    vocabulary = target.vocabulary
    assert vocabulary is not None
    rows = []
    for lm in target.dense:
        logits = (await lm.lm.engine.next_logits([lm.prompt + ids]))[0].double()
        rows.append(torch.log_softmax(logits / lm.temperature, dim=-1).numpy())
    ends = vocabulary.ends
    found: list[tuple[int | None, bytes, float]] = [
        (None, data, sum(float(np.logaddexp.reduce(row[ends])) for row in rows))
    ]
    for token in vocabulary.text_ids.tolist():
        weight = float(sum(row[token] for row in rows))
        text = data + bytes(vocabulary.tokens[token])
        stop = first_stop(text, target.stops)
        if stop is None:
            if not forced:
                found.append((token, text, weight))
        elif not forced or text[:stop] == data:
            found.append((None, text[:stop], weight))
    return found


async def _weight(target: Target, text: Text, *, ends: bool) -> float:
    """The log-weight of a text under all factors that are no language models."""
    weight = 0.0
    for factor in target.boolean:
        state = await factor.begin(text)
        if state is None or (ends and not await factor.accepts(state)):
            return -math.inf
    for weigher in target.weighted:
        weight += (await (weigher.completes if ends else weigher.prefixes)([text]))[0]
    return weight


async def assert_unbiased(
    model: Model, *args: Any, runs: int = 200, z: float = 4.5, seed: int = 0, **options: Any
) -> None:
    """Check `infer` against enumeration: the evidence, and the mass of every value.

    The mean over `runs` inferences (with the `options` of `infer`) of the weight that falls on
    a value, per particle, is unbiased for its probability times the evidence: a z-test for the
    evidence and for every value of at least 5 %. Raises `AssertionError` naming the value.
    Weights with heavy tails need more runs than a z-test knows.
    """
    exact = await enumerate_posterior(model, *args)
    evidence = math.exp(exact.log_ml)
    wanted = {
        value: probability * evidence
        for value, probability in exact.probabilities.items()
        if probability >= 0.05
    }
    masses, n = np.zeros((runs, len(wanted) + 1)), 1
    for number in range(runs):
        posterior = await infer(model, *args, seed=seed + number, progress=False, **options)
        weights = np.exp(posterior.log_weights)
        masses[number, -1] = weights.sum()
        for j, value in enumerate(wanted):
            masses[number, j] = weights[[v == value for v in posterior.values]].sum()
        n = len(posterior)
        masses[number] /= n
    for j, (name, target) in enumerate([*wanted.items(), ("the evidence", evidence)]):
        mean = masses[:, j].mean()
        # A value rarely seen has too small a sample variance: at best every particle has the
        # weight of the evidence, and its mass the variance of a proportion. The evidence
        # itself can be without variance.
        floor = 0.0 if name == "the evidence" else target * (evidence - target) / n
        error = math.sqrt(max(masses[:, j].var(), floor) / runs) + 1e-9 * evidence
        if abs(mean - target) > z * error:
            raise AssertionError(
                f"the mass of {name!r} is {mean:.5g} in the mean over {runs} runs, not "
                f"{target:.5g} ({(mean - target) / error:+.1f} standard errors)"
            )


async def assert_prefix_closed(potential: Potential, samples: Iterable[str | bytes]) -> None:
    """Check on sample texts that what is rejected stays rejected, byte by byte.

    Also that a text which may end is allowed as a beginning. Raises `AssertionError` naming
    the text.

    >>> from awrs_ppl.potentials import predicate
    >>> asyncio.run(assert_prefix_closed(predicate(lambda text: len(text) != 1), ["ab"]))
    Traceback (most recent call last):
    AssertionError: predicate(<lambda>) rejects b'a' and allows the longer b'ab'
    """
    reads = Weigher(potential, Alphabet(potential, None))
    if (await reads.prefixes([Text()]))[0] == -math.inf:
        raise AssertionError(f"{potential!r} rejects the empty text, so there is nothing to test")
    for sample in samples:
        data = sample.encode("utf-8", "surrogateescape") if isinstance(sample, str) else sample
        rejected: bytes | None = None
        for length in range(len(data) + 1):
            text = data[:length]
            allowed = (await reads.prefixes([Text(text)]))[0] > -math.inf
            if allowed and rejected is not None:
                raise AssertionError(
                    f"{potential!r} rejects {rejected!r} and allows the longer {text!r}"
                )
            if not allowed and rejected is None:
                rejected = text
            if not allowed and (await reads.completes([Text(text)]))[0] > -math.inf:
                raise AssertionError(
                    f"{potential!r} lets a text end as {text!r}, which it rejects as a beginning"
                )


async def assert_properly_weighted(
    proposal: Proposal,
    potential: Potential,
    text: str = "",
    *,
    draws: int = 4000,
    together: int = 1,
    forced: bool = False,
    seed: int = 0,
    z: float = 4.5,
) -> None:
    """Check that E[W 1{x = v}] = p(v) c(v) for every outcome v after `text`, by z-tests.

    `potential` is a product with a `ToyLM`; `together` draws share one knowledge, as particles
    at one context do; `forced` leaves only the end, as at `max_tokens`. The chance that a right
    proposal fails is below 7e-6 times the number of outcomes at the default `z`, apart from
    heavy tails. Raises `AssertionError` naming the outcome.
    """
    target = target_of(potential)
    vocabulary = target.vocabulary
    assert vocabulary is not None
    ids = target.dense[0].lm.encode(text)
    here = Text(text.encode("utf-8", "surrogateescape"), ids)
    states = await start(target, here)
    assert not isinstance(states, str), f"{states} rejects {text!r}"
    wanted: dict[tuple[int | None, bytes], float] = defaultdict(float)
    for token, data, weight in await _continuations(target, ids, here.data, forced=forced):
        then = Text(data, ids if token is None else (*ids, token))
        allowed = await _boolean(target, then, ends=token is None)
        if allowed and weight > -math.inf:
            wanted[token, data] += math.exp(weight)
    total = math.fsum(wanted.values())
    rows = [row[0] for row in [await lm.log_probs([ids]) for lm in target.dense]]
    closings = vocabulary.closings(target.stops, stop_tail(here.data, target.stops))
    sums: dict[tuple[int | None, bytes], float] = defaultdict(float)
    squares: dict[tuple[int | None, bytes], float] = defaultdict(float)
    rounds = -(-draws // together)
    for number in range(rounds):
        knowledge = Knowledge(target, here, states, closings)
        knowledge.compute_masks()
        allowed = knowledge.allowed if proposal.uses_masks else None
        outcomes = Outcomes.of(rows, vocabulary, closings, allowed=allowed, forced=forced)
        rngs = [np.random.default_rng([seed, number, i]) for i in range(together)]
        # Draws made together may depend on each other: their mean is one observation.
        seen: dict[tuple[int | None, bytes], float] = defaultdict(float)
        for draw in await proposal.draw(outcomes, knowledge, rngs):
            if draw.log_weight > -math.inf:
                if draw.outcome < vocabulary.size:
                    token = draw.outcome
                    what = (token, here.data + bytes(vocabulary.tokens[token]))
                else:
                    what = (None, closings.ends[draw.outcome - vocabulary.size].apply(here.data))
                seen[what] += math.exp(draw.log_weight) / together
        for what, weight in seen.items():
            sums[what] += weight
            squares[what] += weight * weight
    for what in sorted({*wanted, *sums}, key=str):
        mean = sums[what] / rounds
        variance = max(squares[what] / rounds - mean * mean, 0.0)
        # An outcome rarely seen has too small a sample variance: at best W is the allowed mass.
        floor = wanted[what] * (total - wanted[what]) / together
        error = math.sqrt(max(variance, floor) / rounds) + 1e-9
        if abs(mean - wanted[what]) > z * error:
            name = "the end as" if what[0] is None else f"token {what[0]} giving"
            raise AssertionError(
                f"{proposal!r}: {name} {what[1]!r} has the mean weight {mean:.5f}, not "
                f"{wanted[what]:.5f} ({(mean - wanted[what]) / error:+.1f} standard errors)"
            )


async def _boolean(target: Target, text: Text, *, ends: bool) -> bool:
    for factor in target.boolean:
        state = await factor.begin(text)
        if state is None or (ends and not await factor.accepts(state)):
            return False
    return True
