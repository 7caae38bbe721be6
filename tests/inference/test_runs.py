"""Several runs of one program: independent, pooled by their evidence."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from arsenal.maths import logmeanexp

from awrs_ppl import (
    LM as EmbeddedLM,
)
from awrs_ppl import (
    Bernoulli,
    Context,
    LocalAWRS,
    ModelError,
    Posterior,
    ToyLM,
    infer,
    predicate,
)
from awrs_ppl.posterior import pooling
from awrs_ppl.potentials import Regex
from awrs_ppl.program.trace import Trace
from awrs_ppl.testing import assert_unbiased, enumerate_posterior

LM = ToyLM(["a", "b", "ab"], seed=3)


@predicate
def no_bb(text: str) -> bool:
    return "bb" not in text


async def text(ctx: Context) -> str:
    found = await ctx.generate(LM("go") * no_bb, max_tokens=4)
    await ctx.observe(Bernoulli(0.8 if "a" in found else 0.2), True)
    return found


async def one(**given: Any) -> Posterior:
    options: dict[str, Any] = {"seed": 1, **given}
    return await infer(text, n_particles=5, progress=False, **options)


async def test_first_of_several_runs_is_the_run_alone():
    alone, several = await one(), await one(runs=3)
    first = several.parts[0]
    assert first.values == alone.values
    assert first.log_weights.tolist() == alone.log_weights.tolist()
    assert len({tuple(part.log_weights.tolist()) for part in several.parts}) == 3


async def test_runs_are_pooled_by_their_evidence():
    several = await one(runs=4)
    evidences = [part.log_ml for part in several.parts]
    assert several.log_ml == pytest.approx(logmeanexp(np.array(evidences)))
    shares = np.exp(np.array(evidences) - several.log_ml) / 4
    for value, probability in several.probabilities.items():
        each = [part.probabilities.get(value, 0.0) for part in several.parts]
        assert probability == pytest.approx(float(shares @ each))
    assert len(several) == 20
    assert [t.value for t in several] == [t.value for part in several.parts for t in part]
    assert several.heaviest.log_ml == max(evidences)
    assert several.stats.tokens == sum(part.stats.tokens for part in several.parts)


async def assert_pooled_runs_are_unbiased(**options: Any) -> None:
    """The mean masses of values in pooled runs against enumeration."""
    exact, seeds = await enumerate_posterior(text), 150
    wanted = {v: p for v, p in exact.probabilities.items() if p >= 0.05}
    masses = np.zeros((seeds, len(wanted) + 1))
    for seed in range(seeds):
        found = await one(seed=seed, runs=3, **options)
        shares = [*(found.probabilities.get(v, 0.0) for v in wanted), 1.0]
        masses[seed] = np.exp(found.log_ml) * np.array(shares)
    true = math.exp(exact.log_ml) * np.array([*wanted.values(), 1.0])
    errors = masses.std(axis=0) / math.sqrt(seeds)
    assert (np.abs(masses.mean(axis=0) - true) < 4.5 * errors + 1e-12).all()


@pytest.mark.slow
@pytest.mark.parametrize("resampling", ["auto", "stratified"])
async def test_runs_are_unbiased(resampling):
    await assert_unbiased(text, runs=150, n_particles=3, resampling=resampling)
    await assert_pooled_runs_are_unbiased(resampling=resampling)
    pooled = [(await one(seed=seed, runs=3, resampling=resampling)).log_ml for seed in range(150)]
    alone = [(await one(seed=seed, resampling=resampling)).log_ml for seed in range(1000, 1600)]
    error = math.hypot(np.exp(pooled).std() / math.sqrt(150), np.exp(alone).std() / math.sqrt(600))
    assert abs(np.exp(pooled).mean() - np.exp(alone).mean()) < 4.5 * error
    assert np.exp(pooled).var() < np.exp(alone).var()


@pytest.mark.slow
async def test_runs_pooled_by_equal_shares_are_caught(monkeypatch: pytest.MonkeyPatch):
    right = Trace.weighed
    evidences: dict[int, float] = {}

    def require(posteriors: Any) -> Any:
        parts = right_require(posteriors)
        evidences.update({id(trace): part.log_ml for part in parts for trace in part})
        return parts

    def weighed(self: Trace, shift: float) -> Trace:
        return right(self, shift - evidences[id(self)])

    right_require = pooling._require
    monkeypatch.setattr(pooling, "_require", require)
    monkeypatch.setattr(Trace, "weighed", weighed)
    with pytest.raises(AssertionError):
        await assert_pooled_runs_are_unbiased()


async def test_posteriors_of_different_sizes_count_by_evidence():
    small, large = await one(), await infer(text, n_particles=20, seed=2, progress=False)
    both = Posterior.pool([small, large])
    assert both.log_ml == pytest.approx(logmeanexp(np.array([small.log_ml, large.log_ml])))
    assert len(both) == 25
    again = Posterior.pool([both, await one(seed=3)])
    assert len(again.parts) == 3


async def test_dead_run_counts_as_zero():
    async def rarely(ctx: Context) -> str:
        found = await ctx.generate(LM("go") * Regex("a|b"), max_tokens=3)
        await ctx.condition(found == "a")
        return found

    several = await infer(rarely, n_particles=1, runs=12, seed=0, progress=False)
    dead = [part for part in several.parts if part.alive == 0]
    assert 0 < len(dead) < 12
    evidences = np.exp([part.log_ml for part in several.parts])
    assert math.exp(several.log_ml) == pytest.approx(evidences.mean())
    assert several.dead == len(dead)


@pytest.mark.slow
async def test_runs_share_forward_passes_and_count_them_once():
    lm = EmbeddedLM.embedded("smollm2-135m")

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("A word:") * Regex(" [a-z]{3,6}"), max_tokens=6)

    before = lm.engine.stats.rows, lm.engine.stats.passes
    several = await infer(model, n_particles=4, runs=3, seed=0, progress=False)
    assert several.stats.lm_rows == lm.engine.stats.rows - before[0]
    assert several.stats.lm_passes == lm.engine.stats.passes - before[1]
    # A pass for each token of the longest text, not three.
    assert several.stats.lm_passes <= 8


async def test_timeout_keeps_what_each_run_has_finished():
    async def slow(ctx: Context) -> int:
        number = await ctx.sample(Bernoulli(0.5))
        await ctx.call(asyncio.sleep, 30 if number else 0)
        return int(number)

    several = await infer(slow, n_particles=6, runs=2, timeout=0.5, seed=0, progress=False)
    assert several.stopped == "timed out"
    assert set(several.values) == {0}
    assert 0 < several.unfinished < 1


@pytest.mark.parametrize("runs", [0, 1.5, True, "2"])
async def test_wrong_runs_are_an_error(runs):
    with pytest.raises(ModelError, match=r"runs=.*: it must be an int of at least 1"):
        await one(runs=runs)


async def test_pool_refuses_what_it_cannot_weigh():
    async def local(ctx: Context) -> str:
        return await ctx.generate(LM("go") * no_bb, max_tokens=3, proposal=LocalAWRS())

    improper = await infer(local, n_particles=2, seed=0, progress=False)
    with pytest.raises(ValueError, match="no evidence to weigh it by"):
        Posterior.pool([improper])
    with pytest.raises(ValueError, match="no posteriors"):
        Posterior.pool([])
    with pytest.raises(TypeError, match="posteriors of one program"):
        Posterior.pool(["text"])  # type: ignore[list-item]
