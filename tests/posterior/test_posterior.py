"""What a posterior says of its particles, and that it shows them safely."""

from __future__ import annotations

import copy
import gc
import importlib
import json
import math
import pickle
import pickletools
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from arsenal.maths import kl_divergence, logmeanexp
from scipy import stats

from awrs_ppl import Bernoulli, Categorical, Context, NoSurvivors, ToyLM, Trace, infer, predicate
from awrs_ppl._messages import escape, shorten
from awrs_ppl._values import key, same
from awrs_ppl.posterior._svg import genealogy_svg
from awrs_ppl.posterior.posterior import Posterior, Stats
from awrs_ppl.posterior.records import Sync
from awrs_ppl.potentials import Regex, Soft
from awrs_ppl.program.log import Record
from awrs_ppl.program.statements import Factor, Sample

DEAD = -math.inf
STATS = Stats(
    tokens=10,
    lm_rows=12,
    lm_passes=5,
    checks={"no_bb": 20, "Regex('a')": 5},
    seconds={"language model": 1.5, "proposal": 0.25},
)


def trace(value: Any, weight: float = 1.0, /, *, finished: bool = True, **choices: Any) -> Trace:
    records = [
        Record(Sample(name, Categorical(["a"])), choice, 0.0) for name, choice in choices.items()
    ]
    # A factor is weighed and has no value: it is no choice.
    records.append(Record(Factor("factor 1", -1.0), None, -1.0))
    return Trace(value, math.log(weight) if weight else DEAD, records, finished=finished)


def posterior_of(traces: Sequence[Trace], **options: Any) -> Posterior:
    defaults: dict[str, Any] = {
        "history": [Sync(float(len(traces)), len(traces), None)],
        "kills": {},
        "stats": STATS,
        "seed": 7,
        "is_proper": True,
    }
    return Posterior(traces, **(defaults | options))


def after_timeout() -> Posterior:
    """Weights 3 and 1 finished, 4 unfinished, one dead."""
    return posterior_of(
        [trace("a", 3), trace(None, 4, finished=False), trace("b"), trace(None, 0, finished=False)],
        stopped="timed out",
    )


# --- numbers --------------------------------------------------------------------------------


def test_evidence_counts_dead_particles() -> None:
    posterior = posterior_of([trace("a", 3), trace("b", 1), trace(None, 0, finished=False)])
    assert posterior.log_ml == pytest.approx(math.log(4 / 3))
    assert posterior.ess == pytest.approx(16 / 10)
    assert (posterior.alive, posterior.dead, len(posterior)) == (2, 1, 3)
    assert posterior.unfinished == 0


def test_evidence_after_a_timeout_counts_unfinished_particles_as_zero() -> None:
    posterior = after_timeout()
    assert posterior.values == ["a", "b"]
    assert np.exp(posterior.log_weights).tolist() == pytest.approx([3, 1])
    assert posterior.log_ml == pytest.approx(math.log(4 / 4))
    assert posterior.unfinished == pytest.approx(4 / 8)
    assert (posterior.alive, posterior.dead, len(posterior)) == (3, 1, 4)
    assert posterior.probabilities == pytest.approx({"a": 0.75, "b": 0.25})
    assert posterior.expect(lambda value: value == "a") == pytest.approx(0.75)


def test_finished_particle_of_weight_zero_has_no_value() -> None:
    posterior = posterior_of([trace("a"), trace("b", 0)])
    assert posterior.values == ["a"]
    assert posterior.log_ml == pytest.approx(math.log(1 / 2))
    assert posterior[1].value == "b"


def test_improper_weights_give_no_evidence() -> None:
    posterior = posterior_of([trace("a")], is_proper=False)
    assert math.isnan(posterior.log_ml)
    assert posterior.probabilities == {"a": 1.0}
    assert "log_ml" not in repr(posterior)


def test_posterior_of_one_particle_has_ess_1() -> None:
    posterior = posterior_of([trace("a", 0.5)])
    assert (posterior.mode(), posterior.ess) == ("a", pytest.approx(1))
    assert posterior.log_ml == pytest.approx(math.log(0.5))
    assert repr(posterior) == "<Posterior: 1 particle, 1 value, ESS 1.0, log_ml -0.69>"


def test_tiny_weights_do_not_underflow() -> None:
    traces = [Trace("a", -2000.0, []), Trace("b", -2000.0 - math.log(3), [])]
    posterior = posterior_of(traces)
    assert posterior.probabilities == pytest.approx({"a": 0.75, "b": 0.25})
    assert posterior.log_ml == pytest.approx(-2000 + math.log(2 / 3))


