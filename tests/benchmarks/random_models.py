"""Language models with random weights of the shapes of real ones, made on the spot.

Nothing is downloaded: their tokenizer has the bytes, and words of up to four letters.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from string import ascii_lowercase
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from awrs_ppl import LM

__all__ = ["SHAPES", "random_lm"]

VOCABULARY = 49_152
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    # Of Mistral 7B, but for the vocabulary.
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


@cache
def _tokenizer() -> PreTrainedTokenizerFast:
    tokens = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: list[tuple[str, str]] = []
    space, letters = "Ġ", ascii_lowercase
    for start, length in ((letters, 1), (space, 1), (letters, 2), (space, 2), (letters, 3)):
        for begun in product(start, *[letters] * (length - 1)):
            merges += [("".join(begun), letter) for letter in letters]
    merges = merges[: VOCABULARY - len(tokens)]
    tokens += ["".join(merge) for merge in merges]
    made = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def random_lm(
    shape: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    positions: int = 16_384,
    memory: float = 2 * 2**30,
) -> LM:
    """A model of a shape of `SHAPES`, of Llama's architecture, the same each time."""
    config: Any = LlamaConfig(
        **SHAPES[shape],
        vocab_size=VOCABULARY,
        max_position_embeddings=positions,
        tie_word_embeddings=shape != "7b",
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(0)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return LM(model.eval(), tokenizer=_tokenizer(), memory=memory)
