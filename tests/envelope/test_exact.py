"""`exact` against enumeration: values, evidence, and bounds that are never violated."""

from __future__ import annotations

import asyncio
import math
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from random_programs import random_program

from awrs_ppl import (
    AWRS,
    Bernoulli,
    Categorical,
    ModelError,
    Posterior,
    PotentialError,
    ToyLM,
    Uniform,
    exact,
    infer,
    predicate,
    run,
)
from awrs_ppl.envelope import tables
from awrs_ppl.envelope.search import Search
from awrs_ppl.envelope.trie import Trie
from awrs_ppl.potentials import OneOf, Regex, Soft
from awrs_ppl.testing import enumerate_posterior

LM = ToyLM(["a", "b", "ab", "."], seed=3)


async def truth_and_bounds(model: Any, **options: Any) -> tuple[Any, Posterior, list[Any]]:
    passes: list[Any] = []
    truth = await enumerate_posterior(model)
    found = await exact(model, progress=passes.append, max_rows=None, **options)
    return truth, found, passes


def agrees(truth: Any, found: Posterior, passes: list[Any]) -> bool:
    """Whether the evidence lies in all bounds, the last of which are one with the result."""
    if truth.log_ml == -math.inf:
        return not found.values and found.log_ml_bounds == (-math.inf, -math.inf)
    bounds = [info.log_ml_bounds for info in passes] + [found.log_ml_bounds]
    inside = all(low - 1e-6 <= truth.log_ml <= high + 1e-6 for low, high in bounds)
    low, high = bounds[-1]
    same = found.probabilities.keys() == truth.probabilities.keys()
    near = same and all(
        abs(found.probabilities[value] - share) < 1e-5
        for value, share in truth.probabilities.items()
    )
    return inside and near and abs(found.log_ml - truth.log_ml) < 1e-5 and high - low < 1e-5


@pytest.mark.filterwarnings("ignore")  # what random programs warn of
@pytest.mark.parametrize("block", range(4))
async def test_random_programs_are_solved(block: int) -> None:
    """Several statements, stops, predicates, weighing potentials, critics, no end: see there."""
    for number in range(25 * block, 25 * (block + 1)):
        program = random_program(np.random.default_rng([11, number]))
        found = await truth_and_bounds(program.model, tolerance=0.0, max_factor=math.exp(30))
        assert agrees(*found), program.shows


async def two_texts(ctx: Any) -> tuple[str, str]:
    first = await ctx.generate(LM("a") * Regex("(a|b){1,3}"), max_tokens=4)
    second = await ctx.generate(LM("a", stop=".") * Regex("(a|b)*"), max_tokens=3)
    await ctx.condition(first != second)
    await ctx.observe(LM(first), second)
    return first, second


async def test_broken_twins_are_found() -> None:
    """Bounds that would hold no more, and evidence that would be wrong."""
    assert agrees(*await truth_and_bounds(two_texts, tolerance=0.0))
    fill = tables._fill

    def without_rest(node: Any, step: Any, logs: Any) -> None:
        fill(node, step, logs)
        node.table.rest = -math.inf

    def floored(node: Any, step: Any, logs: Any) -> None:
        fill(node, step, [np.where(log < -2.5, -math.inf, log) for log in logs])

    few = patch.object(tables, "_AT_FIRST", 2)
    with few:
        assert agrees(*await truth_and_bounds(two_texts, tolerance=0.0))
    with few, patch.object(tables, "_fill", without_rest):
        assert not agrees(*await truth_and_bounds(two_texts, tolerance=0.0))
    with patch.object(tables, "_fill", floored):
        assert not agrees(*await truth_and_bounds(two_texts, tolerance=0.0))
    reach = Search._reach

    def first_path(self: Search, nodes: Any) -> None:
        reach(self, [node for node in nodes if len(node.edges) == 1 and node.path > -1.5])

    with patch.object(Search, "_reach", first_path):  # what is light is dropped, and not open
        truth, found, passes = await truth_and_bounds(two_texts, tolerance=0.0)
        assert not agrees(truth, found, passes)
    add = "awrs_ppl.envelope.bounds._log_add"
    with patch(add, max):  # two ways to one text count once
        assert not agrees(*await truth_and_bounds(two_texts, tolerance=0.0))


