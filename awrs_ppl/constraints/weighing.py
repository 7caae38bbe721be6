"""Potentials that weigh, evaluated on texts in batches."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from awrs_ppl._concurrency import together
from awrs_ppl._genlm import Potential
from awrs_ppl.constraints.genlm_factor import Alphabet, checked_weight
from awrs_ppl.errors import ContextLengthError
from awrs_ppl.tokens.text import Text

__all__ = ["Weigher", "require_weights", "weigh_texts"]


@dataclass(frozen=True, slots=True)
class Weigher:
    """A potential that weighs: W is multiplied by prefix(xv)/prefix(x), at the end by
    complete(x)/prefix(x)."""

    potential: Potential
    alphabet: Alphabet

    async def prefixes(self, texts: Sequence[Text]) -> list[float]:
        """The log-weight of each text as a prefix, in one batch."""
        return await self._weigh(texts, self.potential.batch_prefix, whole=False)

    async def completes(self, texts: Sequence[Text]) -> list[float]:
        """The log-weight of each text with its end, in one batch."""
        return await self._weigh(texts, self.potential.batch_complete, whole=True)

    async def _weigh(self, texts: Sequence[Text], batch: Any, *, whole: bool) -> list[float]:
        contexts = [
            self.alphabet.context(text) if not whole or self.alphabet.is_whole(text) else None
            for text in texts
        ]
        spelled = [i for i, context in enumerate(contexts) if context is not None]
        weights = [-math.inf] * len(texts)
        if spelled:
            answers = await batch([contexts[i] for i in spelled])
            for i, answer in zip(spelled, answers, strict=True):
                weights[i] = checked_weight(answer, self.potential, texts[i].data)
        return weights


Weight = float | ContextLengthError


async def weigh_texts(requests: Sequence[tuple[Weigher, Text, bool]]) -> list[Weight]:
    """The log-weights of texts as prefixes, or with their ends, in one batch for each potential.

    For a text too long for a language model that weighs it, the error.
    """
    batches: dict[Any, list[int]] = defaultdict(list)
    for i, (weigher, _, ends) in enumerate(requests):
        alphabet = weigher.alphabet
        batches[id(weigher.potential), alphabet.kind, id(alphabet.tokens), ends].append(i)
    weights: list[Weight] = [0.0] * len(requests)

    async def evaluate(members: list[int], ends: bool) -> None:
        weigher = requests[members[0]][0]
        texts = [requests[i][1] for i in members]
        try:
            answers = await (weigher.completes(texts) if ends else weigher.prefixes(texts))
        except ContextLengthError as error:
            if len(members) > 1:
                await together(evaluate([i], ends) for i in members)
                return
            answers = [error]
        for i, answer in zip(members, answers, strict=True):
            weights[i] = answer

    await together(evaluate(members, key[-1]) for key, members in batches.items())
    return weights


def require_weights(weights: Sequence[Weight]) -> tuple[float, ...]:
    """The weights of one text. Raises the error that is among them."""
    for weight in weights:
        if isinstance(weight, ContextLengthError):
            raise weight
    return tuple(w for w in weights if not isinstance(w, ContextLengthError))
