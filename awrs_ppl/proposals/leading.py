"""Which next outcomes lead a text to its end, and how far.

A part of the pressure to end (`pressure.py`), which says what it is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from awrs_ppl.constraints.completion import is_completion
from awrs_ppl.proposals.chain import LONGEST, Chain, ending_with
from awrs_ppl.tokens.twisted import heaviest, weights_of

if TYPE_CHECKING:
    from awrs_ppl.proposals.token_step import TokenStep

__all__ = ["leading", "tested_heaviest"]

# Tokens that end with the beginning of a completion are tried from this share of the weight on of
# those that begin it, so many at most.
_SHARE, _TRIED = 0.01, 8
# The heaviest others are tested with so many of the first places of the completion.
_PLACES = 4


async def tested_heaviest(
    step: TokenStep, chain: Chain, found: Mapping[int, Any]
) -> dict[int, int | None]:
    """The heaviest tokens that are not yet found, each with the place in the chain from which on
    it completes the text after them; None where none of the last and the first is one."""
    verdicts, outcomes = step.verdicts, step.outcomes
    assert outcomes is not None
    tokens, size, end = verdicts.vocabulary.tokens, verdicts.vocabulary.size, len(chain.text)
    places = [0]
    while places[-1] < end and len(places) < _PLACES:
        places.append(chain.next[places[-1]])
    tested: dict[int, int | None] = {}
    for token in heaviest(outcomes, _TRIED).tolist():
        if token >= size or token in found or weights_of(outcomes, np.array([token]))[0] <= 0.0:
            continue
        tested[token] = None
        for at in sorted({*places, end}, reverse=True):
            data = bytes(tokens[token]) + chain.text[at:]
            if await is_completion(verdicts.target, step.progress.states, verdicts.text.data, data):
                tested[token] = at
                break
    return tested


async def leading(step: TokenStep, chain: Chain) -> dict[int, tuple[Chain, int]]:
    """The outcomes that lead to the end, and how far: the chain and the place in it, the end of
    the text being -1."""
    verdicts, outcomes, text = step.verdicts, step.outcomes, chain.text
    assert verdicts.allowed is not None
    assert outcomes is not None
    vocabulary = verdicts.vocabulary
    size, tokens = vocabulary.size, vocabulary.tokens
    closing = set(verdicts.closings.tokens.tolist())
    found: dict[int, tuple[Chain, int]] = {
        token: (chain, len(tokens[token]))
        for token in vocabulary.prefix_index.within(text[:LONGEST])
        if verdicts.allowed[token] and token not in closing
    }
    if not text and step.ends:
        found[size] = chain, -1
    limit = _SHARE * float(weights_of(outcomes, np.array([*found], np.int64)).sum())
    ends = np.arange(size + 1, size + len(verdicts.closings.ends))
    for outcome in _heaviest(ends, weights_of(outcomes, ends), limit):
        if await verdicts.check(outcome):
            found[outcome] = chain, -1
    others = [ending_with(vocabulary, text[:n]) for n in range(1, min(len(text), 3) + 1)]
    for n, ids in reversed([*enumerate(others, 1)]):
        ids = ids[verdicts.allowed[ids]]
        for token in _heaviest(ids, weights_of(outcomes, ids), limit):
            if token in found or token in closing:
                continue
            data = bytes(tokens[token]) + text[n:]
            at = verdicts.target, step.progress.states, verdicts.text.data, data
            if await is_completion(*at):
                found[token] = chain, n
    return found


def _heaviest(ids: np.ndarray, weights: np.ndarray, limit: float) -> list[int]:
    """Those that weigh something and not less than the limit, the heaviest first, few at most."""
    order = np.argsort(-weights, kind="stable")[:_TRIED]
    return [int(ids[i]) for i in order if weights[i] > 0.0 and weights[i] >= limit]
