"""What an inference reports of itself: each number is that of something that was counted."""

from __future__ import annotations

import math
from typing import Any

import pytest
from genlm.control.potential.base import Potential

from awrs_ppl import AWRS, BooleanPotential, Context, PaperAWRS, Prior, ToyLM, infer, predicate
from awrs_ppl.errors import ContextLengthError
from awrs_ppl.potentials import Soft


class Counting(BooleanPotential):
    """Few a; it counts its own evaluations, those of the empty text apart."""

    def __init__(self) -> None:
        super().__init__()
        self.checks, self.rejections = 0, 0

    def start(self) -> bytes:
        return b""

    def _count(self, ok: bool) -> bool:
        self.checks += 1
        self.rejections += not ok
        return ok

    def advance(self, state: bytes, data: bytes) -> bytes | None:
        if not data:
            return state
        text = state + data
        return text if self._count(text.count(b"a") < 3 and b"ba" not in text) else None

    def accepts(self, state: bytes) -> bool:
        return self._count(len(state) != 2)

    def __repr__(self) -> str:
        return "counting"


LM = ToyLM(["a", "b", "ab", "abb", "bb", "ba"], seed=3)


@pytest.mark.parametrize("proposal", [AWRS(), AWRS(effort=50.0), PaperAWRS(), Prior()], ids=str)
async def test_checks_of_an_inference_are_the_evaluations_of_the_potential(proposal: Any) -> None:
    for seed in range(8):
        counting = Counting()

        async def model(ctx: Context, counting: Counting = counting) -> str:
            return await ctx.generate(LM("a") * counting, max_tokens=5, proposal=proposal)

        posterior = await infer(model, n_particles=12, seed=seed, progress=False)
        assert posterior.stats.checks == {"counting": counting.checks}
        assert posterior.stats.rejections.get("counting", 0) == counting.rejections


async def test_death_has_the_step_at_which_the_particle_died() -> None:
    """Every text is as long as the step, and dies at its third letter."""
    lm = ToyLM(["a", "b"], weights=lambda context: [1.0, 1.0, 0.0])
    two = predicate(lambda text: len(text) < 3, complete=lambda text: False)

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * two, max_tokens=9)

    posterior = await infer(model, n_particles=6, resampling="stratified", seed=0, progress=False)
    assert {(death.step, death.token, len(death.text)) for death in posterior.deaths} == {(3, 3, 2)}
    assert [sync.alive for sync in posterior.history] == [6, 6, 0]


async def test_weighing_factor_that_rejects_the_empty_text_is_named_as_the_killer() -> None:
    never = Soft(lambda text: 0.0, prefix=lambda text: -math.inf)

    async def model(ctx: Context) -> str:
        return await ctx.generate(LM("a") * never, max_tokens=3)

    posterior = await infer(model, n_particles=4, seed=0, progress=False)
    assert posterior.log_ml == -math.inf
    ((killer, count),) = posterior.kills.items()
    assert (killer, count) == (f"{never!r} (at the empty text)", 1)


async def test_predicate_that_rejects_a_whole_range_of_tokens_is_named_as_the_killer() -> None:
    """Rejected together, by their prefix: none of them alone."""
    lm = ToyLM([f"a{i:02}" for i in range(60)], weights=lambda context: [1.0] * 60 + [0.0])

    @predicate
    def no_a(text: str) -> bool:
        return "a" not in text

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a00") * no_a, max_tokens=3)

    posterior = await infer(model, n_particles=4, seed=0, progress=False)
    assert posterior.kills == {"predicate(no_a)": 1}


class Tight(Potential):
    """It weighs no text at all: each is too long for it."""

    def __init__(self) -> None:
        super().__init__(list(range(256)))

    async def prefix(self, context: Any) -> float:
        raise ContextLengthError("the text is too long")

    async def complete(self, context: Any) -> float:
        raise ContextLengthError("the text is too long")


async def test_text_too_long_for_a_weighing_factor_at_its_start_is_an_error_in_the_model() -> None:
    async def model(ctx: Context) -> str:
        try:
            return await ctx.generate(LM("a") * Tight(), max_tokens=3)
        except ContextLengthError:
            return "caught"

    posterior = await infer(model, n_particles=3, seed=0, progress=False)
    assert posterior.probabilities == {"caught": 1.0}
