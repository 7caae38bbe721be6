"""The last token of a text that need not end: it is allowed where the text it makes is accepted.

A refinement. Without it a token would be drawn by what its text can begin, and the particle would
die where this text is none: unbiased, and of more variance. Whole texts have no prefixes, so that
each candidate is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np

    from awrs_ppl.constraints.factor import Factor
    from awrs_ppl.constraints.potential import State
    from awrs_ppl.constraints.target import Target
    from awrs_ppl.tokens.text import Text
    from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["AfterLast", "key_after_last", "with_last"]


def with_last(target: Target) -> Target:
    """A product, with a factor more for each Boolean one: it must accept the text after a token.
    Their states are those of the factors, once more."""
    return replace(target, boolean=(*target.boolean, *map(AfterLast, target.boolean)))


def key_after_last(key: Hashable) -> Hashable:
    """The key of the factor more, by that of the factor."""
    return AfterLast, key


@dataclass(frozen=True, slots=True)
class AfterLast:
    """A Boolean factor, evaluated on texts that are over after the next token."""

    factor: Factor

    @property
    def potential(self) -> Any:
        """That of the factor."""
        return self.factor.potential

    @property
    def key(self) -> Hashable:
        """Equal for factors that accept the same texts."""
        return key_after_last(self.factor.key)

    @property
    def cost(self) -> float:
        """Rows of the language model that one check is worth."""
        return self.factor.cost

    async def begin(self, text: Text) -> State | None:
        """The state after a text before the last token."""
        return await self.factor.begin(text)

    async def advance(self, state: Any, token: int | None, data: bytes) -> State | None:
        """The state after the last token; None if the text is not accepted."""
        after = await self.factor.advance(state, token, data)
        return after if after is not None and await self.factor.accepts(after) else None

    async def accepts(self, state: Any) -> bool:
        """Whether the text may end without a further token."""
        return await self.factor.accepts(state)

    async def is_over(self, state: Any) -> bool:
        """What the factor says."""
        return await self.factor.is_over(state)

    def mask(self, state: Any, vocabulary: Vocabulary) -> np.ndarray | None:
        """None: candidates are checked, among those that the mask of the factor leaves."""
        return None

    def next_bytes(self, state: Any) -> range | None:
        """None: the factor itself knows."""
        return None
