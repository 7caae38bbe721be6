"""What is known of the next outcomes at one joint state of a product's Boolean factors."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from awrs_ppl._messages import show
from awrs_ppl.constraints.checks_ahead import ChecksAhead
from awrs_ppl.constraints.dead_ends import leads_to_dead_end, tokens_to_dead_ends
from awrs_ppl.constraints.ends import check_end, known_ends
from awrs_ppl.constraints.factor import evaluate
from awrs_ppl.constraints.potential import State
from awrs_ppl.constraints.target import Target
from awrs_ppl.constraints.undecided_utf8 import Undecided
from awrs_ppl.constraints.verdict_cache import StateVerdicts, TailDraws, VerdictCache
from awrs_ppl.errors import PotentialError
from awrs_ppl.tokens.text import Text
from awrs_ppl.tokens.vocabulary import Closings, Vocabulary

__all__ = ["NextVerdicts"]

# The draws at other states count for at most this many.
_ELSEWHERE = 64

# The states after an outcome by factor, in their order, up to the first that rejects.
_Answer = list[tuple[int, State | None]]


@dataclass(slots=True)
class NextVerdicts:
    """The verdicts on the outcomes at one context.

    Masks are evaluated first and are complete for the tokens; a factor without a mask is checked
    one outcome at a time, and its verdicts are kept in `cache`, by its key in `keys` and its
    state, for all that come to the same state. `checks`, `rejections` and `seconds` are by the
    index of the factor in `target.boolean`.
    """

    target: Target
    text: Text
    states: tuple[State, ...]
    closings: Closings
    cache: VerdictCache
    keys: tuple[Hashable, ...]
    allowed: np.ndarray | None = None
    checks: Counter[int] = field(default_factory=Counter)
    rejections: Counter[int] = field(default_factory=Counter)
    seconds: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    known: dict[int, StateVerdicts] = field(default_factory=dict)
    # Prefixes of tokens that were checked.
    prefix_checks: int = 0
    vocabulary: Vocabulary = field(init=False)
    undecided: Undecided = field(init=False)
    ahead: ChecksAhead[_Answer] = field(default_factory=ChecksAhead)
    ends: dict[int, bool] = field(default_factory=dict)
    masked: frozenset[int] = frozenset()
    # Draws from what is unknown: before, at all states and at this one, and now.
    _tails: tuple[TailDraws, TailDraws] = field(default_factory=lambda: (TailDraws(), TailDraws()))
    _drawn: TailDraws = field(default_factory=TailDraws)

    def __post_init__(self) -> None:
        assert self.target.vocabulary is not None
        self.vocabulary = self.target.vocabulary
        self.undecided = Undecided(self.known.values())

    @classmethod
    def at(
        cls,
        target: Target,
        text: Text,
        states: tuple[State, ...],
        closings: Closings,
        cache: VerdictCache | None = None,
        keys: tuple[Hashable, ...] | None = None,
        twist: float = 0.0,
    ) -> NextVerdicts:
        """The verdicts at a context, with the masks evaluated. `keys` are those of the factors,
        `twist` that of the draw that led here."""
        cache = VerdictCache() if cache is None else cache
        keys = target.keys if keys is None else keys
        verdicts = cls(target, text, states, closings, cache, keys)
        masked = set()
        for i, factor in enumerate(target.boolean):
            started = time.perf_counter()
            mask = factor.mask(states[i], verdicts.vocabulary)
            if mask is None:
                found = cache.verdicts(keys[i], states[i], verdicts.vocabulary)
                verdicts.known[i] = found
                next_bytes = factor.next_bytes(states[i])
                verdicts.undecided.enter(next_bytes, twist, found, verdicts.vocabulary)
                ahead = getattr(factor.potential, "speculation", 1)
                verdicts.ahead.speculation = max(verdicts.ahead.speculation, ahead)
            else:
                verdicts.seconds[i] = time.perf_counter() - started
                masked.add(i)
                allowed = verdicts.allowed
                verdicts.allowed = mask if allowed is None else allowed & mask
        verdicts.masked = frozenset(masked)
        if (first := next(iter(verdicts.known), None)) is not None:
            # All factors were checked together: their draws are kept with the first.
            verdicts._tails = cache.tail(keys[first]), verdicts.known[first].tail
        return verdicts

    @property
    def is_masked(self) -> bool:
        """Whether every factor has a mask, so that the tokens need no check."""
        return not self.known

    @property
    def n_checks(self) -> int:
        """How many checks were made."""
        return sum(self.checks.values())

    @property
    def version(self) -> tuple[int, ...]:
        """How much is known by each factor that is checked: see `learned_since`."""
        return tuple(len(known.journal) for known in self.known.values())

    def allowed_share(self, before: float) -> float:
        """What share of the unknown outcomes is allowed: by those that were drawn at this state,
        and at others of the constraint, up to the last step. With nothing seen it is `before`."""
        return self._tails[1].share(self._tails[0].share(before, _ELSEWHERE))

    def note_drawn(self, drawn: int, allowed: int) -> None:
        """Count outcomes drawn from the unknown ones; that is seen from the next step on."""
        self._drawn += TailDraws(drawn, allowed)

    # --- what is known --------------------------------------------------------------------

    def accepted(self) -> np.ndarray:
        """The outcomes known to be allowed by every factor that is checked."""
        if (shared := self._shared()) is not None:
            return shared[0]
        dead = tokens_to_dead_ends(self)
        first = next(iter(self.known.values()), None)
        candidates = () if first is None else first.accepted
        tokens = [t for t in candidates if t not in dead and self.is_accepted(t)]
        return np.array([*tokens, *known_ends(self, True)], dtype=np.int32)

    def rejected(self) -> np.ndarray:
        """The outcomes known to be rejected by some factor, or to lead to a dead end."""
        if (shared := self._shared()) is not None:
            return shared[1]
        parts = [known.arrays(self.vocabulary)[1] for known in self.known.values()]
        others = [*sorted(tokens_to_dead_ends(self)), *known_ends(self, False)]
        return np.concatenate([*parts, np.array(others, dtype=np.int32)])

    def _shared(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Both, where they are the same for all contexts at this state: the usual case."""
        if len(self.known) != 1 or tokens_to_dead_ends(self):
            return None
        (known,) = self.known.values()
        return known.arrays(self.vocabulary, known_ends(self, True), known_ends(self, False))

    def learned_since(self, since: tuple[int, ...]) -> tuple[list[int], list[int]]:
        """The outcomes learned to be accepted, and to be rejected, `since` an earlier version."""
        if since == self.version:
            return [], []
        candidates: dict[int, None] = {}
        rejected: list[int] = []
        for known, seen in zip(self.known.values(), since or (0,) * len(self.known), strict=True):
            for what in known.journal[seen:]:
                if isinstance(what, tuple):
                    rejected += self.vocabulary.prefix_index.ids[slice(*what)].tolist()
                elif what in known.accepted:
                    candidates[what] = None
                else:
                    rejected.append(what)
        dead = tokens_to_dead_ends(self)
        accepted = [t for t in candidates if t not in dead and self.is_accepted(t)]
        accepted += known_ends(self, True)
        return accepted, [*rejected, *dead, *known_ends(self, False)]

    def is_accepted(self, token: int) -> bool:
        """Whether a token is known to be allowed by every factor that is checked."""
        return all(token in known.accepted for known in self.known.values())

    # --- checking -------------------------------------------------------------------------

    async def check(self, outcome: int) -> bool:
        """Whether an outcome is allowed; remembered."""
        if outcome >= self.vocabulary.size:
            return await check_end(self, outcome)
        if self.allowed is not None and not self.allowed[outcome]:
            return False
        answers = [known.verdict(outcome, self.vocabulary) for known in self.known.values()]
        if None in answers and False not in answers:
            answer = self.ahead.take(outcome)
            if answer is None:
                answer = await self._evaluate(outcome)
            for i, state in answer:
                if state is None:
                    self.known[i].reject(outcome)
                    self.rejections[i] += 1
                else:
                    known = self.known[i]
                    next_bytes = self.target.boolean[i].next_bytes(state)
                    self.undecided.note(outcome, next_bytes, known)
                    known.accept(outcome, state)
            answers = [answer[-1][1] is not None]
        if not all(answers):
            return False
        return not await leads_to_dead_end(self, outcome)

    async def check_all(self, outcomes: Sequence[int]) -> list[bool]:
        """The verdicts on several outcomes; slow ones are checked at once."""
        await self.fetch(outcomes)
        return [await self.check(outcome) for outcome in outcomes]

    async def fetch(self, outcomes: Sequence[int]) -> None:
        """Check several outcomes at once, if that is faster; what is not needed in the end is not
        learned."""
        await self.ahead.fetch(outcomes, self._is_open, self._evaluate)

    def _is_open(self, outcome: int) -> bool:
        """Whether an outcome is a token whose verdict depends on a check."""
        if outcome >= self.vocabulary.size:
            return False
        if self.allowed is not None and not self.allowed[outcome]:
            return False
        found = [known.verdict(outcome, self.vocabulary) for known in self.known.values()]
        return None in found and False not in found

    async def check_prefix(self, i: int, prefix: bytes) -> State | None:
        """The state of a factor after a prefix of tokens, None if it rejects it."""
        self.checks[i] += 1
        self.prefix_checks += 1
        state = await self._advance(i, None, prefix)
        if state is None:  # a count of 0 would be blamed, too
            self.rejections[i] += 1
        return state

    async def states_after(self, outcome: int) -> tuple[State, ...]:
        """The states of the factors after an allowed token."""
        data = bytes(self.vocabulary.tokens[outcome])
        states = []
        for i, factor in enumerate(self.target.boolean):
            known = self.known.get(i)
            state = known.accepted.get(outcome) if known is not None else None
            if state is None:
                # Masked, or allowed because it is a prefix of an allowed token.
                if known is not None:
                    self.checks[i] += 1
                state = await self._advance(i, outcome, data)
                if state is None:
                    raise PotentialError(
                        f"{factor.potential!r} rejects the token {show(data)} after "
                        f"{show(self.text.data)} by its `advance`, and allows it by its mask "
                        "or because it allows a longer token with this prefix"
                    )
                if known is not None:
                    known.accept(outcome, state)
            states.append(state)
        return tuple(states)

    async def _evaluate(self, outcome: int) -> _Answer:
        """Check the factors that have no verdict, up to the first that rejects."""
        data = bytes(self.vocabulary.tokens[outcome])
        answer: _Answer = []
        for i, known in self.known.items():
            if outcome in known.accepted:
                continue
            self.checks[i] += 1
            answer.append((i, await self._advance(i, outcome, data)))
            if answer[-1][1] is None:
                break
        return answer

    async def _advance(self, i: int, token: int | None, data: bytes) -> State | None:
        factor = self.target.boolean[i]
        answer = factor.advance(self.states[i], token, data)
        return await self.timed(i, answer, self.text.data + data)

    async def timed(self, i: int, answer: Awaitable[Any], text: bytes) -> Any:
        started = time.perf_counter()
        try:
            return await evaluate(self.target.boolean[i], answer, text)
        finally:
            self.seconds[i] += time.perf_counter() - started

    def charge(self) -> None:
        """Charge the cache for what was learned."""
        tail = self._drawn
        for i in self.known:
            self.cache.charge(self.keys[i], self.states[i], self.vocabulary, tail)
            tail = TailDraws()
