"""What follows from one verdict: every prefix of an allowed token is allowed, and every token with
a rejected prefix is rejected."""

from __future__ import annotations

from collections.abc import Sequence

from awrs_ppl.constraints.factor import is_over_bytes
from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.constraints.potential import State
from awrs_ppl.constraints.verdict_cache import StateVerdicts
from awrs_ppl.tokens.prefix_index import PrefixIndex, boundaries
from awrs_ppl.tokens.urn import Urn

__all__ = ["check_prefix", "propagate"]

_FEW = 32  # up to this many tokens are cheaper kept one by one than as a range


async def propagate(
    verdicts: NextVerdicts, outcome: int, allowed: bool, urn: Urn, threshold: float
) -> list[int]:
    """Learn what follows from a verdict, and take it out of `urn`; tokens newly accepted.

    An accepted token: every token that is a prefix of it is accepted. A rejected one: its prefixes
    are checked, shortest first, while the tokens with the prefix weigh at least `threshold`; all
    tokens with the shortest rejected prefix are rejected. Only where the factor is over bytes;
    ends are checked on their own.
    """
    if outcome >= verdicts.vocabulary.size:
        return []
    data = bytes(verdicts.vocabulary.tokens[outcome])
    boolean = verdicts.target.boolean
    over_bytes = [i for i in verdicts.known if is_over_bytes(boolean[i])]
    if allowed:
        return _accept_prefixes(verdicts, over_bytes, data, urn)
    for i in over_bytes:
        if outcome in verdicts.known[i].rejected:
            return await _reject_by_prefix(verdicts, i, data, urn, threshold)
    return []


def _accept_prefixes(
    verdicts: NextVerdicts, factors: Sequence[int], data: bytes, urn: Urn
) -> list[int]:
    """Learn that `factors` accept all tokens that are prefixes of what they have accepted."""
    vocabulary = verdicts.vocabulary
    accepting = [verdicts.known[i] for i in factors]
    found = []
    for token in vocabulary.prefix_index.within(data) if factors else ():
        for known in accepting:
            if token not in known.accepted and known.verdict(token, vocabulary) is None:
                known.accept(token, None)
        if urn.weight(token) > 0.0 and verdicts.is_accepted(token):
            found.append(token)
    return found


async def _reject_by_prefix(
    verdicts: NextVerdicts, i: int, data: bytes, urn: Urn, threshold: float
) -> list[int]:
    known, vocabulary = verdicts.known[i], verdicts.vocabulary
    prefix_index = vocabulary.prefix_index
    found: list[int] = []
    for cut in boundaries(data):
        prefix = data[:cut]
        spelled = tuple(prefix_index.spelling(prefix))
        answers = [known.verdict(token, vocabulary) for token in spelled]
        if prefix in known.prefixes or True in answers:
            continue
        first, last = prefix_index.range(prefix)
        if False not in answers:
            if urn.mass_of(prefix_index.ids[first:last]) < threshold:
                break
            state = await check_prefix(verdicts, i, prefix)
            if state is not None:
                known.accept_prefix(prefix)
                for token in spelled:
                    known.accept(token, state)
                # No other factor was checked.
                found += _accept_prefixes(verdicts, [i], prefix, urn)
                continue
        _reject_range(known, prefix_index, (first, last), urn)
        return found
    _reject_range(known, prefix_index, prefix_index.range(data), urn)
    return found


async def check_prefix(verdicts: NextVerdicts, i: int, prefix: bytes) -> State | None:
    """The state of a factor after a prefix of tokens, None if it rejects it."""
    verdicts.checks[i] += 1
    verdicts.prefix_checks += 1
    state = await verdicts.advance(i, None, prefix)
    if state is None:  # a count of 0 would be blamed, too
        verdicts.rejections[i] += 1
    return state


def _reject_range(
    known: StateVerdicts, prefix_index: PrefixIndex, ranks: tuple[int, int], urn: Urn
) -> None:
    first, last = ranks
    alike = prefix_index.ids[first:last]
    if last - first > _FEW:
        known.reject_range(first, last)
        urn.remove_all(alike)
        return
    for token in alike.tolist():
        known.reject(token)
        urn.remove(token)