async def test_bounds_of_values() -> None:
    """With a search that was cut short, each probability lies in its bounds."""
    truth = await enumerate_posterior(two_texts)
    widths = []
    for rows in (3, 8, 20, 1000):
        found = await exact(two_texts, max_rows=rows, tolerance=0.0, progress=False)
        bounds = found.bounds
        assert bounds is not None
        for value, (low, high) in bounds.items():
            assert low - 1e-9 <= truth.probabilities[value] <= high + 1e-9
        widths.append(max((high - low for low, high in bounds.values()), default=1.0))
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 1e-6 < widths[0]


async def test_tiny_masses_are_not_lost() -> None:
    """The only text is one of log-probability below what a float's exponential holds."""
    rare = ToyLM(["a", "b"], weights=lambda context: [1e-30, 1.0, 1.0])

    async def model(ctx: Any) -> str:
        return await ctx.generate(rare("a") * Regex("a{40}"), max_tokens=41)

    found = await exact(model, progress=False)
    assert found.values == ["a" * 40]
    assert found.log_ml == pytest.approx(40 * math.log(0.5e-30) - math.log(2), rel=1e-6)


async def test_labels_take_few_passes() -> None:
    async def model(ctx: Any) -> str:
        return await ctx.generate(LM("b") * OneOf(["a", "b", "aab", "bb"]))

    found = await exact(model, progress=False)
    assert found.stats.lm_passes <= 4
    truth = await enumerate_posterior(model)
    assert found.log_ml == pytest.approx(truth.log_ml, abs=1e-3)
    assert found.bounds is not None
    assert all(high - low <= 1e-3 for low, high in found.bounds.values())


async def test_black_boxes_are_checked_heaviest_first() -> None:
    """A predicate over many tokens: only those that matter are checked."""
    wide = ToyLM([f"{i:03}" for i in range(500)], seed=0, scale=3.0)
    checks: list[str] = []

    @predicate
    def even(text: str) -> bool:
        checks.append(text)
        return all(int(text[i : i + 3]) % 2 == 0 for i in range(0, len(text), 3))

    async def model(ctx: Any) -> str:
        return await ctx.generate(wide("001") * even, max_tokens=2)

    found = await exact(model, tolerance=0.0, max_rows=34, progress=False)
    assert len(set(checks)) < 100
    assert found.log_ml_bounds is not None
    truth = await enumerate_posterior(model)
    low, high = found.log_ml_bounds
    assert low < truth.log_ml < high


# --- what prevents bounds -------------------------------------------------------------------


async def weighed(ctx: Any) -> str:
    text = await ctx.generate(LM("a"), max_tokens=2)
    await ctx.factor(len(text), name="length")
    return text


async def test_no_bounds_where_a_factor_may_be_above_one() -> None:
    found = await exact(weighed, tolerance=0.0, progress=False)
    assert (found.log_ml_bounds, found.bounds) == (None, None)
    assert "factor 'length' may multiply a weight by more than 1" in " ".join(str(found).split())
    truth = await enumerate_posterior(weighed)
    assert found.probabilities == pytest.approx(truth.probabilities)
    assert found.log_ml == pytest.approx(truth.log_ml)


async def test_declared_bounds_of_factors() -> None:
    truth, found, passes = await truth_and_bounds(weighed, tolerance=0.0, max_factor=math.exp(2))
    assert agrees(truth, found, passes)
    with pytest.raises(ModelError, match=r"max_factor=2\.0: give a larger one"):
        await exact(weighed, max_factor=2.0, progress=False)


async def test_densities_and_weighing_potentials_prevent_bounds() -> None:
    async def density(ctx: Any) -> bool:
        coin = await ctx.sample(Bernoulli(0.5))
        await ctx.observe(Uniform(0.0, 0.1), 0.05, name="where")
        return coin

    async def soft(ctx: Any) -> str:
        return await ctx.generate(LM("a") * Soft(lambda text: 1.0 * len(text)), max_tokens=2)

    async def critic(ctx: Any) -> str:
        return await ctx.generate(LM("a"), critic=Soft(lambda text: 0.0), max_tokens=2)

    for model, named in ((density, "observe 'where'"), (soft, "Soft"), (critic, "Soft")):
        found = await exact(model, progress=False)
        assert found.log_ml_bounds is None
        assert named in found.unbounded


