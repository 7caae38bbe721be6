"""Dead ends belong to a joint state: what leads to one there may lead on elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from awrs_ppl import BooleanPotential, Context, PaperAWRS, ToyLM, infer, predicate
from awrs_ppl.testing import assert_unbiased


class Automaton(BooleanPotential):
    """States by letters; a text may end in those named."""

    def __init__(self, arrows: dict[tuple[str, str], str], ends: str) -> None:
        super().__init__()
        self.arrows, self.ends = arrows, ends

    def start(self) -> str:
        return "s"

    def advance(self, state: str, data: bytes) -> str | None:
        found: str | None = state
        for letter in data.decode():
            found = None if found is None else self.arrows.get((found, letter))
        return found

    def accepts(self, state: str) -> bool:
        return state in self.ends


LM = ToyLM(["a", "b", "c"], weights=lambda context: [1.0, 2.0, 2.0, 1.0])
# From s an a ends the text well; from t it leads to x, where nothing is allowed.
TWO_WAYS = {("s", "a"): "e", ("s", "b"): "t", ("t", "c"): "s", ("t", "a"): "x"}


@pytest.mark.parametrize("proposal", [None, PaperAWRS("recursive")], ids=["head-tail", "recursive"])
async def test_token_into_a_dead_end_is_allowed_from_another_state(proposal: Any) -> None:
    """The state t comes again after its dead end was met, and s after that."""

    allowed = Automaton(TWO_WAYS, "e")  # one for all particles, which share what is known

    async def model(ctx: Context) -> str:
        return await ctx.generate(LM("a") * allowed, max_tokens=9, proposal=proposal)

    await assert_unbiased(model, n_particles=12, runs=60)
    await assert_unbiased(model, n_particles=12, runs=60, ess_threshold=0.0)


async def test_token_into_a_known_dead_end_from_a_new_state_is_allowed_elsewhere() -> None:
    """x is known from t when u comes first, and after u the same token ends the text well."""
    arrows = {("s", "b"): "t", ("t", "c"): "v", ("t", "a"): "x", ("v", "c"): "u", ("v", "a"): "e"}
    arrows |= {("u", "b"): "w", ("u", "a"): "x", ("w", "a"): "e"}
    allowed = Automaton(arrows, "e")
    lm = ToyLM(["a", "b", "c"], weights=lambda context: [1.0, 4.0, 4.0, 1.0])

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * allowed, max_tokens=7)

    await assert_unbiased(model, n_particles=20, runs=150)


async def test_dead_end_met_in_a_run_is_not_walked_into_again() -> None:
    visits: list[str] = []

    class Noted(Automaton):
        def advance(self, state: str, data: bytes) -> str | None:
            found = super().advance(state, data)
            if found == "x" or state == "x":
                visits.append(state)
            return found

    noted = Noted(TWO_WAYS, "e")

    async def model(ctx: Context) -> str:
        return await ctx.generate(LM("a") * noted, max_tokens=13)

    posterior = await infer(model, n_particles=40, seed=1, progress=False)
    assert visits
    deaths = [death for death in posterior.deaths if death.text.endswith("ba")]
    # Those that were there at once; nobody who comes to t later goes there.
    assert len({death.step for death in deaths}) == 1


async def test_dead_ends_of_a_product_are_those_of_its_joint_state() -> None:
    def no_ab(text: str) -> bool:
        return "ab" not in text

    longer = predicate(no_ab, complete=lambda text: len(text) != 2)
    allowed = Automaton({("s", x): "s" for x in "abc"} | {("s", "c"): "x"}, "s")

    async def model(ctx: Context) -> str:
        return await ctx.generate(LM("a") * longer * allowed, max_tokens=4)

    await assert_unbiased(model, n_particles=8, runs=60)
