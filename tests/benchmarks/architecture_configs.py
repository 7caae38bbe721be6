"""Tiny configurations of the architectures of transformers that `architectures.py` tries.

By label: the model type, and what its configuration needs besides `SIZES`. Windows are of `WINDOW`
tokens, so that short contexts reach well past them.
"""

from __future__ import annotations

import inspect
from typing import Any

import transformers
from transformers import CONFIG_MAPPING

WINDOW = 8
LONGEST = 44  # tokens of a context: more than five windows
VOCAB = 272  # rows of logits; the tokenizer has 259 tokens

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "dim": 32,
    "embed_dim": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "d_ff": 48,
    "n_inner": 48,
    "ffn_hidden_size": 48,
    "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "num_hidden_layers": 3,
    "n_layer": 3,
    "n_layers": 3,
    "num_layers": 3,
    "decoder_layers": 3,
    "encoder_layers": 1,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "max_seq_len": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
}
MLA = {"head_dim": 4, "num_key_value_heads": 4}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}
S, F = "sliding_attention", "full_attention"
SLIDING = {"sliding_window": WINDOW}
ROPE = {"rope_theta": 10000.0}

# label: (type, what the config needs besides SIZES)
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama rope linear": (
        "llama",
        {"rope_parameters": {**ROPE, "rope_type": "linear", "factor": 4.0}},
    ),
    "llama rope llama3": (
        "llama",
        {
            "rope_parameters": {
                **ROPE,
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "llama rope yarn": (
        "llama",
        {
            "rope_parameters": {
                **ROPE,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "llama rope dynamic": (
        "llama",
        {
            "max_position_embeddings": 16,
            "rope_parameters": {**ROPE, "rope_type": "dynamic", "factor": 4.0},
        },
    ),
    "mistral": ("mistral", {**SLIDING}),
    "mistral no window": ("mistral", {"sliding_window": None}),
    "ministral": ("ministral", {**SLIDING, "layer_types": [S, F, S]}),
    "ministral3": ("ministral3", {}),
    "mixtral": ("mixtral", {**SLIDING}),
    "qwen2": ("qwen2", {}),
    "qwen2 sliding layers": (
        "qwen2",
        {**SLIDING, "use_sliding_window": True, "max_window_layers": 1},
    ),
    "qwen2_moe": ("qwen2_moe", {"shared_expert_intermediate_size": 16}),
    "qwen2_moe sliding": (
        "qwen2_moe",
        {
            **SLIDING,
            "use_sliding_window": True,
            "max_window_layers": 1,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "qwen3": ("qwen3", {}),
    "qwen3 sliding layers": (
        "qwen3",
        {**SLIDING, "use_sliding_window": True, "max_window_layers": 2},
    ),
    "qwen3_moe": ("qwen3_moe", {}),
    "qwen3_moe sliding": ("qwen3_moe", {**SLIDING, "use_sliding_window": True}),
    "qwen3_next": (
        "qwen3_next",
        {
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "shared_expert_intermediate_size": 16,
            "layer_types": ["linear_attention", F, "linear_attention"],
        },
    ),
    "qwen3_5_text": (
        "qwen3_5_text",
        {
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", F, "linear_attention"],
        },
    ),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {**SLIDING, "query_pre_attn_scalar": 8, "layer_types": [S, F, S]}),
    "gemma3_text": (
        "gemma3_text",
        {**SLIDING, "query_pre_attn_scalar": 8, "layer_types": [S, F, S]},
    ),
    "gemma3_text all sliding": (
        "gemma3_text",
        {**SLIDING, "query_pre_attn_scalar": 8, "layer_types": [S, S, S]},
    ),
    "gemma3 multimodal": ("gemma3", {}),
    "gemma3n_text": (
        "gemma3n_text",
        {
            **SLIDING,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "layer_types": [S, F, S, F],
            "vocab_size_per_layer_input": VOCAB,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
            "intermediate_size": 48,
            "activation_sparsity_pattern": [0.0] * 4,
        },
    ),
    "gemma4_text": (
        "gemma4_text",
        {
            **SLIDING,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "layer_types": [S, F, S, F],
            "vocab_size_per_layer_input": VOCAB,
            "hidden_size_per_layer_input": 8,
            "global_head_dim": 8,
        },
    ),
    "vaultgemma": ("vaultgemma", {**SLIDING, "query_pre_attn_scalar": 8, "layer_types": [S, F, S]}),
    "phi": ("phi", {}),
    "phi3": ("phi3", {}),
    "phi3 sliding": ("phi3", {**SLIDING}),
    "phi3 longrope": (
        "phi3",
        {
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                **ROPE,
                "rope_type": "longrope",
                "short_factor": [1.0] * 4,
                "long_factor": [1.0, 2.0, 4.0, 8.0],
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "phimoe": ("phimoe", {}),
    "gpt2": ("gpt2", {}),
    "gpt_bigcode": ("gpt_bigcode", {}),
    "gpt_bigcode multi-head": ("gpt_bigcode", {"multi_query": False}),
    "gpt_neo": (
        "gpt_neo",
        {"attention_types": [[["global", "local", "global"], 1]], "window_size": WINDOW},
    ),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_neox_japanese": ("gpt_neox_japanese", {}),
    "gptj": ("gptj", {"rotary_dim": 4}),
    "codegen": ("codegen", {"rotary_dim": 4}),
    "gpt_oss": ("gpt_oss", {**SLIDING, "layer_types": [S, F, S]}),
    "falcon rotary multi-query": ("falcon", {}),
    "falcon alibi": ("falcon", {"alibi": True}),
    "falcon new decoder": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "bloom": ("bloom", {}),
    "mpt": ("mpt", {}),
    "opt": ("opt", {"word_embed_proj_dim": 32}),
    "stablelm": ("stablelm", {}),
    "stablelm parallel": ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
    "cohere": ("cohere", {"logit_scale": 1.0}),
    "cohere2": ("cohere2", {"logit_scale": 1.0, **SLIDING, "layer_types": [S, F, S]}),
    "cohere2_moe": ("cohere2_moe", {"logit_scale": 1.0, **SLIDING, "layer_types": [S, F, S]}),
    "olmo": ("olmo", {}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {**SLIDING, "layer_types": [S, F, S]}),
    "olmoe": ("olmoe", {}),
    "olmo_hybrid": ("olmo_hybrid", {}),
    "flex_olmo": ("flex_olmo", {}),
    "granite": ("granite", {}),
    "granitemoe": ("granitemoe", {}),
    "granitemoeshared": ("granitemoeshared", {}),
    "granitemoehybrid": (
        "granitemoehybrid",
        {**MAMBA, "layer_types": ["mamba", "attention", "mamba"]},
    ),
    "granite_swa": ("granite_swa", {**SLIDING}),
    "granitemoe_swa": ("granitemoe_swa", {**SLIDING}),
    "starcoder2": ("starcoder2", {**SLIDING}),
    "llama4_text": (
        "llama4_text",
        {
            "attention_chunk_size": WINDOW,
            "intermediate_size_mlp": 48,
            "num_hidden_layers": 4,
            "no_rope_layers": [1, 1, 1, 0],
            "floor_scale": 4,
            "layer_types": ["chunked_attention"] * 3 + [F],
        },
    ),
    "deepseek_v2": ("deepseek_v2", {**MLA}),
    "deepseek_v3": ("deepseek_v3", {**MLA}),
    "deepseek_v32": (
        "deepseek_v32",
        {**MLA, "index_topk": 64, "index_n_heads": 2, "index_head_dim": 8},
    ),
    "minicpm3": ("minicpm3", {**MLA}),
    "youtu": ("youtu", {**MLA}),
    "glm4_moe_lite": ("glm4_moe_lite", {**MLA}),
    "glm_moe_dsa": (
        "glm_moe_dsa",
        {**MLA, "index_topk": 64, "index_n_heads": 2, "index_head_dim": 8},
    ),
    "axk1": ("axk1", {**MLA}),
    "longcat_flash": (
        "longcat_flash",
        {**MLA, "num_layers": 2, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 16},
    ),
    "minimax": (
        "minimax",
        {"layer_types": ["linear_attention", F, "linear_attention"], "block_size": 16},
    ),
    "minimax_m2": ("minimax_m2", {}),
    "mamba": ("mamba", {"state_size": 8}),
    "mamba2": ("mamba2", {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1}),
    "falcon_mamba": ("falcon_mamba", {"state_size": 8}),
    "jamba": (
        "jamba",
        {
            "num_hidden_layers": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "use_mamba_kernels": False,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
        },
    ),
    "zamba": (
        "zamba",
        {
            "num_hidden_layers": 4,
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
            "use_mamba_kernels": False,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "attention_head_dim": 16,
            "attention_hidden_size": 64,
        },
    ),
    "zamba2": (
        "zamba2",
        {
            "num_hidden_layers": 4,
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
            "use_mamba_kernels": False,
            "mamba_d_state": 8,
            "mamba_ngroups": 1,
            "n_mamba_heads": 8,
            "mamba_headdim": 8,
            "attention_head_dim": 16,
            "num_mem_blocks": 1,
        },
    ),
    "bamba": ("bamba", {**MAMBA, "attn_layer_indices": [1]}),
    "falcon_h1": ("falcon_h1", {**MAMBA, "mamba_d_ssm": 64}),
    "nemotron": ("nemotron", {}),
    "nemotron_h": (
        "nemotron_h",
        {"mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 1, "ssm_state_size": 8},
    ),
    "lfm2": ("lfm2", {"layer_types": ["conv", F, "conv"]}),
    "lfm2_moe": ("lfm2_moe", {"layer_types": ["conv", F, "conv"], "num_dense_layers": 1}),
    "recurrent_gemma": (
        "recurrent_gemma",
        {
            "attention_window_size": WINDOW,
            "lru_width": 32,
            "block_types": ["recurrent", "attention", "recurrent"],
        },
    ),
    "rwkv": ("rwkv", {}),
    "xlstm": (
        "xlstm",
        {"num_heads": 2, "num_blocks": 2, "qk_dim_factor": 0.5, "v_dim_factor": 1.0},
    ),
    "smollm3": ("smollm3", {}),
    "smollm3 sliding": (
        "smollm3",
        {**SLIDING, "use_sliding_window": True, "no_rope_layer_interval": 2},
    ),
    "exaone4": ("exaone4", {**SLIDING, "layer_types": [S, F, S]}),
    "exaone_moe": (
        "exaone_moe",
        {**SLIDING, "layer_types": [S, F, S], "mlp_layer_types": ["dense", "sparse", "sparse"]},
    ),
    "ernie4_5": ("ernie4_5", {}),
    "ernie4_5_moe": ("ernie4_5_moe", {}),
    "glm": ("glm", {}),
    "glm4": ("glm4", {}),
    "glm4_moe": ("glm4_moe", {}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {}),
    "helium": ("helium", {}),
    "persimmon": ("persimmon", {}),
    "diffllama": ("diffllama", {}),
    "doge": ("doge", {}),
    "doge sliding": ("doge", {**SLIDING}),
    "dots1": ("dots1", {**SLIDING, "layer_types": [S, F, S]}),
    "seed_oss": ("seed_oss", {}),
    "arcee": ("arcee", {}),
    "apertus": ("apertus", {}),
    "afmoe": ("afmoe", {**SLIDING, "layer_types": [S, F, S]}),
    "bitnet": ("bitnet", {}),
    "cwm": ("cwm", {**SLIDING, "layer_types": [S, F, S]}),
    "jetmoe": ("jetmoe", {"kv_channels": 8}),
    "jais2": ("jais2", {}),
    "modernbert-decoder": (
        "modernbert-decoder",
        {"local_attention": 2 * WINDOW, "layer_types": [S, F, S]},
    ),
    "nanochat": ("nanochat", {}),
    "mimo_v2_flash": ("mimo_v2_flash", {**SLIDING, "layer_types": [S, F, S]}),
    "solar_open": ("solar_open", {}),
    "xglm": ("xglm", {}),
    "biogpt": ("biogpt", {}),
    "ctrl": ("ctrl", {}),
    "openai-gpt": ("openai-gpt", {}),
    "fuyu": ("fuyu", {}),
    "cpmant": (
        "cpmant",
        {
            "prompt_types": 2,
            "prompt_length": 2,
            "segment_types": 2,
            "position_bias_num_buckets": 8,
            "position_bias_max_distance": 32,
            "dim_head": 8,
            "dim_ff": 48,
        },
    ),
    "bart decoder": ("bart", {}),
    "mbart decoder": ("mbart", {}),
    "pegasus decoder": ("pegasus", {}),
    "blenderbot decoder": ("blenderbot", {}),
    "blenderbot-small decoder": ("blenderbot-small", {}),
    "marian decoder": ("marian", {}),
    "mvp decoder": ("mvp", {}),
    "plbart decoder": ("plbart", {}),
    "trocr decoder": ("trocr", {}),
    "whisper decoder": ("whisper", {"max_target_positions": 128}),
    "bigbird_pegasus decoder": ("bigbird_pegasus", {"attention_type": "original_full"}),
    "prophetnet decoder": (
        "prophetnet",
        {
            "num_decoder_layers": 3,
            "num_encoder_layers": 1,
            "num_encoder_attention_heads": 4,
            "num_decoder_attention_heads": 4,
        },
    ),
    "bert as decoder": ("bert", {"is_decoder": True}),
    "roberta as decoder": ("roberta", {"is_decoder": True}),
    "electra as decoder": ("electra", {"is_decoder": True, "embedding_size": 32}),
    "roformer as decoder": ("roformer", {"is_decoder": True, "embedding_size": 32}),
    "bert-generation decoder": ("bert-generation", {"is_decoder": True}),
    "inkling_text": ("inkling_text", {}),
    "inkling2_text": ("inkling2_text", {}),
    "flint": ("flint", {}),
    "beam": ("beam", {}),
    "kolibri1": ("kolibri1", {}),
    "laguna": ("laguna", {}),
    "mellum": ("mellum", {}),
    "lfm3": ("lfm3", {}),
    "hrm_text": ("hrm_text", {}),
    "hy_v3": ("hy_v3", {}),
    "hy_v4": ("hy_v4", {}),
    "hyperclovax": ("hyperclovax", {}),
    "aria_text": ("aria_text", {}),
    "bailing_hybrid": ("bailing_hybrid", {"layer_group_size": 2, "num_key_value_heads": 4}),
    "minimax_m3_vl_text": ("minimax_m3_vl_text", {}),
    "deepseek_v4": ("deepseek_v4", {}),
    "moshi": ("moshi", {**SLIDING}),
    "doge dynamic mask": ("doge", {"keep_window_size": 12}),
    "deepseek_v32 sparse": (
        "deepseek_v32",
        {**MLA, "index_topk": 8, "index_n_heads": 16, "index_head_dim": 8},
    ),
    "glm_moe_dsa sparse": (
        "glm_moe_dsa",
        {**MLA, "index_topk": 8, "index_n_heads": 16, "index_head_dim": 8},
    ),
    "hy_v4 sparse": ("hy_v4", {"index_topk": 8, "index_n_heads": 16, "index_head_dim": 8}),
    "deepseek_v4 sparse": (
        "deepseek_v4",
        {**SLIDING, "index_topk": 4, "index_n_heads": 16, "index_head_dim": 8},
    ),
    "minimax_m3 sparse": (
        "minimax_m3_vl_text",
        {"index_block_size": 4, "index_topk_blocks": 2, "index_n_heads": 16, "index_head_dim": 8},
    ),
    "phimoe longrope": (
        "phimoe",
        {
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                **ROPE,
                "rope_type": "longrope",
                "short_factor": [1.0] * 4,
                "long_factor": [1.0, 2.0, 4.0, 8.0],
                "short_mscale": 1.0,
                "long_mscale": 1.2,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "kimi_linear": (
        "kimi_linear",
        {
            **MLA,
            "linear_head_dim": 8,
            "linear_num_heads": 2,
            "layer_types": ["linear_attention", F, "linear_attention"],
        },
    ),
    "zaya": ("zaya", {"num_experts_per_tok": 1}),
    "xlm-roberta as decoder": ("xlm-roberta", {"is_decoder": True}),
    "camembert as decoder": ("camembert", {"is_decoder": True}),
    "rembert as decoder": (
        "rembert",
        {"is_decoder": True, "input_embedding_size": 32, "output_embedding_size": 32},
    ),
    "megatron-bert as decoder": ("megatron-bert", {"is_decoder": True}),
    "big_bird as decoder": ("big_bird", {"is_decoder": True, "attention_type": "original_full"}),
    "reformer": (
        "reformer",
        {
            "is_decoder": True,
            "attention_head_size": 8,
            "axial_pos_embds": False,
            "feed_forward_size": 48,
            "attn_layers": ["local", "local"],
            "local_attn_chunk_length": 8,
            "local_num_chunks_after": 0,
        },
    ),
}

# Encoders and the like, which must be rejected.
NOT_CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "roberta": ("roberta", {}),
    "electra": ("electra", {"embedding_size": 32}),
    "big_bird": ("big_bird", {"attention_type": "original_full"}),
    "roformer": ("roformer", {"embedding_size": 32}),
    "xlnet": ("xlnet", {"d_inner": 48}),
}


def config_of(kind: str, extra: dict[str, Any]) -> Any:
    """A tiny configuration; raises what transformers raises where it cannot be."""
    cls: Any = CONFIG_MAPPING[kind]
    if kind == "gemma3":
        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
        text = config_of(*CAUSAL["gemma3_text"])
        return cls(text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4)
    names = _accepted(cls)
    if kind == "fuyu":
        extra = {"text_config": config_of("persimmon", {}).to_dict(), "patch_size": 2}
    return cls(**{k: v for k, v in SIZES.items() if k in names and k not in extra}, **extra)


def _accepted(cls: type[transformers.PreTrainedConfig]) -> set[str]:
    names = {*getattr(cls, "attribute_map", {})}
    for base in cls.__mro__:
        names |= {*vars(base).get("__annotations__", {})}
    return names | {*inspect.signature(cls.__init__).parameters}
