"""Options that are written wrongly, or at the wrong place."""

from __future__ import annotations

from typing import Any

import pytest

from awrs_ppl import ToyLM, run

LM = ToyLM(["a", "b"], seed=1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("max_token", "did you mean max_tokens"),
        ("stop", r"belongs to the prompt, lm\(..., stop=...\)"),
        ("temperature", "belongs to the prompt"),
        ("nonsense", "its options are max_tokens, ends, proposal"),
    ],
)
def test_option_of_generate_that_there_is_not(option, message):
    async def model(ctx):
        options: Any = {option: 3}
        return await ctx.generate(LM("a"), **options)

    with pytest.raises(TypeError, match=message):
        run(model, progress=False)


def test_model_without_a_context():
    async def model():
        return 1

    with pytest.raises(TypeError, match=r"first parameter is ctx, as in\s+async def"):
        run(model, progress=False)
