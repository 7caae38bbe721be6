"""The engine on tiny random models of many architectures: what it gives is what the model alone
gives, one context, without mask, positions and cache."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
import torch
from tiny_models import ARCHITECTURES, SIZES, Alone, check, model_of
from transformers import LlamaConfig, LlamaForCausalLM

from awrs_ppl.lm import acceptance
from awrs_ppl.lm.transformers import TransformersEngine

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.slow
def test_architectures_in_random_calls_give_what_the_model_alone_gives(
    fuzz: Any, byte_tokenizer: Any
) -> None:
    labels = sorted(ARCHITECTURES)
    for rng in fuzz.rngs(16):
        label = rng.choice(labels)
        model = model_of(label, rng.randrange(1000))
        alone = Alone(model)
        try:
            check(TransformersEngine(model, byte_tokenizer), alone, rng, calls=4)
        except AssertionError as error:
            raise AssertionError(f"{label}: {error}") from error


@pytest.mark.slow
@pytest.mark.parametrize(
    "label",
    [
        "gpt_neo",
        "llama dynamic",
        "phi3 longrope",
        "gemma3n",
        "gemma4",
        "llama4",
        "bloom",
        "falcon alibi",
        "mpt",
        "deepseek_v32",
        "deepseek_v32 sparse",
        "deepseek_v32 with ties",
        "rwkv",
        "recurrent_gemma",
        "moshi",
        "doge dynamic mask",
        "bart",
        "marian",
        "roberta",
    ],
)
def test_architectures_with_own_masks_or_positions_give_what_the_model_alone_gives(
    label: str, byte_tokenizer: Any
) -> None:
    model = model_of(label)
    alone = Alone(model)
    check(TransformersEngine(model, byte_tokenizer), alone, random.Random(label), calls=6)


@pytest.mark.parametrize(
    ("label", "cached"),
    [
        ("llama", True),
        ("llama dynamic", True),
        ("gemma3", True),
        ("gpt2", True),
        ("gpt_neo", True),
        ("bloom", True),
        ("llama4", True),
        ("lfm2", True),
        ("mamba", True),
        ("rwkv", False),
        ("bart", False),
    ],
)
def test_is_cached_by_architecture_says_whether_keys_are_kept(
    label: str, cached: bool, byte_tokenizer: Any
) -> None:
    assert TransformersEngine(model_of(label), byte_tokenizer).is_cached is cached


async def test_cache_below_the_switch_feeds_only_new_tokens(byte_tokenizer: Any) -> None:
    engine = TransformersEngine(model_of("phi3 longrope"), byte_tokenizer)
    context = (1, *range(3, 14))  # twelve tokens: as many as the short factors are for
    await engine.next_logits([context[:11]])
    before = engine.stats.tokens
    await engine.next_logits([context])
    assert engine.stats.tokens - before == 1
    await engine.next_logits([(*context, 20)])
    assert engine.stats.tokens - before == 1 + 13


async def test_contexts_beyond_the_switch_are_warned_of_once(
    byte_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine = TransformersEngine(model_of("llama dynamic"), byte_tokenizer)
    with caplog.at_level(logging.WARNING, logger="awrs_ppl"):
        await engine.next_logits([(1,) * 12])
        assert not caplog.messages
        await engine.next_logits([(1,) * 13])
        await engine.next_logits([(1,) * 14])
    (message,) = caplog.messages
    assert "LlamaForCausalLM may treat the first tokens of a context of more than 12" in message


def test_window_too_long_to_be_tried_is_run_alone_beyond_it(
    byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a model with billions of weights."""
    monkeypatch.setattr(acceptance, "_CHEAP", 0)
    monkeypatch.setattr(acceptance, "_DEAR", 0)
    kind, config = ARCHITECTURES["gpt_neo"]
    monkeypatch.setitem(ARCHITECTURES, "gpt_neo", (kind, {**config, "window_size": 16}))
    model = model_of("gpt_neo")
    alone = Alone(model)
    engine = TransformersEngine(model, byte_tokenizer)
    assert engine.is_cached
    check(engine, alone, random.Random(1), calls=8)


class OneRow(LlamaForCausalLM):
    """A model that takes one context at a time, and no cache."""

    def forward(self, input_ids: Any, logits_to_keep: int = 0, use_cache: bool = False) -> Any:  # pyright: ignore
        if len(input_ids) > 1:
            raise ValueError("one at a time")
        return super().forward(input_ids, logits_to_keep=logits_to_keep)


def test_model_that_takes_one_row_gets_one_row(byte_tokenizer: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OneRow(LlamaConfig(**SIZES, initializer_range=0.4)).eval()
    alone = Alone(model)
    engine = TransformersEngine(model, byte_tokenizer)
    assert not engine.is_cached
    check(engine, alone, random.Random(0), calls=3)
