"""What a diagnosis says: its figures against hand computation, and its warnings."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from awrs_ppl import Bernoulli, Categorical, Context, LocalAWRS, Posterior, ToyLM, infer
from awrs_ppl.posterior import diagnosis
from awrs_ppl.posterior._diagnosed import FEW_SURVIVED
from awrs_ppl.posterior.diagnosis import Diagnosis
from awrs_ppl.posterior.records import Loss, Sync
from awrs_ppl.potentials import Regex
from awrs_ppl.program.trace import Trace
from awrs_ppl.stats import Stats

DEAD = -math.inf


def made(
    weights: Sequence[tuple[Any, float]], history: Sequence[Sync] = (), **given: Any
) -> Posterior:
    """A posterior of values with these weights, of which resampling left this."""
    traces = [Trace(v, math.log(w) if w else DEAD, [], finished=True) for v, w in weights]
    stats = Stats(tokens=0, lm_rows=0, lm_passes=0, checks={}, seconds={})
    options: dict[str, Any] = {"kills": {}, "stats": stats, "seed": 0, "is_proper": True}
    return Posterior(traces, history=history, **options | given)


def resampled(ancestors: Sequence[int], survived: float, statement: str = "") -> Sync:
    losses = (Loss(statement, "", -1.0),) if statement else ()
    return Sync(1.0, len(ancestors), tuple(ancestors), losses=losses, survived=survived)


def of_evidences(*runs: dict[str, float]) -> Posterior:
    """Runs whose values have these masses: a run's evidence is their sum."""
    parts = [made([(v, len(run) * m) for v, m in run.items()] or [("", 0.0)]) for run in runs]
    return Posterior.pool(parts)


# --- figures --------------------------------------------------------------------------------


def test_survived_is_the_product_over_resamplings() -> None:
    history = [
        resampled([0, 0], 0.5, "first"),
        Sync(2.0, 2, None, losses=(Loss("second", "", -9.0),)),
        resampled([0, 1], 0.25, "third"),
    ]
    found = made([("a", 1.0), ("b", 1.0)], history).diagnose()
    assert found.survived == pytest.approx(0.125)
    assert found.lost_by == "third"
    never = made([("a", 1.0)]).diagnose()
    assert (never.survived, never.lost_by) == (None, "")
    assert "never resampled" in str(never)


def test_weight_is_lost_by_the_dearest_statement_of_a_step() -> None:
    losses = tuple(Loss(name, "", cost) for name, cost in (("a", -1.0), ("b", -0.8), ("b", -0.8)))
    history = [Sync(1.0, 2, (0, 0), losses=losses, survived=0.5)]
    assert made([("a", 1.0), ("b", 1.0)], history).diagnose().lost_by == "b"


def test_survived_of_runs_is_the_mean_by_evidence() -> None:
    light = made([("a", 1.0), ("b", 1.0)], [resampled([0, 0], 0.2)])
    heavy = made([("a", 3.0), ("b", 3.0)], [resampled([0, 0], 0.6)])
    assert Posterior.pool([light, heavy]).diagnose().survived == pytest.approx(0.5)


async def test_survived_share_is_that_of_the_particles_taken() -> None:
    async def model(ctx: Context) -> int:
        number = await ctx.sample(Categorical(range(4)))
        await ctx.factor(-3.0 * number, name="numbers")
        await ctx.factor(0.0)
        return number

    posterior = await infer(model, n_particles=12, resampling="stratified", seed=0, progress=False)
    resampling, _ = posterior.history
    assert resampling.ancestors is not None
    weights = np.exp(resampling.log_weights)
    taken = weights[sorted(set(resampling.ancestors))].sum() / weights.sum()
    found = posterior.diagnose()
    assert found.survived == pytest.approx(taken)
    assert taken < 1
    assert found.lost_by == "numbers"
    assert found.runs is None


