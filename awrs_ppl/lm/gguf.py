"""Quantized GGUF files as float32 safetensors, with their tokenizers put right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["convert"]


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file as float32 safetensors, with its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    place, file = str(gguf.parent), gguf.name
    with _quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=file)
        model = AutoModelForCausalLM.from_pretrained(
            place, gguf_file=file, dtype=torch.float32, **_dequantize()
        )
        # A model read from GGUF stays marked as quantized and cannot be saved. Its weights are
        # plain float32, so they are moved into a model that never was. It is built on "meta", which
        # costs neither memory nor random numbers.
        entries = model.config.to_dict()
        for entry in ("quantization_config", "_name_or_path"):
            entries.pop(entry, None)
        config = AutoConfig.for_model(**entries)
        with torch.device("meta"):
            plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(model.state_dict(), assign=True)
        plain.tie_weights()
        plain.generation_config = model.generation_config
        plain.save_pretrained(folder)
        _restore_pre_tokenizer(tokenizer, gguf)
        _flag_controls(tokenizer)
        tokenizer.save_pretrained(folder)


def _flag_controls(tokenizer: Any) -> None:
    """Make the tokens around pictures control tokens, as they are in Gemma's own tokenizer.

    Its file does not say so, and they would be taken for text that a model may write.
    """
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    around = [name for name in ("<start_of_image>", "<end_of_image>") if name in known]
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in around])


def _restore_pre_tokenizer(tokenizer: Any, gguf: Path) -> None:
    """Split text before merging as the model's own tokenizer does.

    The file only names the rule, and transformers takes GPT-2's for all of them. SmolLM's splits
    off digits first, which matters to the white space before a number.
    """
    from gguf import GGUFReader  # pyright: ignore[reportMissingImports]
    from tokenizers import pre_tokenizers

    rule = GGUFReader(gguf).fields["tokenizer.ggml.pre"].contents()
    if rule == "smollm":
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
