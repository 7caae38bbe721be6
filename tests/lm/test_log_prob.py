"""`lm(prompt).log_prob`: what `observe` weighs, one text or many at once."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from awrs_ppl import LM, Context, ToyLM, VocabularyError, infer

WEIGHTS = {"a": 0.2, "b": 0.3, "ab": 0.1, ".": 0.15}  # and .25 for the end, whatever came before
TOY = ToyLM([*WEIGHTS], weights=lambda _: [*WEIGHTS.values(), 0.25])
TEXTS = ["", "a", "ab", "ba", "abab", "b.a"]


def spelled(text: str) -> float:
    """The probability of a text's tokens, the longest first."""
    probability = 1.0
    while text:
        token = max((t for t in WEIGHTS if text.startswith(t)), key=len)
        probability *= WEIGHTS[token]
        text = text[len(token) :]
    return probability


@pytest.mark.parametrize("ends", [False, True])
async def test_log_prob_is_that_of_the_tokens(ends: bool):
    exact = [math.log(spelled(text) * (0.25 if ends else 1.0)) for text in TEXTS]
    assert await TOY("a").log_prob(TEXTS, ends=ends) == pytest.approx(exact)
    for text, number in zip(TEXTS, exact, strict=True):
        for one in (text, text.encode()):
            assert await TOY("a").log_prob(one, ends=ends) == pytest.approx(number)
    # The twin: the default is without the end.
    assert await TOY("a").log_prob("a") != pytest.approx(await TOY("a").log_prob("a", ends=True))


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"stop": "."}, {"stop": ["ba"]}])
async def test_log_prob_is_what_observe_weighs(options: Any, ends: bool):
    lm = ToyLM(["a", "b", "ab", "."], seed=3)("b", **options)
    for text, found in zip(TEXTS, await lm.log_prob(TEXTS, ends=ends), strict=True):

        async def model(ctx: Context, text: str = text) -> None:
            await ctx.observe(lm, text, ends=ends)

        assert (await infer(model, n_particles=1)).log_ml == pytest.approx(found)


async def test_text_with_a_stop_in_it_would_have_ended_before():
    lm = TOY("a", stop="b.")
    assert await lm.log_prob(["ab.", "ab"]) == [-math.inf, pytest.approx(math.log(0.1))]
    # It ends by its end token, or by the stop.
    (ended,) = await lm.log_prob(["a"], ends=True)
    assert math.exp(ended) == pytest.approx(0.2 * (0.25 + 0))


async def test_many_texts_take_few_passes():
    lm = ToyLM(["a", "b"], seed=1)
    texts = ["a" * n for n in range(1, 200)]
    found = await lm("a").log_prob(texts)
    assert len(found) == 199
    assert lm.engine.stats.passes <= 4
    assert found == [await lm("a").log_prob(text) for text in texts]
    assert await lm("a").log_prob([]) == []


@pytest.mark.parametrize("wrong", [None, 1, [1], ["a", None], [["a"]]])
async def test_wrong_types_say_what_to_give(wrong: Any):
    with pytest.raises(TypeError, match=r"log_prob got .*: give a text, or a list of texts"):
        await TOY("a").log_prob(wrong)


@pytest.mark.slow
async def test_log_prob_is_the_models_own():
    lm = LM.embedded("smollm2-135m", device="cpu", dtype="float32")
    prompt, texts = "The capital of France is", [" Paris", " Rome", " the city of Paris.", ""]
    context = lm.prompt_ids(prompt)
    model: Any = lm.engine
    for ends in (False, True):
        found = await lm(prompt).log_prob(texts, ends=ends)
        for text, number in zip(texts, found, strict=True):
            ids = (*lm.encode(text), *([int(lm.vocabulary.ends[0])] if ends else []))
            with torch.inference_mode():
                logits = model.model(torch.tensor([context + ids])).logits[0].double()
            rows = torch.log_softmax(logits, dim=-1)
            want = sum(float(rows[len(context) - 1 + i, token]) for i, token in enumerate(ids))
            assert number == pytest.approx(want, abs=2e-3)
    assert found[0] > found[1]


async def test_text_that_no_tokens_spell_has_no_probability():
    assert await TOY("a").log_prob(["z", "az"]) == [-math.inf, -math.inf]
    lm = LM.embedded("smollm2-135m", device="cpu")
    assert await lm("a").log_prob(b"\xc3") > -math.inf  # half a character
    with pytest.raises(VocabularyError, match="has no tokens that spell it"):
        await lm("a").log_prob(["a", b"\xff"])
