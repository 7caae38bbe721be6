"""A language model after a prompt, as a potential."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from genlm.backend.tokenization import Token
from genlm.control.potential.built_in.llm import PromptedLLM

from awrs_ppl.potential import Multiplicative
from awrs_ppl.vocabulary import Closings

if TYPE_CHECKING:
    from awrs_ppl.lm import LM

__all__ = ["PromptedLM"]


class PromptedLM(Multiplicative):
    """The next-token law of `lm` after a prompt; made by `lm(prompt)`.

    Its vocabulary are the model's text tokens. `complete` is the probability that the text is
    these tokens and ends there, by an end token or by a token that begins with a stop.
    """

    def __init__(
        self, lm: LM, prompt: tuple[int, ...], stops: tuple[bytes, ...], temperature: float
    ) -> None:
        super().__init__(lm.vocabulary.text_tokens, tables=lm.vocabulary.tables)
        self.lm = lm
        self.prompt = prompt
        self.stops = stops
        self.temperature = temperature

    @classmethod
    def from_genlm(cls, potential: PromptedLLM) -> PromptedLM:
        """A `PromptedLLM` of genlm-control as one of ours, on the same backend."""
        from awrs_ppl.lm import LM

        lm = LM.from_backend(potential.model, ends=potential.token_maps.eos_idxs)
        return lm(potential.prompt_ids, temperature=potential.temperature)

    @property
    def key(self) -> Hashable:
        """Equal for the same model, prompt, stops and temperature."""
        return (self.lm, self.prompt, self.stops, self.temperature)

    @property
    def fingerprint(self) -> str:
        """What a replay compares: the prompt, too."""
        return repr(self)

    def __repr__(self) -> str:
        options = [repr(self.lm.decode(self.prompt))]
        if self.stops:
            stops = [stop.decode("utf-8", "replace") for stop in self.stops]
            options.append(f"stop={stops[0] if len(stops) == 1 else stops!r}")
        if self.temperature != 1.0:
            options.append(f"temperature={self.temperature}")
        return f"lm({', '.join(options)})"

    @property
    def closings(self) -> Closings:
        """The ways to end a text here, its end being no beginning of a stop."""
        return self.lm.vocabulary.closings(self.stops, b"")

    async def log_probs(self, texts: Sequence[tuple[int, ...]]) -> np.ndarray:
        """Log-probabilities of every token after each text, shape `[len(texts), size]`.

        One batch; see `LM.log_probs`.
        """
        contexts = [self.prompt + text for text in texts]
        return await self.lm.log_probs(contexts, [self.temperature] * len(contexts))

    async def score(self, context: Sequence[Any]) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The log-weight of tokens, with the end if the last one is the end of sequence."""
        if context and context[-1] == self.eos:
            return await self.complete(context[:-1])
        return await self.prefix(context)

    async def prefix(self, context: Sequence[Token]) -> float:
        """The log-probability that the text begins with these tokens."""
        return (await self.score_after([(self.prompt, _ids(context))], ends=False))[0]

    async def complete(self, context: Sequence[Token]) -> float:
        """The log-probability of these tokens and the end."""
        return (await self.score_after([(self.prompt, _ids(context))], ends=True))[0]

    async def score_after(
        self, requests: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], *, ends: bool
    ) -> list[float]:
        """The log-probability of each (prompt, text), with the end if `ends`; one batch.

        The prompts may be others than this potential's own; its stops and temperature hold.
        """
        scores = await self.lm.engine.sequence_logprobs(requests, self.temperature)
        weights = [float(score.double().sum()) for score in scores]
        if ends:
            # The ways to end without adding text: the end tokens, and the stops themselves.
            contexts = [prompt + text for prompt, text in requests]
            rows = await self.lm.log_probs(contexts, [self.temperature] * len(contexts))
            ids = self.closings.ids[0]
            weights = [
                weight + float(np.logaddexp.reduce(row[ids].astype(np.float64)))
                for weight, row in zip(weights, rows, strict=True)
            ]
        return weights

    async def logw_next(self, context: Sequence[Token]) -> Any:
        """Log-weights of the next text token and of the end (genlm-control's `LazyWeights`)."""
        return self.make_lazy_weights((await self._next([_ids(context)]))[0])

    async def batch_logw_next(self, contexts: Sequence[Sequence[Token]]) -> Any:
        """`logw_next` of several contexts in one forward pass, weights of shape `[n, V + 1]`."""
        return self.make_lazy_weights(await self._next([_ids(context) for context in contexts]))

    async def _next(self, texts: list[tuple[int, ...]]) -> np.ndarray:
        rows = await self.log_probs(texts)
        vocabulary = self.lm.vocabulary
        closings = self.closings
        end = np.logaddexp.reduce(rows[:, closings.ids[0]].astype(np.float64), axis=1)
        rows = np.array(rows, dtype=np.float64)
        rows[:, closings.tokens] = -np.inf
        return np.concatenate([rows[:, vocabulary.text_ids], end[:, None]], axis=1)


def _ids(context: Sequence[Token]) -> tuple[int, ...]:
    return tuple(token.token_id for token in context)  # pyright: ignore[reportAttributeAccessIssue]
