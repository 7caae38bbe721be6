"""Models that count positions themselves, by the columns of a pass: hooks tell them the true ones.

Others take `position_ids` and a mask. These are Llama 4, whose layers without rotary embeddings
scale queries by position, and Bloom and Falcon, which add to the attention a bias that grows with
the position of the key (ALiBi, arXiv 2108.12409). What a hook does depends on the pass alone, which
each thread has for its own: engines share models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import torch

__all__ = ["OwnPositions"]


class _Pass(NamedTuple):
    where: torch.Tensor  # [rows, width], the positions of the new tokens
    mask: Any  # additive, [rows, 1, width, columns]
    before: int  # columns before the new ones, by which a model counts


_PASS: ContextVar[_Pass | None] = ContextVar("pass", default=None)


class OwnPositions:
    """What a model has to be told, if it counts positions itself."""

    def __init__(self, model: Any) -> None:
        parts: dict[str, list[Any]] = {}
        for module in model.modules():
            parts.setdefault(type(module).__name__, []).append(module)
        scaled = [
            module
            for module in parts.get("Llama4TextAttention", [])
            if module.attn_temperature_tuning and not module.use_rope
        ]
        biased = parts.get("BloomBlock", [])
        if getattr(model.config, "alibi", False):
            biased = parts.get("FalconDecoderLayer", biased)
        self._biased, self._tells = bool(biased), bool(biased or scaled)
        if getattr(model, "_awrs_ppl_hooked", False):
            return  # here or in the one of which it is a copy
        model._awrs_ppl_hooked = self._tells
        for module in scaled:
            scale = partial(_llama4_scale, module.floor_scale, module.attn_scale)
            module.q_proj.register_forward_hook(partial(_scale_queries, scale))
        for block in biased:
            block.register_forward_pre_hook(_mask_block, with_kwargs=True)

    @contextlib.contextmanager
    def told(self, given: dict[str, Any], before: int) -> Iterator[dict[str, Any]]:
        """The arguments of a pass as the model takes them, which is told its positions meanwhile.

        Models with a bias make it for all columns of a mask of tokens. In a row a column is a
        position, so it is right if all are said to be tokens; which are seen the hooks say.
        Where the model makes masks and positions itself, it is told nothing.
        """
        mask = given.get("attention_mask")
        if not self._tells or mask is None:
            yield given
            return
        token = _PASS.set(_Pass(given["position_ids"], mask, before))
        try:
            if self._biased:
                tokens = mask.new_ones(len(mask), mask.shape[-1], dtype=torch.long)
                given = {**given, "attention_mask": tokens}
            yield given
        finally:
            _PASS.reset(token)


def _llama4_scale(floor: float, share: float, positions: torch.Tensor) -> torch.Tensor:
    return torch.log1p(torch.floor((positions.float() + 1.0) / floor)) * share + 1.0


def _scale_queries(
    scale: Callable[[torch.Tensor], torch.Tensor], module: Any, args: Any, queries: torch.Tensor
) -> torch.Tensor:
    """Queries such that, scaled by the columns they stand in, they are scaled by position."""
    found = _PASS.get()
    if found is None:
        return queries
    columns = torch.arange(queries.shape[1], device=queries.device) + found.before
    return (queries * (scale(found.where) / scale(columns))[..., None]).to(queries.dtype)


def _mask_block(module: Any, args: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """A block's mask with ours in it; its own hides less, as no row has more columns than all."""
    found = _PASS.get()
    if found is None:
        return None
    theirs = named["attention_mask"]
    both = found.mask if theirs is None or theirs.dtype == torch.bool else theirs + found.mask
    return args, {**named, "attention_mask": both}
