"""Tiny models of many architectures, with random weights, and what such a model gives alone."""

from __future__ import annotations

import asyncio
import copy
import random
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from awrs_ppl.lm.reach import Reach
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
HYBRID = {n: SIZES[n] for n in SIZES if n != "head_dim"}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
# The last two layers attend to the keys of the two before them, each to those of its kind.
SHARED = {
    **SIZES,
    "sliding_window": WINDOW,
    "num_hidden_layers": 6,
    "num_kv_shared_layers": 2,
    "layer_types": [SLIDING, FULL] * 3,
    "vocab_size_per_layer_input": TOKENS,
    "hidden_size_per_layer_input": 8,
}
LATENT = {
    **{**SIZES, "head_dim": 4, "num_key_value_heads": 4},
    "kv_lora_rank": 8,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "index_topk": 64,
    "index_n_heads": 2,
    "index_head_dim": 8,
}
# Whose cache is more than keys and values of each layer: states, shared keys, masks of their own.
ARCHITECTURES |= {
    "qwen3_5": (
        "qwen3_5_text",
        {**SIZES, **LINEAR, "layer_types": ["linear_attention", FULL, "linear_attention"]},
    ),
    "mamba2": (
        "mamba2",
        {
            **NAMES,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_heads": 8,
            "head_dim": 8,
            "state_size": 8,
            "n_groups": 1,
            "chunk_size": 8,
        },
    ),
    "jamba": (
        "jamba",
        {
            **HYBRID,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "num_experts": 2,
            "use_mamba_kernels": False,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
        },
    ),
    "minimax": (
        "minimax",
        {
            **SIZES,
            "layer_types": ["linear_attention", FULL, "linear_attention"],
            "block_size": 16,
            "num_local_experts": 2,
        },
    ),
    "gemma3n": (
        "gemma3n_text",
        {**SHARED, "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 6},
    ),
    "gemma4": (
        "gemma4_text",
        # Layers that see everything have other heads, whose keys are also their values.
        {
            **SHARED,
            "global_head_dim": 16,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
        },
    ),
    "deepseek_v32": ("deepseek_v32", LATENT),
    # With few heads many scores of its indexer are equal, zero: then it is limited to its top k.
    "deepseek_v32 sparse": ("deepseek_v32", {**LATENT, "index_topk": 4, "index_n_heads": 8}),
    "deepseek_v32 with ties": ("deepseek_v32", {**LATENT, "index_topk": 4}),
}


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


def window_is_one_longer(patch: pytest.MonkeyPatch) -> None:
    """A planted fault: of windows, and of chunks."""
    right = Reach.seen
    patch.setattr(
        Reach, "seen", lambda reach, *at: right(reach._replace(length=reach.length + 1), *at)
    )
