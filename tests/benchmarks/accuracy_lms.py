"""Variants of a language model that the problems of `accuracy.py` need."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from genlm.backend.llm.base import AsyncLM

from awrs_ppl import LM

__all__ = ["ByBatches", "closed_by_newlines", "of_length"]


@cache
def closed_by_newlines(lm: LM) -> LM:
    """The model where every token that begins with a newline ends the text, as in `checks.py`."""
    vocabulary = lm.vocabulary
    newlines = [i for i in vocabulary.text_ids.tolist() if vocabulary.tokens[i][:1] == b"\n"]
    engine: Any = lm.engine
    return LM.from_backend(engine, ends=[*vocabulary.ends.tolist(), *newlines])


@cache
def of_length(lm: LM, prompt: str, length: int) -> LM:
    """The model of texts of `length` tokens after `prompt`: no end before, and then nothing else.

    With an end like any other the weight of a long text would be that of ending just there.
    """
    engine: Any = _OfLength(lm, len(lm.prompt_ids(prompt)) + length)
    return LM.from_backend(engine, ends=lm.vocabulary.ends.tolist())


class ByBatches(AsyncLM):
    """An engine of genlm-backend that answers one context as a batch."""

    async def next_token_logprobs(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, token_ids: Sequence[int], lora_name: str | None = None
    ) -> torch.Tensor:
        """One row, shape `[vocab_size]`."""
        return (await self.batch_next_token_logprobs([token_ids]))[0]

    def next_token_logprobs_sync(self, token_ids: Any, lora_name: str | None = None) -> Any:
        return asyncio.run(self.next_token_logprobs(token_ids))


class _OfLength(ByBatches):
    """The rows of an engine; those of `whole` tokens, the prompt's included, are an end."""

    def __init__(self, lm: LM, whole: int) -> None:
        # Not AsyncLM's own __init__, which decodes the tokenizer's vocabulary once more.
        engine: Any = lm.engine
        self.engine, self.whole = engine, whole
        self.tokenizer = engine.tokenizer
        self.byte_vocab, self.str_vocab = engine.byte_vocab, engine.str_vocab
        self.is_text = torch.from_numpy(lm.vocabulary.is_text)
        self.end = int(lm.vocabulary.ends[0])

    async def batch_next_token_logprobs(
        self, token_ids_list: Sequence[Sequence[int]], lora_name: str | None = None
    ) -> torch.Tensor:
        """Log-probabilities, shape `[len(token_ids_list), vocab_size]`."""
        growing = [tuple(ids) for ids in token_ids_list if len(ids) < self.whole]
        rows = torch.full((len(token_ids_list), len(self.is_text)), -torch.inf)
        rows[:, self.end] = 0.0
        if growing:
            found = await self.engine.next_logits(growing)
            found = torch.where(self.is_text, found, -torch.inf).log_softmax(-1)
            rows[[i for i, ids in enumerate(token_ids_list) if len(ids) < self.whole]] = found
        return rows
