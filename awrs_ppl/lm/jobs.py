"""A request to the engine for transformers: one row of a forward pass."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Job"]


class Job(NamedTuple):
    """Next-token logits after `context`; or, with `targets`, the log-probabilities of these."""

    context: tuple[int, ...]
    targets: tuple[int, ...] = ()
    temperature: float = 1.0

    @property
    def fed(self) -> tuple[int, ...]:
        return self.context + self.targets[:-1]

    @property
    def past(self) -> tuple[int, ...]:
        """What precedes the first position whose logits are needed: only this need not be fed."""
        return self.context[:-1]

    @property
    def keep(self) -> int:
        return max(1, len(self.targets))

    def pieces(self, size: int) -> list[Job]:
        """The same as jobs of at most `size` targets."""
        return [
            self._replace(
                context=self.context + self.targets[:cut], targets=self.targets[cut : cut + size]
            )
            for cut in range(0, len(self.targets), size)
        ]

    def answer(self, logits: torch.Tensor) -> torch.Tensor:
        """What is requested, from logits `[positions, vocab_size]` up to the last token fed."""
        if not self.targets:
            return logits[-1].float()
        logits = logits[-len(self.targets) :].float() / self.temperature
        targets = torch.tensor(self.targets, device=logits.device)
        return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)
