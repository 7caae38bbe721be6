"""Competing children: the choice on arrays, whole programs against enumeration, broken twins."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import wrong_children
from hypothesis import given, settings
from hypothesis import strategies as st

from awrs_ppl import (
    AWRS,
    Bernoulli,
    Categorical,
    Context,
    ModelError,
    Prior,
    ToyLM,
    infer,
    predicate,
    run,
)
from awrs_ppl.inference import children as children_module
from awrs_ppl.inference.children import choose, threshold
from awrs_ppl.potentials import OneOf, Regex, Soft
from awrs_ppl.proposals import Pool
from awrs_ppl.proposals.token_step import TokenStep
from awrs_ppl.testing import assert_unbiased
from awrs_ppl.tokens.urn import Urn

TOKENS = ["a", "b", "ab", "."]
LM = ToyLM(TOKENS, seed=5)

WEIGHTS = st.lists(st.floats(0, 1e3), min_size=1, max_size=30)


# --- the choice ---------------------------------------------------------------------------


@given(WEIGHTS, st.lists(st.floats(0, 1), max_size=10), st.integers(1, 12))
def test_threshold_any_weights_leaves_the_count_in_expectation(heavy, light, count):
    # None of the others is above any of those given, which are `count` at least.
    heavy = sorted([*heavy, *[1.0] * count], reverse=True)
    rest = math.fsum(min(x, heavy[count - 1]) for x in light)
    level = threshold(np.array(heavy), rest, count)
    every = [*heavy, *(min(x, heavy[count - 1]) for x in light)]
    positive = [x for x in every if x > 0]
    if len(positive) <= count:
        assert level == 0.0
    else:
        kept = sum(min(x / level, 1.0) for x in positive)
        assert kept == pytest.approx(count, rel=1e-6)


def pools_of(rows: list[np.ndarray], dense: bool) -> list[Pool]:
    if dense:
        return [Pool(0.0, urn=Urn.of(row)) for row in rows]
    return [Pool(0.0, np.arange(len(row)), row, np.ones(len(row))) for row in rows]


def chosen_weights(
    rows: list[np.ndarray], count: int, seed: int, *, dense: bool
) -> dict[tuple[int, int], float]:
    log_weights = np.log(np.arange(1, len(rows) + 1)).tolist()
    rng = np.random.default_rng(seed)
    children, _ = choose(log_weights, pools_of(rows, dense), count, rng)
    found = {(child.parent, child.outcome): math.exp(child.log_weight) for child in children}
    assert len(found) == len(children) <= count
    return found


@pytest.mark.parametrize("dense", [True, False], ids=["urn", "array"])
@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_choose_gives_each_child_its_weight_in_expectation(count, dense):
    rng = np.random.default_rng(7)
    rows = [rng.dirichlet(np.full(8, 0.4)) for _ in range(3)]
    runs = 3000
    sums: dict[tuple[int, int], np.ndarray] = defaultdict(lambda: np.zeros(runs))
    for seed in range(runs):
        found = chosen_weights(rows, count, seed, dense=dense)
        assert math.fsum(found.values()) == pytest.approx(6.0)  # 1 + 2 + 3: nothing is lost
        for child, weight in found.items():
            sums[child][seed] = weight
    for i, row in enumerate(rows):
        for j, weight in enumerate((i + 1) * row):
            values = sums[i, j]
            error = values.std() / math.sqrt(runs)
            if np.count_nonzero(values) > 20:
                assert abs(values.mean() - weight) < 4.5 * error + 1e-9
            else:
                assert weight < 0.1


@pytest.mark.parametrize("dense", [True, False], ids=["urn", "array"])
def test_choose_few_children_keeps_all(dense):
    rows = [np.array([0.5, 0.0, 1e-30]), np.array([0.0, 1.0, 0.0])]
    found = chosen_weights(rows, 3, 0, dense=dense)
    assert found == pytest.approx({(0, 0): 0.5, (0, 2): 1e-30, (1, 1): 2.0})


def test_choose_equal_weights_keeps_one_child_of_each_parent():
    rng = np.random.default_rng(0)
    rows = [rng.dirichlet(np.full(50, 0.3)) for _ in range(12)]
    for seed in range(20):
        pools = pools_of(rows, dense=True)
        children, _ = choose([0.0] * 12, pools, 12, np.random.default_rng(seed))
        assert [child.parent for child in children] == list(range(12))


def test_choose_is_over_all_tokens_of_a_large_vocabulary():
    # 50,000 light tokens in an urn, and a heavy one: the choice takes it, and a spread sample.
    row = np.full(50_000, 1e-5, dtype=np.float32)
    row[17] = 0.5
    children, survived = choose([0.0], [Pool(0.0, urn=Urn.of(row))], 6, np.random.default_rng(1))
    outcomes = sorted(child.outcome for child in children)
    assert 17 in outcomes
    others = np.array([outcome for outcome in outcomes if outcome != 17])
    assert len(others) == 5
    assert np.diff(others).min() > 9_000
    assert survived == pytest.approx(0.5 + 5e-5, rel=1e-3)


@pytest.mark.parametrize("few", [1, 3, 1000])
def test_choose_finds_all_heavy_children_however_few_it_looks_at_first(few, monkeypatch):
    monkeypatch.setattr(children_module, "_FEW", few)
    rng = np.random.default_rng(2)
    rows = [rng.dirichlet(np.full(400, 0.05)) for _ in range(4)]
    log_weights = [0.0, 0.5, 1.0, -3.0]
    every = np.concatenate([math.exp(w) * row for w, row in zip(log_weights, rows, strict=True)])
    for count in (2, 30, 100):
        level = threshold(every, 0.0, count)
        children, _ = choose(log_weights, pools_of(rows, dense=True), count, rng)
        found = [(child.parent, child.outcome) for child in children]
        heavy = {(i // 400, i % 400) for i in np.flatnonzero(every >= level).tolist()}
        assert heavy <= set(found)
        assert len(found) == len(set(found)) == count
        for child in children:
            weight = every[400 * child.parent + child.outcome]
            assert math.exp(child.log_weight) == pytest.approx(max(weight, level), rel=1e-6)


def test_pool_draws_of_one_token_are_one_child_of_their_sum():
    pool = Pool(0.0, np.array([3, 1, 3]), np.array([0.25, 0.5, 0.25]), np.ones(3))
    pool.spread(5)
    assert pool.ids.tolist() == [1, 3]
    assert pool.weights.tolist() == [0.5, 0.5]


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_children_of_a_shared_pool_are_each_parents_own(seed, count):
    pool = Pool(-1.0, urn=Urn.of(np.array([0.2, 0.3, 0.5])))
    children, _ = choose([0.0, 1.0], [pool, pool], count, np.random.default_rng(seed))
    total = math.fsum(math.exp(child.log_weight) for child in children)
    assert total == pytest.approx((1 + math.e) * math.exp(-1.0))


# --- programs -----------------------------------------------------------------------------


@predicate
def no_bb(text: str) -> bool:
    return "bb" not in text


LEARNED = AWRS(effort=0.3, _max_checks=1)  # most of what is allowed is drawn from the tail


def length(text: str) -> float:
    return -0.6 * len(text)


def misleading(text: str) -> float:
    """Likes what `length` dislikes: it must be undone."""
    return 0.4 * len(text) - (1.0 if text.startswith("b") else 0.0)


async def two_texts(ctx: Context) -> tuple[str, str]:
    first = await ctx.generate(LM("go", stop=".") * no_bb, max_tokens=3, proposal=LEARNED)
    second = await ctx.generate(LM("then" + first) * no_bb, max_tokens=3)
    await ctx.observe(LM(first + "?"), second[:1] or "b")
    return first, second


async def masked_then_choice(ctx: Context) -> tuple[str, str, str]:
    first = await ctx.generate(LM("go") * Regex("a(b|ab)*"), max_tokens=4)
    toss = await ctx.sample(Categorical(["a", "b"], weights=[3, 1]))
    second = await ctx.generate(LM(first + toss) * OneOf(["a", "ab", "b"]), max_tokens=3)
    await ctx.condition(toss in second or len(first) > 2)
    return first, toss, second


async def twisted(ctx: Context) -> str:
    critic = Soft(length, prefix=misleading)
    return await ctx.generate(
        LM("go", stop=".") * no_bb, max_tokens=4, critic=critic, proposal=LEARNED
    )


async def soft_product(ctx: Context) -> str:
    weigh = Soft(length, prefix=lambda text: 0.3 * text.count("a"))
    return await ctx.generate(weigh * LM("go") * no_bb, max_tokens=3)


async def one_of_two_proposals(ctx: Context) -> str:
    heads = await ctx.sample(Bernoulli(0.4))
    proposal = Prior() if heads else AWRS()
    return await ctx.generate(LM("go") * no_bb, max_tokens=3, proposal=proposal)


async def late(ctx: Context) -> str:
    text = await ctx.generate(LM("go"), max_tokens=5)
    await ctx.observe(Bernoulli(0.9 if len(text) > 3 else 0.05), True)
    return text[:2] + await ctx.generate(LM("then"), max_tokens=2)


PROGRAMS = [two_texts, masked_then_choice, twisted, soft_product, one_of_two_proposals, late]


@pytest.mark.slow
@pytest.mark.parametrize("n_particles", [2, 7])
@pytest.mark.parametrize("model", PROGRAMS)
async def test_children_are_unbiased(model: Any, n_particles: int) -> None:
    await assert_unbiased(
        model, runs=400, n_particles=n_particles, ess_threshold=1.0, resampling="auto"
    )


async def test_children_of_a_small_pool_are_exact():
    # As many slots as texts: nothing is drawn, so every run gives the posterior itself.
    async def model(ctx: Context) -> str:
        return await ctx.generate(LM("go") * Regex("a|b|ab|aab"), max_tokens=4)

    runs = [
        await infer(model, n_particles=30, resampling="children", seed=seed, progress=False)
        for seed in range(3)
    ]
    assert len({round(run.log_ml, 12) for run in runs}) == 1
    assert runs[0].free > 0
    assert runs[0].dead == 0
    assert runs[0].free + runs[0].alive == 30
    assert len(set(runs[0].values)) == len(runs[0].values) - _spellings(runs[0])


def _spellings(posterior: Any) -> int:
    """Texts that stand there in more than one way to spell them in tokens."""
    return len(posterior.values) - len(set(posterior.values))


async def test_children_where_a_proposal_has_no_pool_are_an_error():
    async def model(ctx: Context) -> str:
        return await ctx.generate(LM("go") * no_bb, max_tokens=3, proposal=Prior())

    with pytest.raises(ModelError, match='resampling="children": only AWRS'):
        await infer(model, n_particles=3, resampling="children", seed=0, progress=False)
    await infer(model, n_particles=3, resampling="auto", seed=0, progress=False)


async def test_children_without_a_threshold_draw_as_importance_sampling_does():
    async def values(resampling: str) -> tuple[list[str], list[float]]:
        posterior = await infer(
            two_texts, n_particles=6, ess_threshold=0, resampling=resampling, seed=3, progress=False
        )
        return posterior.values, posterior.log_weights.tolist()

    assert await values("auto") == await values("stratified")


async def test_children_have_their_parents_as_ancestors_in_records():
    posterior = await infer(
        late, n_particles=6, ess_threshold=1.0, resampling="auto", seed=1, progress=False
    )
    assert posterior.history[0].chosen
    assert all(0 < sync.survived <= 1 for sync in posterior.history)
    for before, sync in pairwise(posterior.history):
        assert not sync.chosen or before.ancestors is not None
    whole = math.log(math.fsum(math.exp(w) for w in posterior.history[-1].log_weights))
    assert whole - math.log(6) == pytest.approx(posterior.log_ml)
    entries = json.loads(posterior.to_genlm_record())
    for before, entry in pairwise(entries):
        for slot, particle in enumerate(entry["particles"]):
            ancestor = entry["ancestors"][slot] if "ancestors" in entry else slot
            start = float(before["particles"][ancestor]["logweight"])
            now, change = float(particle["logweight"]), float(particle["weight_incr"])
            if entry["mode"] == "smc_step" and math.isfinite(now) and math.isfinite(start):
                assert start + change == pytest.approx(now)
    assert "children competed" in str(posterior.explain())


async def test_call_is_made_once_for_equal_particles():
    calls = []

    async def model(ctx: Context) -> str:
        text = await ctx.generate(LM("go") * OneOf(["a"]), max_tokens=3)
        await ctx.generate(LM("on") * OneOf(["b"]), max_tokens=3)
        return await ctx.call(lambda: calls.append(text) or text)

    posterior = await infer(
        model, n_particles=8, ess_threshold=0.01, resampling="auto", seed=0, progress=False
    )
    assert posterior.probabilities == {"a": 1.0}
    assert calls == ["a"]


async def test_explained_losses_add_up_to_the_evidence():
    for model in (two_texts, masked_then_choice, twisted, soft_product):
        posterior = await infer(
            model, n_particles=9, ess_threshold=1.0, resampling="auto", seed=2, progress=False
        )
        costs = posterior.explain().statements
        assert math.fsum(cost.log_evidence for cost in costs) == pytest.approx(posterior.log_ml)


# --- broken twins -------------------------------------------------------------------------


async def drawn(ctx: Context) -> str:
    """Many draws from the tail, of which some are equal."""
    many = AWRS(effort=30.0, _max_checks=1)
    return await ctx.generate(LM("go") * no_bb, max_tokens=3, proposal=many)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("twin", "model", "options"),
    [
        (wrong_children.equal_draws_dropped, drawn, {}),
        (wrong_children.one_child_for_the_tail, drawn, {}),
        (wrong_children.equal_particles_dropped, two_texts, {}),
        (wrong_children.twist_left, twisted, {}),
        (wrong_children.own_weight, two_texts, {"n_particles": 2}),
        (wrong_children.normalized, two_texts, {}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_broken_twin_is_caught(twin: Any, model: Any, options: Any) -> None:
    options = {"runs": 400, "n_particles": 7, "ess_threshold": 1.0} | options
    with twin(), pytest.raises(AssertionError):
        await assert_unbiased(model, resampling="auto", **options)


@pytest.mark.slow
async def test_random_order_loses_lineages(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where hardly anything is rejected each beginning goes on, unless the sample is shuffled.
    lm = ToyLM([chr(97 + i) for i in range(20)], seed=1, scale=0.3)
    text_rule = Regex("([b-t]|a[c-t])*")

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * text_rule, max_tokens=14)

    async def first_letters() -> float:
        counts = []
        for seed in range(12):
            posterior = await infer(
                model, n_particles=16, ess_threshold=1.0, resampling="auto", seed=seed,
                progress=False,
            )  # fmt: skip
            counts.append(len({text[:2] for text in posterior.values}))
        return float(np.mean(counts))

    kept = await first_letters()
    with wrong_children.shuffled():
        assert await first_letters() < kept - 1.0


async def test_text_that_must_end_is_not_compared_by_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every text pays for its end: a short one at once, and a long one some tokens later."""
    lm = ToyLM([*"abcdefgh"], weights=lambda context: [1.0] * 8 + [0.01])
    short_or_long = Regex("a|[b-h]{4}")

    async def model(ctx: Context) -> str:
        # Far from the limit, where those in time would compete apart.
        return await ctx.generate(lm("a") * short_or_long, max_tokens=60)

    async def error() -> float:
        found = [
            await infer(model, n_particles=16, resampling="auto", seed=seed, progress=False)
            for seed in range(30)
        ]
        return float(np.mean([abs(run.probability(lambda text: text == "a") - p) for run in found]))

    # Of the same number of ends, and 7 in 8 at each of the other tokens.
    p = 1 / (1 + 7 * (7 / 8) ** 3)
    assert await error() < 0.01
    monkeypatch.setattr(TokenStep, "must_end", lambda self, pool: False)
    assert await error() > 0.1


