"""Draws from finite distributions are shared among the particles that draw at once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from awrs_ppl import Bernoulli, Categorical, Uniform, run
from awrs_ppl.tokens import urn


def drawn(distribution, n: int, seed: int) -> list:
    async def model(ctx):
        return await ctx.sample(distribution)

    return run(model, n_particles=n, seed=seed, progress=False).values


@pytest.mark.parametrize("seed", range(5))
def test_values_are_shared_by_their_probabilities(seed):
    counts = Counter(drawn(Categorical({"a": 5, "b": 3, "c": 2}), 40, seed))
    assert counts == {"a": 20, "b": 12, "c": 8}
    assert sum(drawn(Bernoulli(0.25), 40, seed)) == 10
    # What is between whole numbers falls to one side or the other.
    assert abs(Counter(drawn(Categorical("abc"), 10, seed))["a"] - 10 / 3) < 1


def test_each_draw_alone_has_its_distribution():
    """By particle over seeds: strata without a permutation would give the first always "a"."""
    seen = np.array(
        [[v == "a" for v in drawn(Categorical({"a": 3, "b": 7}), 4, s)] for s in range(400)]
    )
    for particle in seen.T:
        assert stats.binomtest(int(particle.sum()), 400, 0.3).pvalue > 1e-4


def test_two_draws_of_a_program_are_independent():
    async def model(ctx):
        return await ctx.sample(Bernoulli(0.5)), await ctx.sample(Bernoulli(0.5))

    values = [v for s in range(200) for v in run(model, n_particles=4, seed=s, progress=False)]
    counts = Counter(trace.value for trace in values)
    assert stats.chisquare([counts[a, b] for a in (0, 1) for b in (0, 1)]).pvalue > 1e-4


def test_particles_that_draw_from_different_distributions():
    async def model(ctx):
        first = await ctx.sample(Categorical({"a": 1, "b": 1}), name="x")
        second = await ctx.sample(Bernoulli(0.9 if first == "a" else 0.1), name="y")
        return first, second

    values = run(model, n_particles=40, seed=1, progress=False).values
    counts = Counter(values)
    assert counts == {("a", True): 18, ("a", False): 2, ("b", True): 2, ("b", False): 18}


def test_uniform_draws_stay_independent():
    values = drawn(Uniform(0.0, 1.0), 64, 0)
    strata = Counter(int(64 * value) for value in values)
    assert max(strata.values()) > 1


def test_position_is_never_rounded_to_the_end(monkeypatch):
    class Last:
        def permutation(self, n):
            return np.arange(n)

        def random(self, n):
            return np.full(n, 1 - 2.0**-53)

    positions = urn.strata(3, Last())  # pyright: ignore[reportArgumentType]
    assert positions[-1] < 1.0
    assert Categorical({"a": 1, "b": 0}).at(positions[-1]) == "a"
