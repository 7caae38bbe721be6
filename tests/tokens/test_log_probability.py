"""What one outcome weighs, and all that is left, beside all weights computed in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from awrs_ppl import AWRS, ToyLM
from awrs_ppl.constraints.target import Target, start
from awrs_ppl.constraints.verdict_cache import VerdictCache
from awrs_ppl.potentials import Regex
from awrs_ppl.proposals.token_step import Progress, TokenStep, weigh
from awrs_ppl.tokens.text import Text
from awrs_ppl.tokens.underflow import outcome_log_weights

TOKENS = ["a", "b", "ab", ".", "a.", ".b", "b.a"]


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("stop", [None, ".", [".b", "ab"]])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("last", [True, False])
async def test_beside_float64(
    ends: bool, stop: str | list[str] | None, count: int, masked: bool, last: bool
) -> None:
    lms = [ToyLM(TOKENS, seed=seed, special=["<pad>"]) for seed in range(count)]
    factors = [lm("a", stop=stop) for lm in lms]
    target = Target.of([*factors, *([Regex("[ab]*")] if masked else [])])
    for text in (Text(), Text(b"a", (0,)), Text(b"ba", (1, 0))):
        states = await start(target, text)
        assert not isinstance(states, str)
        progress = Progress(text, states, ())
        step = TokenStep.at(target, progress, VerdictCache(), AWRS(), last=last, ends=ends)
        rows = [
            await lm.lm.logits([lm.prompt + text.tokens], [1.0])
            for lm in step.verdicts.target.dense
        ]
        weigh([step], rows)
        outcomes = step.outcomes
        assert outcomes is not None
        exact = outcome_log_weights(
            [torch.log_softmax(row[0].double(), -1).numpy() for row in rows],
            step.verdicts.vocabulary,
            outcomes.restriction,
        )
        possible = np.flatnonzero(exact > -math.inf)
        for outcome in possible.tolist():
            assert outcomes.log_probability(outcome) == pytest.approx(exact[outcome], abs=1e-5)
        whole = np.exp(exact).sum()
        assert outcomes.mass * math.exp(outcomes.log_scale) == pytest.approx(whole, rel=1e-5)
        for gone in (possible[:1], possible[::2], np.arange(len(exact))):
            left = np.exp(np.delete(exact, gone)).sum()
            found = outcomes.mass_without(gone) * math.exp(outcomes.log_scale)
            assert found == pytest.approx(left, rel=1e-4, abs=2e-6 * whole)
