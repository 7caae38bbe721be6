"""The ways to end a text at one context, and what is known of them.

An end is checked by `accepts`; no other verdict decides it. Its verdict is kept with the state of
each constraint, by the last bytes that it keeps. Where a stop began in tokens that the states
have already read, the verdict belongs to this context alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from awrs_ppl.constraints.potential import State
from awrs_ppl.constraints.verdict_cache import TailDraws
from awrs_ppl.tokens.text import Text

if TYPE_CHECKING:
    from awrs_ppl.constraints.next_verdicts import NextVerdicts
    from awrs_ppl.tokens.vocabulary import Closing

__all__ = ["accepted_end", "check_acceptance", "check_end", "end_verdict", "is_over", "known_ends"]


def known_ends(verdicts: NextVerdicts) -> tuple[list[int], list[int]]:
    """The ways to end that are known to be allowed, and those known to be rejected."""
    size, accepted, rejected = verdicts.vocabulary.size, [], []
    for outcome in range(size, size + len(verdicts.closings.ends)):
        verdict = end_verdict(verdicts, outcome)
        if verdict is not None:
            (accepted if verdict else rejected).append(outcome)
    return accepted, rejected


def end_verdict(verdicts: NextVerdicts, outcome: int) -> bool | None:
    """The verdict on a way to end by all factors, masked ones too; None if it is not known."""
    if outcome - verdicts.vocabulary.size in verdicts.closings.barred:
        return False
    return accepted_end(verdicts, outcome)


def accepted_end(verdicts: NextVerdicts, outcome: int) -> bool | None:
    """The verdict on a way to end, also where a text that need not end is not over by it."""
    end = verdicts.closings.ends[outcome - verdicts.vocabulary.size]
    found = verdicts.ends.get(outcome)
    if found is None and not end.drop and verdicts.known:
        answers = [known.ends.get(end.keep) for known in verdicts.known.values()]
        if False in answers:
            return False
        if all(answers) and len(answers) == len(verdicts.target.boolean):
            return True
    return found


async def check_end(verdicts: NextVerdicts, outcome: int) -> bool:
    """Whether the text may end in this way; remembered."""
    if end_verdict(verdicts, outcome) is False:
        return False
    return await check_acceptance(verdicts, outcome)


async def check_acceptance(verdicts: NextVerdicts, outcome: int) -> bool:
    """Whether all factors accept the text that ends in this way; remembered."""
    verdict = accepted_end(verdicts, outcome)
    if verdict is None:
        end = verdicts.closings.ends[outcome - verdicts.vocabulary.size]
        verdict = await _evaluate(verdicts, end)
    verdicts.ends[outcome] = verdict
    return verdict


async def _evaluate(verdicts: NextVerdicts, end: Closing) -> bool:
    text = end.apply(verdicts.text.data)
    for i, factor in enumerate(verdicts.target.boolean):
        known = verdicts.known.get(i)
        ends = {} if known is None or end.drop else known.ends
        if end.keep not in ends:
            state: State | None = verdicts.states[i]
            if known is not None:
                verdicts.checks[i] += 1
            if end.drop:
                # The stop began in tokens whose bytes the states have already read.
                state = await verdicts.timed(i, factor.begin(Text(text)), text)
            elif end.keep:
                state = await verdicts.timed(i, factor.advance(state, None, end.keep), text)
            accepts = state is not None and await verdicts.timed(i, factor.accepts(state), text)
            ends[end.keep] = accepts
            if known is not None and ends is known.ends:
                known.cost += 100 + len(end.keep)
            if not accepts:  # a count of 0 would be blamed, too
                verdicts.rejections[i] += 1
        if not ends[end.keep]:
            verdicts.rejected_ends[end] = i
            return False
    return True


async def is_over(verdicts: NextVerdicts, states: Sequence[State], data: bytes) -> bool:
    """Whether a text that need not end, one token after this context, is over at these states:
    all factors accept it and one says that it is over."""
    factors = list(enumerate(zip(verdicts.target.boolean, states, strict=True)))
    for i, (factor, state) in factors:
        if await verdicts.timed(i, factor.is_over(state), data):
            break
    else:
        return False
    for i, (factor, state) in factors:
        if i not in verdicts.known:
            accepts = await verdicts.timed(i, factor.accepts(state), data)
        else:
            constraint = verdicts.cache.constraint(verdicts.keys[i])
            known = constraint.at(state, verdicts.vocabulary).ends
            if b"" not in known:
                verdicts.checks[i] += 1
                known[b""] = await verdicts.timed(i, factor.accepts(state), data)
                constraint.charge(state, verdicts.vocabulary, TailDraws())
            accepts = known[b""]
        if not accepts:  # it continues, and is not rejected
            return False
    return True
