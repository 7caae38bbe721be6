"""What resampling does to particles that are ahead, dead, or equal; and random streams."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest

from awrs_ppl import AWRS, Bernoulli, Categorical, ToyLM, infer
from awrs_ppl.inference.population import Particle, continued
from awrs_ppl.inference.resampling import SCHEMES
from awrs_ppl.potentials import OneOf, Regex, Soft, predicate
from awrs_ppl.rng import Purpose, RandomStreams
from awrs_ppl.testing import assert_unbiased

# After "a" the end is likely; the texts that continue meet different allowed shares.
lm = ToyLM(["a", "b"], weights=lambda context: [1 + sum(context) % 3, 2, 1 + len(context) % 2])
END = 9.0
certain = ToyLM(["a"], weights=lambda context: [1, END])


async def some_ahead(ctx):
    """Some end at once, with nearly all of their weight; others draw four tokens."""
    short = await ctx.sample(Bernoulli(0.4))
    if short:
        return await ctx.generate(certain("a") * Regex("a?"), max_tokens=1)
    return await ctx.generate(lm("a") * Regex("b*a?b*"), max_tokens=5, proposal=AWRS(effort=1e9))


async def one_past_its_statement(ctx):
    """Some have a heavy weight and no text; others draw four tokens."""
    weight = await ctx.sample(Categorical([0.0, 2.0]))
    if weight:
        await ctx.factor(weight)
        return "ahead"
    return await ctx.generate(lm("b") * Regex("b*a?b*"), max_tokens=5)


@pytest.mark.parametrize("model", [some_ahead, one_past_its_statement])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_particles_ahead_keep_slot_and_weight_while_others_are_resampled(scheme, model):
    seen = 0
    for seed in range(15):
        posterior = await infer(
            model, n_particles=8, ess_threshold=1.0, resampling=scheme, seed=seed, progress=False
        )
        for sync, later in itertools.pairwise(posterior.history):
            if sync.ancestors is None or not sync.kept:
                continue
            seen += 1
            growing = set(range(8)) - set(sync.kept)
            assert all(sync.ancestors[i] == i for i in sync.kept)
            assert all(sync.ancestors[i] in growing for i in growing)
            # Never the mean of those that are growing.
            assert [later.log_weights[i] for i in sync.kept] == [
                sync.log_weights[i] for i in sync.kept
            ]
    assert seen >= 10


@pytest.mark.slow
@pytest.mark.parametrize("model", [some_ahead, one_past_its_statement])
async def test_particles_ahead_leave_the_result_unbiased(model):
    await assert_unbiased(model, runs=120, n_particles=5, ess_threshold=1.0)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_dead_slots_are_refilled_though_all_others_weigh_the_same(scheme):
    async def model(ctx):
        kept = await ctx.sample(Bernoulli(0.5))
        await ctx.condition(kept)
        return kept, await ctx.sample(Categorical(range(1000)))

    n = 16
    for seed in range(10):
        posterior = await infer(
            model, n_particles=n, ess_threshold=1.0, resampling=scheme, seed=seed, progress=False
        )
        first = posterior.history[0]
        assert 0 < first.alive < n
        assert first.ess == pytest.approx(first.alive)
        assert first.ancestors is not None
        # All are alive again, with the mean over all slots, the dead included.
        assert posterior.ess == pytest.approx(n)
        assert posterior.log_ml == pytest.approx(math.log(first.alive / n))
        assert posterior.log_weights == pytest.approx([math.log(first.alive / n)] * n)
        # Each draws on its own: copies share nothing but the past.
        assert len(set(posterior.values)) > n - 3


def test_children_share_the_mean_of_all_that_are_resampled():
    weights = [-math.inf, 0.0, -1.0, 3.0, -2.0]
    particles = [Particle(i, log_weight=w) for i, w in enumerate(weights)]
    particles[2].twist = 0.7
    particles[4].twist = -0.4
    totals = [p.log_weight + p.twist for p in particles]
    kept = {3}
    mean = math.log(math.fsum(math.exp(totals[i]) for i in (0, 1, 2, 4)) / 4)
    children, dropped = continued(particles, np.array([2, 2, 4, 3, 1]), kept)
    assert dropped == []
    assert children[3] is particles[3]
    assert [child.slot for child in children] == [0, 1, 2, 3, 4]
    for slot, ancestor in ((0, 2), (1, 2), (2, 4), (4, 1)):
        assert children[slot].total == pytest.approx(mean)
        assert children[slot].twist == particles[ancestor].twist
        assert children[slot].log_weight == pytest.approx(mean - particles[ancestor].twist)


def test_random_streams_of_different_keys_share_no_number():
    grid = itertools.product(range(4), range(3), Purpose, range(3))
    keys = list(grid)
    first: dict[float, object] = {}
    for seed, entropy in ((0, 0), (1, 0), (0, 1), (0, 2)):
        streams = RandomStreams(seed, entropy)
        for key in keys:
            number = streams.at(*key).random()
            assert number not in first, (seed, entropy, key, first[number])
            first[number] = (seed, entropy, key)
    assert len(first) == 4 * len(keys)


async def test_inference_uses_no_random_stream_twice():
    rule = predicate(lambda text: "bb" not in text)

    async def model(ctx):
        first = await ctx.sample(Bernoulli(0.5))
        # A draw, a token and a resampling with the same step, slot and record.
        second = await ctx.sample(Bernoulli(0.5), proposal=Bernoulli(0.4))
        text = await ctx.generate(lm("a") * rule, max_tokens=4)
        third = await ctx.sample(Categorical(["a", "b"]))
        await ctx.factor(0.3 * first - 0.2 * second)
        return text, third, await ctx.generate(lm("b" + text) * OneOf(["a", "ab"]), max_tokens=3)

    used: Counter[tuple[object, ...]] = Counter()
    right = RandomStreams.at

    def at(self, step, slot, purpose, index=0):
        used[step, slot, purpose, index] += 1
        return right(self, step, slot, purpose, index)

    with patch.object(RandomStreams, "at", at):
        posterior = await infer(
            model, n_particles=6, ess_threshold=1.0, resampling="auto", seed=0, progress=False
        )
    assert {sync.chosen for sync in posterior.history} == {False, True}
    assert any(sync.ancestors for sync in posterior.history)
    assert {purpose for _, _, purpose, _ in used} == set(Purpose)
    assert max(used.values()) == 1
    # Of some step and slot there are streams of two purposes at least.
    pairs = Counter((step, slot) for step, slot, _, _ in used)
    assert max(pairs.values()) > 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mask", "check"])
@pytest.mark.parametrize("state", [len, lambda text: len(text) > 2], ids=["length", "long"])
async def test_product_with_a_state_that_forgets_ends_where_both_factors_allow(kind, state):
    # "ab" and "bb" are of one state of the predicate; the pattern lets the text end at one only.
    pattern = Regex("ab|bba?|aab?|baa", engine=kind)
    rule = predicate(lambda text: len(text) < 4, state=state)

    async def model(ctx):
        first = await ctx.generate(lm("a") * rule * pattern, max_tokens=5)
        return first, await ctx.generate(lm("b") * pattern * rule, max_tokens=5)

    await assert_unbiased(model, runs=80, n_particles=12)


@pytest.mark.slow
async def test_product_of_two_states_that_forget_ends_where_both_allow():
    even = predicate(
        lambda text: len(text) < 4, complete=lambda text: len(text) % 2 == 0, state=len
    )
    ends_in_b = predicate(
        lambda text: True, complete=lambda text: text[-1:] == "b", state=lambda text: text[-1:]
    )

    async def model(ctx):
        first = await ctx.generate(lm("a") * even * ends_in_b, max_tokens=5)
        return first, await ctx.generate(lm("b") * ends_in_b * even, max_tokens=5)

    posterior = await infer(model, n_particles=200, seed=0, progress=False)
    assert {text for pair in posterior.probabilities for text in pair} == {"ab", "bb"}
    await assert_unbiased(model, runs=80, n_particles=12)


async def test_twists_of_critics_are_undone_whoever_is_resampled():
    critic = Soft(lambda text: 0.4 * text.count("a"), prefix=lambda text: 1.5 * text.count("b"))

    async def model(ctx):
        heads = await ctx.sample(Bernoulli(0.5))
        return await ctx.generate(lm("ab"[heads]), max_tokens=4, critic=critic if heads else None)

    await assert_unbiased(model, runs=150, n_particles=6, ess_threshold=1.0)
