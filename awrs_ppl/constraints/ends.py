"""The ways to end a text at one context, and what is known of them.

An end is checked by `accepts` and follows from nothing. Its verdict is kept with the state of each
constraint, by the last bytes that it keeps; where a stop began in tokens that the states have
seen already, it belongs to this context alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from awrs_ppl.constraints.adapters import Text
from awrs_ppl.constraints.potential import State

if TYPE_CHECKING:
    from awrs_ppl.constraints.next_verdicts import Knowledge
    from awrs_ppl.tokens.urn import Urn
    from awrs_ppl.tokens.vocabulary import Closing

__all__ = ["check_end", "end_verdict", "known_ends", "settle_ends"]


def known_ends(knowledge: Knowledge, verdict: bool) -> list[int]:
    """The ways to end whose verdict is known and is this one."""
    return [
        knowledge.vocabulary.size + j
        for j in range(len(knowledge.closings.ends))
        if end_verdict(knowledge, j) is verdict
    ]


def end_verdict(knowledge: Knowledge, j: int) -> bool | None:
    """Of a way to end: by all factors, if they are all checked ones and were evaluated."""
    end = knowledge.closings.ends[j]
    found = knowledge.ends.get(knowledge.vocabulary.size + j)
    if found is None and not end.drop and knowledge.known:
        verdicts = [known.ends.get(end.keep) for known in knowledge.known.values()]
        if False in verdicts:
            return False
        if not knowledge.masked and all(verdicts):
            return True
    return found


async def check_end(knowledge: Knowledge, outcome: int) -> bool:
    """Whether the text may end in a way; remembered."""
    j = outcome - knowledge.vocabulary.size
    verdict = end_verdict(knowledge, j)
    if verdict is None:
        verdict = await _evaluate(knowledge, knowledge.closings.ends[j])
    knowledge.ends[outcome] = verdict
    return verdict


async def settle_ends(knowledge: Knowledge, urn: Urn) -> None:
    """Decide every way to end that has mass, and take out the others.

    With masks alone this leaves nothing unknown: what is left in `urn` is allowed.
    """
    for j in range(len(knowledge.closings.ends)):
        outcome = knowledge.vocabulary.size + j
        if urn.weight(outcome) > 0.0 and not await knowledge.check(outcome):
            urn.remove(outcome)


async def _evaluate(knowledge: Knowledge, end: Closing) -> bool:
    text = end.apply(knowledge.text.data)
    for i, factor in enumerate(knowledge.target.boolean):
        known = knowledge.known.get(i)
        if known is not None and not end.drop and end.keep in known.ends:
            if known.ends[end.keep]:
                continue
            return False
        if known is not None:
            knowledge.checks[i] += 1
        state: State | None = knowledge.states[i]
        if end.drop:
            # The stop began in tokens whose bytes the states have already seen.
            state = await knowledge.timed(i, factor.begin(Text(text)), text)
        elif end.keep:
            state = await knowledge.timed(i, factor.advance(state, None, end.keep), text)
        verdict = state is not None and await knowledge.timed(i, factor.accepts(state), text)
        if known is not None and not end.drop:
            known.ends[end.keep] = verdict
            known.cost += 100 + len(end.keep)
        if not verdict:
            knowledge.rejections[i] += 1
            return False
    return True