async def test_draws_that_cannot_be_enumerated() -> None:
    async def model(ctx: Any) -> float:
        return await ctx.sample(Uniform(0.0, 1.0), name="where")

    with pytest.raises(ModelError, match=r"sample 'where' .*cannot be enumerated.*use infer"):
        await exact(model, progress=False)


async def test_a_call_that_differs_at_equal_choices() -> None:
    counts = iter(range(100))

    async def model(ctx: Any) -> tuple[str, int]:
        text = await ctx.generate(LM("a") * OneOf(["ab"]))  # two ways to spell it
        return text, await ctx.call(lambda: next(counts), name="count")

    with pytest.raises(ModelError, match=r"'count'.*gave 0 and then 1 after equal choices"):
        await exact(model, progress=False)

    async def steady(ctx: Any) -> tuple[str, int]:
        text = await ctx.generate(LM("a") * OneOf(["ab"]))
        return text, await ctx.call(len, text)

    assert (await exact(steady, progress=False)).values == [("ab", 2)]


async def test_a_call_of_texts_that_end_side_by_side() -> None:
    """Two spellings come to the same choices in one pass: the second sees what the first got."""
    lm = ToyLM(["a", "b", "ab", "ba"], weights=lambda context: [1, 1, 1, 1, 4])
    made: list[str] = []

    async def model(ctx: Any) -> int:
        text = await ctx.generate(lm("a") * OneOf(["aba"]))  # a-ba and ab-a are as likely

        async def slow() -> int:
            made.append(text)
            await asyncio.sleep(0.01)
            return len(made)

        return await ctx.call(slow, name="slow")

    with pytest.raises(ModelError, match=r"'slow'.*gave 1 and then 2 after equal choices"):
        await exact(model, progress=False)
    assert len(made) == 2


# --- options, errors, endings ---------------------------------------------------------------


async def test_wrong_options() -> None:
    for options, message in (
        ({"tolerance": 1.0}, "tolerance=1.0"),
        ({"tolerance": "few"}, "tolerance='few'"),
        ({"max_rows": 0}, "max_rows=0"),
        ({"max_factor": 0}, "max_factor=0"),
        ({"max_factor": math.inf}, "max_factor=inf"),
        ({"timeout": -1}, "timeout=-1"),
        ({"partial": 1}, "partial=1"),
    ):
        with pytest.raises(ModelError, match=message):
            await exact(two_texts, progress=False, **options)  # pyright: ignore
    with pytest.raises(TypeError, match=r"'n_particles'.*options of exact"):
        await exact(two_texts, n_particles=3, progress=False)
    with pytest.raises(ModelError, match="algorithm='exakt': choose one of 'smc', 'exact'"):
        run(two_texts, algorithm="exakt")


async def test_nothing_is_possible() -> None:
    @predicate
    def never(text: str) -> bool:
        return not text

    async def model(ctx: Any) -> str:
        return await ctx.generate(LM("a") * never * Regex("a+"), max_tokens=3)

    found = await exact(model, progress=False)
    assert found.log_ml_bounds == (-math.inf, -math.inf)
    assert "the constraints allow nothing" in str(found)

    async def false(ctx: Any) -> None:
        await ctx.condition(False)

    assert (await exact(false, progress=False)).log_ml == -math.inf


async def test_programs_without_draws() -> None:
    async def model(ctx: Any) -> int:
        await ctx.observe(Categorical({"a": 1, "b": 3}), "a")
        return 1

    found = await exact(model, progress=False)
    assert found.probabilities == {1: 1.0}
    assert found.log_ml == pytest.approx(math.log(0.25))


async def test_exceptions_come_out_with_a_note() -> None:
    async def model(ctx: Any) -> str:
        text = await ctx.generate(LM("a") * OneOf(["a", "b"]))
        raise KeyError(text)

    with pytest.raises(KeyError) as raised:
        await exact(model, progress=False)
    assert any("awrs_ppl: in an execution, after 'generate 1'" in n for n in raised.value.__notes__)

    @predicate
    def broken(text: str) -> bool:
        return 1 / len(text) > 0

    async def checks(ctx: Any) -> str:
        return await ctx.generate(LM("a") * broken)

    with pytest.raises(PotentialError, match="ZeroDivisionError"):
        await exact(checks, progress=False)


