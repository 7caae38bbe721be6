"""That an explanation accounts for all of the evidence, and reports it as it is."""

from __future__ import annotations

import asyncio
import html
import math
import re
from itertools import product
from typing import Any

import numpy as np
import pytest

from awrs_ppl import (
    Bernoulli,
    Categorical,
    Context,
    LocalAWRS,
    NoSurvivors,
    Posterior,
    ToyLM,
    infer,
    predicate,
    run,
)
from awrs_ppl.posterior.explanation import Importance
from awrs_ppl.potentials import Regex, Soft
from awrs_ppl.program.trace import Trace
from awrs_ppl.stats import Stats
from awrs_ppl.testing import enumerate_posterior

HALF = math.log(1 / 2)


def fair() -> ToyLM:
    """Each token is "a" or the end, with probability a half."""
    return ToyLM(["a"], weights=lambda context: [1, 1])


def costs(posterior: Posterior) -> dict[str, dict[str, float]]:
    return {cost.name: cost.parts for cost in posterior.explain().statements}


def factors(**options: Any) -> Any:
    """A program of 5 weights, 1 or 1/5 by a coin, so that E[V^2] / E[V]^2 is (13/9)^5."""

    async def model(ctx: Context) -> int:
        heads = 0
        for _ in range(5):
            coin = await ctx.sample(Bernoulli(0.5))
            await ctx.factor(0.0 if coin else math.log(0.2))
            heads += coin
        return heads

    return infer(model, progress=False, **options)


RATIO = (13 / 9) ** 5


# --- evidence -------------------------------------------------------------------------------


async def test_parts_of_a_statement_have_their_own_evidence() -> None:
    lm = fair()
    per_token = Soft(lambda text: -0.25 * len(text))
    at_the_end = Soft(lambda text: -0.75 if text == "aaa" else -3.0)

    async def model(ctx: Context) -> None:
        await ctx.generate(lm("a") * Regex("a{3}") * per_token, max_tokens=4, critic=at_the_end)
        await ctx.factor(-1.5, name="price")
        await ctx.observe(lm("a"), "aa")

    posterior = await infer(model, n_particles=5, seed=0, progress=False)
    assert list(costs(posterior)) == ["generate 1", "price", "observe 3"]
    assert costs(posterior)["generate 1"] == pytest.approx(
        {
            "Regex('a{3}')": 3 * HALF,
            repr(per_token): -0.75,
            f"critic {at_the_end!r}": -0.75,
            "max_tokens": HALF,
        }
    )
    one, price, observed = posterior.explain().statements
    assert one.log_evidence == pytest.approx(4 * HALF - 1.5)
    assert price.log_evidence == pytest.approx(-1.5)
    assert observed.log_evidence == pytest.approx(2 * HALF)
    assert posterior.log_ml == pytest.approx(6 * HALF - 3.0)
    assert (one.tokens, price.tokens, one.deaths) == (4, 0, 0)  # equal ones are one


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ess_threshold", [0.0, 0.5, 1.0])
async def test_statements_add_up_to_the_evidence(seed: int, ess_threshold: float) -> None:
    lm = ToyLM(["a", "b", "c"], seed=3)

    @predicate
    def no_bb(text: str) -> bool:
        return "bb" not in text

    async def model(ctx: Context) -> str:
        # Particles part: in one step some are at a `generate` and others at a `factor`.
        if await ctx.sample(Bernoulli(0.3)):
            await ctx.factor(-0.5, name="short way")
            await ctx.condition(await ctx.sample(Bernoulli(0.7)), name="luck")
        first = await ctx.generate(
            lm("b") * Regex("[abc]+") * no_bb * Soft(lambda text: -0.3 * text.count("c")),
            max_tokens=6,
            critic=Soft(lambda text: 0.4 * text.count("a")),
        )
        await ctx.observe(lm("c"), first[:1])
        return first

    options = {"n_particles": 12, "progress": False}
    posterior = await infer(model, seed=seed, ess_threshold=ess_threshold, **options)
    statements = posterior.explain().statements
    assert sum(cost.log_evidence for cost in statements) == pytest.approx(posterior.log_ml)
    for cost in statements:
        assert not cost.parts or sum(cost.parts.values()) == pytest.approx(cost.log_evidence)
    assert sum(cost.tokens for cost in statements) == posterior.stats.tokens
    assert sum(cost.checks for cost in statements) == sum(posterior.stats.checks.values())
    assert sum(cost.deaths for cost in statements) == sum(posterior.kills.values())
    assert len(posterior.deaths) == sum(posterior.kills.values())


