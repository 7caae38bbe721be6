"""A posterior as draws for ArviZ."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from awrs_ppl import Bernoulli, Categorical, Context, NoSurvivors, Posterior, run
from awrs_ppl.posterior import _arviz
from awrs_ppl.posterior.posterior import Stats
from awrs_ppl.posterior.records import Sync
from awrs_ppl.program.log import Record
from awrs_ppl.program.statements import Factor, Sample
from awrs_ppl.program.trace import Trace


@pytest.fixture
def az() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its next version, and of xarray's
        import arviz

        yield arviz


def of(*rows: tuple[Any, float, dict[str, Any]]) -> Posterior:
    """A posterior of particles: value, weight and choices."""
    traces = []
    for value, weight, choices in rows:
        records = [Record(Sample(n, Categorical(["a"])), c, 0.0) for n, c in choices.items()]
        records.append(Record(Factor("factor 1", -1.0), None, -1.0))
        log_weight = math.log(weight) if weight else -math.inf
        traces.append(Trace(value, log_weight, records, finished=weight > 0))
    return Posterior(
        traces,
        history=[Sync(1.0, len(rows), None)],
        kills={},
        stats=Stats(0, 0, 0, {}, {}),
        seed=0,
        is_proper=True,
    )


THREE = (
    ("a", 1, {"n": 1, "x": 0.5, "yes": True, "text": "u\0"}),
    (None, 0, {"n": 100, "x": 100.0, "yes": True, "text": "dead"}),
    ("b\udc80", 3, {"n": np.int64(2), "x": np.float32(1.5), "yes": False, "text": "v"}),
)


def test_draws_are_particles_by_their_weights() -> None:
    posterior = of(*THREE)
    found = posterior.to_arviz(400, seed=3)
    assert set(found.groups()) == {"posterior", "texts", "sample_stats"}
    draws = found.posterior
    assert set(draws.data_vars) == {"n", "x", "yes"}
    assert dict(draws.sizes) == {"chain": 1, "draw": 400}
    assert {name: draws[name].dtype for name in draws.data_vars} == {
        "n": np.int64,
        "x": np.float64,
        "yes": np.bool_,
    }
    second = draws["n"].values[0] == 2
    assert second.sum() == pytest.approx(300, abs=2)
    assert draws["x"].values[0].tolist() == np.where(second, 1.5, 0.5).tolist()
    assert draws["yes"].values[0].tolist() == (~second).tolist()
    assert found.texts["value"].values[0].tolist() == ["b\udc80" if b else "a" for b in second]
    assert found.texts["text"].values[0].tolist() == ["v" if b else "u\0" for b in second]
    stats = found.sample_stats
    assert stats["particle"].values[0].tolist() == np.where(second, 2, 0).tolist()
    assert np.exp(stats["log_weight"].values[0]).tolist() == pytest.approx(np.where(second, 3, 1))
    assert 0.4 < second[:200].mean() < 0.95  # in no order
    for group in (draws, stats, found.texts):
        assert group.attrs["log_ml"] == posterior.log_ml
        assert group.attrs["inference_library"] == "awrs_ppl"


def test_seed_gives_the_same_draws() -> None:
    posterior = of(*THREE)
    first, again, other, fresh = (
        posterior.to_arviz(50, seed=seed).posterior["n"].values.tolist() for seed in (1, 1, 2, None)
    )
    assert first == again != other
    assert set(fresh[0]) <= {1, 2}


def test_summary_plots_and_files_take_it(az: Any, tmp_path: Path) -> None:
    async def model(ctx: Context) -> str:
        number = await ctx.sample(Categorical({1: 3, 2: 1}), name="number")
        await ctx.sample(Bernoulli(0.5), name="coin")
        return "odd" if number % 2 else "even"

    posterior = run(model, n_particles=200, runs=2, seed=0, progress=False)
    found = posterior.to_arviz()
    summary = az.summary(found, kind="stats")
    mean = posterior.map(lambda _: 0).marginal("number")[2] + 1
    assert summary.loc["number", "mean"] == pytest.approx(mean, abs=0.01)
    assert set(summary.index) == {"number", "coin"}
    assert az.summary(found).loc["number", "mean"] == summary.loc["number", "mean"]
    az.plot_posterior(found)[0].figure.clear()
    found.to_netcdf(str(tmp_path / "a.nc"))
    again = az.from_netcdf(str(tmp_path / "a.nc"))
    assert again.texts["value"].values.tolist() == found.texts["value"].values.tolist()
    assert again.posterior["number"].values.tolist() == found.posterior["number"].values.tolist()
    again.close()


def test_number_that_is_returned_is_a_variable() -> None:
    found = of((1, 1, {}), (Fraction(1, 2), 1, {}), (True, 1, {})).to_arviz(30)
    assert sorted(set(found.posterior["value"].values[0].tolist())) == [0.5, 1.0]
    assert set(found.groups()) == {"posterior", "sample_stats"}


def test_what_is_no_array_is_left_out_and_named() -> None:
    long = {"list": [1], "none": None, "huge": 10**30, "mixed": 1, "n": 1}
    posterior = of(((1, 2), 1, long), ((1, 3), 1, {**long, "mixed": "a", "some": 1}))
    with pytest.warns(UserWarning, match="to_arviz leaves out") as caught:
        found = posterior.to_arviz(10)
    assert caught[0].filename == __file__
    message = str(caught[0].message)
    for part in (
        "the value (neither numbers nor texts alone: (1, 2))",
        "the choice 'list' (neither",
        "the choice 'none' (neither",
        "the choice 'huge' (neither",
        "the choice 'mixed' (neither numbers nor texts alone: 1)",
        "the choice 'some' (not every particle made it)",
        "posterior.map(f)",
    ):
        assert part in message
    assert list(found.posterior.data_vars) == ["n"]
    assert "value" not in found.posterior


def test_names_of_choices_do_not_clash() -> None:
    found = of((1, 1, {"value": 2, "chain": 3, "draw": 4, "a/b": 5, "a_b": 6})).to_arviz(2)
    values = {str(name): found.posterior[name].values[0, 0] for name in found.posterior.data_vars}
    assert values == {
        "value": 1,
        "value (choice)": 2,
        "chain (choice)": 3,
        "draw (choice)": 4,
        "a_b": 5,
        "a_b (choice)": 6,
    }


def test_nothing_to_give_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"nothing in <Posterior.*posterior\.map\(f\)"):
        of(([1], 1, {})).to_arviz()
    with pytest.raises(NoSurvivors):
        of((1, 0, {})).to_arviz()


@pytest.mark.parametrize(
    "options", [{"draws": 0}, {"draws": 1.5}, {"draws": True}, {"seed": -1}, {"seed": "a"}]
)
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"(draws|seed)=.*must be an int"):
        of((1, 1, {})).to_arviz(**options)


def test_without_arviz_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"to_arviz needs arviz: pip install .*\[arviz\]"):
        of((1, 1, {})).to_arviz()


def test_arviz_1_gets_groups_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `from_dict` takes them so, and gives a tree of xarray."""
    xarray = import_module("xarray")

    def from_dict(groups: dict[str, dict[str, Any]]) -> Any:
        made = {
            f"/{group}": xarray.Dataset({n: (("chain", "draw"), v) for n, v in columns.items()})
            for group, columns in groups.items()
        }
        return xarray.DataTree.from_dict(made)

    made_up = SimpleNamespace(__version__="1.3.0", from_dict=from_dict)
    monkeypatch.setattr(_arviz, "_arviz", lambda: made_up)
    found = of(*THREE).to_arviz(8)
    assert set(found.children) == {"posterior", "texts", "sample_stats"}
    assert found["posterior"]["n"].values.shape == (1, 8)
    assert found["posterior"].attrs["particles"] == 3
