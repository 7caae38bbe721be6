"""The engines of genlm-backend (vLLM, SGLang, MLX, ...), for one big machine or many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch

from awrs_ppl.errors import AwrsError, VocabularyError
from awrs_ppl.lm.stats import Stats
from awrs_ppl.lm.token_bytes import token_bytes
from awrs_ppl.lm.transformers import TransformersEngine

if TYPE_CHECKING:
    from awrs_ppl._genlm import AsyncLM

__all__ = ["BackendEngine"]


class BackendEngine:
    """An `AsyncLM` of genlm-backend, called in batches; caching is its own.

    `lora_name` is the adapter that it runs with. Rows of its model that are no tokens (padding)
    count in the softmax as in the model alone.
    """

    def __init__(self, async_lm: AsyncLM, lora_name: str | None = None) -> None:
        self.async_lm = async_lm
        self.lora_name = lora_name
        self.tokenizer = async_lm.tokenizer
        self.token_bytes = _bytes_of(async_lm)
        # A model's row may be longer than its tokenizer (padding) or shorter (tokens added).
        self.vocab_size = max(len(self.token_bytes), _row_length(async_lm))
        self.stats = Stats()

    async def next_logits(self, contexts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Log-probabilities serve as logits: a softmax does not see the difference."""
        started = time.perf_counter()
        distinct = list(dict.fromkeys(contexts))
        # Named only where there is one: an engine need not know of adapters.
        adapter = {} if self.lora_name is None else {"lora_name": self.lora_name}
        rows = await self.async_lm.batch_next_token_logprobs([list(c) for c in distinct], **adapter)
        self.stats.rows += len(contexts)
        self.stats.passes += 1
        self.stats.tokens += sum(map(len, distinct))
        self.stats.seconds += time.perf_counter() - started
        row_of = {context: i for i, context in enumerate(distinct)}
        rows = rows[[row_of[context] for context in contexts]]
        if rows.shape[1] > self.vocab_size:
            raise AwrsError(
                f"{self.async_lm!r} gave rows of {rows.shape[1]} log-probabilities, and of "
                f"{self.vocab_size} when it was loaded"
            )
        missing = self.vocab_size - rows.shape[1]
        return torch.nn.functional.pad(rows, (0, missing), value=-torch.inf) if missing else rows

    async def sequence_logprobs(
        self,
        requests: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
        temperature: float = 1.0,
    ) -> list[torch.Tensor]:
        """One batch over all prefixes of all continuations."""
        contexts = [context + text[:i] for context, text in requests for i in range(len(text))]
        if not contexts:
            return [torch.zeros(0) for _ in requests]
        rows = torch.log_softmax(await self.next_logits(contexts) / temperature, dim=-1)
        tokens = torch.tensor([i for _, text in requests for i in text], device=rows.device)
        picked = rows.gather(1, tokens[:, None])[:, 0]
        return list(picked.split([len(text) for _, text in requests]))


def _bytes_of(async_lm: AsyncLM) -> list[Any]:
    """The bytes of an engine's tokens: by its tokenizer, or else those that it reports."""
    if isinstance(async_lm, TransformersEngine):
        return async_lm.token_bytes
    try:
        return token_bytes(async_lm.tokenizer)
    except (AttributeError, VocabularyError):
        return async_lm.byte_vocab


def _row_length(async_lm: AsyncLM) -> int:
    """How many log-probabilities the engine's model gives for a next token, as one row shows."""
    if isinstance(async_lm, TransformersEngine):
        return async_lm.vocab_size

    def row() -> Any:
        try:
            return async_lm.next_token_logprobs_sync([0])
        except NotImplementedError:  # an engine that draws tokens does not need it
            return asyncio.run(async_lm.next_token_logprobs([0]))

    # Some engines have an event loop of their own for this, and one may be running here.
    with ThreadPoolExecutor(max_workers=1) as other_thread:
        return len(other_thread.submit(row).result())