@pytest.mark.parametrize("seed", range(5))
async def test_twist_in_a_multi_byte_character_is_charged_to_the_constraint(seed: int) -> None:
    lm = ToyLM(["a", "b", "丁".encode()[:2], "丁".encode()[2:]], seed=3)

    @predicate
    def no_a(text: str) -> bool:
        return "a" not in text

    async def model(ctx: Context) -> str:
        critic = Soft(lambda text: 0.4 * text.count("b"))
        first = await ctx.generate(lm("b") * no_a, max_tokens=6, critic=critic)
        return first + await ctx.generate(lm("c") * no_a, max_tokens=6)

    posterior = await infer(model, n_particles=12, seed=seed, ess_threshold=1.0, progress=False)
    statements = posterior.explain().statements
    assert sum(cost.log_evidence for cost in statements) == pytest.approx(posterior.log_ml)
    for cost in statements:
        assert sum(cost.parts.values()) == pytest.approx(cost.log_evidence)


@pytest.mark.usefixtures("idle_clock")
async def test_timeout_leaves_its_unfinished_weight_in_the_explanation() -> None:
    async def model(ctx: Context) -> None:
        waits = await ctx.sample(Bernoulli(0.5))
        await ctx.factor(-1.0)
        if waits:
            await asyncio.sleep(3600)

    posterior = await infer(model, n_particles=40, seed=0, timeout=0.5, progress=False)
    explanation = posterior.explain()
    assert posterior.stopped == "timed out"
    assert 0 < posterior.unfinished < 1
    assert explanation.statements[0].log_evidence == pytest.approx(-1)
    assert explanation.unfinished == pytest.approx(math.log(1 - posterior.unfinished))
    assert "left unfinished at the stop" in str(explanation)
    assert len(posterior.history) == 1
    assert explanation.importance is None
    assert "stopped before its end" in explanation.why_not


async def test_potentials_that_differ_between_particles_are_named_by_kind() -> None:
    lm = ToyLM(["a", "b"], seed=0)

    async def model(ctx: Context) -> str:
        letter = await ctx.sample(Categorical(["a", "b"]))
        return await ctx.generate(lm("a") * Regex(f"{letter}{{2}}"), max_tokens=9)

    posterior = await infer(model, n_particles=20, seed=0, progress=False)
    assert list(costs(posterior)["generate 2"]) == ["Regex"]


# --- deaths ---------------------------------------------------------------------------------


async def test_deaths_in_a_text_have_killer_and_token() -> None:
    lm = ToyLM(["a", " b"], seed=0)

    @predicate
    def never_for_long(text: str) -> bool:
        return len(text) < 4

    async def model(ctx: Context) -> None:
        await ctx.generate(lm("a") * Regex("( ?[ab]){8,}") * never_for_long)

    posterior = await infer(model, n_particles=16, resampling="stratified", seed=0, progress=False)
    explanation = posterior.explain()
    assert posterior.dead == 16
    assert sum(deaths.count for deaths in explanation.deaths) == sum(posterior.kills.values())
    first = explanation.deaths[0]
    together = "Regex('( ?[ab]){8,}') and predicate(never_for_long) allow nothing together"
    assert (first.killer, first.statement) == (together, "generate 1")
    assert all(2 <= len(death.text) < 4 for death in posterior.deaths)
    assert first.token == len(first.text.replace(" b", "b")) + 1
    assert (
        f"{together} and killed {first.count} of 16 particles at token {first.token} of "
        f"generate 1, after {first.text!r}"
    ) in " ".join(str(explanation).split())
    assert explanation.statements[0].log_evidence == -math.inf
    assert explanation.rejections["predicate(never_for_long)"] > 0
    for thing in (explanation, posterior.stats):
        name = type(thing).__name__
        with pytest.warns(DeprecationWarning, match=f"write {name}.rejections") as warned:
            assert thing.refusals == thing.rejections
        assert warned[0].filename == __file__


