"""Bounds of the evidence from what particles met: never violated, and none where none hold."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from random_programs import random_program

from awrs_ppl import (
    Bernoulli,
    Posterior,
    ToyLM,
    Uniform,
    infer,
    predicate,
    product,
)
from awrs_ppl.inference.met import Met
from awrs_ppl.posterior.posterior import Posterior as _Posterior
from awrs_ppl.potentials import OneOf, Regex, Soft
from awrs_ppl.testing import enumerate_posterior
from awrs_ppl.tokens.next_token import Outcomes

LM = ToyLM(["a", "b", "ab", "."], seed=3)
OTHER = ToyLM(["a", "b", "ab", "."], seed=4)


@predicate
def no_pairs(text: str) -> bool:
    return "aa" not in text and "bb" not in text


async def texts(ctx: Any) -> tuple[str, str]:
    first = await ctx.generate(product(LM("a"), OTHER("b"), Regex("(a|b){1,3}")), max_tokens=4)
    await ctx.sample(Bernoulli(0.3))
    second = await ctx.generate(LM(first, stop=".") * no_pairs, max_tokens=4)
    await ctx.condition(first != second)
    await ctx.observe(LM("b"), second)
    return first, second


def holds(found: Posterior, log_ml: float) -> bool:
    assert found.log_ml_bounds is not None
    low, high = found.log_ml_bounds
    return low - 1e-5 <= log_ml <= high + 1e-5


async def all_hold(model: Any, **options: Any) -> bool:
    log_ml = (await enumerate_posterior(model)).log_ml
    found = [
        await infer(model, n_particles=n, seed=seed, progress=False, **options)
        for n in (1, 4, 30)
        for seed in range(6)
    ]
    return all(holds(one, log_ml) for one in found)


@pytest.mark.parametrize("options", [{}, {"resampling": "stratified"}, {"ess_threshold": 0}])
async def test_bounds_hold(options: dict[str, Any]) -> None:
    assert await all_hold(texts, **options)


@pytest.mark.filterwarnings("ignore")  # what random programs warn of
async def test_random_programs() -> None:
    bounded = 0
    for number in range(60):
        program = random_program(np.random.default_rng([13, number]))
        truth = await enumerate_posterior(program.model)
        for options in ({}, {"n_particles": 20, "resampling": "auto"}):
            settings = {**program.options, **options}
            found = await infer(program.model, seed=number, progress=False, **settings)
            if found.log_ml_bounds is not None:
                bounded += 1
                assert holds(found, truth.log_ml), program.shows
    assert bounded > 30


async def test_they_close_where_all_was_met() -> None:
    async def model(ctx: Any) -> str:
        return await ctx.generate(LM("a") * OneOf(["a", "b", "ab"]))

    found = await infer(model, n_particles=200, seed=0, progress=False)
    assert found.log_ml_bounds is not None
    low, high = found.log_ml_bounds
    assert high - low < 1e-4
    assert "certainly between" in str(found)
    pooled = await infer(model, n_particles=2, runs=3, seed=0, progress=False)
    assert pooled.log_ml_bounds is not None
    lows = [part.log_ml_bounds[0] for part in pooled.parts if part.log_ml_bounds]
    assert pooled.log_ml_bounds[0] == max(lows)


async def test_broken_twins_are_found() -> None:
    at = Met._at

    def half(self: Met, key: Any) -> Any:
        place = at(self, key)
        place.log_mass = min(place.log_mass, -2.0)
        return place

    with patch.object(Met, "_at", half):  # less is allowed than is
        assert not await all_hold(texts)
    log_probability = Outcomes.log_probability

    def heavier(self: Outcomes, outcome: int) -> float:
        return log_probability(self, outcome) + 1.0

    with patch.object(Outcomes, "log_probability", heavier):
        assert not await all_hold(texts)

    async def weighed(ctx: Any) -> str:
        text = await ctx.generate(LM("a"), max_tokens=3)
        await ctx.factor(len(text))
        return text

    with patch("awrs_ppl.inference.met.is_at_most_one", lambda statement: True):
        assert not await all_hold(weighed)  # bounds in spite of a factor above 1


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (lambda ctx: ctx.factor(-1.0, name="less"), "factor 'less'"),
        (lambda ctx: ctx.sample(Uniform(0, 1), name="where"), "sample 'where'"),
        (lambda ctx: ctx.observe(Uniform(0, 1), 0.5, name="there"), "observe 'there'"),
        (lambda ctx: ctx.generate(LM("a") * Soft(len), max_tokens=2), "Soft"),
        (lambda ctx: ctx.generate(LM("a"), critic=Soft(len), max_tokens=2), "Soft"),
        (lambda ctx: ctx.factor(-math.inf, name="none"), "factor 'none'"),
    ],
)
async def test_what_prevents_them(statement: Any, named: str) -> None:
    async def model(ctx: Any) -> None:
        await statement(ctx)

    found = await infer(model, n_particles=4, seed=0, progress=False)
    assert found.log_ml_bounds is None
    assert named in found.unbounded


async def test_a_call_that_differs() -> None:
    values = iter(range(1000))

    async def model(ctx: Any) -> int:
        return await ctx.call(lambda: next(values), name="count")

    found = await infer(model, n_particles=4, progress=False)
    assert (found.log_ml_bounds, found.unbounded) == (None, "call 'count'")

    async def steady(ctx: Any) -> int:
        return await ctx.call(lambda: 1)

    assert (await infer(steady, n_particles=4, progress=False)).log_ml_bounds is not None


async def test_they_are_kept(tmp_path: Any) -> None:
    found = await infer(texts, n_particles=4, seed=0, progress=False)
    found.save(tmp_path / "found.json")
    assert _Posterior.load(tmp_path / "found.json").log_ml_bounds == found.log_ml_bounds


async def test_little_weight_is_not_taken_for_none() -> None:
    """Where float32 holds nothing, the upper bound must not be zero."""
    rare = ToyLM(["a", "b"], weights=lambda context: [1e-42, 1.0, 1.0])

    async def model(ctx: Any) -> str:
        return await ctx.generate(rare("a") * Regex("aa"), max_tokens=3)

    found = await infer(model, n_particles=2, seed=0, progress=False)
    assert holds(found, (await enumerate_posterior(model)).log_ml)
