"""Whether a text can still end in the tokens that `max_tokens` leaves, as far as is known.

A refinement, of which a text far from `max_tokens` sees nothing. A completion of the text is found
(`constraints/completion.py`), and spelled in as few tokens as can be. A text is *late* if it needs
more than are left. That is a guess: another completion may be shorter, or the constraint may say
more than its masks. So it decides no weight, only among whom children compete
(`inference/in_time.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from awrs_ppl.constraints.completion import CompletionSearch, is_searchable
from awrs_ppl.proposals.pool import Pool
from awrs_ppl.proposals.spelling import LONGEST, ending_with, spelling_of

if TYPE_CHECKING:
    from awrs_ppl.proposals.token_step import TokenStep

__all__ = ["Room", "after", "divided", "left_near", "look"]

# A completion is looked for when so many tokens are left, or half of what is allowed; and again
# when half of what was to spare then is used up.
_NEAR = 16
# Where at most so many tokens are to spare, tokens that lead to the end are kept apart from others
# if they weigh less than these: a few tokens are left then to end in a good place, and for what an
# end takes more than was found. Where none is to spare they are kept apart whatever they weigh. A
# text has so much margin only for each so many tokens that it has: in a short one a competition
# of its own for every token costs more than the margin gains.
_SPARE, _A_SPARE = 4, 8
# Other tokens may lead to the end, too: those that go over the first bytes of a completion, as `."`
# does where `"` does, or that stand in place of its first tokens. The likeliest of each are tried.
_OVER, _PLACES, _TRIED = 3, 4, 8


@dataclass(frozen=True, slots=True)
class Room:
    """A `completion` of a text, None where none was found, and the `count` of outcomes that it
    takes, the end among them. It is looked for again when `due` are left."""

    completion: bytes | None
    count: float
    due: int


def left_near(max_tokens: int, tokens: int) -> int | None:
    """The outcomes that are left, the end among them, where `max_tokens` is near; else None."""
    left = max_tokens - tokens
    return left if left <= max(max_tokens // 2, _NEAR) else None


async def look(step: TokenStep) -> None:
    """Look how much room there is at a step whose outcomes were weighed, and if little, which
    tokens lead to the end; the verdicts on these are then known."""
    left, room = step.left, step.progress.room
    if left is None or left <= 1 or not is_searchable(step.verdicts.target):
        return
    if room is None or left <= room.due:
        room = await _found(step, left, room)
    step.room = room
    if room.completion is not None and 0 <= left - room.count <= _margin(step):
        step.leads = await _leading(step, left, room.completion)
        await step.verdicts.check_all(_likeliest(step, np.array([*step.leads], np.int64)))


def _margin(step: TokenStep) -> int:
    return min(_SPARE, len(step.progress.text.tokens) // _A_SPARE)


def _search(step: TokenStep) -> CompletionSearch:
    progress = step.progress
    return CompletionSearch(step.verdicts.target, progress.states, progress.text.data)


def _likeliest(step: TokenStep, tokens: np.ndarray) -> list[int]:
    """The likeliest of some tokens, so many as are tried."""
    assert step.outcomes is not None
    logs = step.outcomes.batch.logs[step.outcomes.row][tokens]
    order = np.argsort(-logs.double().cpu().numpy(), kind="stable")[:_TRIED]
    return tokens[order].tolist()


async def _found(step: TokenStep, left: int, room: Room | None) -> Room:
    search = _search(step)
    known = [] if room is None or room.completion is None else [room.completion]
    completion = await search.find(known, thorough=room is None)
    count = _count(step, completion)
    if completion in known and count > left - 1:
        other = await search.find(thorough=False)
        if _count(step, other) < count:
            completion, count = other, _count(step, other)
    spare = abs(left - count) if count < math.inf else left
    return Room(completion, count, left - max(1, int(spare // 2)))


def _count(step: TokenStep, completion: bytes | None) -> float:
    if completion is None:
        return math.inf
    return spelling_of(step.verdicts.vocabulary, completion).counts[0] + step.ends


async def _leading(step: TokenStep, left: int, completion: bytes) -> dict[int, bytes]:
    """The tokens that lead to the end in time, with the completion that then remains."""
    verdicts, outcomes = step.verdicts, step.outcomes
    assert outcomes is not None
    vocabulary, allowed = verdicts.vocabulary, verdicts.allowed
    tokens, closing = vocabulary.tokens, set(verdicts.closings.tokens.tolist())
    spelling, search = spelling_of(vocabulary, completion), _search(step)
    fits = [count + step.ends <= left - 1 for count in spelling.counts]

    def may(token: int) -> bool:
        if not vocabulary.is_text[token] or token in closing:
            return False
        return allowed is None or bool(allowed[token])

    async def completes(token: int, place: int) -> bool:
        return await search.ends_after(bytes(tokens[token]) + completion[place:])

    found = {
        token: completion[len(tokens[token]) :]
        for token in vocabulary.prefix_index.within(completion[:LONGEST])
        if fits[len(tokens[token])] and may(token)
    }
    for place in range(min(_OVER, len(completion)), 0, -1):
        over = ending_with(vocabulary, completion[:place])
        for token in _likeliest(step, over) if fits[place] else ():
            if token not in found and may(token) and await completes(token, place):
                found[token] = completion[place:]
    places = [*spelling.places(_PLACES), len(completion)]
    for token in outcomes.heaviest(_TRIED):
        for place in places if token < vocabulary.size and token not in found else ():
            if fits[place] and may(token) and await completes(token, place):
                found[token] = completion[place:]
                break
    return found


def after(step: TokenStep, outcome: int) -> Room | None:
    """The room after a token."""
    room = step.room
    if room is None or room.completion is None:
        return room
    data = bytes(step.verdicts.vocabulary.tokens[outcome])
    rest = step.leads.get(outcome)
    if rest is None:
        if not room.completion.startswith(data):
            return room
        rest = room.completion[len(data) :]
    return Room(rest, _count(step, rest), room.due)


def divided(step: TokenStep, pool: Pool) -> tuple[Pool | None, Pool | None]:
    """The part of a pool that is in time, and the part that is late, or does not lead to the end
    where there is little room."""
    room, left = step.room, step.left
    if room is None or left is None or pool.log_mass == -math.inf:
        return pool, None
    size = step.verdicts.vocabulary.size
    ends = np.arange(size, size + len(step.verdicts.closings.ends))
    spare = left - room.count
    if spare < 0:
        # Where none was found there may be one, and as long as there is time it is not late.
        is_late = room.completion is not None or left <= _NEAR
        return pool.divided(ends) if is_late else (pool, None)  # what ends now is in time
    if spare > _margin(step):
        return pool, None
    leads = np.concatenate([np.array([*step.leads], np.int64), ends])
    if spare and pool.share_of(leads) >= 0.5:
        return pool, None
    return pool.divided(leads)