async def test_deaths_of_whole_statements_have_no_token() -> None:
    lm = fair()

    async def model(ctx: Context) -> None:
        await ctx.condition(await ctx.sample(Bernoulli(0.5)), name="coin")
        text = await ctx.generate(lm("a"), critic=Soft(lambda text: -math.inf), max_tokens=3)
        await ctx.factor(len(text))

    posterior = await infer(model, n_particles=30, seed=0, ess_threshold=0, progress=False)
    coin, critic = posterior.explain().deaths
    assert {coin.killer, critic.killer} == {"condition 'coin'", "critic Soft(<lambda>)"}
    assert coin.count + critic.count == 30
    assert (coin.token, critic.token) == (0, 0)
    shown = str(posterior.explain())
    assert "coin killed " in shown
    assert "critic Soft(<lambda>) killed " in shown
    assert not re.search(r"token \d+ of generate 3", shown)  # it ended: no token of it is to blame


async def test_predicate_that_rejects_the_empty_text_is_told_of_complete() -> None:
    @predicate
    def whole(text: str) -> bool:
        return len(text) == 3

    async def model(ctx: Context) -> str:
        return await ctx.generate(fair()("a") * whole, max_tokens=9)

    posterior = await infer(model, n_particles=4, seed=0, progress=False)
    with pytest.raises(NoSurvivors) as raised:
        posterior.sample()
    everywhere = [posterior.explain(), posterior, posterior.diagnose(), raised.value]
    for shown in [*map(str, everywhere), posterior._repr_html_()]:
        flat = html.unescape(" ".join(shown.split()))
        assert "may still become allowed" in flat
        assert "predicate(lambda text: True, complete=rule)" in flat
    # What is advised is right.
    rule = predicate(lambda text: True, complete=whole)

    async def mended(ctx: Context) -> str:
        return await ctx.generate(fair()("a") * rule, max_tokens=9)

    assert (await infer(mended, seed=0, progress=False)).probabilities == {"aaa": 1.0}


@pytest.mark.parametrize(
    ("kills", "wanted"),
    [
        ({"no_bb": 3}, "Try more particles"),
        ({"A and B allow nothing together": 3, "no_bb": 1}, "Loosen one of them"),
        ({"x (no text that ends within 1,000 tokens)": 3}, "Try a larger max_tokens"),
        ({"Soft(f) (at the empty text)": 3}, "Every text begins with the empty one"),
        ({"predicate(f) (at the empty text)": 3}, "@predicate asks"),
        ({}, "Try more particles"),
    ],
)
def test_text_and_notebook_give_the_same_advice(kills: dict[str, int], wanted: str) -> None:
    options: dict[str, Any] = {"history": [], "seed": 0, "is_proper": True}
    options["stats"] = Stats(tokens=0, lm_rows=0, lm_passes=0, checks={}, seconds={})
    dead = Trace(None, -math.inf, [], finished=False)
    posterior = Posterior([dead] * 4, kills=kills, **options)
    (advice,) = posterior.diagnose().warnings
    assert wanted in advice
    assert advice in " ".join(str(posterior).split())
    assert advice in html.unescape(posterior._repr_html_())
    with pytest.raises(NoSurvivors, match=re.escape(wanted)):
        posterior.mode()


# --- ends that max_tokens forces ------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"resampling": "multinomial"}, {"runs": 3}])
async def test_share_of_texts_that_max_tokens_ends_is_that_of_enumeration(
    options: dict[str, Any],
) -> None:
    lm = ToyLM(["a", "b"], seed=4)

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * Regex("[ab]*"), max_tokens=4)

    exact = (await enumerate_posterior(model)).probabilities
    truth = math.fsum(share for text, share in exact.items() if len(text) == 3)
    assert 0.1 < truth < 0.2
    posterior = await infer(model, n_particles=2000, seed=0, progress=False, **options)
    for effort in (posterior.efforts["generate 1"], posterior.explain().statements[0]):
        assert effort.forced_share == pytest.approx(truth, abs=0.03)
    cost = posterior.explain().statements[0]
    # Where children compete, each of the eight texts of three letters is there once; else they
    # are as many as the language model writes, before their ends are weighed.
    counted = 8.0
    if options.get("resampling"):
        texts = [ids for n in range(4) for ids in product((0, 1), repeat=n)]
        rows = dict(zip(texts, np.exp(await lm("a").log_probs(texts)).tolist(), strict=True))
        written = (math.prod(rows[t[:i]][t[i]] for i in range(3)) for t in texts if len(t) == 3)
        counted = 2000 * math.fsum(written)
    assert cost.forced == pytest.approx(counted, rel=0.1)
    shown = " ".join(str(posterior.explain()).split())
    assert f"What max_tokens ended: {cost.forced:,} texts of generate 1, with" in shown
    assert "What max_tokens ended" in posterior._repr_html_()


