"""Dead ends: joint states of all constraints where no token and no end is allowed.

A refinement. Without it a particle would walk into a dead end again and again and die there;
with it the token before is taken out of the draw. The distribution of finished texts is the same.
A dead end is a fact about tokens and not about bytes, so it is kept apart from the verdicts and
nothing follows from it for prefixes.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from awrs_ppl._recent import Recent
from awrs_ppl.constraints.before_stops import read_again
from awrs_ppl.constraints.ends import accepted_end, check_acceptance
from awrs_ppl.constraints.potential import State
from awrs_ppl.tokens.stops import stop_prefix

if TYPE_CHECKING:
    from awrs_ppl.constraints.next_verdicts import NextVerdicts

__all__ = [
    "DeadEnds",
    "blame_dead_end",
    "blamed_by_token",
    "is_dead_end",
    "joint_state",
    "leads_to_dead_end",
    "note_dead_end",
    "tokens_to_dead_ends",
]

_MOST = 65_536


class DeadEnds:
    """The dead ends that were met, with the factors to blame for them, as their places in the
    target; and the tokens that lead to them; each up to a limit."""

    def __init__(self) -> None:
        self._states, self._tokens = Recent(_MOST), Recent(_MOST)

    def __contains__(self, joint: Hashable) -> bool:
        return self._states.get(joint) is not None

    def tokens(self, joint: Hashable) -> AbstractSet[int]:
        """The tokens that are known to lead from a joint state to a dead end."""
        known: dict[int, Hashable] | None = self._tokens.get(joint)
        return known.keys() if known else set()

    def blamed(self, joint: Hashable) -> dict[int, tuple[int, ...]]:
        """Of the tokens that lead from a joint state to dead ends, who is to blame there; nobody,
        where that is not known."""
        known: dict[int, Hashable] = self._tokens.get(joint) or {}
        return {token: self._states.get(after) or () for token, after in known.items()}

    def add(self, joint: Hashable, origin: tuple[Hashable, int] | None) -> None:
        """Remember a dead end; `origin` is the joint state before it and the token between."""
        if joint not in self:
            self._states.put(joint, ())
        if origin is not None:
            self.forbid(*origin, joint)

    def blame(self, joint: Hashable, factors: tuple[int, ...]) -> None:
        """Remember who is to blame for a dead end."""
        if joint in self:
            self._states.put(joint, factors)

    def forbid(self, joint: Hashable, token: int, after: Hashable) -> None:
        """Remember that a token leads from a joint state to the dead end `after`."""
        known: dict[int, Hashable] | None = self._tokens.get(joint)
        if known is None:
            self._tokens.put(joint, {token: after})
        else:
            known[token] = after


def joint_state(
    verdicts: NextVerdicts, states: tuple[State, ...] | None = None, data: bytes | None = None
) -> Hashable:
    """All that decides what is allowed at a context, or at these states after this text,
    whatever the language model says."""
    states = verdicts.states if states is None else states
    data = verdicts.text.data if data is None else data
    stops = verdicts.target.stops
    # What is pending is in the states. Where a stop cannot be held back, a text that ends in a
    # prefix of it is read again when the stop is complete.
    again = read_again(stops)
    whole = data if again and stop_prefix(data, again) else b""
    return verdicts.keys, states, verdicts.vocabulary, stops, whole


def is_dead_end(verdicts: NextVerdicts) -> bool:
    """Whether every token and every end is known to be rejected, whatever its weight."""
    size, closings = verdicts.vocabulary.size, verdicts.closings
    # The plain end is one also where no token ends a text: some texts need not end.
    ends = (j for j, ids in enumerate(closings.ids) if len(ids) or j == 0)
    if any(accepted_end(verdicts, size + j) is not False for j in ends):
        return False
    is_text = verdicts.vocabulary.is_text
    left = is_text if verdicts.allowed is None else verdicts.allowed
    left = left & is_text
    left[closings.tokens] = False
    _, rejected = verdicts.known_outcomes()
    left[rejected[rejected < size]] = False
    return not left.any()


async def note_dead_end(verdicts: NextVerdicts, origin: tuple[Hashable, int] | None) -> None:
    """Where nothing is allowed, remember it; `origin` is the joint state before and the token
    between."""
    for j in verdicts.closings.barred:  # other texts may be over by these
        await check_acceptance(verdicts, verdicts.vocabulary.size + j)
    if is_dead_end(verdicts):
        if verdicts.cache.dead_ends is None:
            verdicts.cache.dead_ends = DeadEnds()
        verdicts.cache.dead_ends.add(joint_state(verdicts), origin)


def blame_dead_end(verdicts: NextVerdicts, factors: tuple[int, ...]) -> None:
    """Remember who is to blame, if this is a dead end that was noted."""
    if verdicts.cache.dead_ends is not None:
        verdicts.cache.dead_ends.blame(joint_state(verdicts), factors)


def blamed_by_token(verdicts: NextVerdicts) -> dict[int, tuple[int, ...]]:
    """Of the tokens that are known to lead from here to a dead end, the factors to blame there;
    all that are checked, where that is not known."""
    dead_ends = verdicts.cache.dead_ends
    found = {} if dead_ends is None else dead_ends.blamed(joint_state(verdicts))
    return {token: factors or tuple(verdicts.known) for token, factors in found.items()}


def tokens_to_dead_ends(verdicts: NextVerdicts) -> AbstractSet[int]:
    """The tokens that are known to lead from here to a dead end."""
    dead_ends = verdicts.cache.dead_ends
    return set() if dead_ends is None else dead_ends.tokens(joint_state(verdicts))


async def leads_to_dead_end(verdicts: NextVerdicts, token: int) -> bool:
    """Whether an allowed token is known to lead to a dead end."""
    dead_ends = verdicts.cache.dead_ends
    if dead_ends is None:
        return False
    here = joint_state(verdicts)
    if token in dead_ends.tokens(here):
        return True
    states = await verdicts.states_after(token)
    data = verdicts.text.data + bytes(verdicts.vocabulary.tokens[token])
    after = joint_state(verdicts, states, data)
    if after not in dead_ends:
        return False
    dead_ends.forbid(here, token, after)
    return True
