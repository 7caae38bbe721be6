"""Where verdicts are kept: by constraint and by its state, up to a limit."""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from awrs_ppl._recent import Recent
from awrs_ppl.constraints.dead_ends import DeadEnds
from awrs_ppl.constraints.potential import State
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["REMEMBERED", "StateVerdicts", "VerdictCache"]

LIMIT = 64 * 2**20
# What one entry takes, in bytes: measured, dictionaries' room to grow included.
_TABLE, _TOKEN, _RANGE, _WAITING = 960, 130, 160, 80
_CONSTRAINTS = 64


@dataclass(frozen=True, slots=True)
class TailDraws:
    """How many outcomes of unknown verdict were drawn, and how many of them were allowed."""

    drawn: int = 0
    allowed: int = 0

    def __add__(self, other: TailDraws) -> TailDraws:
        return TailDraws(self.drawn + other.drawn, self.allowed + other.allowed)

    def share(self, before: float, most: float = math.inf) -> float:
        """What share of them is allowed, if the guess was `before`; they count for `most` draws
        at most, and the guess for one."""
        weight = min(1.0, most / self.drawn) if self.drawn else 0.0
        return (weight * self.allowed + before) / (weight * self.drawn + 1.0)


class StateVerdicts:
    """What is known of the next tokens at one state of one constraint.

    `accepted` maps tokens to the state after them, or None where it was not computed; those
    `waiting` were accepted because they end in a multi-byte character, which is judged when whole;
    `rejected` are single tokens, `ranges` ranks in the vocabulary's `prefix_index` all of whose
    tokens are rejected; `prefixes` are prefixes of tokens that are allowed; `ends` whether the text
    may end after some last bytes. `journal` has the tokens and ranges in the order in which they
    were learned, `tail` counts the draws from the tokens and ends that were not known.
    """

    __slots__ = (
        "_arrays",
        "accepted",
        "cost",
        "ends",
        "journal",
        "prefixes",
        "ranges",
        "rejected",
        "tail",
        "waiting",
    )

    def __init__(self) -> None:
        self.accepted: dict[int, State | None] = {}
        self.waiting: set[int] = set()
        self.rejected: set[int] = set()
        self.ranges: list[tuple[int, int]] = []
        self.prefixes: set[bytes] = set()
        self.ends: dict[bytes, bool] = {}
        self.journal: list[int | tuple[int, int]] = []
        self.tail = TailDraws()
        self.cost = _TABLE
        self._arrays: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}

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

    def wait(self, token: int) -> None:
        """Learn that an accepted token ends in a multi-byte character."""
        self.waiting.add(token)
        self.cost += _WAITING

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

    def restrict_first_bytes(self, first_bytes: range, vocabulary: Vocabulary) -> None:
        """Learn that no token is allowed whose first byte is none of these."""
        for ranks in vocabulary.prefix_index.outside(first_bytes):
            self.reject_range(*ranks)

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

    def forget_arrays(self) -> None:
        """Drop what is made again when it is needed: ranges may be large."""
        self._arrays.clear()


class VerdictCache:
    """Verdicts of the `constraints` used last, by their keys, each within `limit` bytes; the
    least recently used states go first. One that `lasts` is used by later runs too.

    Its `dead_ends` are kept apart from the verdicts.
    """

    def __init__(
        self, limit: int = LIMIT, constraints: int = _CONSTRAINTS, *, lasts: bool = False
    ) -> None:
        self._limit, self.lasts = limit, lasts
        self._constraints = Recent(constraints)
        self.dead_ends = DeadEnds()

    def verdicts(self, key: Hashable, state: State, vocabulary: Vocabulary) -> StateVerdicts:
        """What is known at a state of the constraint with this key."""
        constraint: _Constraint | None = self._constraints.get(key)
        if constraint is None:
            constraint = _Constraint(self._limit)
            self._constraints.put(key, constraint)
        known: StateVerdicts | None = constraint.states.get((state, vocabulary))
        if known is None:
            known = StateVerdicts()
            known.cost += size_of(state)
            constraint.states.put((state, vocabulary), known, 0)
        return known

    def tail(self, key: Hashable) -> TailDraws:
        """The draws at all states of a constraint together."""
        constraint: _Constraint | None = self._constraints.get(key)
        return TailDraws() if constraint is None else constraint.tail

    def charge(
        self, key: Hashable, state: State, vocabulary: Vocabulary, tail: TailDraws | None = None
    ) -> None:
        """Charge for what was learned at a state, and forget others if it is too much; count
        the draws from its `tail`."""
        constraint: _Constraint | None = self._constraints.get(key)
        if constraint is None:
            return
        tail = tail or TailDraws()
        constraint.tail += tail
        known: StateVerdicts | None = constraint.states.get((state, vocabulary))
        if known is not None:
            known.tail += tail
            known.forget_arrays()
            constraint.states.put((state, vocabulary), known, known.cost)

    def cost(self, key: Hashable) -> int:
        """About how many bytes the verdicts of a constraint take."""
        constraint: _Constraint | None = self._constraints.get(key)
        return 0 if constraint is None else constraint.states.cost


class _Constraint:
    """The verdicts of one constraint, by state and vocabulary, and its draws from the tail."""

    __slots__ = ("states", "tail")

    def __init__(self, limit: int) -> None:
        self.states = Recent(limit)
        self.tail = TailDraws()


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