async def test_texts_that_max_tokens_ends_count_dead_ones_too() -> None:
    async def model(ctx: Context) -> str:
        await ctx.generate(fair()("a") * Regex("a{2}"), max_tokens=3, name="two")
        await ctx.generate(fair()("a") * Regex("a{2,}"), max_tokens=2, name="none")
        return ""

    posterior = await infer(model, n_particles=4, seed=0, progress=False, resampling="residual")
    two, none = posterior.explain().statements
    assert (two.forced, two.forced_share) == (4, 0.0)
    assert (none.forced, none.deaths) == (4, 4)
    shown = " ".join(str(posterior.explain()).split())
    assert "4 texts of none, none of them with weight at the end" in shown


async def test_nothing_is_said_where_max_tokens_ends_no_text() -> None:
    async def model(ctx: Context) -> str:
        return await ctx.generate(fair()("a") * Regex("a{0,2}"), max_tokens=4)

    posterior = await infer(model, n_particles=50, seed=0, progress=False)
    assert posterior.explain().statements[0].forced == 0
    assert "What max_tokens ended" not in str(posterior.explain())


# --- importance sampling --------------------------------------------------------------------


@pytest.mark.slow
async def test_importance_sampling_is_estimated_from_a_resampled_run() -> None:
    posterior = await factors(n_particles=1500, seed=0)
    explanation = posterior.explain()
    assert explanation.resamplings > 0
    found = explanation.importance
    assert found is not None
    assert abs(found.ratio - RATIO) < 4 * found.error
    assert found.error < 0.1 * RATIO
    low, high = found.interval
    assert low < 1500 / RATIO < high
    # And from importance sampling itself.
    other = await factors(n_particles=1500, seed=1, ess_threshold=0)
    assert other.ess == pytest.approx(1500 / RATIO, rel=0.15)
    assert other.ess == pytest.approx(found.ess, rel=0.25)
    assert other.explain().importance is None
    assert "never resampled" in str(other.explain())


@pytest.mark.slow
async def test_importance_error_over_many_runs_is_about_right() -> None:
    found = [(await factors(n_particles=150, seed=seed)).explain().importance for seed in range(30)]
    estimates = [importance for importance in found if importance is not None]
    assert len(estimates) > 25
    scores = np.array([(one.ratio - RATIO) / one.error for one in estimates])
    # The estimate is skewed and the error conservative: not far off on average, nor in spread.
    assert abs(scores.mean()) < 0.75
    assert 0.4 < scores.std() < 1.8


async def test_importance_of_a_program_with_texts_counts_them() -> None:
    lm = fair()

    async def model(ctx: Context) -> str:
        text = await ctx.generate(lm("a"), max_tokens=12)
        await ctx.factor(-1.0 * len(text))
        await ctx.factor(0.5 * len(text))
        return text

    # V is e^(-n/2) for the n tokens before an end that is never forced in earnest.
    masses = [0.5 ** (n + 1) for n in range(12)]
    first = sum(p * math.exp(-0.5 * n) for n, p in enumerate(masses))
    second = sum(p * math.exp(-1.0 * n) for n, p in enumerate(masses))
    options = {"n_particles": 1000, "ess_threshold": 0.9, "resampling": "stratified"}
    posterior = await infer(model, seed=0, progress=False, **options)
    found = posterior.explain().importance
    assert found is not None
    assert found.ratio == pytest.approx(second / first**2, rel=0.07)


