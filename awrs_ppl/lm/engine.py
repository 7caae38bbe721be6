"""What runs a language model, as far as the library knows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

__all__ = ["Engine"]


class Engine(Protocol):
    """What an `LM` needs of the machine that runs it. Contexts are tuples of token ids."""

    stats: Any

    async def next_logits(self, contexts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """One row of logits for each context, shape `[n, size]`."""
        ...

    async def sequence_logprobs(
        self,
        requests: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
        temperature: float = 1.0,
    ) -> list[torch.Tensor]:
        """For each (context, continuation) the log-probability of each continuation token."""
        ...
