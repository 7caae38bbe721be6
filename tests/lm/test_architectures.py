"""The engine on tiny random models of many architectures: what it gives is what the model alone
gives, one context, without mask, positions and cache."""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from awrs_ppl.lm import acceptance
from awrs_ppl.lm.transformers import TransformersEngine

Context = tuple[int, ...]

TOKENS = 90
WINDOW = 6
LONGEST = 36  # six windows
SIZES: dict[str, Any] = {
    "vocab_size": TOKENS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NAMES = {name: SIZES[name] for name in ("vocab_size", "pad_token_id", "bos_token_id")}
ENDS = {"eos_token_id": 2, "decoder_start_token_id": 1}
GPT = {**NAMES, "eos_token_id": 2, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4}
BART = {
    **NAMES,
    **ENDS,
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}
NO_HEADS = {n: SIZES[n] for n in SIZES if n not in ("num_key_value_heads", "head_dim")}
BERT = {**NO_HEADS, "is_decoder": True}
THETA = {"rope_theta": 10000.0}
LONGROPE = {
    **THETA,
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 2.0, 4.0, 8.0],
    "original_max_position_embeddings": 12,
}
SLIDING, FULL = "sliding_attention", "full_attention"
MIXED = {"sliding_window": WINDOW, "layer_types": [SLIDING, FULL, SLIDING]}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SIZES),
    "llama yarn": (
        "llama",
        {
            **SIZES,
            "rope_parameters": {
                **THETA,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "llama dynamic": (
        "llama",
        {
            **SIZES,
            "max_position_embeddings": 12,
            "rope_parameters": {**THETA, "rope_type": "dynamic", "factor": 4.0},
        },
    ),
    "mistral": ("mistral", {**SIZES, "sliding_window": WINDOW}),
    "qwen2": ("qwen2", {**SIZES, "use_sliding_window": True, **MIXED}),
    "gemma3": ("gemma3_text", {**SIZES, "query_pre_attn_scalar": 8, **MIXED}),
    "cohere2": ("cohere2", {**SIZES, "logit_scale": 1.0, **MIXED}),
    "phi3 longrope": (
        "phi3",
        {**SIZES, "original_max_position_embeddings": 12, "rope_parameters": LONGROPE},
    ),
    "olmo2": ("olmo2", SIZES),
    "granite": ("granite", SIZES),
    "starcoder2": ("starcoder2", {**SIZES, "sliding_window": WINDOW}),
    "gpt2": ("gpt2", GPT),
    "gptj": ("gptj", {**GPT, "rotary_dim": 4}),
    "gpt_neo": (
        "gpt_neo",
        {
            **NO_HEADS,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global", "local", "global"], 1]],
            "window_size": WINDOW,
        },
    ),
    "falcon": ("falcon", NO_HEADS),
    "falcon alibi": ("falcon", {**NO_HEADS, "alibi": True}),
    "bloom": ("bloom", {**NAMES, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mpt": ("mpt", {"vocab_size": TOKENS, "d_model": 32, "n_heads": 4, "n_layers": 2}),
    "llama4": (
        "llama4_text",
        {
            **SIZES,
            "num_hidden_layers": 4,
            "attention_chunk_size": WINDOW,
            "intermediate_size_mlp": 48,
            "num_local_experts": 4,
            "no_rope_layers": [1, 1, 1, 0],
            "floor_scale": 4,
            "layer_types": ["chunked_attention"] * 3 + [FULL],
        },
    ),
    "mamba": ("mamba", {**NAMES, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "rwkv": ("rwkv", {**NAMES, "hidden_size": 32, "num_hidden_layers": 2}),
    "recurrent_gemma": (
        "recurrent_gemma",
        {
            **{n: SIZES[n] for n in SIZES if n not in ("max_position_embeddings", "head_dim")},
            "lru_width": 32,
            "attention_window_size": WINDOW,
            "block_types": ["recurrent", "attention", "recurrent"],
        },
    ),
    "doge dynamic mask": ("doge", {**SIZES, "keep_window_size": 9}),
    "lfm2": ("lfm2", {**SIZES, "layer_types": ["conv", FULL, "conv"]}),
    "moshi": ("moshi", {**SIZES, "sliding_window": WINDOW}),
    "bart": ("bart", BART),
    "marian": ("marian", BART),
    "whisper": (
        "whisper",
        {
            **{n: BART[n] for n in BART if n != "max_position_embeddings"},
            "max_target_positions": 64,
        },
    ),
    "bert": ("bert", BERT),
    "roberta": ("roberta", BERT),
}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Architectures warn of kernels that are not installed and of what they plan to rename."""
    logging.getLogger("awrs_ppl").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.getLogger("awrs_ppl").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def model_of(label: str, seed: int = 7) -> Any:
    """A model with weights so large that a wrong position or mask shows."""
    kind, config = ARCHITECTURES[label]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**config))
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
                    module.weight.normal_(0.0, 0.4)
    return model.eval()


class Alone:
    """A copy of a model, one context at a time."""

    def __init__(self, model: Any) -> None:
        self._model = copy.deepcopy(model)

    @torch.inference_mode()
    def log_probs(self, context: Context) -> torch.Tensor:
        if hasattr(self._model.base_model, "rotary_emb"):
            self._model(input_ids=torch.tensor([context[:1]]))  # dynamic ones remember lengths
        logits = self._model(input_ids=torch.tensor([context]), use_cache=False).logits
        return logits[0, -1].double().log_softmax(-1)


def contexts_of(rng: random.Random, calls: int) -> list[list[Context]]:
    """The requests, call by call: contexts that grow, fork, return, of all lengths."""
    pool: list[Context] = [(1, *rng.choices(range(3, TOKENS), k=rng.randrange(LONGEST)))]
    requests = []
    for _ in range(calls):
        rows = []
        for _ in range(rng.choice([1, 2, 3, 5])):
            base = rng.choice(pool[-4:])
            base = base[: max(1, len(base) - rng.choice([0, 0, 0, 1, 2, 8, 25]))]
            grown = rng.choice([1, 1, 1, 0, 2, 3, rng.randint(4, 20)])
            rows.append((*base, *rng.choices(range(3, TOKENS), k=grown))[:LONGEST])
            pool.append(rows[-1])
        requests.append(rows)
    return requests


def check(engine: TransformersEngine, alone: Alone, rng: random.Random, calls: int) -> None:
    """Next-token distributions, and log-probabilities of continuations."""
    for contexts in contexts_of(rng, calls):
        found = asyncio.run(engine.next_logits(contexts)).double().log_softmax(-1)
        for context, row in zip(contexts, found, strict=True):
            apart = (row.exp() - alone.log_probs(context).exp()).abs().sum() / 2
            assert apart < 1e-4, f"total variation {apart:.2g} after {len(context)} tokens"
        context = rng.choice(contexts)
        cut = rng.randint(1, len(context))
        request = context[:cut], context[cut : cut + 4]
        (scores,) = asyncio.run(engine.sequence_logprobs([request]))
        want = [
            float(alone.log_probs(context[:i])[context[i]])
            for i in range(cut, min(cut + 4, len(context)))
        ]
        assert scores.tolist() == pytest.approx(want, abs=5e-3)


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
        "llama4",
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
