"""Our proposal inside genlm-control's SMC: the evidence of the enumeration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from genlm.control import SMC, BoolFSA, PromptedLLM

from awrs_ppl import AWRS, LM, Context, PaperAWRS, ToyLM, predicate
from awrs_ppl.genlm import HeadTailSampler
from awrs_ppl.testing import enumerate_posterior

TOY = ToyLM(["a", "b", "ab", "c"], seed=4)


@predicate(complete=lambda text: len(text) != 2)
def no_bb(text: str) -> bool:
    return "bb" not in text


CONDITIONS = {
    "predicate": no_bb,
    "automaton over bytes": BoolFSA.from_regex("(a|b|c)*b"),
    "over tokens": BoolFSA.from_regex("(a|c)*").coerce(TOY("x"), f=b"".join),
}


@pytest.mark.slow
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("proposal", [AWRS(), AWRS(_max_checks=1), PaperAWRS("geometric")])
async def test_sampler_gives_the_evidence_of_the_enumeration(condition: str, proposal: Any) -> None:
    async def model(ctx: Context) -> str:
        return await ctx.generate(TOY("x") * CONDITIONS[condition], max_tokens=4)

    exact = await enumerate_posterior(model)
    sampler = HeadTailSampler(TOY("x"), CONDITIONS[condition], seed=0, proposal=proposal)
    found = []
    for _ in range(150):
        # Theirs counts the end on top of max_tokens.
        sequences = await SMC(sampler)(n_particles=4, ess_threshold=0.5, max_tokens=4)
        found.append(math.exp(sequences.log_ml))
    error = float(np.std(found)) / math.sqrt(len(found)) + 1e-9
    assert abs(np.mean(found) - math.exp(exact.log_ml)) < 4.5 * error
    assert sampler.checks > 0


async def test_sampler_without_twists_gives_known_tokens_one_weight() -> None:
    """Also one that ends in a multi-byte character: genlm-control would resample by its weight."""
    tokens = ["a", "b", "丁".encode()[:2], "丁".encode()[2:]]
    toy = ToyLM(tokens, weights=lambda context: [1.0, 9.0, 4.0, 1.0, 1.0])
    sampler = HeadTailSampler(toy("x"), predicate(lambda text: "b" not in text), seed=0)
    drawn = [await sampler.sample([]) for _ in range(60)]
    assert len({token for token, _, _ in drawn[20:]}) == 3
    assert {round(log_weight, 9) for _, log_weight, _ in drawn[20:]} == {round(math.log(6 / 16), 9)}


async def test_sampler_keeps_what_it_has_learned() -> None:
    sampler = HeadTailSampler(TOY("x"), no_bb, seed=0)
    counts = []
    for _ in range(6):
        before = sampler.checks
        await SMC(sampler)(n_particles=8, ess_threshold=0.5, max_tokens=4)
        counts.append(sampler.checks - before)
    assert sum(counts[3:]) < counts[0]


@pytest.mark.slow
async def test_sampler_on_a_real_model_gives_allowed_texts() -> None:
    lm = LM.embedded("smollm2-135m", device="cpu")
    llm = PromptedLLM(lm.engine, prompt_ids=list(lm.prompt_ids("My favourite number is")))

    @predicate
    def digits(text: str) -> bool:
        return text in ("", " ") or text.lstrip(" ").isdigit()

    sampler = HeadTailSampler(llm, digits, seed=1)
    sequences = await SMC(sampler)(n_particles=4, ess_threshold=0.5, max_tokens=4)
    texts = [b"".join(context[:-1]).decode() for context in sequences.contexts]
    assert any(text.strip().isdigit() for text in texts)
    assert math.isfinite(sequences.log_ml)


async def test_sampler_with_a_categorical_draw_raises() -> None:
    with pytest.raises(ValueError, match="no categorical draw"):
        await HeadTailSampler(TOY("x"), no_bb).sample([], draw=max)