@pytest.mark.slow
async def test_heavy_particles_are_split_before_a_sample() -> None:
    """A text of nearly all the weight tosses as many coins as it is worth slots."""
    lm = ToyLM(["a", "b", "c"], weights=lambda context: [8, 1, 1, 6])

    async def model(ctx: Context) -> bool:
        await ctx.generate(lm("a") * OneOf(["a", "b", "c"]), max_tokens=2)
        return await ctx.sample(Bernoulli(0.5))

    async def error() -> float:
        found = [
            await infer(model, n_particles=16, resampling="auto", seed=seed, progress=False)
            for seed in range(40)
        ]
        return float(np.mean([(run.probability(bool) - 0.5) ** 2 for run in found]))

    split = await error()
    with wrong_children.unsplit():
        assert await error() > 4 * split


def test_call_is_made_once_for_a_heavy_particle():
    """What comes behind an exact posterior leaves it exact; copies would make it coarse."""
    lm = ToyLM(["a", "b", "c"], weights=lambda context: [72, 25, 3, 0])
    looked = []

    async def model(ctx):
        text = await ctx.generate(lm("a") * OneOf(["a", "b", "c"]), ends=False)
        return await ctx.call(lambda: looked.append(text) or text)

    found = run(model, n_particles=8, seed=0, progress=False)
    assert found.probabilities == {
        "a": pytest.approx(0.72),
        "b": pytest.approx(0.25),
        "c": pytest.approx(0.03),
    }
    assert sorted(looked) == ["a", "b", "c"]


def test_children_of_the_first_step_count_as_a_resampling():
    lm = ToyLM([chr(97 + i) for i in range(26)], weights=lambda _: [*range(1, 27), 0])

    async def model(ctx):
        return await ctx.generate(lm("a") * Regex("[a-z]"), ends=False)

    found = run(model, n_particles=8, seed=0, progress=False)
    assert (found.diagnose().survived or 1.0) < 1.0
    assert found.explain().resamplings == 1
    assert "resampled 1 time" in str(found)
    assert "importance sampling itself" not in str(found.explain())