async def test_importance_without_an_estimate_says_why() -> None:
    lm = fair()

    async def improper(ctx: Context) -> None:
        await ctx.generate(lm("a") * Regex("a+"), max_tokens=9, proposal=LocalAWRS())

    posterior = await infer(improper, n_particles=4, seed=0, progress=False)
    explanation = posterior.explain()
    assert explanation.importance is None
    assert "not proper" in explanation.why_not
    assert "no evidence" in str(explanation)
    assert explanation.accepted is None

    narrow = (await factors(n_particles=12, seed=0, ess_threshold=1.0)).explain()
    assert narrow.lineages < 5
    assert narrow.importance is None
    assert "equal lineages, and at least 5" in " ".join(str(narrow).split())

    async def one_sided(ctx: Context) -> None:
        for _ in range(3):
            await ctx.factor(-2.0 * await ctx.sample(Bernoulli(0.5)))
        number = await ctx.sample(Categorical(range(50)))
        await ctx.factor(100.0 * number)

    # Many lineages, and one of them has all of the weight: its spread cannot be seen.
    posterior = await infer(one_sided, n_particles=40, seed=0, ess_threshold=0.3, progress=False)
    assert posterior.explain().lineages > 5
    assert posterior.ess < 3
    assert posterior.explain().importance is None


def test_importance_interval_stays_between_one_and_all() -> None:
    assert Importance(ratio=2.0, error=0.25, n_particles=100).interval == (
        40.0,
        pytest.approx(200 / 3),
    )
    assert Importance(ratio=1.0, error=0.5, n_particles=10).interval == (5.0, 10.0)
    assert Importance(ratio=40.0, error=1.0, n_particles=10).interval[0] == 1.0


async def test_accepted_share_of_a_filtered_program_is_its_evidence() -> None:
    lm = fair()

    async def filtered(ctx: Context) -> None:
        await ctx.generate(lm("a") * Regex("a{3}"), max_tokens=9)

    async def weighed(ctx: Context) -> None:
        await filtered(ctx)
        await ctx.factor(-0.1)

    options: dict[str, Any] = {"n_particles": 4, "seed": 0, "progress": False}
    one = (await infer(filtered, **options)).explain()
    assert one.accepted == pytest.approx(1 / 16)
    assert re.search(r"in 6\.[23] % of its runs", " ".join(str(one).split()))
    other = (await infer(weighed, **options)).explain()
    assert other.accepted is None
    assert "of its runs" not in str(other)


# --- what is shown --------------------------------------------------------------------------


async def test_table_of_many_statements_is_bounded() -> None:
    async def model(ctx: Context) -> None:
        for i in range(400):
            await ctx.factor(-0.01 * i, name="漢\x1b" * 50 + str(i))

    posterior = await infer(model, n_particles=3, seed=0, progress=False)
    lines = str(posterior.explain()).splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) <= 100
    assert all(line.isprintable() for line in lines)
    assert any("388 more statements" in line for line in lines)
    assert len(posterior.explain()._repr_html_()) < 20_000
    assert repr(posterior.explain()) == "<Explanation of 3 particles: print it>"


async def test_program_without_weights_is_said_to_have_none() -> None:
    async def model(ctx: Context) -> bool:
        return await ctx.sample(Bernoulli(0.5))

    posterior = await infer(model, n_particles=3, seed=0, progress=False)
    assert "no statement has changed the weight" in str(posterior.explain())


def test_what_the_choice_of_children_paid_is_a_row() -> None:
    """The price of an end is set aside while children are chosen: then the rows lack it."""
    lm = ToyLM([*"abcdefgh", "ab", "cd", "abc", "efg"], seed=4, scale=2.0)

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * Regex("[a-h]{3}|[a-h]{5,6}"), max_tokens=7)

    found = [run(model, n_particles=5, seed=seed, progress=False) for seed in range(20)]
    paid = [posterior.explain().chance for posterior in found]
    assert max(map(abs, paid)) > 0.02
    for posterior, chance in zip(found, paid, strict=True):
        explanation = posterior.explain()
        rows = sum(cost.log_evidence for cost in explanation.statements)
        assert rows + chance == pytest.approx(posterior.log_ml)
        assert ("which children were chosen" in str(explanation)) == (abs(chance) >= 0.005)