def test_expect_of_numbers_and_arrays_is_their_mean() -> None:
    posterior = posterior_of([trace(1, 3), trace(5, 1)])
    mean = posterior.expect(lambda value: value)
    assert isinstance(mean, float)
    assert mean == pytest.approx(2)
    pair = posterior.expect(lambda value: [[value, value**2]])
    assert np.shape(pair) == (1, 2)
    assert pair.tolist() == [pytest.approx([2, 7])]
    assert posterior.probability(lambda value: value > 1) == pytest.approx(0.25)
    far = posterior_of([Trace("a", 0.0, []), Trace("b", -2000.0, [])])
    assert far.expect(lambda value: math.inf if value == "b" else 1) == 1


def test_samples_follow_the_probabilities() -> None:
    posterior = posterior_of([trace("a", 6), trace("b", 3), trace("c", 1), trace(None, 0)])
    counts = Counter(posterior.sample(10_000, seed=0))
    assert counts.keys() == {"a", "b", "c"}
    # The likelihood ratio of the counts, by their divergence in bits, is chi-square with two
    # degrees of freedom.
    shares = np.array([counts[value] for value in "abc"]) / 10_000
    bits = kl_divergence(shares, np.array([0.6, 0.3, 0.1]))
    assert stats.chi2.sf(2 * 10_000 * math.log(2) * bits, 2) > 1e-6
    assert posterior.sample(20, seed=3) == posterior.sample(20, seed=3)
    assert posterior.sample(20, seed=3) != posterior.sample(20, seed=4)
    assert posterior.sample(seed=1) in ("a", "b", "c")
    assert posterior.sample(0) == []


def test_indexing_is_over_all_particles() -> None:
    posterior = after_timeout()
    assert [t.finished for t in posterior] == [True, False, True, False]
    assert posterior[-1].log_weight == DEAD
    with pytest.raises(IndexError):
        posterior[4]


# --- nothing survived -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda posterior: posterior.sample(),
        lambda posterior: posterior.sample(3),
        lambda posterior: posterior.mode(),
        lambda posterior: posterior.expect(float),
        lambda posterior: posterior.probability(bool),
    ],
)
def test_methods_without_survivors_raise(use: Any) -> None:
    posterior = posterior_of(
        [trace(None, 0, finished=False)] * 3, kills={"Regex('x')": 1, "no_bb": 4}
    )
    with pytest.raises(NoSurvivors, match=r"no_bb killed the most \(4 of 5.*n_particles"):
        use(posterior)


def test_all_dead_posterior_can_still_be_shown() -> None:
    posterior = posterior_of([trace(None, 0, finished=False)] * 3, kills={"no_bb": 3})
    assert posterior.log_ml == DEAD
    assert posterior.ess == 0
    assert posterior.unfinished == 0
    assert posterior.probabilities == {}
    assert repr(posterior) == "<Posterior: 3 particles, no survivors, log_ml -inf>"
    assert "no survivors" in str(posterior)
    assert "no survivors" in posterior._repr_html_()
    assert json.loads(posterior.to_json())["log_ml"] == "-inf"
    assert posterior.to_dataframe()["probability"].tolist() == [0, 0, 0]


def test_timeout_before_anything_finished_raises() -> None:
    posterior = posterior_of([trace(None, finished=False)] * 2, stopped="timed out")
    assert posterior.unfinished == 1
    assert posterior.log_ml == DEAD
    assert "timed out" in repr(posterior)
    assert "no particle has finished" in str(posterior)
    with pytest.raises(NoSurvivors, match="longer timeout"):
        posterior.mode()


# --- equal values ---------------------------------------------------------------------------


def test_equal_values_are_one_and_sorted() -> None:
    posterior = posterior_of([trace("a"), trace("b", 3), trace("a"), trace("c", 2.5)])
    assert list(posterior.probabilities.items()) == [
        ("b", pytest.approx(0.4)),
        ("c", pytest.approx(1 / 3)),
        ("a", pytest.approx(4 / 15)),
    ]
    assert posterior.mode() == "b"


def test_values_that_cannot_be_hashed_are_grouped() -> None:
    values = [{"b": [1, 2], "a": {3}}, {"a": {3}, "b": [1, 2]}, [1, [2]], {1: 2}, ([0],)]
    posterior = posterior_of([trace(value) for value in values])
    probabilities = posterior.probabilities
    assert list(probabilities.items()) == [
        (values[0], pytest.approx(0.4)),
        *((value, pytest.approx(0.2)) for value in values[2:]),
    ]
    assert [probabilities[value] for value in values] == pytest.approx([0.4, 0.4, 0.2, 0.2, 0.2])
    assert posterior.mode() == {"a": {3}, "b": [1, 2]}
    assert type(posterior.mode()) is type(next(iter(probabilities))) is dict


def test_equal_arrays_and_nans_are_grouped() -> None:
    # The repr of a long array leaves out its middle.
    other = np.arange(2000)
    other[1000] = 0
    arrays = [np.arange(2000), np.arange(2000), other]
    assert len(posterior_of([trace(array) for array in arrays]).probabilities) == 2
    nans = [float("nan"), math.nan, np.float64("nan")]
    (probability,) = posterior_of([trace(nan) for nan in nans]).probabilities.values()
    assert probability == pytest.approx(1)


