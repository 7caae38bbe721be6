"""How long the contexts of a model may be, and from which length on it treats them differently."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from awrs_ppl.errors import ContextLengthError

__all__ = ["ContextWindow", "named_lengths", "position_rows"]

_LIMITS = ("max_position_embeddings", "max_target_positions", "max_seq_len")
# What a model sees may change at these lengths. Left out are those that only say how a recurrence
# is computed (chunk sizes), and the windows and chunks that stand in the kinds of layers (`Reach`).
_LENGTHS = re.compile(
    r"window_size|attention_window_size|sliding_window_size|local_attention\w*"
    r"|keep_window_size|index_topk\w*|index_block_size"
)


@dataclass(frozen=True, slots=True)
class ContextWindow:
    """The lengths of contexts, in tokens, at which a model changes.

    A context may have at most `limit` tokens, as `source` says. Beyond `switch` the distributions
    after its first tokens differ from those in a shorter context, or may.
    """

    limit: float = math.inf
    source: str = ""
    switch: float = math.inf

    @classmethod
    def of(cls, model: Any, rows: float) -> ContextWindow:
        """What a model's configuration says, if its tables have `rows` rows for positions.

        A limit that nothing in the model knows of, as with ALiBi or where only a recurrence sees
        the order of tokens, is none.
        """
        config = model.config.get_text_config(decoder=True)
        name = next((n for n in _LIMITS if isinstance(getattr(config, n, None), int)), None)
        named = math.inf if name is None else getattr(config, name)
        source = "the rows of its position embeddings"
        if name is not None:
            source = f"config.{config.attribute_map.get(name, name)}"
        limit = min(rows, named if _is_bound(model, config, named) else math.inf)
        if limit == named < math.inf:
            limit = max(named, _stretched(config, named))
        return cls(limit, source, _rotary_switch(config))

    def up_to(self, lengths: Sequence[float]) -> ContextWindow:
        """The same with the smallest of these lengths as its switch, if that is earlier."""
        return replace(self, switch=min([self.switch, *lengths]))

    def check(self, length: int, model: Any) -> None:
        """Raise `ContextLengthError` for a context of more tokens than the model has positions."""
        if length > self.limit:
            raise ContextLengthError(
                f"a context of {length} tokens is more than the {self.limit:.0f} that "
                f"{type(model).__name__} has positions for ({self.source}): shorten the prompt, "
                "or give generate a smaller max_tokens"
            )


def _is_bound(model: Any, config: Any, named: float) -> bool:
    """Whether the limit that the configuration names is one of the model's computation."""
    if getattr(config, "alibi", False):
        return False
    if getattr(config, "max_seq_len", None) == named:
        return True  # MPT makes its ALiBi for so many tokens
    tables = (*model.named_parameters(), *model.named_buffers())
    return any("Rotary" in type(module).__name__ for module in model.modules()) or any(
        "pos" in name and tensor.dim() == 2 and 0 <= len(tensor) - named <= 2
        for name, tensor in tables
    )


def _rotary(config: Any) -> list[dict[str, Any]]:
    """The parameters of rotary embeddings, of each kind of layers."""
    found = getattr(config, "rope_parameters", None) or {}
    return [p for p in (found, *found.values()) if isinstance(p, dict) and "rope_type" in p]


def _stretched(config: Any, named: float) -> float:
    """The length for which rotary embeddings are stretched in all layers.

    A configuration may name as its limit what the model was trained with before.
    """
    lengths = []
    for parameters in _rotary(config):
        trained = parameters.get("original_max_position_embeddings", 0)
        if parameters["rope_type"] == "dynamic":
            trained = named
        lengths.append(trained * (parameters.get("factor") or 1))
    return min(lengths, default=0)


def _rotary_switch(config: Any) -> float:
    """From which length on rotary embeddings turn all positions differently."""
    switch = math.inf
    for parameters in _rotary(config):
        if parameters["rope_type"] == "longrope":
            switch = min(switch, parameters["original_max_position_embeddings"])
        elif parameters["rope_type"] == "dynamic":
            switch = min(switch, config.max_position_embeddings)
    return switch


def named_lengths(config: Any) -> list[int]:
    """The lengths at which, by the configuration's names, a model may change what it sees."""
    return sorted(
        value
        for name, value in config.to_dict().items()
        if isinstance(value, int) and value > 0 and _LENGTHS.fullmatch(name)
    )


def position_rows(run: Callable[[], Any], tokens: torch.Tensor, length: int) -> float:
    """How many tokens the tables of positions have rows for that `run` looks up.

    `run` makes one pass over `length` tokens. Some tables begin with rows for padding: what
    counts are those from the first token's on. Looked up in `tokens` are the tokens themselves.
    """
    with _Lookups(tokens, length) as lookups:
        run()
    return lookups.rows


class _Lookups(TorchFunctionMode):
    def __init__(self, tokens: torch.Tensor, length: int) -> None:
        super().__init__()
        self._tokens, self._length = tokens, length
        self.rows = math.inf

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.nn.functional.embedding and args[1] is not self._tokens:
            index = args[0].flatten()
            if 1 < len(index) == self._length and bool((index.diff() == 1).all()):
                self.rows = min(self.rows, len(args[1]) - int(index[0]))
        return func(*args, **(kwargs or {}))
