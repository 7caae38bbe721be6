"""The forward pass of a model, and what the model alone gives: no cache, no mask, no positions."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch

__all__ = ["Forward"]


class Forward:
    """The forward passes of a model of transformers, always in evaluation mode."""

    def __init__(self, model: Any) -> None:
        self.model = model
        takes = inspect.signature(model.forward).parameters
        self._takes = None if any(p.kind is p.VAR_KEYWORD for p in takes.values()) else {*takes}
        self._modules: list[torch.nn.Module] = list(model.modules())
        self._leaves_out = True  # logits that are not needed
        # Dynamic rotary embeddings remember the longest context that they have seen.
        self._remembers = any(hasattr(module, "max_seq_len_cached") for module in self._modules)

    def output(self, **arguments: Any) -> Any:
        """What the model gives in one pass."""
        with self._evaluating():
            return self.model(**arguments)

    def alone(self, rows: Sequence[Sequence[int]], keep: Sequence[int]) -> list[torch.Tensor]:
        """The logits at the last `keep` positions of each row, from the model alone.

        Shorter rows are padded on the right, where no token of theirs looks: padding on the left
        enters a recurrent state, and needs masks and positions that models read differently.
        """
        width = max(map(len, rows))
        most = max(width - len(row) + n for row, n in zip(rows, keep, strict=True))
        # With a token that is no padding to the model, which may count it differently.
        ids = [[*row, *[row[-1]] * (width - len(row))] for row in rows]
        arguments = {
            "input_ids": torch.tensor(ids, device=self.model.device),
            "logits_to_keep": most,
            "use_cache": False,
        }
        logits = self.output(**self.taken(**arguments)).logits
        if most < width:
            self._leaves_out = logits.shape[1] < width
        first = width - logits.shape[1]
        return [
            row_logits[len(row) - n - first : len(row) - first]
            for row_logits, row, n in zip(logits, rows, keep, strict=True)
        ]

    def taken(self, **arguments: Any) -> dict[str, Any]:
        """Those of the arguments that the model takes."""
        if self._takes is None:
            return arguments
        return {k: v for k, v in arguments.items() if k in self._takes}

    def kept(self, needed: int, width: int) -> int:
        """How many positions of a row the model computes logits at, if the last are needed."""
        return needed if self._leaves_out else width

    def forget(self) -> None:
        """Bring rotary embeddings that grew with a long context back to short ones."""
        if self._remembers:
            self.alone([[0]], [1])

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """No dropout, whatever mode the model was put into; it is left in that mode."""
        modules = self.model.modules() if self.model.training else self._modules
        training = [module for module in modules if module.training]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True
