"""What weighs so little that float32 has no digits of it, under each proposal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from awrs_ppl import AWRS, Context, PaperAWRS, Prior, ToyLM, infer, predicate
from awrs_ppl.constraints.product import target_of
from awrs_ppl.constraints.target import start
from awrs_ppl.constraints.verdict_cache import VerdictCache
from awrs_ppl.potentials import Regex
from awrs_ppl.proposals.token_step import Progress, TokenStep, weigh
from awrs_ppl.tokens.text import Text


class Narrow(ToyLM):
    """Its rows have the digits that those of a real model have."""

    async def logits(self, contexts: Any, temperatures: Any) -> Any:
        return (await super().logits(contexts, temperatures)).float()


CHECKED = [AWRS(), PaperAWRS("two-loop"), PaperAWRS("recursive"), PaperAWRS("geometric")]


async def _step(product: Any, proposal: Any, cache: VerdictCache | None = None) -> TokenStep:
    target = target_of(product)
    states = await start(target)
    assert isinstance(states, tuple)
    step = TokenStep.at(target, Progress(Text(), states, ()), cache or VerdictCache(), proposal)
    lm = target.dense[0]
    weigh([step], [await lm.lm.logits([lm.prompt], [lm.temperature])])
    return step


async def _log_p(product: Any) -> torch.Tensor:
    lm = target_of(product).dense[0]
    row = await lm.lm.logits([lm.prompt], [lm.temperature])
    return torch.log_softmax(row.double(), -1)[0]


@pytest.mark.slow
@pytest.mark.parametrize("proposal", CHECKED, ids=str)
async def test_proposal_where_what_is_allowed_weighs_110_nats_less_is_unbiased(
    proposal: Any,
) -> None:
    lm = Narrow(["a", "b", "c"], weights=lambda context: [1.0, math.exp(-11), math.exp(-11.1), 0])
    product = lm("a", temperature=0.1) * predicate(lambda text: text in ("", "b", "c"))
    log_p = await _log_p(product)
    total = float(torch.logaddexp(log_p[1], log_p[2]))
    weights = []
    for seed in range(300):
        step = await _step(product, proposal)
        assert step.outcomes is not None
        assert step.outcomes.urn().weight(1) == 0, "the case would not be one"
        (draw,) = await step.draw([np.random.default_rng(seed)])
        assert draw.outcome in (1, 2)
        weights.append(math.exp(draw.log_weight - total))
    assert np.mean(weights) == pytest.approx(1.0, abs=5 * float(np.std(weights)) / 17 + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["check", "mask"])
@pytest.mark.parametrize("proposal", CHECKED, ids=str)
async def test_proposal_through_several_scales_gives_the_one_allowed_token_its_weight(
    proposal: Any, kind: str
) -> None:
    """Each rejected token leaves so little that the next one needs a scale of its own."""
    falling = [math.exp(-9 * i) for i in range(5)]
    lm = Narrow(["a", "b", "c", "d", "e"], weights=lambda context: [*falling, 0])
    allowed = Regex("e") if kind == "mask" else predicate(lambda text: text in ("", "e"))
    product = lm("a", temperature=0.1) * allowed
    log_p = await _log_p(product)
    assert float(log_p[4]) < -350
    ratios = []
    for seed in range(200):
        (draw,) = await (await _step(product, proposal)).draw([np.random.default_rng(seed)])
        assert draw.outcome == 4
        ratios.append(math.exp(draw.log_weight - float(log_p[4])))
    if proposal == PaperAWRS("geometric") and kind == "check":
        assert np.mean(ratios) == pytest.approx(1.0, abs=5 * float(np.std(ratios)) / 14)
    elif proposal == PaperAWRS("two-loop") and kind == "check":
        # Two thirds of its mean come from first draws that never happen: e, or d before c.
        assert ratios == pytest.approx([1 / 3] * 200, abs=1e-3)
    else:
        assert ratios == pytest.approx([1.0] * 200, abs=1e-3)


@pytest.mark.parametrize("proposal", [*CHECKED, Prior()], ids=str)
async def test_proposal_where_nothing_is_allowed_at_any_scale_gives_weight_zero(
    proposal: Any,
) -> None:
    lm = Narrow(["a", "b"], weights=lambda context: [1.0, math.exp(-11), 0])
    product = lm("a", temperature=0.1) * predicate(lambda text: text == "")
    for draw in await (await _step(product, proposal)).draw([np.random.default_rng(0)] * 3):
        assert draw.log_weight == -math.inf


@pytest.mark.parametrize("proposal", [*CHECKED, Prior()], ids=str)
async def test_forced_end_of_tiny_weight_is_weighed(proposal: Any) -> None:
    lm = Narrow(["a"], weights=lambda context: [1.0, math.exp(-11)])

    async def model(ctx: Context) -> str:
        product = lm("a", temperature=0.1) * predicate(lambda text: "b" not in text)
        return await ctx.generate(product, max_tokens=1, proposal=proposal)

    posterior = await infer(model, n_particles=3, seed=0, progress=False)
    assert posterior.probabilities == {"": 1.0}
    assert posterior.log_ml == pytest.approx(-110.0, abs=1e-4)


async def test_prior_under_a_mask_weighs_by_the_model_alone() -> None:
    """It looks at no constraint before it draws: what it draws is allowed or dies."""
    lm = ToyLM(["a", "b"], weights=lambda context: [1.0, 2.0, 1.0])
    step = await _step(lm("a") * Regex("a"), Prior())
    draws = await step.draw([np.random.default_rng(seed) for seed in range(400)])
    alive = [draw for draw in draws if draw.log_weight > -math.inf]
    assert {draw.outcome for draw in alive} == {0}
    assert all(draw.log_weight == pytest.approx(0.0) for draw in alive)
    assert len(alive) / 400 == pytest.approx(0.25, abs=0.1)


async def test_prior_where_others_have_left_verdicts_draws_from_everything() -> None:
    lm = Narrow(["a", "b"], weights=lambda context: [math.exp(-11), math.exp(-11), 1.0])
    product = lm("a", temperature=0.1) * predicate(lambda text: "a" not in text)
    cache = VerdictCache()
    await (await _step(product, AWRS(), cache)).draw([np.random.default_rng(0)])
    step = await _step(product, Prior(), cache)
    draws = await step.draw([np.random.default_rng(seed) for seed in range(50)])
    assert all(draw.log_weight == pytest.approx(0.0, abs=1e-4) for draw in draws)


async def test_awrs_with_weightless_accepted_tokens_and_a_rejected_tail_dies() -> None:
    """The verdict on a is known from a context where it had weight."""
    lm = ToyLM(["a", "b", "c"], weights=lambda context: [1.0, 0.0, 0.0, 0.0])
    other = ToyLM(["a", "b", "c"], weights=lambda context: [0.0, 1.0, 1.0, 0.0])
    allowed = predicate(lambda text: text in ("", "a"))
    cache, proposal = VerdictCache(), AWRS(effort=1e-3, _max_checks=1)
    (draw,) = await (await _step(lm("a") * allowed, proposal, cache)).draw(
        [np.random.default_rng(0)]
    )
    assert draw.outcome == 0
    for seed in range(10):
        step = await _step(lm("a") * allowed, proposal, cache)
        weigh([step], [await other.logits([(0,)], [1.0])])
        (draw,) = await step.draw([np.random.default_rng(seed)])
        assert draw.log_weight == -math.inf
