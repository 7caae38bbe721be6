"""What is known of the next outcomes at one joint state of a product's Boolean factors."""

from __future__ import annotations

import time
from collections import ChainMap, Counter, defaultdict
from collections.abc import Awaitable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from awrs_ppl._messages import show
from awrs_ppl.constraints import undecided_utf8
from awrs_ppl.constraints.checks_ahead import ChecksAhead
from awrs_ppl.constraints.dead_ends import leads_to_dead_end, tokens_to_dead_ends
from awrs_ppl.constraints.ends import check_end, known_ends
from awrs_ppl.constraints.factor import evaluate
from awrs_ppl.constraints.potential import State
from awrs_ppl.constraints.target import Target
from awrs_ppl.constraints.verdict_cache import StateVerdicts, TailDraws, VerdictCache
from awrs_ppl.errors import PotentialError
from awrs_ppl.tokens.text import Text
from awrs_ppl.tokens.vocabulary import Closing, Closings, Vocabulary

__all__ = ["Answer", "NextVerdicts"]

# The draws at other states count for at most this many.
_ELSEWHERE = 64

# The states after a token by factor, in their order, up to the first that rejects.
Answer = list[tuple[int, State | None]]


@dataclass(slots=True)
class NextVerdicts:
    """The verdicts on the outcomes at one context.

    Masks are evaluated first and are complete for the tokens, in `allowed`; a factor without a
    mask is checked one outcome at a time, and its verdicts are kept in `cache`, by its key in
    `keys` and its state, for all that come to the same state: `known`. `checks`, `rejections` and
    `seconds` are by the index of the factor in `target.boolean`.

    Accepted tokens that end in a multi-byte character are among `waiting`, and `log_twist` is the
    twist of the character in which the text ends, None between characters: see `undecided_utf8`.
    """

    target: Target
    vocabulary: Vocabulary
    text: Text
    states: tuple[State, ...]
    closings: Closings
    cache: VerdictCache
    keys: tuple[Hashable, ...]
    allowed: np.ndarray | None = None
    known: dict[int, StateVerdicts] = field(default_factory=dict)
    ends: dict[int, bool] = field(default_factory=dict)
    rejected_ends: dict[Closing, int] = field(default_factory=dict)  # by which factor
    waiting: Mapping[int, None] = field(default_factory=dict)
    log_twist: float | None = None
    checks: Counter[int] = field(default_factory=Counter)
    rejections: Counter[int] = field(default_factory=Counter)
    seconds: defaultdict[int, float] = field(default_factory=partial(defaultdict, float))
    prefix_checks: int = 0
    # Rows of the language model that a check is worth: that of the dearest factor that is checked.
    cost: float = 0.0
    # How many tokens are checked at once, and what is known of those not needed yet.
    speculation: int = 1
    ahead: ChecksAhead | None = None
    # Draws from what is unknown up to the last step, at all states and at this one; and here now.
    tails: tuple[TailDraws, ...] = ()
    _drawn: TailDraws = field(default_factory=TailDraws)

    @classmethod
    def at(
        cls,
        target: Target,
        text: Text,
        states: tuple[State, ...],
        closings: Closings,
        cache: VerdictCache,
        keys: tuple[Hashable, ...] | None,
        twist: float,
    ) -> NextVerdicts:
        """The verdicts at a context, with the masks evaluated. `keys` are those of the factors,
        if they are known; `twist` is that of the draw that led here."""
        vocabulary = target.vocabulary
        assert vocabulary is not None
        keys = target.keys if keys is None else keys
        verdicts = cls(target, vocabulary, text, states, closings, cache, keys)
        for i, factor in enumerate(target.boolean):
            started = time.perf_counter()
            mask = factor.mask(states[i], vocabulary)
            if mask is not None:
                verdicts.seconds[i] = time.perf_counter() - started
                before = verdicts.allowed
                verdicts.allowed = mask if before is None else before & mask
                continue
            constraint = cache.constraint(keys[i])
            known = constraint.at(states[i], vocabulary)
            if not verdicts.known:
                # All factors are checked together: their draws are kept with the first.
                verdicts.tails = constraint.tail.at_most(_ELSEWHERE), known.tail
            verdicts.known[i] = known
            verdicts.cost = max(verdicts.cost, factor.cost)
            next_bytes = factor.next_bytes(states[i])
            if next_bytes is not None:
                undecided_utf8.enter(verdicts, known, next_bytes, twist)
            speculation = getattr(factor.potential, "speculation", 1)
            verdicts.speculation = max(verdicts.speculation, speculation)
        verdicts.waiting = ChainMap(*[known.waiting for known in verdicts.known.values()])
        if verdicts.speculation > 1:
            verdicts.ahead = ChecksAhead()
        return verdicts

    @property
    def is_masked(self) -> bool:
        """Whether every factor has a mask, so that the tokens need no check."""
        return not self.known

    @property
    def masked(self) -> list[int]:
        """The factors that have a mask."""
        return [i for i in range(len(self.states)) if i not in self.known]

    @property
    def n_checks(self) -> int:
        """How many checks were made."""
        return sum(self.checks.values())

    @property
    def version(self) -> tuple[int, ...]:
        """How much is known by each factor that is checked: see `learned_since`."""
        return tuple([len(known.journal) for known in self.known.values()])

    def note_drawn(self, drawn: int, allowed: int) -> None:
        """Count outcomes drawn from the unknown ones; that is seen from the next step on."""
        self._drawn += TailDraws(drawn, allowed)

    # --- what is known --------------------------------------------------------------------

    def verdict(self, token: int) -> bool | None:
        """Whether a token is known to be allowed by every factor; None if that takes a check."""
        if self.allowed is not None and not self.allowed[token]:
            return False
        answers = [known.verdict(token, self.vocabulary) for known in self.known.values()]
        if False in answers:
            return False
        return None if None in answers else True

    def is_accepted(self, token: int) -> bool:
        """Whether a token is known to be allowed by every factor that is checked."""
        return all(token in known.accepted for known in self.known.values())

    def known_outcomes(self) -> tuple[np.ndarray, np.ndarray]:
        """The outcomes known to be allowed by every factor that is checked, and those known to be
        rejected by some, or to lead to a dead end."""
        dead, ends = self._dead(), known_ends(self)
        if len(self.known) == 1 and not dead:
            # The usual case: they are the same for all contexts at this state.
            (known,) = self.known.values()
            return known.arrays(self.vocabulary, *ends)
        parts = [known.arrays(self.vocabulary) for known in self.known.values()]
        candidates = parts[0][0].tolist() if parts else []
        accepted = [*self._alive(candidates, dead), *ends[0]]
        rejected = [*sorted(dead), *ends[1]]
        return np.array(accepted, np.int32), np.concatenate(
            [*[part for _, part in parts], np.array(rejected, np.int32)]
        )

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
        dead, ends = self._dead(), known_ends(self)
        return [*self._alive(candidates, dead), *ends[0]], [*rejected, *dead, *ends[1]]

    def _alive(self, tokens: Iterable[int], dead: AbstractSet[int]) -> list[int]:
        return [token for token in tokens if token not in dead and self.is_accepted(token)]

    def _dead(self) -> AbstractSet[int]:
        return set() if self.cache.dead_ends is None else tokens_to_dead_ends(self)

    # --- checking -------------------------------------------------------------------------

    async def check(self, outcome: int) -> bool:
        """Whether an outcome is allowed; remembered."""
        if outcome >= self.vocabulary.size:
            return await check_end(self, outcome)
        verdict = self.verdict(outcome)
        if verdict is None:
            answer = None if self.ahead is None else self.ahead.take(outcome)
            verdict = self._learn(outcome, answer or await self.check_token(outcome))
        if not verdict or self.cache.dead_ends is None:
            return verdict
        return not await leads_to_dead_end(self, outcome)

    async def check_all(self, outcomes: Sequence[int]) -> list[bool]:
        """The verdicts on several outcomes; slow ones are checked at once."""
        if self.ahead is not None:
            await self.ahead.fetch(self, outcomes)
        return [await self.check(outcome) for outcome in outcomes]

    async def check_token(self, token: int) -> Answer:
        """Check the factors that have no verdict, up to the first that rejects."""
        data = bytes(self.vocabulary.tokens[token])
        answer: Answer = []
        for i, known in self.known.items():
            if token in known.accepted:
                continue
            self.checks[i] += 1
            answer.append((i, await self.advance(i, token, data)))
            if answer[-1][1] is None:
                break
        return answer

    def _learn(self, token: int, answer: Answer) -> bool:
        """Remember what a check gave, and whether it allows the token."""
        for i, state in answer:
            known = self.known[i]
            if state is None:
                known.reject(token)
                self.rejections[i] += 1
                return False
            if self.vocabulary.tokens[token][-1] >= 0x80:  # else it ends with a character
                undecided_utf8.note(known, token, self.target.boolean[i].next_bytes(state))
            known.accept(token, state)
        return True

    async def states_after(self, token: int) -> tuple[State, ...]:
        """The states of the factors after an allowed token."""
        data = bytes(self.vocabulary.tokens[token])
        states = []
        for i, factor in enumerate(self.target.boolean):
            known = self.known.get(i)
            state = known.accepted.get(token) if known is not None else None
            if state is None:
                # Masked, or allowed because it is a prefix of an allowed token.
                if known is not None:
                    self.checks[i] += 1
                state = await self.advance(i, token, data)
                if state is None:
                    raise PotentialError(
                        f"{factor.potential!r} rejects the token {show(data)} after "
                        f"{show(self.text.data)} by its `advance`, and allows it by its mask "
                        "or because it allows a longer token with this prefix"
                    )
                if known is not None:
                    known.accept(token, state)
            states.append(state)
        return tuple(states)

    async def advance(self, i: int, token: int | None, data: bytes) -> State | None:
        """The state of a factor after a token, or after bytes that are no token."""
        answer = self.target.boolean[i].advance(self.states[i], token, data)
        return await self.timed(i, answer, self.text.data + data)

    async def timed(self, i: int, answer: Awaitable[Any], text: bytes) -> Any:
        """What a factor gives for a text, its time counted."""
        started = time.perf_counter()
        try:
            return await evaluate(self.target.boolean[i], answer, text)
        finally:
            self.seconds[i] += time.perf_counter() - started

    def charge(self) -> None:
        """Charge the cache for what was learned."""
        tail = self._drawn
        for i in self.known:
            constraint = self.cache.constraint(self.keys[i])
            constraint.charge(self.states[i], self.vocabulary, tail)
            tail = TailDraws()
