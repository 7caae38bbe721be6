"""Evidences with their errors and Bayes factors, against numbers by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import awrs_ppl
from awrs_ppl import Bernoulli, Context, Posterior, compare, run
from awrs_ppl.posterior.comparison import Evidence
from awrs_ppl.posterior.posterior import Stats
from awrs_ppl.posterior.records import Sync
from awrs_ppl.program.trace import Trace

DEAD = -math.inf


def of_weights(
    *log_weights: float, is_proper: bool = True, stopped: str | None = None
) -> Posterior:
    return Posterior(
        [Trace("a", log_weight, [], finished=log_weight > DEAD) for log_weight in log_weights],
        history=[Sync(1.0, 1, None)],
        kills={},
        stats=Stats(0, 0, 0, {}, {}),
        seed=0,
        is_proper=is_proper,
        stopped=stopped,
    )


def of_runs(*evidences: float, shift: float = 0.0) -> Posterior:
    """Runs of one particle each, with these evidences times exp(shift)."""
    return Posterior.pool(of_weights(math.log(e) + shift if e else DEAD) for e in evidences)


def test_errors_and_bayes_factors_are_those_by_hand() -> None:
    found = compare({"low": of_runs(1, 3), "high": of_runs(2, 4, 6, 8), "one": of_weights(0.0)})
    # (1, 3): mean 2, standard deviation sqrt 2, standard error of the mean 1.
    # (2, 4, 6, 8): mean 5, variance 20 / 3, standard error of the mean sqrt(5 / 3).
    assert list(found) == ["high", "low", "one"]
    assert found.best == "high"
    high, low, one = found.evidences
    assert (high.runs, low.runs, one.runs) == (4, 2, 1)
    assert [e.log_ml for e in found.evidences] == pytest.approx([math.log(5), math.log(2), 0.0])
    assert high.error == pytest.approx(math.sqrt(5 / 3) / 5)
    assert low.error == pytest.approx(1 / 2)
    assert one.error is None
    assert (high.log_bayes_factor, high.log_bayes_factor_error) == (0.0, 0.0)
    assert low.bayes_factor == pytest.approx(2 / 5)
    # The ratio of two means: its relative variance is the sum of theirs.
    assert low.log_bayes_factor_error == pytest.approx(math.sqrt(1 / 15 + 1 / 4))
    assert low.bayes_factor_error == pytest.approx(2 / 5 * math.sqrt(1 / 15 + 1 / 4))
    assert one.bayes_factor == pytest.approx(1 / 5)
    assert one.log_bayes_factor_error is one.bayes_factor_error is None
    assert found["low"] is low
    with pytest.raises(KeyError):
        found["lower"]


@pytest.mark.parametrize("shift", [-5000.0, 5000.0])
def test_errors_of_tiny_and_huge_evidences_are_the_same(shift: float) -> None:
    near, far = of_runs(1, 3, 4), of_runs(1, 3, 4, shift=shift)
    found, moved = compare({"a": near})["a"], compare({"a": far})["a"]
    assert moved.error == pytest.approx(found.error)
    assert moved.log_ml == pytest.approx(found.log_ml + shift)
    both = compare({"near": near, "far": far}).evidences[1]
    assert both.bayes_factor == 0.0
    assert both.log_bayes_factor == pytest.approx(-5000)


def test_error_of_one_heavy_run_is_one() -> None:
    assert compare({"a": of_runs(0, 0, 1, 0, 0)})["a"].error == pytest.approx(1)
    assert compare({"a": of_runs(2, 2, 2)})["a"].error == 0.0


def test_error_is_the_spread_over_repetitions() -> None:
    """Of a program whose evidence is known."""

    class Coin(Bernoulli):
        """Drawn by each particle alone: particles share the values of a `Bernoulli` itself."""

    async def coins(ctx: Context) -> None:
        for _ in range(3):
            await ctx.condition(await ctx.sample(Coin(0.6)))

    options: dict[str, Any] = {"n_particles": 20, "ess_threshold": 0.0, "progress": False}
    found = [
        compare({"a": run(coins, runs=12, seed=1000 * seed, **options)})["a"] for seed in range(20)
    ]
    wanted = math.log(0.6**3)
    # By the binomial distribution of those that live.
    exact = math.sqrt((1 - 0.6**3) / 0.6**3 / (20 * 12))
    errors = [e.error for e in found if e.error is not None]
    assert len(errors) == 20
    assert np.mean(errors) == pytest.approx(exact, rel=0.2)
    scores = np.array([(e.log_ml - wanted) / exact for e in found])
    assert np.square(scores).mean() == pytest.approx(1, abs=1.0)
    assert abs(scores.mean()) < 4 / math.sqrt(20)


def test_one_run_is_a_dash_and_a_sentence() -> None:
    found = compare({"one": of_weights(0.0), "pooled": Posterior.pool([of_weights(-1.0)])})
    assert found.notes == (
        "One run gives no standard error ('one', 'pooled'): infer with runs=8, or more.",
    )
    assert str(found).splitlines()[1].split() == ["one", "0.00", "—", "1", "1", "—"]
    assert str(found).splitlines()[2].split() == ["pooled", "-1.00", "—", "1", "0.368", "—"]


def test_dead_and_stopped_programs_are_said() -> None:
    stopped = of_weights(-1.0, -1.0, stopped="timed out")
    found = compare(
        {"dead": of_runs(0, 0), "half": of_runs(0, 1), "stopped": stopped, "whole": of_runs(2, 2)}
    )
    assert [e.name for e in found.evidences] == ["whole", "half", "stopped", "dead"]
    dead = found["dead"]
    assert (dead.log_ml, dead.error, dead.bayes_factor) == (DEAD, None, 0.0)
    assert dead.log_bayes_factor_error is None
    assert found["half"].error == pytest.approx(1.0)
    text = "\n".join(found.notes)
    assert "'dead' has no survivors: its evidence is estimated as 0" in text
    assert "1 of 2 runs of 'half' have no values, and count as 0." in text
    assert "'stopped' timed out, so its evidence is too low in expectation." in text
    assert "2 of 2 runs" not in text


def test_where_all_are_dead_there_is_no_bayes_factor() -> None:
    found = compare({"a": of_runs(0, 0), "b": of_weights(DEAD)})
    assert all(math.isnan(e.bayes_factor) for e in found.evidences)
    assert all(e.bayes_factor_error is None for e in found.evidences)
    assert str(found).splitlines()[1].split() == ["a", "-inf", "—", "2", "—", "—"]


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({}, ValueError, "compare got no posteriors: give it some"),
        ([of_weights(0.0)], TypeError, r"give it posteriors by name, as in compare\(\{"),
        (of_weights(0.0), TypeError, "give it posteriors by name"),
        ({"a": 1.0}, TypeError, "compare got 1.0 for 'a': give it what infer or run returns"),
        ({"a": of_weights(0.0).diagnose()}, TypeError, "compare got <Diagnosis"),
        ({1: of_weights(0.0)}, TypeError, "compare got the name 1"),
        (
            {"a": of_weights(0.0), "b": of_weights(0.0, is_proper=False)},
            ValueError,
            r"'b' has no evidence to compare .*proposals whose weights are, such as AWRS\(\)",
        ),
    ],
)
def test_what_cannot_be_compared_is_named(given: Any, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        compare(given)


def test_data_frame_has_the_numbers() -> None:
    frame: Any = compare({"low": of_runs(1, 3), "one": of_weights(0.0)}).to_dataframe()
    assert frame.index.tolist() == ["low", "one"]
    assert frame.loc["low", "error"] == pytest.approx(0.5)
    assert frame["bayes_factor"].tolist() == pytest.approx([1, 0.5])
    assert frame["runs"].tolist() == [2, 1]
    assert math.isnan(frame["error"]["one"])
    assert math.isnan(frame["bayes_factor_error"]["one"])
    assert set(frame.columns) == {
        *("log_ml", "error", "runs", "log_bayes_factor", "log_bayes_factor_error"),
        *("bayes_factor", "bayes_factor_error"),
    }


def test_data_frame_without_pandas_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare({"a": of_runs(1, 3)})
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pandas: pip install .*\[display\]"):
        found.to_dataframe()


def test_text_and_html_are_safe_and_aligned() -> None:
    names = ["<script>\x1b", "漢" * 60, "x" * 200, "a\u202eb"]
    found = compare({name: of_runs(1, 2 + i) for i, name in enumerate(names)})
    lines = str(found).splitlines()
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) <= 100
    ends = {line.count("漢") + len(line) for line in lines}
    assert len(ends) == 1
    page = found._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;\\x1b" in page
    assert page.count("<tr>") == 5
    assert "±0.33" in page
    assert repr(found).startswith("<Comparison of 4: ")


def test_loaded_posteriors_of_runs_compare_as_before(tmp_path: Path) -> None:
    async def coins(ctx: Context) -> bool:
        await ctx.condition(await ctx.sample(Bernoulli(0.5)))
        return await ctx.sample(Bernoulli(0.5))

    posterior = run(coins, n_particles=20, runs=3, seed=0, progress=False)
    posterior.save(tmp_path / "a.json")
    again = Posterior.load(tmp_path / "a.json")
    other = of_runs(0.1, 0.2)
    assert compare({"a": again, "b": other}) == compare({"a": posterior, "b": other})
    assert compare({"a": again})["a"].error is not None
    pooled = Posterior.pool([again, run(coins, n_particles=20, seed=9, progress=False)])
    assert compare({"a": pooled})["a"].runs == 4


def test_compare_is_public() -> None:
    assert awrs_ppl.compare is compare
    assert Evidence("a", 0.0, None, 1, 0.0, None).bayes_factor == 1.0
