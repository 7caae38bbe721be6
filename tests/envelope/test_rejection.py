"""`rejection` against enumeration: the distribution of its draws, and its evidence."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from random_programs import random_program
from scipy import stats

from awrs_ppl import Bernoulli, ModelError, NoSurvivors, ToyLM, Uniform, predicate, rejection
from awrs_ppl.envelope import attempts as walks
from awrs_ppl.inference import rejection as module
from awrs_ppl.posterior.by_value import entry
from awrs_ppl.potentials import Regex, Soft
from awrs_ppl.testing import Exact, enumerate_posterior

SEEDS = 50
LM = ToyLM(["a", "b", "ab", "."], seed=3)


@predicate
def no_pairs(text: str) -> bool:
    return "aa" not in text and "bb" not in text


async def masked(ctx: Any) -> tuple[str, str]:
    first = await ctx.generate(LM("a") * Regex("(a|b){2,3}"), max_tokens=4)
    second = await ctx.generate(LM(first, stop=".") * Regex("(a|b)*"), max_tokens=3)
    await ctx.observe(LM("b"), second)
    return first, second


async def checked(ctx: Any) -> tuple[bool, str]:
    coin = await ctx.sample(Bernoulli(0.3))
    text = await ctx.generate(LM("a") * no_pairs, max_tokens=4)
    await ctx.condition(coin or "b" in text)
    return coin, text


async def p_values(model: Any, truth: Exact, **options: Any) -> tuple[float, float]:
    """Of the mean of the evidence, and of the distribution of the draws."""
    evidences, counts = [], Counter[Any]()
    for seed in range(SEEDS):
        found = await rejection(model, attempts=40, seed=seed, progress=False, **options)
        evidences.append(math.exp(found.log_ml))
        counts.update(map(entry, found.values))
    z = (np.mean(evidences) - math.exp(truth.log_ml)) / (
        np.std(evidences) / math.sqrt(SEEDS) + 1e-12
    )
    values = list(truth.probabilities.items())
    expected = np.array([share for _, share in values]) * counts.total()
    observed = np.array([counts[entry(value)] for value, _ in values])
    assert observed.sum() == counts.total()  # nothing else was drawn
    few = expected < 5
    observed = np.append(observed[~few], observed[few].sum())
    expected = np.append(expected[~few], expected[few].sum())
    keep = expected > 0
    draws = stats.chisquare(observed[keep], expected[keep]).pvalue if keep.sum() > 1 else 1.0
    return float(2 * stats.norm.sf(abs(z))), float(draws)


@pytest.mark.parametrize("prime_rows", [0, 6])
@pytest.mark.parametrize("model", [masked, checked])
async def test_draws_are_exact(model: Any, prime_rows: int) -> None:
    truth = await enumerate_posterior(model)
    assert min(await p_values(model, truth, prime_rows=prime_rows)) > 1e-4


@pytest.mark.parametrize("prime_rows", [0, 6])
async def test_more_tokens_than_a_table_holds(prime_rows: int) -> None:
    truth = await enumerate_posterior(masked)
    with patch("awrs_ppl.envelope.tables._AT_FIRST", 1):
        assert min(await p_values(masked, truth, prime_rows=prime_rows)) > 1e-4


async def test_broken_twins_are_found() -> None:
    truth = await enumerate_posterior(masked)
    survives = walks.Attempt.survives

    def at_once(self: Any, now: float) -> bool:
        """A mask that is used when it is first seen."""
        self.held = now
        return True

    with patch.object(walks.Attempt, "survives", at_once):
        assert min(await p_values(masked, truth, prime_rows=0)) < 1e-6

    def again(self: Any, now: float) -> bool:
        """What was rejected below is paid once more."""
        return survives(self, now) and survives(self, now - 0.2)

    with patch.object(walks.Attempt, "survives", again):
        assert min(await p_values(masked, truth, prime_rows=0)) < 1e-6

    draws = walks._draws

    def never_the_rest(attempt: Any) -> bool:
        node = attempt.node
        if node is not None and node.table is not None:
            node.table.rest = -math.inf
        return draws(attempt)

    with (
        patch("awrs_ppl.envelope.tables._AT_FIRST", 1),
        patch.object(walks, "_draws", never_the_rest),
    ):
        assert min(await p_values(masked, truth, prime_rows=0)) < 1e-6


async def test_the_evidence_of_a_stop_at_the_first_is_biased() -> None:
    """Why `attempts` is there: with n the last attempt always came out."""
    truth = await enumerate_posterior(masked)
    found = [
        math.exp((await rejection(masked, n=1, prime_rows=0, seed=i, progress=False)).log_ml)
        for i in range(120)
    ]
    error = np.std(found) / math.sqrt(120)
    assert np.mean(found) > math.exp(truth.log_ml) + 3 * error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
async def test_random_programs() -> None:
    p_of_means, p_of_draws = [], []
    for number in range(60):
        program = random_program(np.random.default_rng([12, number]))
        truth = await enumerate_posterior(program.model)
        if truth.log_ml < -6:
            continue
        try:
            mean, draws = await p_values(program.model, truth, prime_rows=number % 3 * 4)
        except ModelError:  # a factor above 1
            continue
        p_of_means.append(mean)
        p_of_draws.append(draws)
    assert len(p_of_means) > 15
    assert min(p_of_means) > 1e-5
    assert min(p_of_draws) > 1e-5


async def test_it_learns() -> None:
    """Acceptance rises: in the same number of attempts more come out behind others."""

    @predicate
    def rare(text: str) -> bool:
        return text == "abab"[: len(text)]

    async def model(ctx: Any) -> str:
        return await ctx.generate(LM("a") * rare, max_tokens=5)

    first = [
        len(await rejection(model, attempts=100, prime_rows=0, seed=i, progress=False))
        for i in range(5)
    ]
    longer = [
        len(await rejection(model, attempts=200, prime_rows=0, seed=i, progress=False))
        for i in range(5)
    ]
    assert sum(longer) - sum(first) > 1.2 * sum(first)


async def test_weights_and_bounds() -> None:
    found = await rejection(masked, n=50, seed=1, progress=False)
    assert len(found) == 50
    assert found.ess == pytest.approx(50)
    assert found.log_ml_bounds is not None
    low, high = found.log_ml_bounds
    truth = await enumerate_posterior(masked)
    assert low - 1e-9 <= truth.log_ml <= high + 1e-9
    assert found.bounds is None
    assert "50 independent draws" in str(found)
    assert "ESS" not in str(found)
    again = await rejection(masked, n=50, seed=1, progress=False)
    assert again.values == found.values
    assert (await rejection(masked, n=50, seed=2, progress=False)).values != found.values


async def test_densities_may_be_sampled() -> None:
    async def model(ctx: Any) -> float:
        where = await ctx.sample(Uniform(0.0, 1.0))
        text = await ctx.generate(LM("a"), max_tokens=2)
        await ctx.condition(where < (0.5 if text else 0.25))
        return where

    found = await rejection(model, n=400, seed=0, progress=False)
    truth = Uniform(0, 1)
    assert max(found.values) < 0.5
    text = sum(value > 0.25 for value in found.values) / 400
    assert 0 < text < 0.5
    assert truth.log_prob(found.values[0]) == 0.0


async def test_weights_above_one() -> None:
    async def model(ctx: Any) -> str:
        return await ctx.generate(LM("a") * Soft(lambda text: 0.7 * len(text)), max_tokens=3)

    with pytest.raises(ModelError, match=r"by its factors, and max_factor=1\.0: give a larger"):
        await rejection(model, seed=0, progress=False)
    truth = await enumerate_posterior(model)
    assert min(await p_values(model, truth, prime_rows=3, max_factor=math.exp(3))) > 1e-4
    within = await rejection(model, n=5, max_factor=math.exp(3), seed=0, progress=False)
    assert within.log_ml_bounds is not None

    async def below(ctx: Any) -> str:
        text = await ctx.generate(LM("a"), max_tokens=3)
        await ctx.factor(-len(text), name="short")
        return text

    found = await rejection(below, n=5, seed=0, progress=False)
    assert found.log_ml_bounds is None
    assert "factor 'short'" in found.unbounded


async def test_nothing_comes_out() -> None:
    @predicate
    def never(text: str) -> bool:
        return not text

    async def model(ctx: Any) -> str:
        return await ctx.generate(LM("a") * never * Regex("a+"), max_tokens=3)

    for options in ({"n": 3}, {"attempts": 7}):
        found = await rejection(model, seed=0, progress=False, **options)  # pyright: ignore
        assert found.log_ml == -math.inf
        with pytest.raises(NoSurvivors, match="allow nothing"):
            found.mode()


async def test_draws_come_in_the_order_of_attempts() -> None:
    """Those that are over first are the short ones: a stop at the n-th to be over prefers them."""
    lm = ToyLM(["a"], weights=lambda context: [1.0, 1.0])

    async def model(ctx: Any) -> str:
        return await ctx.generate(lm("a"), max_tokens=12)

    lengths = [
        len(value)
        for seed in range(60)
        for value in (await rejection(model, n=4, prime_rows=0, seed=seed, progress=False)).values
    ]
    truth = await enumerate_posterior(model)
    mean = sum(len(value) * share for value, share in truth.probabilities.items())
    assert abs(np.mean(lengths) - mean) < 4 * np.std(lengths) / math.sqrt(len(lengths))


async def test_timeouts_and_options() -> None:
    async def slow(ctx: Any) -> str:
        await ctx.call(asyncio.sleep, 10)
        return ""

    found = await rejection(slow, timeout=0.1, progress=False)
    assert found.stopped == "timed out"
    for options, message in (
        ({"n": 0}, "n=0"),
        ({"attempts": 0}, "attempts=0"),
        ({"prime_rows": -1}, "prime_rows=-1"),
        ({"max_factor": "1"}, "max_factor='1'"),
        ({"seed": -1}, "seed=-1"),
    ):
        with pytest.raises(ModelError, match=message):
            await rejection(masked, progress=False, **options)  # pyright: ignore
    assert module._BATCH > 1
