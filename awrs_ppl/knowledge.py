"""What is known of the next outcomes at one state of a product's Boolean factors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from awrs_ppl.errors import AwrsError, PotentialError
from awrs_ppl.lifting import Factor, Text
from awrs_ppl.potential import State, show
from awrs_ppl.products import Target
from awrs_ppl.vocabulary import Closing, Closings, Vocabulary

__all__ = ["Knowledge", "ask", "start"]

EMPTY = Text()


@dataclass(slots=True)
class Knowledge:
    """The verdicts on outcomes at one context, each asked once.

    Masks are asked first and are complete for the tokens; a factor without a mask is checked
    one outcome at a time. `checks` and `rejections` count questions and refusals, by the place
    of the factor in `target.boolean`.
    """

    target: Target
    text: Text
    states: tuple[State, ...]
    closings: Closings
    allowed: np.ndarray | None = None
    checks: Counter[int] = field(default_factory=Counter)
    rejections: Counter[int] = field(default_factory=Counter)
    _verdicts: dict[int, dict[int, State] | None] = field(default_factory=dict)
    _masked: frozenset[int] = frozenset()

    @property
    def vocabulary(self) -> Vocabulary:
        assert self.target.vocabulary is not None
        return self.target.vocabulary

    def compute_masks(self) -> None:
        """Ask the factors that have masks; sets `allowed`, shape `[size]`, or leaves it None."""
        masked = set()
        for i, factor in enumerate(self.target.boolean):
            mask = factor.mask(self.states[i], self.vocabulary)
            if mask is not None:
                masked.add(i)
                self.allowed = mask if self.allowed is None else self.allowed & mask
        self._masked = frozenset(masked)

    @property
    def is_masked(self) -> bool:
        """Whether every factor has a mask, so that the tokens need no check."""
        return len(self._masked) == len(self.target.boolean)

    async def settle_closings(self, p: np.ndarray) -> None:
        """Decide every way to end that has mass, and take the mass of the others from `p`.

        With masks alone this leaves nothing unknown: what is left in `p` is allowed.
        """
        for j in range(len(self.closings.ends)):
            outcome = self.vocabulary.size + j
            if p[outcome] > 0 and not await self.check(outcome):
                p[outcome] = 0.0

    def checks_by_name(self) -> Counter[str]:
        """How many outcomes each factor was asked about."""
        counts: Counter[str] = Counter()
        for i, count in self.checks.items():
            counts[repr(self.target.boolean[i].potential)] += count
        return counts

    def killer(self, *, forced: bool) -> str:
        """What is to blame if nothing could be drawn here."""
        if self.rejections:
            name = repr(self.target.boolean[self.rejections.most_common(1)[0][0]].potential)
        elif self.allowed is not None and not self.allowed.any():
            name = " * ".join(repr(self.target.boolean[i].potential) for i in sorted(self._masked))
        else:
            name = "the language model"
        return f"{name} (at max_tokens)" if forced else name

    async def check(self, outcome: int) -> bool:
        """Whether an outcome is allowed; remembered."""
        if outcome not in self._verdicts:
            self._verdicts[outcome] = await self._ask(outcome)
        return self._verdicts[outcome] is not None

    async def states_after(self, outcome: int) -> tuple[State, ...]:
        """The states of the factors after an allowed token."""
        known = self._verdicts.get(outcome) or {}
        data = bytes(self.vocabulary.tokens[outcome])
        states = []
        for i, factor in enumerate(self.target.boolean):
            # Masked factors were not asked for their states before the token was chosen.
            state = known[i] if i in known else await self._advance(i, outcome, data)
            if state is None:
                raise PotentialError(
                    f"{factor.potential!r} allows the token {show(data)} after "
                    f"{show(self.text.data)} by its mask, and rejects it by its `advance`"
                )
            states.append(state)
        return tuple(states)

    async def _ask(self, outcome: int) -> dict[int, State] | None:
        size = self.vocabulary.size
        if outcome >= size:
            return {} if await self._may_end(self.closings.ends[outcome - size]) else None
        if self.allowed is not None and not self.allowed[outcome]:
            return None
        data = bytes(self.vocabulary.tokens[outcome])
        states: dict[int, State] = {}
        for i in range(len(self.target.boolean)):
            if i in self._masked:
                continue
            self.checks[i] += 1
            state = await self._advance(i, outcome, data)
            if state is None:
                self.rejections[i] += 1
                return None
            states[i] = state
        return states

    async def _may_end(self, closing: Closing) -> bool:
        text = closing.apply(self.text.data)
        for i, factor in enumerate(self.target.boolean):
            if i not in self._masked:
                self.checks[i] += 1
            state: State | None = self.states[i]
            if closing.drop:
                # The stop began in tokens whose bytes the states have already seen.
                state = await ask(factor, factor.begin(Text(text)), text)
            elif closing.keep:
                state = await ask(factor, factor.advance(state, None, closing.keep), text)
            if state is None or not await ask(factor, factor.accepts(state), text):
                self.rejections[i] += 1
                return False
        return True

    async def _advance(self, i: int, token: int, data: bytes) -> State | None:
        factor = self.target.boolean[i]
        answer = factor.advance(self.states[i], token, data)
        return await ask(factor, answer, self.text.data + data)


async def ask(factor: Factor, answer: Awaitable[Any], text: bytes) -> Any:
    """A factor's answer; what it raises becomes a `PotentialError` that names the text."""
    try:
        return await answer
    except AwrsError:
        raise
    except Exception as error:
        raise PotentialError(
            f"{factor.potential!r} raised {type(error).__name__}: {error} on the text {show(text)}"
        ) from error


async def start(target: Target, text: Text = EMPTY) -> tuple[State, ...] | str:
    """The states after a text, or the name of a Boolean factor that rejects it."""
    states: list[State] = []
    for factor in target.boolean:
        state = await ask(factor, factor.begin(text), text.data)
        if state is None:
            return repr(factor.potential)
        states.append(state)
    return tuple(states)
