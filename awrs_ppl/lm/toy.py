"""A language model small enough to enumerate, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from awrs_ppl.lm import LM
from awrs_ppl.lm.arguments import token_ids
from awrs_ppl.lm.stats import Stats
from awrs_ppl.tokens.text import as_bytes, as_str
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["ToyLM"]


class ToyLM(LM):
    """An exact LM over a few tokens, with float64 probabilities.

    `tokens` are texts or bytes; one end token is added behind them, and `special` ones behind
    that. By default the distribution after a context (the prompt's and the text's token ids) is
    the softmax of normal random numbers times `scale`, made from `seed` and the context. Or
    `weights(context)` gives non-negative weights, shape `[len(tokens) + 1]`, the end last; a byte
    of a prompt that no token spells has an id behind those of all tokens there.

    >>> lm = ToyLM(["a", "b"], weights=lambda context: [1, 1, 2])
    >>> import asyncio
    >>> asyncio.run(lm("a").log_probs([()])).round(3).tolist()
    [[-1.386, -1.386, -0.693]]
    """

    def __init__(
        self,
        tokens: Sequence[str | bytes],
        *,
        seed: int = 0,
        scale: float = 1.0,
        special: Sequence[str] = (),
        weights: Callable[[tuple[int, ...]], Sequence[float] | np.ndarray] | None = None,
    ) -> None:
        if not isinstance(tokens, Sequence) or isinstance(tokens, str | bytes):
            raise TypeError(f"ToyLM got {tokens!r}: give it a list of tokens, str or bytes")
        for token in tokens:
            if not isinstance(token, str | bytes):
                raise TypeError(f"ToyLM got the token {token!r}: tokens are str or bytes")
        spelled = [token.encode() if isinstance(token, str) else token for token in tokens]
        end = len(spelled)
        self.name = "toy"
        self.tokenizer = None
        self.vocabulary = Vocabulary(
            [*spelled, b"<end>", *(token.encode() for token in special)],
            ends=[end],
            special=range(end + 1, end + 1 + len(special)),
        )
        self.engine = _ToyEngine(self.vocabulary.size, end, seed, scale, weights)
        # Longest first, so that a text is spelled with its longest tokens.
        self._spelling = sorted(range(end), key=lambda i: -len(spelled[i]))

    def _tokenize(self, text: str, prompt: bool, before: tuple[int, ...] = ()) -> tuple[int, ...]:
        data = as_bytes(text)
        tokens = self.vocabulary.tokens
        ids: list[int] = []
        while data:
            for i in self._spelling:
                if tokens[i] and data.startswith(tokens[i]):
                    ids.append(i)
                    data = data[len(tokens[i]) :]
                    break
            else:
                # A byte without a token: it has an id of its own, which only a prompt can use.
                ids.append(self.vocabulary.size + data[0])
                data = data[1:]
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        size, tokens = self.vocabulary.size, self.vocabulary.tokens
        ids = token_ids("the text to decode", ids, size + 256)
        data = b"".join(tokens[i] if i < size else bytes([i - size]) for i in ids)
        return as_str(data)

    def __repr__(self) -> str:
        return f"ToyLM({self.vocabulary.size} tokens)"


class _ToyEngine:
    """Rows of log-probabilities, made from the context."""

    def __init__(self, size: int, end: int, seed: int, scale: float, weights: Any) -> None:
        self.stats = Stats()
        self._size, self._end, self._seed, self._scale = size, end, seed, scale
        self._weights = weights
        self._rows: dict[tuple[int, ...], np.ndarray] = {}

    def _row(self, context: tuple[int, ...]) -> np.ndarray:
        row = self._rows.get(context)
        if row is None:
            if self._weights is None:
                key = (self._seed, len(context), *context)
                logits = np.random.default_rng(key).normal(size=self._size) * self._scale
            else:
                logits = np.full(self._size, -np.inf)
                with np.errstate(divide="ignore"):
                    logits[: self._end + 1] = np.log(np.asarray(self._weights(context), float))
            row = self._rows[context] = logits - np.logaddexp.reduce(logits)
        return row

    async def next_logits(self, contexts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        self.stats.rows += len(contexts)
        self.stats.passes += 1
        self.stats.tokens += len(set(contexts))
        return torch.from_numpy(np.stack([self._row(context) for context in contexts]))

    async def sequence_logprobs(
        self,
        requests: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
        temperature: float = 1.0,
    ) -> list[torch.Tensor]:
        self.stats.passes += 1
        scores = []
        for context, text in requests:
            logps = [
                torch.log_softmax(
                    torch.from_numpy(self._row(context + text[:i]) / temperature), dim=-1
                )[token]
                if token < self._size
                else torch.tensor(-torch.inf, dtype=torch.float64)
                for i, token in enumerate(text)
            ]
            scores.append(torch.stack(logps) if logps else torch.zeros(0, dtype=torch.float64))
        return scores
