"""A language model after a prompt, as a potential."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from awrs_ppl._genlm import PromptedLLM, Token
from awrs_ppl._messages import quoted
from awrs_ppl.constraints.arguments import Argument, hidden
from awrs_ppl.constraints.dense import Dense
from awrs_ppl.constraints.tables import LazyTables
from awrs_ppl.lm.arguments import several_texts
from awrs_ppl.tokens.stops import first_stop, stop_prefix
from awrs_ppl.tokens.text import as_bytes, as_str
from awrs_ppl.tokens.underflow import end_log_weight
from awrs_ppl.tokens.vocabulary import Closings, Vocabulary

if TYPE_CHECKING:
    from awrs_ppl.lm import LM

__all__ = ["PromptedLM"]


_TOGETHER = 64  # texts whose ends are weighed at once: each needs a row over all tokens

# The methods by which a `PromptedLLM` weighs tokens.
_WEIGHING = (
    "prefix",
    "complete",
    "score",
    "log_probability",
    "_log_probability",
    "_maybe_temper",
    "logw_next",
    "batch_logw_next",
    "_process_logw_next",
    "_process_logw_next_batch",
)


class PromptedLM(LazyTables, Dense):
    """The next-token distribution of `lm` after a prompt; made by `lm(prompt)`.

    Its vocabulary is the model's text tokens. `complete` is the probability that the text is
    these tokens and ends there, by an end token or by a token that begins with a stop; a text
    with a stop in it weighs 0.
    """

    called = "lm"
    arguments = (
        hidden("lm"),
        hidden("prompt"),
        hidden("stops"),
        Argument("_prompt_text", key=None),
        Argument("_stop", key=None, option="stop"),
        Argument("temperature", str, str, option="temperature", default=1.0),
        Argument("_lora_name", key=None, option="lora_name"),
    )

    def __init__(
        self, lm: LM, prompt: tuple[int, ...], stops: tuple[bytes, ...], temperature: float
    ) -> None:
        # Not genlm-control's own __init__: see LazyTables.
        self.lm = lm
        self.prompt = prompt
        self.stops = stops
        self.temperature = temperature

    def vocabulary_of_tables(self) -> Vocabulary:
        """That of the model."""
        return self.lm.vocabulary

    @classmethod
    def from_genlm(cls, potential: PromptedLLM) -> PromptedLM:
        """A `PromptedLLM` of genlm-control as one of ours, on the same backend.

        With its prompt, temperature, end tokens and adapter. Raises `TypeError` for one that
        weighs tokens by methods of its own, which would not be called.
        """
        from awrs_ppl.lm import LM

        for name in _WEIGHING:
            own = vars(potential).get(name, getattr(type(potential), name))
            if own is not getattr(PromptedLLM, name):
                raise TypeError(
                    f"{quoted(potential)} weighs tokens by a {name} of its own, and the library "
                    "calls the engine behind a PromptedLLM itself: change the weights there, in "
                    "an AsyncLM"
                )
        lm = LM.from_backend(
            potential.model, ends=potential.token_maps.eos_idxs, lora_name=potential.lora_name
        )
        return lm(potential.prompt_ids, temperature=potential.temperature)

    def encode(self, text: str | bytes) -> tuple[int, ...]:
        """The tokens that a text has behind the prompt."""
        if not isinstance(text, str | bytes):
            raise TypeError(f"encode got {quoted(text)}: give a text, a str or bytes")
        return self.lm._encode(as_str(text), False, self.prompt)

    @overload
    async def log_prob(self, text: str | bytes, *, ends: bool = False) -> float: ...
    @overload
    async def log_prob(self, text: Iterable[str | bytes], *, ends: bool = False) -> list[float]: ...
    async def log_prob(self, text: Any, *, ends: bool = False) -> float | list[float]:
        """The log-probability of texts that begin with `text`, or with `ends` of this text and its
        end; of several texts a list, in as few passes as they fit into.

        As `ctx.observe` weighs it: by the model's own tokenization of the text; -inf for a text
        with a stop in it, which would have ended before.

        >>> import asyncio
        >>> from awrs_ppl import ToyLM
        >>> lm = ToyLM(["a", "b"], weights=lambda context: [0.25, 0.25, 0.5])("a")
        >>> [round(math.exp(x), 3) for x in asyncio.run(lm.log_prob(["a", "ab"], ends=True))]
        [0.125, 0.031]
        """
        if isinstance(text, str | bytes):
            (found,) = await self.log_prob([text], ends=ends)
            return found
        given = list(map(as_str, several_texts(text)))
        tokens = [self.encode(one) for one in given]
        requests = [(self.prompt, ids) for ids in tokens]
        weights = await self.lm.scores(requests, self.temperature) if requests else []
        for start in range(0, len(given), _TOGETHER) if ends else ():
            batch = slice(start, start + _TOGETHER)
            rows = await self.log_probs(tokens[batch])
            for i, row in enumerate(rows, start):
                data = as_bytes(given[i])
                weights[i] += end_log_weight([row], self.lm.vocabulary, self.stops, data)
        pairs = zip(given, weights, strict=True)
        return [w if first_stop(as_bytes(t), self.stops) is None else -math.inf for t, w in pairs]

    @property
    def _prompt_text(self) -> str:
        return self.lm.shown(self.prompt)

    @property
    def _stop(self) -> str | list[str] | None:
        stops = [stop.decode("utf-8", "replace") for stop in self.stops]
        return stops[0] if len(stops) == 1 else stops or None

    @property
    def _lora_name(self) -> str | None:
        return self.lm.lora_name

    @property
    def closings(self) -> Closings:
        """The ways to end a text here, its end being no prefix of a stop."""
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
        if first_stop(b"".join(context), self.stops) is not None:
            return -math.inf
        requests = [(self.prompt, _ids(context))]
        (weight,) = await self.lm.scores(requests, self.temperature)
        return weight

    async def complete(self, context: Sequence[Token]) -> float:
        """The log-probability of these tokens and the end."""
        weight = await self.prefix(context)
        if weight == -math.inf:
            return weight
        (row,) = await self.log_probs([_ids(context)])
        data = b"".join(context)
        return weight + end_log_weight([row], self.lm.vocabulary, self.stops, data)

    async def logw_next(self, context: Sequence[Token]) -> Any:
        """Log-weights of the next text token and of the end (genlm-control's `LazyWeights`)."""
        return self.make_lazy_weights((await self._next([_ids(context)]))[0])

    async def batch_logw_next(self, contexts: Sequence[Sequence[Token]]) -> Any:
        """`logw_next` of several contexts in one forward pass, weights of shape `[n, V + 1]`."""
        return self.make_lazy_weights(await self._next([_ids(context) for context in contexts]))

    async def _next(self, texts: list[tuple[int, ...]]) -> np.ndarray:
        rows = await self.log_probs(texts)
        vocabulary = self.lm.vocabulary
        weights = np.full((len(texts), len(vocabulary.text_ids) + 1), -np.inf)
        for weight, given, text in zip(weights, rows, texts, strict=True):
            data = b"".join(bytes(vocabulary.tokens[i]) for i in text)
            tail = stop_prefix(data, self.stops)
            row = np.array(given, dtype=np.float64)
            row[vocabulary.closings(self.stops, tail).tokens] = -np.inf
            weight[:-1] = row[vocabulary.text_ids]
            weight[-1] = end_log_weight([given], vocabulary, self.stops, data)
        return weights


def _ids(context: Sequence[Token]) -> tuple[int, ...]:
    return tuple(token.token_id for token in context)  # pyright: ignore[reportAttributeAccessIssue]
