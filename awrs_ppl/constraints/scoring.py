"""The log-weight that a product gives to a whole text, evaluated at once and not token by token."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np

from awrs_ppl._concurrency import together
from awrs_ppl.constraints.factor import evaluate
from awrs_ppl.constraints.target import Target, start
from awrs_ppl.constraints.weighing import require_weights, weigh_texts
from awrs_ppl.tokens.stops import first_stop
from awrs_ppl.tokens.text import Text
from awrs_ppl.tokens.underflow import end_log_weight

__all__ = ["dense_log_weight", "score", "weighed"]


async def score(target: Target, text: Text, *, ends: bool) -> float:
    """The log-weight of a text as a prefix, or with its end if `ends`."""
    states = await start(target, text)
    if isinstance(states, str):
        return -math.inf
    if ends:
        for factor, state in zip(target.boolean, states, strict=True):
            if not await evaluate(factor, factor.accepts(state), text.data):
                return -math.inf
    weight = await dense_log_weight(target, text, ends=ends)
    return weight if weight == -math.inf else weight + await weighed(target, text, ends=ends)


async def weighed(target: Target, text: Text, *, ends: bool) -> float:
    """The log-weight that the weighing factors give to a text."""
    text = text if ends else text.without_pending(target.stops)
    answers = await weigh_texts([(weigher, text, ends) for weigher in target.weighted])
    return sum(require_weights(answers), 0.0)


async def dense_log_weight(target: Target, text: Text, *, ends: bool) -> float:
    """The log-weight that a product's language models give to a text, with its end if `ends`.

    -inf for a text with a stop in it: it would have ended before.
    """
    if first_stop(text.data, target.stops) is not None:
        return -math.inf
    requests = defaultdict(list)
    for lm in target.dense:
        requests[lm.lm, lm.temperature].append((lm.prompt, text.tokens))

    async def score(
        lm: Any, temperature: float, batch: list[Any]
    ) -> tuple[float, list[np.ndarray]]:
        weight = sum(await lm.scores(batch, temperature))
        if not ends:
            return weight, []
        contexts = [prompt + tokens for prompt, tokens in batch]
        return weight, list(await lm.log_probs(contexts, [temperature] * len(contexts)))

    answers = await together(score(lm, t, batch) for (lm, t), batch in requests.items())
    weight = sum(answer for answer, _ in answers)
    if ends and target.vocabulary is not None and weight > -math.inf:
        rows = [row for _, rows in answers for row in rows]
        weight += end_log_weight(rows, target.vocabulary, target.stops, text.data)
    return weight