def test_values_of_unknown_types_are_grouped_by_their_equality() -> None:
    class Thing:
        __hash__ = None  # type: ignore[assignment]

        def __init__(self, name: str) -> None:
            self.name = name

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Thing) and other.name.lower() == self.name.lower()

        def __repr__(self) -> str:
            if self.name == "broken":
                raise RuntimeError("no")
            return f"Thing({self.name})"

    posterior = posterior_of([trace(Thing(name)) for name in ("x", "X", "broken")])
    assert posterior.probabilities[Thing("x")] == pytest.approx(2 / 3)
    assert Thing("y") not in posterior.probabilities
    assert "its repr raised RuntimeError" in str(posterior)
    assert "its repr raised RuntimeError" in posterior.to_json()


# --- exports --------------------------------------------------------------------------------


def test_data_frame_has_a_row_for_each_particle() -> None:
    posterior = posterior_of(
        [
            trace(("x", 1), 3, coin=True, text="a\udc80"),
            trace(["y"], 1, coin=False, value=9),
            trace(None, 0, finished=False, coin=True),
            trace(None, 4, finished=False),
        ]
    )
    frame = posterior.to_dataframe()
    assert list(frame.columns) == [
        *("value", "log_weight", "probability", "finished"),
        *("coin", "text", "value (choice)"),
    ]
    assert frame["value"].tolist() == [("x", 1), ["y"], None, None]
    assert frame["probability"].tolist() == pytest.approx([0.75, 0.25, 0, 0])
    assert frame["log_weight"].tolist() == pytest.approx([math.log(3), 0, DEAD, math.log(4)])
    assert frame["finished"].tolist() == [True, True, False, False]
    assert frame["coin"].tolist() == [True, False, True, None]
    assert frame["text"].tolist() == ["a\udc80", None, None, None]
    assert frame["log_weight"].dtype == np.float64


