"""What a check costs decides how many are made, and never what is right."""

import math
import re
from typing import Any

import pytest
from genlm.control.potential.base import Potential

from awrs_ppl import AWRS, Context, Posterior, ToyLM, infer
from awrs_ppl.potentials import BooleanPotential, Regex, boolean, predicate
from awrs_ppl.testing import assert_properly_weighted

TOKENS = ["a", "b", "bb", *(f"{i:03}" for i in range(300))]
lm = ToyLM(TOKENS, weights=lambda context: [1.0, 0.1, 2.0, *[1.0 / 300] * 300, 0.5])


def no_bb(text: str) -> bool:
    return "bb" not in text


async def awaited(text: str) -> bool:
    return "bb" not in text


class NoBB(BooleanPotential):
    """The same, as a class that may declare its cost."""

    def start(self) -> bytes:
        return b""

    def advance(self, state: Any, data: bytes) -> bytes | None:
        return None if b"bb" in state + data else state + data

    def accepts(self, state: Any) -> bool:
        return True


class Dear(NoBB):
    """One whose check takes as long as a row."""

    cost = 1.0


class Foreign(Potential):
    """A potential of genlm-control over bytes, which declares nothing."""

    def __init__(self) -> None:
        super().__init__(list(range(256)))

    async def prefix(self, context: Any) -> float:
        return -math.inf if b"bb" in bytes(context) else 0.0

    complete = prefix

    def __repr__(self) -> str:
        return "Foreign()"


async def run(constraint: Any, proposal: AWRS) -> Posterior:
    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * constraint, max_tokens=3, proposal=proposal)

    return await infer(model, n_particles=4, seed=1, progress=False)


def checks(posterior: Posterior) -> int:
    return sum(posterior.stats.checks.values())


@pytest.mark.parametrize(
    ("constraint", "effort"),
    [
        (predicate(no_bb), 32.0),
        (predicate(no_bb, cost=1 / 4), 2.0),
        (predicate(no_bb, workers=1), 4.0),
        (predicate(no_bb, workers=1, cost=1 / 100), 10.0),
        (predicate(awaited), 1.0),
        (boolean(Foreign()), 4.0),
        (NoBB(), 32.0),
        (Dear(), 1.0),
        (predicate(no_bb) * Dear(), 1.0),  # the dearest counts
        (predicate(no_bb) * Regex("[ab0-9]*"), 32.0),  # what has a mask is not checked
    ],
    ids=str,
)
async def test_effort_follows_from_cost(constraint: Any, effort: float) -> None:
    by_cost, by_effort = await run(constraint, AWRS()), await run(constraint, AWRS(effort=effort))
    assert by_cost.values == by_effort.values
    assert by_cost.log_weights.tolist() == by_effort.log_weights.tolist()
    assert by_cost.stats.checks == by_effort.stats.checks
    # A twin whose effort is another is seen.
    other = await run(constraint, AWRS(effort=effort / 4))
    assert checks(other) != checks(by_cost)


async def test_dear_checks_are_few() -> None:
    cheap, dear = await run(NoBB(), AWRS()), await run(Dear(), AWRS())
    assert checks(dear) < checks(cheap) / 2


@pytest.mark.parametrize("cost", [1e-4, 1.0, 1e4])
async def test_cost_leaves_weights_proper(cost: float) -> None:
    await assert_properly_weighted(AWRS(), lm("a") * predicate(no_bb, cost=cost), "ab", draws=2000)


@pytest.mark.parametrize("cost", [0, -1.0, math.nan, math.inf, True, "1"])
def test_wrong_cost_is_quoted(cost: Any) -> None:
    with pytest.raises(ValueError, match=rf"predicate got cost={re.escape(repr(cost))}: give the"):
        predicate(no_bb, cost=cost)


async def test_wrong_cost_of_a_class_is_quoted() -> None:
    class Free(NoBB):
        cost = 0.0

    with pytest.raises(ValueError, match=r"Free\(\) got cost=0.0: give the rows"):
        await run(Free(), AWRS())


async def test_cost_is_no_part_of_what_a_potential_says() -> None:
    """Verdicts are shared by potentials that differ in their cost alone."""
    assert predicate(no_bb) == predicate(no_bb, cost=1.0)
    assert predicate(no_bb).key == predicate(no_bb, cost=1.0).key
