"""GGUF files as safetensors, one tensor at a time, with their tokenizers put right."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from awrs_ppl.lm.gguf_file import COMPUTED, GgufFile, read_gguf
from awrs_ppl.lm.gguf_weights import unpacked, write_weights

__all__ = ["convert"]


def convert(gguf: Path, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the model of a GGUF file as safetensors of a `dtype`, with its tokenizer.

    Tensor by tensor: unpacked, brought into the layout of `transformers`, cast and written, so that
    memory for the largest tensor and 1 GB is enough. Architectures that transformers converts in
    its newer way alone (LFM2, Qwen 3.5) are loaded whole. Raises `ValueError` for a file that is no
    GGUF file, not whole, or whose model or tensors transformers does not know.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = read_gguf(gguf)
    place, file = str(gguf.parent), gguf.name
    with _quiet_transformers():
        with _rejected(source):
            config = AutoConfig.from_pretrained(place, gguf_file=file)
            tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=file)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        _use_llama3_frequencies(model, source)
        if _is_streamed(source.architecture):
            write_weights(source, model, folder)
        else:
            model = _whole(gguf, model, dtype)
            model.save_pretrained(folder)
        model.config.architectures = [type(model).__name__]
        vars(model.config).pop("_model_name_or_path", None)
        model.config.save_pretrained(folder)
        _add_ends(model, tokenizer, source.splitting)
        model.generation_config.save_pretrained(folder)
        _restore_pre_tokenizer(tokenizer, source.splitting)
        _flag_controls(tokenizer)
        tokenizer.save_pretrained(folder)
        # As it loads again: classes of transformers change what stands in the file (Qwen's adds
        # NFC), and the next time the file is read without them.
        loaded: Any = AutoTokenizer.from_pretrained(folder)
        loaded.backend_tokenizer.save(str(folder / "tokenizer.json"))


@contextlib.contextmanager
def _rejected(source: GgufFile) -> Iterator[None]:
    """One sentence about a file that transformers does not know."""
    try:
        yield
    except (ValueError, KeyError, NotImplementedError, AttributeError) as error:
        said = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{str(source.path)!r} is of the architecture {source.architecture!r}, which this "
            f"version of transformers does not convert to a causal language model ({said})"
        ) from error


def _is_streamed(architecture: str) -> bool:
    """Whether transformers has a table of the architecture's tensors, not only a loader."""
    from transformers import modeling_gguf_pytorch_utils as theirs

    try:
        from transformers.integrations.gguf.utils import (  # pyright: ignore[reportMissingImports]
            is_gguf_arch_supported,
        )
    except ImportError:  # before there was a second way
        return True
    return hasattr(theirs, "TENSOR_PROCESSORS") and not is_gguf_arch_supported(architecture)


def _whole(gguf: Path, model: Any, dtype: torch.dtype) -> Any:
    """The model as transformers loads it, moved into one that is not marked as quantized."""
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=dtype, **_dequantize()
    )
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    return model


# --- what transformers leaves out -----------------------------------------------------------


def _use_llama3_frequencies(model: Any, source: GgufFile) -> None:
    """Set Llama 3's scaling of its rotary frequencies, which its files hold as factors alone.

    Transformers reads no factors. Those of Llama 3.1 to 3.3 follow from four numbers, three of them
    the same in all: if the factors are these, the settings say so. Raises `ValueError` for others.
    """
    tensor = next((tensor for tensor in source.tensors if tensor.name in COMPUTED), None)
    if tensor is None:
        return
    config = model.config
    factors = unpacked(source.path, tensor, torch.float64).numpy().ravel()
    theta = _rotary_base(config)
    largest, low, high, trained = float(factors.max()), 1.0, 4.0, 8192
    wavelengths = 2 * math.pi * theta ** (np.arange(len(factors)) / len(factors))
    smooth = np.clip((trained / wavelengths - low) / (high - low), 0, 1)
    if not np.allclose(factors, 1 / ((1 - smooth) / largest + smooth), rtol=1e-3):
        raise ValueError(
            f"{str(source.path)!r} scales its rotary frequencies by {tensor.name!r}, in a way that "
            "is not Llama 3's, and transformers reads no other"
        )
    config.rope_parameters = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": largest,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": trained,
    }


def _rotary_base(config: Any) -> float:
    parameters = getattr(config, "rope_parameters", None) or {}
    return float(parameters.get("rope_theta") or getattr(config, "rope_theta", 10_000.0))


def _add_ends(model: Any, tokenizer: Any, splitting: str) -> None:
    """Let `<|endoftext|>` end a text of Qwen, too: its file names the end of a turn alone."""
    if splitting != "qwen2":
        return
    also = tokenizer.get_vocab().get("<|endoftext|>")
    named = model.generation_config.eos_token_id
    if also is not None and isinstance(named, int) and named != also:
        model.generation_config.eos_token_id = [named, also]


def _flag_controls(tokenizer: Any) -> None:
    """Make the tokens around pictures control tokens, as they are in Gemma's own tokenizer.

    Its file does not say so, and they would be taken for text that a model may write.
    """
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    around = [name for name in ("<start_of_image>", "<end_of_image>") if name in known]
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in around])


def _restore_pre_tokenizer(tokenizer: Any, splitting: str) -> None:
    """Split text before merging as the model's own tokenizer does.

    The file only names the rule, and transformers takes GPT-2's for all of them. SmolLM's splits
    off digits first, which matters to the white space before a number.
    """
    from tokenizers import pre_tokenizers

    if splitting == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )


def _dequantize() -> dict[str, Any]:
    """The argument that makes newer versions of transformers unpack the blocks of a GGUF file."""
    try:
        from transformers import GgufConfig  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError:  # before it existed they were always unpacked
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice meant for people who call transformers themselves."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()