def test_lineages_are_of_copies_only() -> None:
    ten = [("a", 1.0)] * 5 + [("b", 3.0)] * 5
    history = [resampled([0] * 5 + [1] * 5, 0.9)]
    # Shares of 1/4 and 3/4.
    assert made(ten, history).diagnose().lineages == pytest.approx(1.6)
    assert made(ten[:9], [resampled([0] * 9, 0.9)]).diagnose().lineages is None
    assert made(ten).diagnose().lineages is None
    chosen = [dataclasses.replace(history[0], chosen=True)]
    found = made(ten, chosen).diagnose()
    assert found.is_chosen
    assert found.lineages is None
    assert made([("a", 0.0)] * 10, history).diagnose().lineages is None


def test_values_and_ess_are_counted() -> None:
    found = made([("a", 1.0), ("a", 1.0), ("b", 2.0), ("c", 0.0)]).diagnose()
    assert (found.n_particles, found.alive, found.distinct) == (4, 3, 2)
    assert found.ess == pytest.approx(16 / 6)
    assert found.equal_values == pytest.approx(2)


def test_disagreement_is_of_each_run_from_the_others() -> None:
    runs = of_evidences({"a": 0.5, "b": 0.5}, {"a": 1.0}, {"b": 2.0}).diagnose().runs
    assert runs is not None
    # By hand: the others of each have a by 1/3, 1/6 and 3/4; the shares are 1/4, 1/4 and 1/2.
    differ = abs(1 / 2 - 1 / 3), abs(1 - 1 / 6), abs(0 - 3 / 4)
    assert runs.disagreement == pytest.approx(np.dot([0.25, 0.25, 0.5], differ))
    assert runs.shares == pytest.approx([0.25, 0.25, 0.5])
    assert runs.spread == pytest.approx(np.std(np.log([1.0, 1.0, 2.0]), ddof=1))


def test_run_of_negligible_evidence_is_not_asked() -> None:
    agreed = {"a": 0.6, "b": 0.4}
    runs = of_evidences(agreed, agreed, {"c": 1e-9}).diagnose().runs
    assert runs is not None
    assert runs.disagreement == pytest.approx(0, abs=1e-8)


def test_run_with_all_of_the_evidence_is_compared_with_the_others() -> None:
    posterior = of_evidences({"a": 1.0}, {"b": 1e-6}, {"b": 1e-6})
    runs = posterior.diagnose().runs
    assert runs is not None
    assert runs.disagreement == pytest.approx(1)
    # Against the pooled result, which is that run's own, it would not show.
    assert posterior.probabilities["a"] == pytest.approx(1, abs=1e-5)