def test_json_read_back_has_everything(tmp_path: Path) -> None:
    strange = "a\udc80\u2028\x00</script>"
    posterior = posterior_of(
        [
            trace(strange, 2, x=np.int64(3), y={"k": (1, math.nan)}),
            trace({1, 2}, b=np.array([1.0, math.inf])),
            trace(np.float64(0.5), 0),
        ],
        history=[Sync(2.0, 3, None), Sync(1.0, 2, (0, 0, 1))],
        kills={"no_bb": 1},
    )

    def reject(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    path = tmp_path / "posterior.json"
    text = posterior.to_json(path)
    found = json.loads(path.read_bytes(), parse_constant=reject)
    assert found == json.loads(text, parse_constant=reject)
    assert found["probabilities"][0] == {"value": strange, "probability": pytest.approx(2 / 3)}
    assert [row["value"] for row in found["particles"]] == [strange, "{1, 2}", 0.5]
    assert found["particles"][0]["choices"] == {"x": 3, "y": {"k": [1, "nan"]}}
    assert found["particles"][1]["choices"] == {"b": [1.0, "inf"]}
    assert float(found["particles"][2]["log_weight"]) == DEAD
    assert found["history"][1] == {"ess": 1.0, "alive": 2, "ancestors": [0, 0, 1]}
    assert found["stats"]["checks_per_token"] == 2.5
    assert (found["seed"], found["kills"], found["stopped"]) == (7, {"no_bb": 1}, None)


def test_checks_per_token_without_tokens_is_zero() -> None:
    assert STATS.checks_per_token == 2.5
    assert Stats(0, 0, 0, {"a": 3}, {}).checks_per_token == 0


async def two_texts(seed: int, **options: Any) -> Posterior:
    lm = ToyLM(["a", "b", " c"], seed=4)

    async def model(ctx: Context) -> str:
        first = await ctx.generate(lm("a") * Regex("[ab c]+"), max_tokens=5)
        await ctx.condition("ba" not in first)
        return first + "/" + await ctx.generate(lm("b"), max_tokens=4, name="more")

    return await infer(model, n_particles=8, seed=seed, progress=False, **options)


def read_record(text: str) -> list[list[dict[str, Any]]]:
    """As the viewer of genlm-control reads it: texts are built along the ancestors."""
    history = json.loads(text)
    for i, entry in enumerate(history):
        for j, particle in enumerate(entry["particles"]):
            slot = entry["ancestors"][j] if entry["mode"] == "resample" else j
            inherited = history[i - 1]["particles"][slot]["context"] if i else ""
            added = particle["contents_incr"]
            particle["context"] = (
                f"{inherited}|{added}" if inherited and added else inherited + added
            )
    return [entry["particles"] for entry in history]


@pytest.mark.parametrize("seed", range(4))
async def test_genlm_record_is_read_by_its_viewer(seed: int, tmp_path: Path) -> None:
    posterior = await two_texts(seed, ess_threshold=0.9, resampling="stratified")
    path = tmp_path / "record.json"
    text = posterior.to_genlm_record(path)
    assert json.loads(path.read_bytes()) == json.loads(text)
    entries = json.loads(text)
    assert [entry["step"] for entry in entries] == list(range(1, len(posterior.history) + 1))
    modes = [entry["mode"] for entry in entries]
    assert modes[0] == "init"
    assert [mode == "resample" for mode in modes[1:]] == [
        sync.ancestors is not None for sync in posterior.history[:-1]
    ]
    assert "resample" in modes
    steps = read_record(text)
    for particle, choices in zip(steps[-1], posterior, strict=True):
        assert float(particle["logweight"]) == pytest.approx(choices.log_weight)
        if not choices.finished:
            assert particle["logweight"] == "-Infinity"
            continue
        first, _, more = choices.value.partition("/")
        head, tail = particle["context"].split("[condition 2]")
        assert head.replace("|", "").replace("␣", " ") == f"{first}EOS"
        assert tail.replace("|", "").replace("␣", " ") == f"[more]{more}EOS"
    # An increment is what the step did, from the mean weight where particles were resampled.
    means = [logmeanexp([float(p["logweight"]) for p in step]) for step in steps]
    for i, step in enumerate(steps[1:], 1):
        for j, particle in enumerate(step):
            before = means[i - 1] if modes[i] == "resample" else float(steps[i - 1][j]["logweight"])
            if math.isfinite(before):
                after = before + float(particle["weight_incr"])
                assert after == pytest.approx(float(particle["logweight"]))


async def test_genlm_record_has_its_fields() -> None:
    from genlm.control.sampler.smc_record import SMCRecord

    particles = [SimpleNamespace(context=[b"a"], weight=-1.0)] * 8
    record = SMCRecord(8)
    record.add_init(particles)
    record.add_smc_step(particles)
    record.add_resample(list(range(8)), particles)
    theirs = {entry["mode"]: entry for entry in record.history}
    entries = json.loads((await two_texts(0, ess_threshold=0.9)).to_genlm_record())
    assert {entry["mode"] for entry in entries} == set(theirs)
    for entry in entries:
        assert set(entry) == set(theirs[entry["mode"]])
        assert len(entry["particles"]) == 8
        for particle in entry["particles"]:
            like = theirs[entry["mode"]]["particles"][0]
            assert {k: type(v) for k, v in particle.items()} == {
                k: type(v) for k, v in like.items()
            }


def test_genlm_record_stopped_after_a_resampling_ends_with_it() -> None:
    history = [Sync(1.0, 2, (1, 1), (DEAD, math.log(2)), ("a", "b"))]
    posterior = posterior_of([trace("x"), trace("x")], history=history)
    first, last = json.loads(posterior.to_genlm_record())
    assert [p["logweight"] for p in first["particles"]] == ["-Infinity", str(math.log(2))]
    assert (last["mode"], last["ancestors"]) == ("resample", [1, 1])
    assert [float(p["logweight"]) for p in last["particles"]] == [0.0, 0.0]
    assert [p["context"] for p in read_record(posterior.to_genlm_record())[-1]] == ["b", "b"]


def test_genlm_record_of_particles_kept_out_of_resampling_has_no_change() -> None:
    """Nothing happens to what two others' resampling left alone."""
    weights = (-3.0, DEAD, math.log(2))
    history = [
        Sync(1.0, 2, (0, 2, 2), weights, ("a", "b", "c"), kept=(0,)),
        Sync(1.0, 3, None, (-3.0, -1.0, 0.0), ("", "d", "d")),
    ]
    posterior = posterior_of([trace("x"), trace("x"), trace("x")], history=history)
    last = json.loads(posterior.to_genlm_record())[-1]
    assert [float(p["weight_incr"]) for p in last["particles"]] == pytest.approx([0, -1, 0])


async def test_json_has_the_losses_of_statements() -> None:
    posterior = await two_texts(0)
    found = json.loads(posterior.to_json())
    assert [cost["name"] for cost in found["statements"]] == ["generate 1", "condition 2", "more"]
    total = sum(float(cost["log_evidence"]) for cost in found["statements"])
    assert total == pytest.approx(posterior.log_ml)
    assert len(found["deaths"]) == sum(posterior.kills.values())


# --- plots ----------------------------------------------------------------------------------


@pytest.fixture
def figures() -> Iterator[Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def points(line: Any) -> list[list[float]]:
    return np.array(line.get_xydata()).tolist()


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("to_dataframe", "pandas"),
        ("plot_ess", "matplotlib"),
        ("plot_genealogy", "matplotlib"),
        ("plot_weights", "matplotlib"),
    ],
)
def test_export_without_its_package_names_the_extra(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    posterior = posterior_of([trace("a", 3)], history=[Sync(1.0, 1, None)])
    for module in [package, *(m for m in sys.modules if m.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{name} needs {package}: pip install .*\[display\]"):
        getattr(posterior, name)()


def test_plots_show_the_numbers(figures: Any) -> None:
    history = [
        Sync(3.0, 3, None),
        Sync(1.0, 2, (0, 0, 2)),
        Sync(3.0, 3, None),
        Sync(2.0, 3, (1, 2, 2)),
    ]
    posterior = posterior_of([trace("a", 3), trace("b", 1), trace(None, 0)], history=history)
    line, marks = posterior.plot_ess().get_lines()
    assert points(line) == [[1, 3], [2, 1], [3, 3], [4, 2]]
    assert points(marks) == [[2, 1], [4, 2]]

    lost, bold = posterior.plot_genealogy().collections
    ends = [tuple(np.array(path.vertices)[-1]) for path in bold.get_paths()]
    # The two with weight stand in slots 0 and 1, and come from 1 and 2, those from 0 and 2.
    assert [end for end in ends if end[0] == 5] == [(5, 0), (5, 1)]
    assert sorted(end for end in ends if end[0] == 4) == [(4, 0), (4, 1)]
    assert sorted(end for end in ends if end[0] == 2) == [(2, 1), (2, 2)]
    assert len(lost.get_paths()) + len(bold.get_paths()) == 3 * 3 + 2 * 3

    (area,) = posterior.plot_weights().collections
    # One of matplotlib's polygons: its area is the whole of the weight.
    (outline,) = (np.array(path.vertices) for path in area.get_paths())
    x, y = outline[:, 0], outline[:, 1]
    assert abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1)) / 2) == pytest.approx(1)
    assert y.max() == pytest.approx(0.75)


