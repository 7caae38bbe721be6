"""What an inference says that it cost: each number is that of something that was counted."""

from __future__ import annotations

from typing import Any

import pytest

from awrs_ppl import AWRS, BooleanPotential, Context, PaperAWRS, Prior, ToyLM, infer


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
