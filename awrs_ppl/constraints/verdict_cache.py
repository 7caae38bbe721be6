"""Where verdicts are kept: by constraint and by its state, up to a limit."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from awrs_ppl._recent import Recent
from awrs_ppl.constraints.potential import State
from awrs_ppl.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from awrs_ppl.constraints.dead_ends import DeadEnds

__all__ = ["REMEMBERED", "ConstraintVerdicts", "StateVerdicts", "TailDraws", "VerdictCache"]

LIMIT = 64 * 2**20
# What one entry takes, in bytes: measured, dictionaries' room to grow included.
_TABLE, _TOKEN, _RANGE = 960, 130, 160
_CONSTRAINTS = 64


@dataclass(frozen=True, slots=True)
class TailDraws:
    """How many outcomes of unknown verdict were drawn, and how many of them were allowed."""

    drawn: float = 0
    allowed: float = 0

    def __add__(self, other: TailDraws) -> TailDraws:
        return TailDraws(self.drawn + other.drawn, self.allowed + other.allowed)

    def at_most(self, most: int) -> TailDraws:
        """Draws of which the same share was allowed, of this number at most."""
        weight = min(1.0, most / self.drawn) if self.drawn else 0.0
        return TailDraws(weight * self.drawn, weight * self.allowed)


@dataclass(slots=True, eq=False)
class StateVerdicts:
    """What is known of the next tokens at one state of one constraint.

    `accepted` maps tokens to the state after them, or None where it was not computed; those
    `waiting` were accepted because they end in a multi-byte character, which is judged when whole;
    `rejected` are single tokens, `ranges` ranks in the vocabulary's `prefix_index` all of whose
    tokens are rejected; `prefixes` are prefixes of tokens that are allowed; `ends` whether the text
    may end after some last bytes. `journal` has the tokens and ranges in the order in which they
    were learned, `tail` counts the draws from the tokens and ends that were not known.
    """

    accepted: dict[int, State | None] = field(default_factory=dict)
    waiting: dict[int, None] = field(default_factory=dict)
    rejected: set[int] = field(default_factory=set)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    prefixes: set[bytes] = field(default_factory=set)
    ends: dict[bytes, bool] = field(default_factory=dict)
    journal: list[int | tuple[int, int]] = field(default_factory=list)
    tail: TailDraws = field(default_factory=TailDraws)
    cost: int = _TABLE
    _arrays: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def verdict(self, token: int, vocabulary: Vocabulary) -> bool | None:
        """Whether a token is allowed; None if that is not known."""
        if token in self.accepted:
            return True
        if token in self.rejected:
            return False
        if self.ranges:
            rank = int(vocabulary.prefix_index.ranks[token])
            if any(first <= rank < last for first, last in self.ranges):
                return False
        return None

    def accept(self, token: int, state: State | None) -> None:
        """Learn that a token is allowed, and the state after it."""
        if self.accepted.get(token) is None:
            if token not in self.accepted:
                self._learned(token, _TOKEN)
            self.accepted[token] = state
            self.cost += size_of(state)

    def reject(self, token: int) -> None:
        """Learn that a token is not allowed."""
        if token not in self.rejected:
            self.rejected.add(token)
            self._learned(token, _TOKEN)

    def reject_range(self, first: int, last: int) -> None:
        """Learn that no token of these ranks is allowed."""
        self.ranges = [r for r in self.ranges if not (first <= r[0] and r[1] <= last)]
        self.ranges.append((first, last))
        self._learned((first, last), _RANGE)

    def accept_prefix(self, prefix: bytes) -> None:
        """Learn that a prefix of tokens is allowed."""
        self.prefixes.add(prefix)
        self.cost += _TOKEN

    def _learned(self, what: int | tuple[int, int], cost: int) -> None:
        self._arrays.clear()
        self.journal.append(what)
        self.cost += cost

    def arrays(
        self, vocabulary: Vocabulary, more: Sequence[int] = (), less: Sequence[int] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ids of the accepted tokens, and of the rejected ones, each with more after them.

        They are the same objects until something is learned, so that contexts that share them
        can be seen to do so.
        """
        key = (*more, -1, *less)
        if key not in self._arrays:
            parts = [np.fromiter(self.rejected, np.int32, len(self.rejected))]
            parts += [vocabulary.prefix_index.ids[first:last] for first, last in self.ranges]
            rejected = np.concatenate([*parts, np.array(less, np.int32)])
            accepted = np.fromiter((*self.accepted, *more), np.int32)
            self._arrays[key] = accepted, rejected
        return self._arrays[key]

    def note_step(self, tail: TailDraws) -> None:
        """Count the draws of a step, and drop arrays, which are made again when they are needed:
        ranges may be large."""
        self.tail += tail
        self._arrays.clear()


class ConstraintVerdicts:
    """The verdicts of one constraint, by its state and the vocabulary, within `limit` bytes: the
    least recently used states go first. `tail` counts the draws at all of them."""

    def __init__(self, limit: int) -> None:
        self._states = Recent(limit)
        self.tail = TailDraws()

    def at(self, state: State, vocabulary: Vocabulary) -> StateVerdicts:
        """What is known at a state."""
        known: StateVerdicts | None = self._states.get((state, vocabulary))
        if known is None:
            known = StateVerdicts()
            self._states.put((state, vocabulary), known, 0)
            known.cost += size_of(state)
        return known

    def charge(self, state: State, vocabulary: Vocabulary, tail: TailDraws) -> None:
        """Charge for what was learned at a state, and forget others if it is too much; count
        the draws from its `tail`."""
        known: StateVerdicts | None = self._states.get((state, vocabulary))
        if known is not None:
            self._states.put((state, vocabulary), known, known.cost)
            known.note_step(tail)
        self.tail += tail

    @property
    def cost(self) -> int:
        """About how many bytes all of them take."""
        return self._states.cost


class VerdictCache:
    """The verdicts of the `constraints` used last, by their keys, each within `limit` bytes. A
    cache that `lasts` is used by later runs too.

    `dead_ends`, once any was met, are kept apart from the verdicts.
    """

    def __init__(
        self, limit: int = LIMIT, constraints: int = _CONSTRAINTS, *, lasts: bool = False
    ) -> None:
        self._limit, self.lasts = limit, lasts
        self._constraints = Recent(constraints)
        self.dead_ends: DeadEnds | None = None

    def constraint(self, key: Hashable) -> ConstraintVerdicts:
        """The verdicts of the constraint with this key."""
        found: ConstraintVerdicts | None = self._constraints.get(key)
        if found is None:
            found = ConstraintVerdicts(self._limit)
            self._constraints.put(key, found)
        return found


def size_of(state: Any) -> int:
    """About how many bytes a state takes: it, and what it holds."""
    size = sys.getsizeof(state)
    if isinstance(state, tuple | frozenset):
        size += sum(map(size_of, state))
    elif is_dataclass(state):
        size += sum(size_of(getattr(state, one.name)) for one in fields(state))
    return size


# What `remember=True` keeps for later runs, and shares with others at the same time.
REMEMBERED = VerdictCache(lasts=True)
