"""Whether a model is one that this library can run, and how: tried out when it is loaded.

The reference is the model alone: one context, no mask, no positions, no cache.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from awrs_ppl._messages import quoted
from awrs_ppl.lm.context_window import ContextWindow, named_lengths, position_rows
from awrs_ppl.lm.forward import Forward
from awrs_ppl.lm.jobs import Job
from awrs_ppl.lm.layers import LENGTHS

__all__ = ["Trial", "require_causal", "rows_apart"]

Context = tuple[int, ...]

# How much two ways to compute one distribution may differ, in total variation, as shares of what
# distributions after different contexts differ by: first the engine's and the model's alone, then
# the model's alone after the same tokens in contexts of several lengths; and what rounding alone
# makes. In float32 rounding gives 1e-6, in one model (HRM) 3e-4, and then as much in the second
# as in the first: so thirty times what it gives there is allowed, but never more than there. The
# smallest faults seen are 1e-3 (Doge's dynamic mask) and 1e-2 (Llama 4, which scales queries by
# position). In bfloat16 rounding gives up to a tenth, and a wrong mask or position a half and more.
_TOLERANCES = {torch.bfloat16: (0.25, 0.25, 2e-2), torch.float16: (0.05, 0.05, 5e-3)}
_TOLERANCE = (2e-4, 1e-3, 5e-6)

# How long the trial's contexts are trades the time to load against what is seen. A small model is
# tried well past every window that its configuration names, at a cost of milliseconds. Of a big one
# eight tokens, in as few passes as can be, show wrong masks, positions and padding; the windows of
# sliding layers are then taken from their kinds. What else the configuration names is passed if the
# tokens, times the weights, cost a second or two; else longer contexts are run alone.
_QUICK, _LONG, _BEYOND = 8, 64, 12
_CHEAP, _DEAR = 2e8, 5e10  # tokens times weights


def require_causal(model: Any) -> None:
    """Raise `ValueError` for a model that cannot be a causal language model as it is."""
    name = type(model).__name__
    if model.device.type == "meta":
        raise ValueError(
            f"LM got a {name} on the meta device, where weights have no values: load it with "
            "AutoModelForCausalLM.from_pretrained(...)"
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(
            f"LM got a {name}, a sequence-to-sequence model: give it a causal language model, as "
            "AutoModelForCausalLM.from_pretrained(...) loads it"
        )
    if not getattr(model.config, "return_dict", True):
        raise ValueError(
            f"LM got a {name} with config.return_dict=False: set model.config.return_dict = True"
        )


class Trial:
    """What a model alone gives after some contexts.

    `vocab_size` is the length of a row of its logits; `window` says how long contexts may be;
    `tokens` is how many a cache must hold to be tried.
    Raises `ValueError` if it is no causal language model.
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._model = model = forward.model
        self._config = model.config.get_text_config(decoder=True)
        self._rows: dict[Context, torch.Tensor] = {}
        self._futures: list[tuple[Context, int]] = []
        self._noise: float | None = None
        embedded = model.get_input_embeddings().weight
        tokens = self._tokens(len(embedded))
        self.window = ContextWindow.of(model, math.inf)
        length = self._length()
        # Of a short table some rows may be for padding.
        count = max(1, int(min(_QUICK, self.window.limit / 2)))
        first = self._shortened([*islice(tokens, count)])
        rows = position_rows(lambda: self._run(first), embedded, len(first))
        self.window = ContextWindow.of(model, rows).up_to([self.window.switch])
        if length == _QUICK:
            self._compose_quick(first, tokens)
        else:
            self._compose(first, length, tokens)
            try:
                self.require_past_only()
            except ValueError:
                # A choice of what to attend to may depend on all tokens, or on rounding.
                self.window = self.window.up_to(named_lengths(self._config))
                if self.window.switch >= length:
                    raise
                self._rows.clear()
                self._compose(first, length, tokens)
                self.require_past_only()
        self.tokens = sum(len(context) for call in self._calls for context in call)

    def _compose_quick(self, long: Context, tokens: Iterator[int]) -> None:
        """Make a trial of few tokens: rows that grow, return, and are padded.

        The model alone runs once. That it does not look ahead is seen from the answers after the
        first of its tokens, which are given without the others; only where these differ, the model
        alone is checked for looking ahead.
        """
        self._long = long
        self._calls = [[long[:2], long[:4]], [long, long[:6]]]
        self._steps = [[long[:3]]] if len(long) > 3 else []
        self._futures = [(self._shortened([*long[:4], *islice(tokens, 2)]), 4)]

    def _compose(self, first: Context, length: int, tokens: Iterator[int]) -> None:
        """Make the contexts of the trial, the longest of a `length`."""
        short = self._shortened(first[:6])
        long = self._long = self._shortened([*short[:4], *islice(tokens, length - 4)])
        half = len(long) // 2
        fork = self._shortened([*long[:half], *islice(tokens, 3)])
        other = (*fork[:-1], next(tokens))
        calls = [
            [short, long[:3]],
            [long[:half], long[:1]],
            [fork, long[:-2]],
            [long[:-1], fork[:-1], long[:5]],
            [long, fork, other],
        ]
        self._calls = [[context for context in call if context] for call in calls]
        self._steps = []
        self._futures = [(short, 4), (fork, half), (other, half)]
        self._futures += [(long[:n], n) for n in (1, 2, 5, 9, 17, 30, half, len(long) - 1) if n]

    def _tokens(self, known: int) -> Iterator[int]:
        """Tokens of text; control tokens may stand for an image or for padding."""
        control = {
            number
            for name, value in self._config.to_dict().items()
            if name.endswith(("token_id", "token_index"))
            for number in (value if isinstance(value, list | tuple) else [value])
        }
        if len(control) >= known:
            control.clear()
        rng = random.Random(0)
        return (t for t in iter(lambda: rng.randrange(known), None) if t not in control)

    def _length(self) -> int:
        """How many tokens the longest context of the trial has."""
        weights = sum(parameter.numel() for parameter in self._model.parameters())
        length = max(_QUICK, min(int(_CHEAP / weights), _LONG))
        for name in LENGTHS.values():
            seen = getattr(self._config, name, None)
            if isinstance(seen, int) and 2 * seen + _BEYOND <= _CHEAP / weights:
                length = max(length, 2 * seen + _BEYOND)
        for seen in named_lengths(self._config):
            if seen + _BEYOND > max(length, _DEAR / weights):
                self.window = self.window.up_to([seen])
                break
            length = max(length, seen + _BEYOND)
        return length

    def _shortened(self, context: Sequence[int]) -> Context:
        return tuple(context[: int(min(len(context), self.window.limit, self.window.switch))])

    def _run(self, context: Context) -> torch.Tensor:
        """The rows of logits after each token of the context, from the model alone."""
        if context not in self._rows:
            try:
                (found,) = self._forward.alone([context], [len(context)])
            except Exception as error:
                raise ValueError(self._cannot_run(error)) from error
            if found.shape[:-1] != (len(context),) or not self._has_head(found.shape[-1]):
                raise ValueError(self._no_head())
            self.vocab_size = int(found.shape[-1])
            self._rows[context] = found.float()
        return self._rows[context]

    def _has_head(self, size: int) -> bool:
        model = self._model
        known = len(model.get_input_embeddings().weight)
        return model.get_output_embeddings() is not None or size == known

    def _no_head(self) -> str:
        return (
            f"LM got a {type(self._model).__name__}, which gives no logits of next tokens (a bare "
            "model or a classifier has no head for them): give it a causal language model, as "
            "AutoModelForCausalLM.from_pretrained(...) loads it"
        )

    def _cannot_run(self, error: Exception) -> str:
        if isinstance(error, AttributeError) and "logits" in str(error):
            return self._no_head()
        said = str(error).strip().partition("\n")[0]
        dtypes = sorted({str(p.dtype) for p in self._model.parameters() if p.is_floating_point()})
        remedy = f"call model(input_ids=...) and see what it needs, config={quoted(self._config)}"
        if len(dtypes) > 1:
            remedy = f"its weights are {' and '.join(dtypes)}, so write model.to({dtypes[-1]})"
        name = type(self._model).__name__
        return f"LM got a {name} that cannot run ({type(error).__name__}: {said}): {remedy}"

    @property
    def longest(self) -> Context:
        """The longest of the contexts that are tried."""
        return self._long

    def require_past_only(self) -> None:
        """Raise `ValueError` if what follows a token changes what the model gives after it.

        Compares the first rows of contexts that share a prefix and continue differently.
        """
        futures, self._futures = self._futures, []
        if futures:
            self._noise = 0.0
        for context, shared in futures:
            shared = min(shared, len(context), len(self._long))
            if not shared:
                continue
            rows, whole = self._run(context)[:shared], self._run(self._long)[:shared]
            worst, at = _worst(rows_apart(whole, rows))
            self._noise = max(self._noise or 0.0, worst)
            if worst > self._allowed(None)[1]:
                raise ValueError(
                    f"LM got a {type(self._model).__name__}, which is no causal language model: "
                    f"what it gives after {at + 1} tokens depends on the tokens behind them (total "
                    f"variation {worst:.2g} between {len(self._long)} tokens and {len(context)}); "
                    "give it a model of the past only (of an encoder, with config.is_decoder=True)"
                )

    def _allowed(self, noise: float | None) -> tuple[float, float]:
        """How much the engine may differ from the model alone, and that from itself.

        `noise` is how much the model alone differs from itself; None: unknown.
        """
        share, most, rounding = _TOLERANCES.get(self._model.dtype, _TOLERANCE)
        whole = self._run(self._long)
        apart = rows_apart(whole[1:], whole[:-1]).nan_to_num()
        spread = float(apart.mean()) if len(apart) else 1.0
        alone = max(most * spread, rounding)
        if noise is None:
            return alone, alone
        return min(max(share * spread, 30 * noise, rounding), alone), alone

    def difference(
        self, run: Callable[[list[Job]], list[torch.Tensor]], has_states: bool = False
    ) -> str | None:
        """How answers of `run` differ from the model alone, or None.

        Behind a state many models compute one token in another way than several.
        """
        allowed, _ = self._allowed(self._noise)
        for call in [*self._calls, *(self._steps if has_states else [])]:
            found = run([Job(context) for context in call])
            for context, row in zip(call, found, strict=True):
                (worst, _) = _worst(rows_apart(self._expected(context)[None], row[None]))
                if worst > allowed:
                    return (
                        f"it differs from the model alone by {worst:.2g} in total variation after "
                        f"{len(context)} tokens"
                    )
        return None

    def _expected(self, context: Context) -> torch.Tensor:
        whole = next(c for c in self._rows if c[: len(context)] == context)
        return self._rows[whole][len(context) - 1]


def rows_apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Total variation, row by row; NaN where weights are damaged."""
    return (one.softmax(-1) - other.softmax(-1)).abs().sum(-1) / 2


def _worst(apart: torch.Tensor) -> tuple[float, int]:
    at = int(apart.nan_to_num(0.0).argmax())
    return float(apart.nan_to_num(0.0)[at]), at
