"""Constraints on texts that may end at a stop of several bytes: what may still become one is held
back from them.

A refinement, of which a text without stops, or with those of one byte, sees nothing. After
"one\\n" under the stop "\\n\\n" a constraint has read "one": if the stop comes, this is the text,
and if not, the constraint reads "\\n" with what comes instead. A state is that of the factor and
the bytes that are `pending`, the longest end of the text that is a proper prefix of a stop. What a
longer text holds back begins no earlier, so that the prefixes of an allowed token are allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from awrs_ppl._recent import Recent
from awrs_ppl.constraints.factor import is_over_bytes
from awrs_ppl.constraints.potential import BooleanPotential, State
from awrs_ppl.tokens.stops import lasting, stop_prefix
from awrs_ppl.tokens.text import Text, continuing
from awrs_ppl.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Hashable

    from awrs_ppl.constraints.factor import ByteFactor
    from awrs_ppl.constraints.genlm_factor import TokenFactor

__all__ = ["BeforeStop", "before_stop", "held_back", "read_again"]

# What tokens release at some pending bytes, where it is not all of them: the bytes, these tokens,
# and where nothing is pending the longest token that is a prefix of the bytes.
_Released: TypeAlias = list[tuple[bytes, np.ndarray, int | None]]
_MOST = 64

_released: WeakKeyDictionary[Vocabulary, Recent] = WeakKeyDictionary()


@lru_cache(maxsize=256)
def held_back(stops: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The stops whose prefixes are held back: of several bytes, from the start of a character."""
    return tuple(stop for stop in stops if len(stop) > 1 and not 0x80 <= stop[0] < 0xC0)


@lru_cache(maxsize=256)
def read_again(stops: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The other stops: what may become one is read, and read again once one is complete."""
    return tuple(stop for stop in stops if stop not in held_back(stops))


def before_stop(factor: Any, stops: tuple[bytes, ...]) -> Any:
    """A factor of texts that end before stops; itself where nothing need be held back."""
    held = held_back(stops)
    return BeforeStop(factor, held) if held else factor


@dataclass(frozen=True, slots=True)
class BeforeStop:
    """A Boolean factor from which prefixes of `stops` are held back."""

    factor: ByteFactor | TokenFactor
    stops: tuple[bytes, ...]

    @property
    def potential(self) -> Any:
        """That of the factor."""
        return self.factor.potential

    @property
    def is_over_bytes(self) -> bool:
        """Whether what it says of a token it says of its bytes."""
        return is_over_bytes(self.factor)

    @property
    def key(self) -> Hashable:
        """Equal for factors that say the same of every text before these stops."""
        return self.factor.key, self.stops

    @property
    def cost(self) -> float:
        """Rows of the language model that one check is worth."""
        return self.factor.cost

    async def begin(self, text: Text) -> State | None:
        """The state after a text: `accepts` reads what is pending, too."""
        pending = stop_prefix(text.data, self.stops)
        begun = await self.factor.begin(Text(text.data[: len(text.data) - len(pending)]))
        return None if begun is None else (begun, pending)

    async def advance(self, state: Any, token: int | None, data: bytes) -> State | None:
        """The state after a token, or after bytes that are no token; None if not allowed."""
        before, pending = state
        data = pending + data
        held = stop_prefix(data, self.stops)
        if not held and not pending:
            after = await self.factor.advance(before, token, data)
        elif len(held) == len(data):
            after = before
        else:
            after = await self.factor.advance(before, None, data[: len(data) - len(held)])
        return None if after is None else (after, held)

    async def accepts(self, state: Any) -> bool:
        """Whether a text may end here, with what is pending."""
        before, pending = state
        if pending:
            before = await self.factor.advance(before, None, pending)
        return before is not None and await self.factor.accepts(before)

    async def is_over(self, state: Any) -> bool:
        """Whether a text that need not end may be over here: not while something is pending."""
        before, pending = state
        return not pending and await self.factor.is_over(before)

    def mask(self, state: Any, vocabulary: Vocabulary) -> np.ndarray | None:
        """All verdicts at once, or None: those of the factor, but for tokens that are not read
        whole."""
        potential, (before, pending) = self.potential, state
        if getattr(potential, "mask", None) is None:
            return None
        after = potential.advance(before, pending) if pending else before
        if isawaitable(after):
            return _unawaited(after)
        whole = None if after is None else self.factor.mask(after, vocabulary)
        mask = np.zeros(vocabulary.size, bool) if whole is None else whole.copy()
        for data, tokens, prefix in _released_at(vocabulary, self.stops, pending):
            # With a token every prefix of it is allowed, and nothing with a rejected prefix.
            if not data or (whole is not None and not pending and whole[tokens].any()):
                mask[tokens] = True
                continue
            if whole is not None and prefix is not None:
                is_token = len(vocabulary.tokens[prefix]) == len(data)
                if is_token or not whole[prefix]:
                    mask[tokens] = whole[prefix]
                    continue
            after = potential.advance(before, data)
            if isawaitable(after):
                return _unawaited(after)
            mask[tokens] = after is not None
        return mask

    def next_bytes(self, state: Any) -> range | None:
        """The bytes that can continue the text, where they are known; else None."""
        before, pending = state
        if not pending:
            return self.factor.next_bytes(before)
        kind = type(self.potential)
        reads_text = getattr(kind, "next_bytes", None) is not BooleanPotential.next_bytes
        return continuing(pending) if reads_text else None


def _unawaited(answer: Any) -> None:
    """No mask: this potential must be awaited, so its tokens are checked."""
    if hasattr(answer, "close"):
        answer.close()


def _released_at(vocabulary: Vocabulary, stops: tuple[bytes, ...], pending: bytes) -> _Released:
    """The tokens that are not read whole after `pending`, by what is read of both."""
    tables = _released.setdefault(vocabulary, Recent(_MOST))
    found: _Released | None = tables.get((stops, pending))
    if found is None:
        found = _find_released(vocabulary, stops, pending)
        tables.put((stops, pending), found)
    return found


def _find_released(vocabulary: Vocabulary, stops: tuple[bytes, ...], pending: bytes) -> _Released:
    begun = tuple({stop[:n] for stop in stops for n in range(1, len(stop))})
    groups: dict[bytes, list[int]] = {}
    for token in vocabulary.text_ids.tolist():
        data = pending + vocabulary.tokens[token]
        if data.endswith(begun) and not any(stop in data for stop in stops):
            groups.setdefault(lasting(data, stops), []).append(token)
    released: _Released = []
    for data, tokens in groups.items():
        prefixes = [] if pending else vocabulary.prefix_index.within(data)
        longest = max(prefixes, key=lambda token: len(vocabulary.tokens[token]), default=None)
        released.append((data, np.array(tokens), longest))
    return released