def test_plots_given_axes_draw_into_them(figures: Any) -> None:
    _, axes = figures.subplots(1, 3)
    posterior = after_timeout()
    assert posterior.plot_ess(axes[0]) is axes[0]
    assert posterior.plot_genealogy(axes[1]) is axes[1]
    assert posterior.plot_weights(axes[2]) is axes[2]
    labels = [text.get_text() for text in axes[2].get_legend().get_texts()]
    assert labels == ["unfinished", "equal shares"]


def test_plots_of_dead_and_of_thousands_are_drawn(figures: Any) -> None:
    n = 3000
    rng = np.random.default_rng(0)
    history = [Sync(1.0, n, tuple(np.sort(rng.integers(n, size=n)).tolist())) for _ in range(300)]
    large = posterior_of([trace(i, 1 + i) for i in range(n)], history=history)
    dead = posterior_of([trace(None, 0, finished=False)] * 3, history=[])
    for posterior in (large, dead):
        for plot in (posterior.plot_ess, posterior.plot_genealogy, posterior.plot_weights):
            plot().figure.canvas.draw()
    assert len(figures.get_fignums()) == 6


# --- text -----------------------------------------------------------------------------------


def test_trace_is_one_short_line() -> None:
    choices: dict[str, Any] = {f"x{i}": "long " * 3000 for i in range(9)}
    shown = repr(trace("a\x1b\u202e" * 5000, 2, **choices))
    assert shown.isprintable()
    assert len(shown) < 600
    assert shown.startswith("<Trace: 'a\\x1b\\u202ea")
    assert "log_weight=0.6931" in shown
    assert "… 3 more" in shown
    assert "factor" not in shown
    assert repr(trace(None, finished=False)) == "<Trace: unfinished, log_weight=0>"


HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</code></td></table></div><style>*{display:none}</style>",
    "a\x1b[31mred\x07\u202egnp.exe\u2066\r\nnext line\udc80",
    "&lt;b&gt; &amp;",
    "漢字" * 5000,
    "e" + "\u0301" * 10_000,
    "x" * 10_000,
]


def hostile() -> Posterior:
    names = {f"{text} {i}": i + 1 for i, text in enumerate(HOSTILE)}
    traces = [trace(text, i + 1) for i, text in enumerate(HOSTILE)]
    stats = Stats(1, 1, 1, names, dict.fromkeys(names, 1.0))
    return posterior_of(traces, kills=names, stats=stats)


def test_table_after_a_timeout_shows_values_and_facts() -> None:
    text = str(after_timeout())
    lines = text.splitlines()
    assert lines[0] == "Posterior of 4 particles, timed out, seed 7"
    assert lines[2] == "   75.0 %  ███████████████       'a'"
    assert lines[3] == "   25.0 %  █████                 'b'"
    assert "3 alive, 1 dead, 1 unfinished with 50.0 % of the weight" in text
    assert "2.5 checks per token" in text
    assert "25: 20 by no_bb, 5 by Regex('a')" in text
    assert "1.75: language model 1.50, proposal 0.25" in text


