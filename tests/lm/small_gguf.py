"""Small models with random weights, and GGUF files of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from awrs_ppl import LM
from awrs_ppl.lm.token_bytes import _byte_level_alphabet

__all__ = ["SIZES", "WIDTH", "far_from", "model_of", "names_of", "write"]

WIDTH, HEADS, GROUPS = 64, 4, 2
# The bytes in order, a token of two, and those that end a text.
TOKENS = [
    *(c for c, _ in sorted(_byte_level_alphabet().items(), key=lambda item: item[1])),
    "ab",
    "<|endoftext|>",
    "<|im_end|>",
]
SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENS),
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "max_position_embeddings": 16_384,
    "rms_norm_eps": 1e-5,
    "eos_token_id": len(TOKENS) - 1,
    "bos_token_id": None,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# The names of llama.cpp, written down rather than taken from the code under test.
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def model_of(kind: str, seed: int = 0) -> Any:
    """A small model with random weights."""
    torch.manual_seed(seed)
    tied = kind.endswith("tied")
    if kind.startswith("qwen2"):
        config = Qwen2Config(**SIZES, tie_word_embeddings=tied)
        model: Any = Qwen2ForCausalLM(config)
    elif kind == "qwen3moe":
        experts: dict[str, Any] = {
            "head_dim": WIDTH // HEADS,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 768,  # what transformers takes for all files
            "norm_topk_prob": True,
        }
        config = Qwen3MoeConfig(**{**SIZES, **experts})
        model = Qwen3MoeForCausalLM(config)
    else:
        scaled: dict[str, Any] = {"rope_parameters": LLAMA3} if kind == "llama 3" else {}
        model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied, **scaled))
    with torch.no_grad():
        for weight in model.parameters():  # norms and biases too, and wide enough to be told apart
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def names_of(model: Any) -> Iterator[tuple[str, str, torch.Tensor]]:
    """For each tensor its name in a file, its name in the model, and its values as in a file."""
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        stem, _, suffix = name.rpartition(".")
        if stem in WHOLE:
            yield f"{WHOLE[stem]}.{suffix}", name, weight
        elif name.endswith("experts.gate_up_proj"):
            block = f"blk.{name.split('.')[2]}"
            gate, up = weight.chunk(2, dim=1)
            yield f"{block}.ffn_gate_exps.weight", name, gate
            yield f"{block}.ffn_up_exps.weight", name, up
        elif name.endswith("experts.down_proj"):
            yield f"blk.{name.split('.')[2]}.ffn_down_exps.weight", name, weight
        else:
            _, _, block, part = stem.split(".", 3)
            values = weight
            if isinstance(model, LlamaForCausalLM) and PARTS[part] in ("attn_q", "attn_k"):
                # llama.cpp turns neighbouring pairs where transformers turns halves.
                heads = HEADS if PARTS[part] == "attn_q" else GROUPS
                values = weight.reshape(heads, 2, -1, WIDTH).swapaxes(1, 2).reshape(-1, WIDTH)
            yield f"blk.{block}.{PARTS[part]}.{suffix}", name, values


def write(path: Path, model: Any, quantized: bool = False, **changes: Any) -> Path:
    """Write a model as a GGUF file; `changes` are an architecture, tensors to leave out or add."""
    kind = {"Qwen2": "qwen2", "Qwen3Moe": "qwen3moe", "Llama": "llama"}[
        type(model).__name__.removesuffix("ForCausalLM")
    ]
    kind = changes.get("architecture", kind)
    writer = gguf.GGUFWriter(path, kind)
    writer.add_context_length(SIZES["max_position_embeddings"])
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(SIZES["rms_norm_eps"])
    writer.add_rope_freq_base(10_000.0)
    if kind == "llama":
        writer.add_rope_dimension_count(WIDTH // HEADS)
        writer.add_vocab_size(len(TOKENS))
    if kind == "qwen3moe":
        writer.add_expert_count(4)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(768)
        writer.add_key_length(WIDTH // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * 257 + [3, 3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(len(TOKENS) - 1)
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name, _, values in names_of(model):
        if name in changes.get("leave_out", ()):
            continue
        array = values.detach().contiguous().numpy()
        if quantized and array.ndim > 1:
            writer.add_tensor(name, gguf.quantize(array, q8), raw_dtype=q8)
        else:
            writer.add_tensor(name, array)
    for name, values in changes.get("add", {}).items():
        writer.add_tensor(name, np.asarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


async def far_from(lm: LM, model: Any) -> float:
    """How far the logits of an LM are from a model's, relative to their spread."""
    contexts = [tuple(b"a dragon"), tuple(b"the knight protected")]
    found = await lm.engine.next_logits(contexts)
    with torch.inference_mode():
        want = torch.stack([model(torch.tensor([ids])).logits[0, -1] for ids in contexts])
    return float((found - want).abs().max() / want.std())
