"""The engines of genlm-backend (vLLM, SGLang, MLX, ...), for one big machine or many."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from awrs_ppl.lm.stats import Stats

if TYPE_CHECKING:
    from genlm.backend.llm.base import AsyncLM

__all__ = ["BackendEngine"]


class BackendEngine:
    """An `AsyncLM` of genlm-backend, asked in batches; it caches what it caches itself."""

    def __init__(self, async_lm: AsyncLM) -> None:
        self.async_lm = async_lm
        self.tokenizer = async_lm.tokenizer
        self.byte_vocab = async_lm.byte_vocab
        self.vocab_size = len(async_lm.byte_vocab)
        self.stats = Stats()

    async def next_logits(self, contexts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Log-probabilities serve as logits: a softmax does not see the difference."""
        started = time.perf_counter()
        distinct = list(dict.fromkeys(contexts))
        rows = await self.async_lm.batch_next_token_logprobs([list(c) for c in distinct])
        self.stats.rows += len(contexts)
        self.stats.passes += 1
        self.stats.tokens += sum(map(len, distinct))
        self.stats.seconds += time.perf_counter() - started
        place = {context: i for i, context in enumerate(distinct)}
        rows = rows[[place[context] for context in contexts]]
        # A model's row may be longer than its tokenizer (padding) or shorter (tokens added).
        missing = self.vocab_size - rows.shape[1]
        if missing > 0:
            rows = torch.nn.functional.pad(rows, (0, missing), value=-torch.inf)
        return rows[:, : self.vocab_size]

    async def sequence_logprobs(
        self,
        requests: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
        temperature: float = 1.0,
    ) -> list[torch.Tensor]:
        """One batch over all beginnings of all continuations."""
        contexts = [context + text[:i] for context, text in requests for i in range(len(text))]
        if not contexts:
            return [torch.zeros(0) for _ in requests]
        rows = torch.log_softmax(await self.next_logits(contexts) / temperature, dim=-1)
        tokens = torch.tensor([i for _, text in requests for i in text], device=rows.device)
        picked = rows.gather(1, tokens[:, None])[:, 0]
        return list(picked.split([len(text) for _, text in requests]))
