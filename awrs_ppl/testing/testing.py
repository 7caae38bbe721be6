"""For tests of programs, potentials and proposals: exact answers on small cases."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from awrs_ppl._concurrency import resolve
from awrs_ppl._genlm import Potential
from awrs_ppl._messages import quoted
from awrs_ppl._values import is_number, same, whole
from awrs_ppl.constraints.genlm_factor import Alphabet
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.constraints.product import target_of
from awrs_ppl.constraints.target import start
from awrs_ppl.constraints.verdict_cache import VerdictCache
from awrs_ppl.constraints.weighing import Weigher
from awrs_ppl.inference.smc import infer
from awrs_ppl.posterior.by_value import ByValue
from awrs_ppl.program.execution import Model
from awrs_ppl.proposals import Proposal, is_proposal
from awrs_ppl.proposals.token_step import Progress, TokenStep, weigh
from awrs_ppl.testing.enumeration import continuations, enumerate_posterior, is_allowed
from awrs_ppl.tokens.text import Text, as_bytes

__all__ = ["assert_prefix_closed", "assert_properly_weighted", "assert_unbiased"]


async def assert_unbiased(
    model: Model, *args: Any, runs: int = 200, z: float = 4.5, seed: int = 0, **options: Any
) -> None:
    """Check `infer` against enumeration: the evidence, and the mass of every value.

    The mean over `runs` inferences (with the `options` of `infer`) of the weight that falls on
    a value, per particle, is unbiased for its probability times the evidence: a z-test for the
    evidence and for every value of at least 5 %. Raises `AssertionError` naming the value.
    Weights with heavy tails need more runs than a z-test knows.

    >>> from awrs_ppl import Bernoulli
    >>> async def coin(ctx):
    ...     heads = await ctx.sample(Bernoulli(0.5))
    ...     await ctx.observe(Bernoulli(0.9), heads)
    ...     return heads
    >>> import asyncio
    >>> asyncio.run(assert_unbiased(coin, n_particles=4))
    """
    runs, seed = whole("runs", runs, least=2), whole("seed", seed, least=0)
    _require_positive(z)
    exact = await enumerate_posterior(model, *args)
    evidence = math.exp(exact.log_ml)
    wanted = ByValue(
        (value, probability * evidence)
        for value, probability in exact.probabilities.items()
        if probability >= 0.05
    )
    masses, n, squares = np.zeros((runs, len(wanted) + 1)), 1, 0.0
    for number in range(runs):
        posterior = await infer(model, *args, seed=seed + number, progress=False, **options)
        weights = np.exp(posterior.log_weights)
        masses[number, -1] = weights.sum()
        squares += float(np.square(weights).sum())
        for j, value in enumerate(wanted):
            masses[number, j] = weights[[same(v, value) for v in posterior.values]].sum()
        n = len(posterior)
        masses[number] /= n
    weight_sum = masses[:, -1].sum() * n
    typical = max(evidence, squares / weight_sum) if weight_sum else evidence
    for j, (name, target) in enumerate([*wanted.items(), ("the evidence", evidence)]):
        mean = masses[:, j].mean()
        # A value rarely seen has too small a sample variance. Its particles weigh what all do, in
        # the mean by weight: at best the evidence. The evidence itself can be without variance.
        floor = 0.0 if j == len(wanted) else target * (typical - target) / n
        error = math.sqrt(max(masses[:, j].var(), floor) / runs) + 1e-9 * evidence
        if abs(mean - target) > z * error:
            raise AssertionError(
                f"the mass of {name!r} is {mean:.5g} in the mean over {runs} runs, not "
                f"{target:.5g} ({(mean - target) / error:+.1f} standard errors)"
            )


async def assert_prefix_closed(potential: Potential, samples: Iterable[str | bytes]) -> None:
    """Check on sample texts that what is rejected stays rejected, byte by byte.

    Also that a text which may end is allowed as a prefix, and that `next_bytes` leaves out
    nothing. Raises `AssertionError` naming the text.

    >>> from awrs_ppl.potentials import predicate
    >>> import asyncio
    >>> asyncio.run(assert_prefix_closed(predicate(lambda text: len(text) != 1), ["ab"]))
    Traceback (most recent call last):
    AssertionError: predicate(<lambda>) rejects b'a' and allows the longer b'ab'
    """
    if not isinstance(potential, Potential):
        raise TypeError(f"assert_prefix_closed got {potential!r}: it needs a potential")
    samples = _texts(samples)
    reads = Weigher(potential, Alphabet(potential, None))
    if (await reads.prefixes([Text()]))[0] == -math.inf:
        raise AssertionError(f"{potential!r} rejects the empty text, so there is nothing to test")
    for sample in samples:
        data = as_bytes(sample)
        rejected: bytes | None = None
        next_bytes: range | None = None
        for length in range(len(data) + 1):
            text = data[:length]
            allowed = (await reads.prefixes([Text(text)]))[0] > -math.inf
            if allowed and rejected is not None:
                raise AssertionError(
                    f"{potential!r} rejects {rejected!r} and allows the longer {text!r}"
                )
            if allowed and next_bytes is not None and text[-1] not in next_bytes:
                raise AssertionError(
                    f"{potential!r} allows {text!r}, and says by its `next_bytes` that after "
                    f"{text[:-1]!r} no text continues with {text[-1:]!r}"
                )
            if not allowed and rejected is None:
                rejected = text
            if allowed and isinstance(potential, BooleanPotential):
                state = await resolve(potential.advance(potential.start(), text))
                next_bytes = potential.next_bytes(state)
            if not allowed and (await reads.completes([Text(text)]))[0] > -math.inf:
                raise AssertionError(
                    f"{potential!r} lets a text end as {text!r}, which it rejects as a prefix"
                )


async def assert_properly_weighted(
    proposal: Proposal,
    potential: Potential,
    text: str = "",
    *,
    draws: int = 4000,
    together: int = 1,
    forced: bool = False,
    ends: bool = True,
    warm: bool = False,
    seed: int = 0,
    z: float = 4.5,
) -> None:
    """Check that E[W 1{x = v}] = p(v) c(v) for every outcome v after `text`, by z-tests.

    `potential` is a product with a `ToyLM`; `together` draws share their verdicts, as particles at
    one context do; `forced` leaves only the end, as at `max_tokens`; without `ends` the text need
    not end, as by `ctx.generate(..., ends=False)`; with `warm` each group of draws knows what those
    before it learned. The chance that a right proposal fails is below 7e-6 times the number of
    outcomes at the default `z`, apart from heavy tails. Raises `AssertionError` naming the outcome;
    `ValueError` for a `potential` without a language model, or one that rejects `text`.

    >>> from awrs_ppl import LocalAWRS, ToyLM
    >>> from awrs_ppl.potentials import OneOf
    >>> import asyncio
    >>> target = ToyLM(["a", "b"])("a") * OneOf(["a"])
    >>> asyncio.run(assert_properly_weighted(LocalAWRS(), target))
    Traceback (most recent call last):
    AssertionError: LocalAWRS(): token 0 giving b'a' has the mean weight 1.00000, not ...
    """
    if not is_proposal(proposal):
        raise TypeError(f"assert_properly_weighted got {proposal!r}: give it AWRS(), or another")
    draws, together = whole("draws", draws, least=1), whole("together", together, least=1)
    seed = whole("seed", seed, least=0)
    _require_positive(z)
    target = target_of(potential) if isinstance(potential, Potential) else None
    if target is None or not target.dense or target.vocabulary is None:
        raise ValueError(
            f"assert_properly_weighted got {quoted(potential)}: it needs a product with a ToyLM"
        )
    vocabulary = target.vocabulary
    ids = target.dense[0].encode(text)
    here = Text(as_bytes(text), ids)
    states = await start(target, here)
    if isinstance(states, str):
        raise ValueError(f"text={text!r} is rejected by {states}: give a text that it allows")
    wanted: dict[tuple[int | None, bytes], float] = defaultdict(float)
    for token, data, weight in await continuations(
        target, ids, here.data, forced=forced and ends, ends=ends
    ):
        then = Text(data, ids if token is None else (*ids, token))
        allowed = await is_allowed(target, then, ends=token is None or (forced and not ends))
        if allowed and weight > -math.inf:
            wanted[token, data] += math.exp(weight)
    total = math.fsum(wanted.values())
    rows = [await lm.lm.logits([lm.prompt + ids], [lm.temperature]) for lm in target.dense]
    progress = Progress(here, states, ())
    sums: dict[tuple[int | None, bytes], float] = defaultdict(float)
    squares: dict[tuple[int | None, bytes], float] = defaultdict(float)
    groups = -(-draws // together)
    mass = mass_squares = 0.0
    steps: list[TokenStep] = []
    cache = VerdictCache()
    for number in range(groups):
        if not steps:  # many at once: weighing them is what takes long
            count = 1 if warm else min(groups - number, 256)
            steps = [
                TokenStep.at(
                    target,
                    progress,
                    cache if warm else VerdictCache(),
                    proposal,
                    last=forced,
                    ends=ends,
                )
                for _ in range(count)
            ]
            weigh(steps, [row.repeat(count, 1) for row in rows])
        step = steps.pop()
        rngs = [np.random.default_rng([seed, number, i]) for i in range(together)]
        # Draws made together may depend on each other: their mean is one observation.
        seen: dict[tuple[int | None, bytes], float] = defaultdict(float)
        for draw in await step.draw(rngs):
            if draw.log_weight > -math.inf:
                if draw.outcome < vocabulary.size:
                    token = draw.outcome
                    what = (token, here.data + bytes(vocabulary.tokens[token]))
                else:
                    what = (
                        None,
                        step.verdicts.closings.ends[draw.outcome - vocabulary.size].apply(
                            here.data
                        ),
                    )
                weight = math.exp(draw.log_weight)
                seen[what] += weight / together
                mass, mass_squares = mass + weight, mass_squares + weight * weight
        for what, weight in seen.items():
            sums[what] += weight
            squares[what] += weight * weight
    typical = max(total, mass_squares / mass) if mass else total
    for what in sorted({*wanted, *sums}, key=str):
        mean = sums[what] / groups
        variance = max(squares[what] / groups - mean * mean, 0.0)
        # An outcome rarely seen has too small a sample variance. It weighs what all do, in the
        # mean by weight: at best the allowed mass.
        floor = wanted[what] * (typical - wanted[what]) / together
        error = math.sqrt(max(variance, floor) / groups) + 1e-9
        if abs(mean - wanted[what]) > z * error:
            name = "the end as" if what[0] is None else f"token {what[0]} giving"
            raise AssertionError(
                f"{proposal!r}: {name} {what[1]!r} has the mean weight {mean:.5f}, not "
                f"{wanted[what]:.5f} ({(mean - wanted[what]) / error:+.1f} standard errors)"
            )


def _require_positive(z: Any) -> None:
    if not is_number(z) or not z > 0:
        raise ValueError(f"z={z!r}: it must be a positive number of standard errors")


def _texts(samples: Any) -> list[str | bytes]:
    """Samples as a list; one text alone would be taken for its characters."""
    try:
        found = list(samples)
    except TypeError:
        found = [samples]
    if isinstance(samples, str | bytes) or not all(isinstance(s, str | bytes) for s in found):
        raise TypeError(f"samples={samples!r}: give a list of texts")
    return found