def test_rare_values_are_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that draw from very many values have none in common, and do not disagree by that."""
    runs = [{f"{run} {i}": 1.0 for i in range(8)} for run in range(4)]
    posterior = of_evidences(*runs)
    assert found_disagreement(posterior) == 0
    assert posterior.diagnose().warnings == []
    # The broken twin: the likeliest values stand alone however rare they are.
    monkeypatch.setattr(diagnosis, "_FLOOR", 0.0)
    assert found_disagreement(posterior) > 0.3


def found_disagreement(posterior: Posterior) -> float:
    runs = posterior.diagnose().runs
    assert runs is not None
    assert runs.disagreement is not None
    return runs.disagreement


def test_standard_errors_are_those_of_the_jackknife() -> None:
    runs = [{"a": 0.5, "b": 0.5}, {"a": 1.0}, {"b": 2.0}]
    found = of_evidences(*runs).diagnose().runs
    assert found is not None
    without = {"a": [1 / 3, 0.5 / 3, 1.5 / 2], "b": [2 / 3, 2.5 / 3, 0.5 / 2]}
    for value, shares in without.items():
        error = math.sqrt(2 / 3 * sum((p - np.mean(shares)) ** 2 for p in shares))
        assert found.errors[value] == pytest.approx(error)
    evidences = np.log([1.5, 1.5, 1.0])
    error = math.sqrt(2 / 3 * np.square(evidences - evidences.mean()).sum())
    assert found.log_ml_error == pytest.approx(error)


@pytest.mark.slow
async def test_standard_error_is_about_the_spread_of_pooled_results() -> None:
    async def model(ctx: Context) -> bool:
        heads = await ctx.sample(Bernoulli(0.4))
        await ctx.factor(0.5 if heads else -0.5)
        return heads

    found = [
        (await infer(model, n_particles=20, runs=6, seed=seed, progress=False)).diagnose()
        for seed in range(80)
    ]
    for value in (True, False):
        errors = [one.runs.errors.get(value, 0.0) for one in found if one.runs]
        spread = np.std([one.probabilities.get(value, 0.0) for one in found])
        assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.3)
    log_mls = [one.runs.log_ml_error for one in found if one.runs]
    spread = np.std([one.log_ml for one in found])
    assert np.sqrt(np.mean(np.square(log_mls))) == pytest.approx(spread, rel=0.3)


# --- warnings -------------------------------------------------------------------------------


def test_runs_that_differ_warn_with_a_remedy() -> None:
    history = [resampled([0], 0.4, "the text")]
    parts = [made([(value, 1.0)], history) for value in "aabb"]
    (warning,) = Posterior.pool(parts).diagnose().warnings
    assert warning == (
        "The runs differ by 0.67 in total variation, so the probabilities are rough: try "
        'resampling="auto" or more particles (most was lost in the text).'
    )
    (warning,) = of_evidences({"a": 1.0}, {"a": 50.0}, {"a": 1.0}).diagnose().warnings
    assert "log evidence of the runs varies by 2.3" in warning
    assert of_evidences({"a": 1.0}, {"a": 1.2}).diagnose().warnings == []


def test_lost_weight_warns_where_few_values_are_left() -> None:
    history = [resampled([0, 0, 1, 1], FEW_SURVIVED - 0.01, "the text")]
    (warning,) = made([("a", 1.0)] * 4, history).diagnose().warnings
    assert "79.0 % of the weight survived resampling (most was lost in the text)" in warning
    assert "runs=4" in warning
    assert made([(value, 1.0) for value in "abcd"], history).diagnose().warnings == []
    history = [resampled([0, 0, 1, 1], FEW_SURVIVED + 0.01)]
    assert made([("a", 1.0)] * 4, history).diagnose().warnings == []


def test_low_ess_warns_of_copies_and_not_of_children() -> None:
    peaked = [("a", 1.0), *((str(i), 1e-3) for i in range(30))]
    (warning,) = made(peaked).diagnose().warnings
    assert "few particles" in warning
    chosen = [Sync(1.0, 31, tuple(range(31)), chosen=True, survived=0.99)]
    posterior = made(peaked, chosen)
    found = posterior.diagnose()
    assert found.ess < 1.1
    assert found.warnings == []
    for shown in (str(found), str(posterior), posterior._repr_html_()):
        assert "31 different particles, as much as 1.1 equally likely" in shown
        assert "1.1 of 31" not in shown


def test_few_lineages_warn() -> None:
    history = [resampled([3] * 12, 0.95)]
    (warning,) = made([(str(i), 1.0) for i in range(12)], history).diagnose().warnings
    assert "1.0 equal lineages of the first 12 particles" in warning


async def test_real_runs_show_their_disagreement_everywhere() -> None:
    async def model(ctx: Context) -> int:
        number = await ctx.sample(Categorical(range(9)))
        await ctx.factor(0.5 * number)
        await ctx.factor(0.5 * number)
        return number

    options = {"runs": 4, "ess_threshold": 1.0, "resampling": "stratified"}
    posterior = await infer(model, n_particles=3, seed=0, progress=False, **options)
    found = posterior.diagnose()
    assert found.runs is not None
    assert found.warnings
    shown = f"differ by {found.runs.disagreement:.2f} in total variation; log evidence ±"
    assert shown in str(posterior)
    assert shown in posterior._repr_html_()
    assert found.warnings[0] in " ".join(str(posterior).split())
    assert "of the weight survived" in str(posterior)


# --- what there is nothing to say about -----------------------------------------------------


async def test_dead_population_says_what_killed() -> None:
    async def model(ctx: Context) -> None:
        await ctx.condition(await ctx.sample(Bernoulli(0.5)) == 2, name="impossible")

    for runs in (1, 3):
        posterior = await infer(model, n_particles=4, runs=runs, seed=0, progress=False)
        found = posterior.diagnose()
        (warning,) = found.warnings
        assert warning.startswith("Every weight is zero; condition 'impossible' killed the most")
        assert found.log_ml == DEAD
        assert found.distinct == found.equal_values == 0
        if found.runs is not None:
            assert found.runs.disagreement is None
            assert found.runs.errors == {}
            assert found.runs.dead == 3
        whole(posterior, found)


def whole(posterior: Posterior, found: Diagnosis) -> None:
    """It can be shown, in 100 columns, without a NaN; and it never says that all is well."""
    for shown in (str(found), str(posterior)):
        assert max(map(len, shown.splitlines())) <= 100
        assert "nan" not in shown
    assert "does not say that the result is right" in str(found) or found.warnings
    assert "</div>" in found._repr_html_()
    assert repr(found) == f"<Diagnosis of {len(posterior)} particles: print it>"


def test_single_survivor_of_runs_has_no_errors() -> None:
    posterior = of_evidences({}, {"a": 0.7, "b": 0.3}, {})
    found = posterior.diagnose()
    assert found.runs is not None
    assert found.runs.disagreement is None
    assert found.runs.spread == math.inf
    assert found.runs.log_ml_error == math.inf
    assert set(found.runs.errors.values()) == {math.inf}
    assert found.warnings[0].startswith("2 of 3 runs ended without survivors")
    assert "unknown" in str(found)
    whole(posterior, found)


@pytest.mark.parametrize("runs", [1, 2])
async def test_one_particle_is_diagnosed(runs: int) -> None:
    async def model(ctx: Context) -> bool:
        return await ctx.sample(Bernoulli(0.5))

    posterior = await infer(model, n_particles=1, runs=runs, seed=0, progress=False)
    found = posterior.diagnose()
    assert (found.survived, found.lineages) == (None, None)
    assert (found.runs is None) == (runs == 1)
    whole(posterior, found)


def test_pool_of_one_run_is_a_single_run() -> None:
    found = Posterior.pool([made([("a", 1.0)])]).diagnose()
    assert found.runs is None
    assert "runs=4" in str(found)


async def test_improper_weights_give_no_evidence() -> None:
    lm = ToyLM(["a", "b"], seed=0)

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * Regex("a+"), max_tokens=4, proposal=LocalAWRS())

    posterior = await infer(model, n_particles=4, seed=0, progress=False)
    found = posterior.diagnose()
    assert math.isnan(found.log_ml)
    assert "not proper" in str(found)
    whole(posterior, found)


@pytest.mark.usefixtures("idle_clock")
async def test_stopped_runs_say_that_they_were() -> None:
    async def model(ctx: Context) -> int:
        number = int(await ctx.sample(Bernoulli(0.5)))
        await ctx.call(asyncio.sleep, 3600 * number)
        return number

    posterior = await infer(model, n_particles=9, runs=2, seed=0, timeout=0.5, progress=False)
    found = posterior.diagnose()
    assert found.warnings[0].startswith("Timed out: the results are those")
    whole(posterior, found)

    async def endless(ctx: Context) -> None:
        await ctx.call(asyncio.sleep, 3600)

    posterior = await infer(endless, n_particles=2, seed=0, timeout=0.5, progress=False)
    (warning,) = posterior.diagnose().warnings
    assert warning.startswith("Timed out before a particle had finished")
    whole(posterior, posterior.diagnose())


# --- what is shown --------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e漢字" * 40


def test_hostile_names_and_values_are_escaped() -> None:
    history = [resampled([0], 0.2, HOSTILE)]
    posterior = Posterior.pool([made([(HOSTILE + v, 1.0)], history) for v in "ab"])
    found = posterior.diagnose()
    assert "most was lost in" in found.warnings[0]
    assert "<script" not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()
    assert all(line.isprintable() for line in str(found).splitlines())
    assert len(found._repr_html_()) < 10_000
    whole(posterior, found)


def test_table_of_many_values_is_bounded() -> None:
    many = {str(i): 1.0 for i in range(500)}
    posterior = of_evidences(*[many] * 30)
    found = posterior.diagnose()
    assert len(str(found).splitlines()) < 25
    assert found.runs is not None
    assert len(found.runs.errors) == 500
    assert found.warnings == []
