"""Completions: bytes after which a partial text may end, as far as the masks of a product say.

A refinement, of which a text far from `max_tokens` sees nothing. Masks say what may come next and
not how far the end is, so a completion is searched: best first over single bytes, through few of
those that a mask allows, and what leads to a mask that was met before comes later. What is found
is certain to end the text, as far as masks say, and need not be the shortest.

Only factors that say that they can be `searched` are read; their `words` are tried as if they were
single bytes. Other factors may reject what is found.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from awrs_ppl.constraints.factor import Factor
from awrs_ppl.constraints.potential import State
from awrs_ppl.constraints.target import Target
from awrs_ppl.tokens.vocabulary import SINGLE_BYTES

__all__ = ["CompletionSearch", "is_searchable"]


class _Phase(NamedTuple):
    """How a search goes on: the states that it visits at most, of about 30 us each; what a byte
    costs, and by how much less a word does the first time; and whether, where a byte may close
    something, no other is tried."""

    most: int
    per_byte: float
    bonus: float = 0.0
    closing: bool = False


# A short completion; if that takes long, one that closes what is open; or any.
_PHASES = (_Phase(250, 1.0), _Phase(500, 0.0, 12.0, True), _Phase(750, 0.0, 12.0))
_CLOSING = frozenset(b"\"'}])>")
_MOST_WORDS = 24
# Where a mask allows more bytes than this, the search tries those after which something else is
# allowed than after most, these, and a few others. So many masks are looked at in one search.
_MANY_BYTES, _FEW_OTHERS, _MASKS = 20, 2, 6
_TRIED = b"\"'}])>,:;.01aA-/@{["
_DETOURS = b"\t\n\r\\"  # only where nothing else is allowed
_PENALTY = 3.0  # what leads to a mask that was met on the way costs so many bytes more


def is_searchable(target: Target) -> bool:
    """Whether there are masks by which completions can be searched."""
    read = [factor.potential for factor in target.boolean if _is_read(factor)]
    return any(getattr(potential, "mask", None) is not None for potential in read)


def _is_read(factor: Factor) -> bool:
    return getattr(factor.potential, "searched", False)


class CompletionSearch:
    """A search for completions of a text, at these states of a product's Boolean factors."""

    def __init__(self, target: Target, states: Sequence[State], text: bytes) -> None:
        pairs = zip(target.boolean, states, strict=True)
        read = [(factor, state) for factor, state in pairs if _is_read(factor)]
        self._factors = [factor for factor, _ in read]
        self._at = tuple(state for _, state in read)
        words = [getattr(factor.potential, "words", ()) for factor in self._factors]
        self._words = [word for of_one in words for word in of_one][:_MOST_WORDS]
        self._stops, self._text = target.stops, text
        self._tail = max((len(stop) for stop in target.stops), default=1) - 1
        self._telling: dict[bytes, bytes] = {}  # by what a mask allows

    async def find(self, guesses: Sequence[bytes] = (), *, thorough: bool = True) -> bytes | None:
        """A completion; None if none was found.

        The first of `guesses` that is one is taken. A search that is not `thorough` visits a sixth
        of the states at most.
        """
        for guess in (b"", *guesses):
            if await self.ends_after(guess):
                return guess
        try:
            for phase in _PHASES if thorough else _PHASES[:1]:
                found = await self._first(self._at, phase)
                if found is not None:
                    return found
        except Exception:
            # What a factor cannot say of a text that nobody drew is no error.
            return None
        return None

    async def ends_after(self, data: bytes) -> bool:
        """Whether some bytes are a completion."""
        try:
            after = await self._advance(self._at, data) if data else self._at
            if after is None or self._has_stop(data):
                return False
            return bool(self._text or data) and await self._accepts(after)
        except Exception:
            return False  # as above

    async def _first(self, states: tuple[Any, ...], phase: _Phase) -> bytes | None:
        """The completion that is found first; where bytes cost nothing the search goes deep."""
        order, visited = count(0, -1), 0
        ahead = [(0.0, next(order), b"", states, frozenset[Any]())]
        while ahead and visited < phase.most:
            cost, _, data, at, met = heapq.heappop(ahead)
            if (self._text or data) and await self._accepts(at):
                return data
            children: dict[Any, tuple[float, bytes, tuple[Any, ...]]] = {}
            allowed = await self._allowed(at)
            pieces = self._pieces(allowed, await self._tell(at, allowed))
            if phase.closing:
                pieces.sort(key=lambda piece: len(piece) > 1 or piece[0] not in _CLOSING)
            for piece in pieces:
                if phase.closing and children and piece[0] not in _CLOSING:
                    break
                longer = data + piece
                after = await self._advance(at, piece)
                visited += 1
                if after is None or self._has_stop(longer):
                    continue
                if len(piece) > 1:
                    kind, more = piece, _PENALTY if piece in met else -phase.bonus
                else:
                    # States cannot be told apart but by what they allow: of the bytes after one
                    # state one of each kind is enough.
                    kind = await self._kind(after)
                    more = _PENALTY * (kind in met)
                children.setdefault(kind, (more, longer, after))
            # What is the only way costs nothing; else the first is the cheapest.
            for rank, (kind, (more, longer, after)) in enumerate(children.items()):
                extra = phase.per_byte or (rank + more if len(children) > 1 else 0.0)
                heapq.heappush(ahead, (cost + extra, next(order), longer, after, met | {kind}))
        return None

    async def _kind(self, states: tuple[Any, ...]) -> tuple[bytes, bool]:
        return await self._allowed(states), await self._accepts(states)

    async def _tell(self, at: tuple[Any, ...], allowed: bytes) -> bytes:
        """Of many bytes that are allowed, those after which something else is allowed than after
        most: one of each kind, those that end the text first."""
        if len(allowed) <= _MANY_BYTES or allowed in self._telling:
            return self._telling.get(allowed, b"")
        if len(self._telling) >= _MASKS:
            return b""
        kinds: dict[tuple[bytes, bool], bytearray] = {}
        for byte in sorted(allowed, key=lambda byte: (byte in _DETOURS, byte not in _TRIED)):
            after = await self._advance(at, bytes([byte]))
            if after is not None:
                kinds.setdefault(await self._kind(after), bytearray()).append(byte)
        most = max(kinds.values(), key=len, default=bytearray())
        others = sorted(
            (not kind[1], len(of), of[0]) for kind, of in kinds.items() if of is not most
        )
        found = self._telling[allowed] = bytes(byte for _, _, byte in others)
        return found

    def _pieces(self, allowed: bytes, telling: bytes) -> list[bytes]:
        """What is tried next, in this order: words, bytes that tell, and few of the others that are
        allowed."""
        allowed = bytes(byte for byte in allowed if byte not in telling)
        allowed = bytes(byte for byte in allowed if byte < 0x80) or allowed
        allowed = bytes(byte for byte in allowed if byte not in _DETOURS) or allowed
        tried = bytes(byte for byte in _TRIED if byte in allowed)
        others = bytes(byte for byte in allowed if byte not in tried)
        tried += others if len(allowed) <= _MANY_BYTES else others[:_FEW_OTHERS]
        tried = tried.replace(b" ", b"") + b" " * (b" " in allowed)  # last
        words = [word for word in self._words if word[0] in allowed]
        return [*words, *(bytes([byte]) for byte in telling + tried)]

    async def _advance(self, states: tuple[Any, ...], data: bytes) -> tuple[Any, ...] | None:
        after = []
        for factor, state in zip(self._factors, states, strict=True):
            after.append(await factor.advance(state, None, data))
            if after[-1] is None:
                return None
        return tuple(after)

    async def _allowed(self, states: tuple[Any, ...]) -> bytes:
        """The bytes that the masks allow."""
        allowed = np.ones(256, bool)
        for factor, state in zip(self._factors, states, strict=True):
            mask = factor.mask(state, SINGLE_BYTES)
            if mask is not None:
                allowed = allowed & mask
        return allowed.nonzero()[0].astype(np.uint8).tobytes()

    async def _accepts(self, states: tuple[Any, ...]) -> bool:
        for factor, state in zip(self._factors, states, strict=True):
            if not await factor.accepts(state):
                return False
        return True

    def _has_stop(self, data: bytes) -> bool:
        if not self._stops:
            return False
        read = self._text[len(self._text) - min(self._tail, len(self._text)) :] + data
        return any(stop in read for stop in self._stops)
