"""How far back the tokens of a layer see, by their true positions."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Reach"]


class Reach(NamedTuple):
    """What tokens of one kind of layers see: themselves and tokens before them.

    `kind` is the name that transformers has for it, under which models take its mask. `length`
    counts the tokens of a sliding window, itself included, or of a chunk: a chunk begins at each
    multiple of it, and nothing is seen across a border.
    """

    kind: str = "full_attention"
    length: int = 0

    def first(self, position: int) -> int:
        """The first position that is seen from there, or from behind there."""
        if self.kind == "sliding_attention":
            return max(0, position - self.length + 1)
        if self.kind == "chunked_attention":
            return position // self.length * self.length
        return 0

    def seen(self, columns: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Which positions `columns` tokens at `where` see; broadcast over both."""
        past = columns <= where
        if self.kind == "sliding_attention":
            return past & (columns > where - self.length)
        if self.kind == "chunked_attention":
            return past & (columns >= where // self.length * self.length)
        return past
