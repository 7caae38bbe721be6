"""Boolean factors of a product, evaluated on one token of the language model at a time.

`ByteFactor` takes a potential of ours to tokens. Potentials of genlm-control are in `genlm_factor`,
and those that weigh in `weighing`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Hashable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from awrs_ppl._messages import show
from awrs_ppl.constraints.arguments import require_cost
from awrs_ppl.constraints.potential import BooleanPotential, State
from awrs_ppl.errors import AwrsError, PotentialError
from awrs_ppl.tokens.text import Text
from awrs_ppl.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from awrs_ppl.constraints.before_stops import BeforeStop
    from awrs_ppl.constraints.genlm_factor import TokenFactor
    from awrs_ppl.constraints.last_token import AfterLast

__all__ = ["ByteFactor", "Factor", "evaluate", "is_over_bytes"]

Factor: TypeAlias = "ByteFactor | TokenFactor | BeforeStop | AfterLast"


@dataclass(frozen=True, slots=True)
class ByteFactor:
    """A `BooleanPotential`, lifted: it sees the bytes of each token."""

    potential: BooleanPotential
    is_over_bytes: ClassVar = True

    @property
    def key(self) -> Hashable:
        """Equal for factors that say the same of every text."""
        return self.potential.key

    @property
    def cost(self) -> float:
        """Rows of the language model that one check is worth."""
        return require_cost(self.potential.cost, self.potential)

    async def begin(self, text: Text) -> State | None:
        """The state after a whole text; None if no allowed text has this prefix."""
        return await self.advance(self.potential.start(), None, text.data)

    async def advance(self, state: Any, token: int | None, data: bytes) -> State | None:
        """The state after a token, or after bytes that are no token; None if not allowed."""
        after = self.potential.advance(state, data)
        return await after if isawaitable(after) else after

    async def accepts(self, state: Any) -> bool:
        """Whether a text may end here."""
        return await self._bool("accepts", self.potential.accepts(state))

    async def is_over(self, state: Any) -> bool:
        """Whether a text that need not end may be over here, as far as this factor goes."""
        return await self._bool("is_over", self.potential.is_over(state))

    async def _bool(self, method: str, verdict: Any) -> bool:
        if isawaitable(verdict):
            verdict = await verdict
        if verdict is not True and verdict is not False and not isinstance(verdict, np.bool_):
            raise PotentialError(f"{self.potential!r}.{method} returned {verdict!r}, not a bool")
        return bool(verdict)

    def mask(self, state: Any, vocabulary: Vocabulary) -> np.ndarray | None:
        """All verdicts at once, shape `[vocabulary.size]`, or None if the factor has no mask."""
        if self.potential.mask is None:
            return None
        mask = np.asarray(self.potential.mask(state, vocabulary))
        if mask.dtype != np.bool_ or mask.shape != (vocabulary.size,):
            raise PotentialError(
                f"{self.potential!r}.mask returned an array of dtype {mask.dtype} and shape "
                f"{mask.shape}: it must be bool, of shape ({vocabulary.size},)"
            )
        return mask

    def next_bytes(self, state: Any) -> range | None:
        """The bytes that can continue the text, where they are known; else None."""
        return self.potential.next_bytes(state)


def is_over_bytes(factor: Factor) -> bool:
    """Whether what a factor says of a token it says of its bytes, and of all longer ones."""
    return getattr(factor, "is_over_bytes", False)


async def evaluate(factor: Factor, answer: Awaitable[Any], text: bytes) -> Any:
    """What a factor gives; what it raises becomes a `PotentialError` that names the text."""
    try:
        return await answer
    except AwrsError:
        raise
    except Exception as error:
        raise PotentialError(
            f"{factor.potential!r} raised {type(error).__name__}: {error} on the text {show(text)}"
        ) from error