async def two(ctx: Any) -> str:
    return await ctx.generate(LM("a") * OneOf(["a", "b"]))


async def test_models_may_catch_errors_of_statements() -> None:
    async def model(ctx: Any) -> str:
        try:
            await ctx.call(lambda: 1 / 0)
        except ZeroDivisionError:
            return await ctx.generate(LM("a") * OneOf(["a", "b"]))
        return ""

    truth = await enumerate_posterior(two)
    found = await exact(model, progress=False)
    assert found.probabilities == pytest.approx(truth.probabilities, abs=1e-3)


async def test_timeouts_and_interrupts_keep_what_was_found() -> None:
    async def endless(ctx: Any) -> str:
        return await ctx.generate(LM("a"), max_tokens=200)

    found = await exact(endless, tolerance=0.0, max_rows=None, timeout=0.2, progress=False)
    assert found.stopped == "timed out"
    assert found.values
    assert found.log_ml_bounds is not None
    low, high = found.log_ml_bounds
    assert low < 0 <= high + 1e-6
    assert found.log_ml == pytest.approx(low)
    search = asyncio.create_task(
        exact(endless, tolerance=0.0, max_rows=None, partial=True, progress=False)
    )
    await asyncio.sleep(0.1)
    search.cancel()
    assert (await search).stopped == "interrupted"
    search = asyncio.create_task(exact(endless, tolerance=0.0, max_rows=None, progress=False))
    await asyncio.sleep(0.1)
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search


async def test_it_agrees_with_infer() -> None:
    found = await exact(two_texts, tolerance=0.0, progress=False)
    drawn = await infer(two_texts, n_particles=2000, seed=0, progress=False)
    assert drawn.log_ml == pytest.approx(found.log_ml, abs=0.1)


async def test_the_proposal_has_no_part_in_it() -> None:
    async def model(ctx: Any, proposal: Any) -> str:
        return await ctx.generate(LM("a") * Regex("a*b"), proposal=proposal, max_tokens=4)

    from awrs_ppl import LocalAWRS, Prior

    found = [
        (await exact(model, proposal, progress=False)).log_ml
        for proposal in (AWRS(), LocalAWRS(), Prior())
    ]
    assert found == [found[0]] * 3


# --- what a user sees -----------------------------------------------------------------------


async def test_what_is_shown(tmp_path: Any) -> None:
    found = await exact(two_texts, max_rows=8, tolerance=0.0, progress=False)
    shown = str(found)
    assert f"Posterior of {len(found)} executions found\n" in shown
    assert "certainly between" in shown
    assert "of the evidence may not have been found" in shown
    assert "ESS" not in shown
    assert "particle" not in shown
    assert "<script" not in found._repr_html_()
    assert "certainly between" in found._repr_html_()
    assert "executions found" in repr(found)
    assert "certainly between" in str(found.diagnose())
    for what in (found.explain, found.plot_ess, found.plot_genealogy):
        with pytest.raises(ValueError, match="particles of infer, and this is a result of exact"):
            what()
    path = tmp_path / "found.json"
    found.save(path)
    loaded = Posterior.load(path)
    assert (loaded.bounds, loaded.log_ml_bounds) == (found.bounds, found.log_ml_bounds)
    assert str(loaded) == shown
    whole = await exact(two_texts, tolerance=0.0, progress=False)
    assert "for certain" in str(whole)
    assert "all of the evidence" in str(whole)


async def test_progress() -> None:
    steps: list[Any] = []
    await exact(two_texts, tolerance=0.0, progress=steps.append)
    assert [info.step for info in steps] == list(range(1, len(steps) + 1))
    lows, highs = zip(*(info.log_ml_bounds for info in steps), strict=True)
    assert list(lows) == sorted(lows)
    assert list(highs) == sorted(highs, reverse=True)

    def fails(info: Any) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        await exact(two_texts, progress=fails)


async def test_the_trie_counts_what_it_costs() -> None:
    from awrs_ppl.proposals.costs import Costs

    trie = Trie(two_texts, (), Costs())
    search = Search(trie)
    await search.begin()
    while not search.is_done:
        await search.grow()
    stats = trie.costs.stats()
    assert stats.lm_rows > stats.lm_passes > 0
    assert trie.log_low == pytest.approx(trie.log_high)