def test_table_of_hostile_values_is_printable() -> None:
    lines = str(hostile()).split("\n")
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) <= 100
    assert any("\\x1b[31mred\\x07\\u202egnp.exe\\u2066\\r\\nnext line\\udc80" in x for x in lines)


def test_values_cut_from_the_table_are_counted() -> None:
    text = str(posterior_of([trace(i) for i in range(40)]))
    assert "70.0 %" in text
    assert "28 more values" in text


@pytest.mark.parametrize("text", ["abc", "x" * 50, "漢" * 50, "a漢" * 9, ""])
@pytest.mark.parametrize("width", [6, 7, 18])
def test_shortened_texts_fit(text: str, width: int) -> None:
    short = shorten(text, width)
    assert len(short) + short.count("漢") <= width
    assert (short == text) == (len(text) + text.count("漢") <= width)


def test_escape_leaves_printable_characters() -> None:
    assert escape("é 漢 🙂 a\tb\u200f\ud800") == "é 漢 🙂 a\\tb\\u200f\\ud800"
    assert key([math.nan]) == key([float("nan")])


# --- HTML -----------------------------------------------------------------------------------

TAGS = {
    *("div", "style", "p", "b", "br", "table", "thead", "tbody", "tr", "th", "td", "code"),
    *("figure", "figcaption", "svg", "path", "details", "summary", "dl", "dt", "dd"),
    *("ul", "li"),
}
ATTRIBUTES = {
    *("class", "style", "scope", "colspan", "role", "aria-label", "d"),
    *("viewbox", "preserveaspectratio"),
}


