"""Texts are given as `str` or as bytes, wherever one is meant."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from awrs_ppl import LM, ModelError, ToyLM, run
from awrs_ppl.potentials import Contains, OneOf

TOY = ToyLM(["a", "b", "é", b"\xff", "."], seed=1)


def test_prompts_and_stops():
    for text in ("ab", "é", "a\udcff"):
        data = text.encode("utf-8", "surrogateescape")
        assert TOY(data).prompt == TOY(text).prompt
        assert TOY("a", stop=data).stops == TOY("a", stop=text).stops == (data,)
        assert TOY("a", stop=[data, "."]).stops == (data, b".")
        assert TOY("a").encode(data) == TOY("a").encode(text)


def test_observed_values():
    def observed(value):
        async def model(ctx):
            await ctx.observe(TOY("a"), value)

        return run(model, n_particles=1, progress=False).log_ml

    assert observed("aé") == observed("aé".encode()) > -10
    assert observed("a\udcff") == observed(b"a\xff") > -10
    with pytest.raises(ModelError, match=r"42.*Categorical"):
        observed(42)


def test_choices():
    assert OneOf([b"a", "\xe9", "é".encode()]) == OneOf(["a", "é"])
    assert Contains("é".encode()) == Contains("é")
    assert asyncio.run(Contains(b"a").complete(b"ba")) == 0.0
    with pytest.raises(TypeError, match=r"3.*str\(3\)"):
        OneOf([1, 2, 3][2:])  # pyright: ignore[reportArgumentType]
    for potential in (Contains, lambda text: OneOf([text])):
        with pytest.raises(ValueError, match=r"got b'a\\xff', which is not UTF-8"):
            potential(b"a\xff")
    with pytest.raises(TypeError, match="a text, a str or bytes"):
        Contains(3)  # pyright: ignore[reportArgumentType]


def test_blank_at_the_end_of_a_prompt_is_warned_of_once():
    lm = LM.embedded("smollm2-135m")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lm("Sentiment: ")
        lm(b"Answer: ")
    assert len(caught) == 1
    assert "ends in a blank" in str(caught[0].message)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lm = LM.embedded("smollm2-135m")
        lm("Sentiment:")
        lm("A list:\n")
        lm("中文 你好 ")  # words without a blank before them
        TOY("a ")  # its tokens have no blanks in them
