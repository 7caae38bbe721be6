"""What follows from one verdict: every beginning of an allowed token is allowed, and all that
begins like a rejected beginning is rejected."""

from __future__ import annotations

from collections.abc import Sequence

from awrs_ppl.constraints.adapters import ByteFactor
from awrs_ppl.constraints.next_verdicts import Knowledge
from awrs_ppl.constraints.verdict_cache import Verdicts
from awrs_ppl.tokens.prefix_index import Lexicon, boundaries
from awrs_ppl.tokens.urn import Urn

__all__ = ["follow"]

_FEW = 32  # so many tokens are cheaper kept one by one than as a range


async def follow(
    knowledge: Knowledge, outcome: int, allowed: bool, urn: Urn, worth: float
) -> list[int]:
    """Learn what follows from a verdict, and take it out of `urn`; tokens newly accepted.

    An accepted token: every token it begins with is accepted. A rejected one: its beginnings
    are asked about, shortest first, while the tokens that begin so hold at least `worth`; all
    tokens that begin like the shortest rejected one are rejected. Only where the factor is
    over bytes; ends follow from nothing.
    """
    if outcome >= knowledge.vocabulary.size:
        return []
    data = bytes(knowledge.vocabulary.tokens[outcome])
    boolean = knowledge.target.boolean
    over_bytes = [i for i in knowledge.known if isinstance(boolean[i], ByteFactor)]
    if allowed:
        return _accept_beginnings(knowledge, over_bytes, data, urn)
    for i in over_bytes:
        if outcome in knowledge.known[i].rejected:
            return await _reject_alike(knowledge, i, data, urn, worth)
    return []


def _accept_beginnings(
    knowledge: Knowledge, factors: Sequence[int], data: bytes, urn: Urn
) -> list[int]:
    """Learn that `factors` accept all tokens that begin what they have accepted."""
    vocabulary = knowledge.vocabulary
    found = []
    for token in vocabulary.lexicon.within(data) if factors else ():
        for verdicts in (knowledge.known[i] for i in factors):
            if verdicts.verdict(token, vocabulary) is None:
                verdicts.accept(token, None)
        if urn.weight(token) > 0.0 and knowledge.is_accepted(token):
            found.append(token)
    return found


async def _reject_alike(
    knowledge: Knowledge, i: int, data: bytes, urn: Urn, worth: float
) -> list[int]:
    verdicts, vocabulary = knowledge.known[i], knowledge.vocabulary
    lexicon = vocabulary.lexicon
    found: list[int] = []
    for cut in boundaries(data):
        beginning = data[:cut]
        spelled = tuple(lexicon.spelling(beginning))
        known = [verdicts.verdict(token, vocabulary) for token in spelled]
        if beginning in verdicts.begun or True in known:
            continue
        first, last = lexicon.range(beginning)
        if False not in known:
            if urn.mass_of(lexicon.ids[first:last]) < worth:
                break
            state = await knowledge.ask_beginning(i, beginning)
            if state is not None:
                verdicts.begin(beginning)
                for token in spelled:
                    verdicts.accept(token, state)
                # No other factor was asked.
                found += _accept_beginnings(knowledge, [i], beginning, urn)
                continue
        _reject_range(verdicts, lexicon, (first, last), urn)
        return found
    _reject_range(verdicts, lexicon, lexicon.range(data), urn)
    return found


def _reject_range(verdicts: Verdicts, lexicon: Lexicon, ranks: tuple[int, int], urn: Urn) -> None:
    first, last = ranks
    alike = lexicon.ids[first:last]
    if last - first > _FEW:
        verdicts.reject_range(first, last)
        urn.remove_all(alike)
        return
    for token in alike.tolist():
        verdicts.reject(token)
        urn.remove(token)