class Reader(HTMLParser):
    """Checks that tags nest and that only known tags and attributes appear; keeps the text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.cells: list[str] = []
        self.tags: Counter[str] = Counter()
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES, name
            assert value is not None
            assert "url(" not in value
        self.tags[tag] += 1
        if tag not in ("br", "path"):
            self.open.append(tag)
        if tag in ("td", "dd"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert data.replace("\n", "").isprintable()
        if "\n" in data:
            assert self.open[-1] in ("style", "code")
        if {"td", "dd"} & set(self.open):
            self.cells[-1] += data


def test_reader_of_bad_html_fails() -> None:
    for bad in ("<div><script>", '<b onclick="x">a</b>', "<div></p></div>", "<p>\u202e</p>"):
        with pytest.raises(AssertionError):
            Reader(bad)


def test_html_of_hostile_values_escapes_them() -> None:
    page = hostile()._repr_html_()
    reader = Reader(page)
    assert reader.tags["style"] == 1
    assert repr(HOSTILE[0]) in reader.cells
    assert f"'{HOSTILE[1]}'" in reader.cells
    assert repr(HOSTILE[2]) in reader.cells
    # Lines are kept, and no other character that is not printable.
    assert repr(HOSTILE[3]).replace("\\n", "\n") in reader.cells
    assert repr(HOSTILE[4]) in reader.cells
    page.encode("utf-8")
    assert len(page) < 40_000


def test_html_loads_nothing_and_styles_only_itself() -> None:
    page = hostile()._repr_html_()
    style = page.split("<style>")[1].split("</style>")[0]
    selectors = [s for rule in style.split("}")[:-1] for s in rule.split("{")[0].split(",")]
    assert selectors
    assert all(selector.strip().startswith(".awrs-posterior") for selector in selectors)
    assert "http" not in page
    assert "@import" not in style


def test_html_of_thousands_of_particles_is_bounded() -> None:
    n = 5000
    rng = np.random.default_rng(0)
    history = [
        Sync(float(rng.uniform(1, n)), n, tuple(np.sort(rng.integers(n, size=n)).tolist()))
        for _ in range(400)
    ]
    texts = ["<&\u202e" * 3000 + str(i) for i in range(30)]
    traces = [trace(texts[i] if i < 30 else i // 2, 1 + (i < 30)) for i in range(n)]
    posterior = posterior_of(traces, history=history)
    page = posterior._repr_html_()
    assert 10_000 < len(page) < 300_000
    reader = Reader(page)
    assert f"{len(posterior.probabilities) - 20:,} more values" in reader.cells
    assert "shown is the ancestry of 64" in page
    assert "4 of the 400 resamplings are drawn as one" in page
    assert len(str(posterior)) < 7000
    assert len(json.loads(posterior.to_json())["particles"]) == n
    assert len(posterior.to_dataframe()) == n


def test_genealogy_at_its_limits_is_bounded() -> None:
    n = 64
    rng = np.random.default_rng(0)
    history = [Sync(1.0, n, tuple(rng.permutation(n).tolist())) for _ in range(1200)]
    assert len(genealogy_svg(history, [True] * n)) < 220_000


def paths(svg: str, name: str) -> list[str]:
    found = svg.split(f'<path class="{name}" d="')
    return found[1].split('"')[0].split("M")[1:] if len(found) > 1 else []


def test_genealogy_marks_the_ancestors_of_survivors() -> None:
    history = [Sync(1.0, 3, (0, 0, 2)), Sync(3.0, 3, None), Sync(2.0, 3, (1, 2, 2))]
    svg = genealogy_svg(history, [True, False, False])
    # Slot 0 comes from 1, which comes from 0: y is 0, 500 and 1000 of the three slots.
    bold = paths(svg, "awrs-line")
    assert [line.split("h")[0].split("l")[0].split()[1] for line in bold] == [
        *("0", "0"),  # the first population: its line, the fork to slot 1
        *("500", "500"),  # the second: its line, the fork to slot 0
        "0",
    ]
    assert [line.split()[-1] for line in bold if "l" in line] == ["500", "-500"]
    # Two forks and two lines in the first two populations each, two lines in the last.
    assert len(paths(svg, "awrs-lost")) == 10
    assert genealogy_svg([Sync(3.0, 3, None)], [True] * 3) == ""


def test_generations_drawn_as_one_are_composed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    from awrs_ppl.posterior import _svg

    rng = np.random.default_rng(1)
    history = [Sync(1.0, 5, tuple(rng.integers(5, size=5).tolist())) for _ in range(4)]
    monkeypatch.setattr(_svg, "_GENERATIONS", 1)
    svg = genealogy_svg(history, [True] * 5)
    ancestors = set()
    for slot in range(5):
        for sync in reversed(history):
            assert sync.ancestors is not None
            slot = sync.ancestors[slot]
        ancestors.add(250 * slot)
    lines = [line.split("h")[0].split() for line in paths(svg, "awrs-line") if "h" in line]
    assert {int(y) for x, y in lines if x == "0"} == ancestors
    assert "4 of the 4 resamplings are drawn as one" in svg


# --- in a whole inference -------------------------------------------------------------------


async def test_infer_gives_a_posterior() -> None:
    async def model(ctx: Context) -> int:
        heads = await ctx.sample(Bernoulli(0.5), name="a") + await ctx.sample(Bernoulli(0.5))
        await ctx.condition(heads > 0)
        return heads

    posterior = await infer(model, n_particles=400, seed=0, progress=False)
    assert posterior.probability(lambda heads: heads == 2) == pytest.approx(1 / 3, abs=0.1)
    assert posterior.log_ml == pytest.approx(math.log(3 / 4), abs=0.15)
    assert posterior.kills == {"condition 'condition 3'": posterior.dead}
    assert set(posterior.to_dataframe().columns) >= {"a", "sample 2"}
    assert "condition 3" not in posterior.to_dataframe().columns
    Reader(posterior._repr_html_())


# --- pickles --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Town:
    name: str
    place: np.ndarray


def toy() -> ToyLM:
    return ToyLM(["a", "b", "é"], weights=lambda context: [3, 1, 1, 2])


async def everything(ctx: Context, lm: ToyLM) -> Any:
    """Each kind of statement, deaths, resampling, masks, checks, critics and odd values."""
    heads = await ctx.sample(Bernoulli(0.5), name="coin")
    length = await ctx.call(len, "abc")
    short = predicate(lambda text: len(text) < 4)
    product = lm("a", stop="é") * Regex("[ab]*") * short
    text = await ctx.generate(product, max_tokens=5, critic=Soft(lambda text: -len(text)))
    await ctx.observe(lm("b"), "a")
    await ctx.factor(-0.5 if heads else 0.0)
    await ctx.condition(heads or await ctx.sample(Bernoulli(0.5), name="kept"), name="not b")
    await ctx.sample(stats.norm(0, 1), proposal=torch.distributions.Normal(0.0, 2.0))
    return [Town(text, np.arange(length)), {"nan": math.nan, "tensor": torch.ones(2)}, heads]


def assert_equal(first: Posterior, second: Posterior) -> None:
    assert same(first.values, second.values)
    assert first.log_weights.tolist() == second.log_weights.tolist()
    assert first.probabilities == second.probabilities
    assert (first.log_ml, first.ess, first.seed) == (second.log_ml, second.ess, second.seed)
    assert (first.alive, first.dead, first.unfinished) == (
        second.alive,
        second.dead,
        second.unfinished,
    )
    assert (first.stats, first.kills, first.deaths) == (second.stats, second.kills, second.deaths)
    assert (first.history, first.efforts) == (second.history, second.efforts)
    assert (repr(first), str(first)) == (repr(second), str(second))
    assert first._repr_html_() == second._repr_html_()
    assert first.explain() == second.explain()
    assert first.to_json() == second.to_json()
    assert first.to_genlm_record() == second.to_genlm_record()
    assert first.to_dataframe().astype(str).equals(second.to_dataframe().astype(str))
    for one, other in zip(first, second, strict=True):
        assert list(one) == list(other)
        assert same(dict(one), dict(other))
        assert same(one.value, other.value)
        assert (one.log_weight, one.finished) == (other.log_weight, other.finished)
        assert (one.log_weights, repr(one)) == (other.log_weights, repr(other))
    assert same(first.sample(5, seed=1), second.sample(5, seed=1))
    for plot in ("plot_ess", "plot_genealogy", "plot_weights"):
        drawn = [getattr(posterior, plot)() for posterior in (first, second)]
        lines = [[line.get_xydata().tolist() for line in axes.lines] for axes in drawn]
        assert lines[0] == lines[1]
        for axes in drawn:
            plt.close(axes.figure)


async def test_posterior_from_a_pickle_or_a_copy_is_equal() -> None:
    options: dict[str, Any] = {"n_particles": 30, "ess_threshold": 0.95, "progress": False}
    posterior = await infer(everything, toy(), seed=1, **options)
    assert posterior.kills
    assert any(sync.ancestors for sync in posterior.history)
    for again in (
        *(pickle.loads(pickle.dumps(posterior, protocol)) for protocol in (2, 4, 5)),
        pickle.loads(cloudpickle.dumps(posterior)),
        copy.copy(posterior),
        copy.deepcopy(posterior),
    ):
        assert_equal(posterior, again)
    assert pickle.loads(pickle.dumps(posterior[0])).keys() == posterior[0].keys()


async def test_stopped_posterior_from_a_pickle_is_equal() -> None:
    posterior = after_timeout()
    assert_equal(posterior, pickle.loads(pickle.dumps(posterior)))


async def test_pickle_holds_no_vocabulary_and_no_engine() -> None:
    async def model(ctx: Context, lm: ToyLM) -> str:
        return await ctx.generate(lm("a") * Regex("a*") * predicate(str.isascii), max_tokens=4)

    sizes = {}
    for count in (3, 3000):
        lm = ToyLM([f"<{i}>" for i in range(count)] + ["a"], seed=count)
        posterior = await infer(model, lm, n_particles=10, seed=0, progress=False)
        sizes[count] = len(pickle.dumps(posterior))
        named = {
            str(argument).split()[0]
            for code, argument, _ in pickletools.genops(pickle.dumps(posterior, 2))
            if code.name == "GLOBAL"
        }
        assert {name for name in named if name.startswith("awrs_ppl")} == {
            *("awrs_ppl.posterior.posterior", "awrs_ppl.posterior.records"),
            *("awrs_ppl.stats", "awrs_ppl.program.trace"),
        }
        assert not any(name.startswith(("genlm", "torch", "transformers")) for name in named)
    assert sizes[3000] < 2 * sizes[3] < 20_000


async def test_posterior_keeps_no_language_model_alive() -> None:
    lm = toy()
    posterior = await infer(everything, lm, n_particles=10, seed=0, progress=False)
    gone = weakref.ref(lm), weakref.ref(lm.engine)
    del lm
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert len(posterior) == 10


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (threading.Lock(), r"<unlocked _thread.lock object"),
        (lambda: 1, "lambda"),
        ({"open": (i for i in "ab")}, r"{'open': <generator"),
    ],
)
def test_value_that_cannot_be_pickled_is_named(value: Any, shown: str) -> None:
    posterior = posterior_of([trace("a"), trace("b", odd=value), trace(value)])
    with pytest.raises(pickle.PicklingError, match=f"'odd' of particle 1 is .*{shown}"):
        pickle.dumps(posterior)
    posterior = posterior_of([trace("a"), trace(value)])
    with pytest.raises(pickle.PicklingError, match=f"the value of particle 1 is .*{shown}"):
        pickle.dumps(posterior)
    assert len(copy.copy(posterior)) == 2


def test_cloudpickle_takes_what_pickle_does_not() -> None:
    posterior = posterior_of([trace(lambda: 3)])
    (function,) = pickle.loads(cloudpickle.dumps(posterior)).values
    assert function() == 3
    (function,) = copy.deepcopy(posterior).values
    assert function() == 3


POOLED = """
from awrs_ppl import Categorical, ToyLM, run
from awrs_ppl.potentials import Regex, Soft

async def model(ctx, lm):
    letter = await ctx.sample(Categorical({"a": 1, "b": 3}))
    return letter + await ctx.generate(lm(letter) * Regex("a*"), max_tokens=3)

def work(seed):
    return run(model, ToyLM(["a", "b"]), n_particles=20, seed=seed, progress=False)
"""


@pytest.mark.slow
def test_posteriors_from_a_process_pool_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pooled_work.py").write_text(POOLED)
    monkeypatch.syspath_prepend(str(tmp_path))
    pooled = importlib.import_module("pooled_work")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for seed, posterior in enumerate(pool.map(pooled.work, range(2))):
            here = pooled.work(seed)
            assert posterior.values == here.values
            assert posterior.log_weights.tolist() == here.log_weights.tolist()
            assert posterior.log_ml == here.log_ml
