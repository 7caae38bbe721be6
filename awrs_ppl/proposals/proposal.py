"""What a token proposal is: a distribution of outcomes with weights.

A proposal gives a random outcome x and a weight W with E[W 1{x = v}] = p(v) c(v) for every
outcome v (proper weighting), where p is the LM's weight and c the verdict of the constraint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard

import numpy as np

from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.tokens.next_token import Outcomes

if TYPE_CHECKING:
    from awrs_ppl.proposals.pool import Pool

__all__ = ["DEAD", "Draw", "PoolProposal", "Proposal", "has_pool", "is_proposal"]


class Draw(NamedTuple):
    """An outcome and the logarithm of W. With W = 0 the particle is dead.

    `twist` is what a resampling before the next draw should add to it: a guess of what the
    verdict that is still to come will do to the weight.
    """

    outcome: int
    log_weight: float
    twist: float = 0.0


DEAD = Draw(-1, -math.inf)


class Proposal(Protocol):
    """A frozen, hashable object that draws for particles that are at the same context.

    `uses_masks`: masks are taken out of the outcomes before the draw. `uses_verdicts`: so are
    those whose verdicts are known, and `outcomes.accepted` are the allowed ones of them.
    `is_proper`: the weights are proper, so that the evidence is unbiased. One with a method `pool`,
    as `AWRS` has, lets the children of all particles compete.
    """

    @property
    def uses_masks(self) -> bool: ...
    @property
    def uses_verdicts(self) -> bool: ...
    @property
    def is_proper(self) -> bool: ...

    async def draw(
        self, outcomes: Outcomes, verdicts: NextVerdicts, rngs: Sequence[np.random.Generator]
    ) -> list[Draw]:
        """One draw for each of `rngs`. `verdicts` may check outcomes, and is shared by the
        draws; the numbers for what they decide together come from the first of `rngs`."""
        ...


def is_proposal(value: Any) -> bool:
    """Whether something is a proposal, and not a class of them."""
    return not isinstance(value, type) and hasattr(value, "draw")


class PoolProposal(Proposal, Protocol):
    """A proposal that gives all outcomes with their weights, and not only one of them."""

    async def pool(
        self,
        outcomes: Outcomes,
        verdicts: NextVerdicts,
        rng: np.random.Generator,
        members: int,
    ) -> Pool:
        """The outcomes, learned and drawn for as many draws as there are `members`."""
        ...


def has_pool(proposal: Proposal) -> TypeGuard[PoolProposal]:
    """Whether a proposal has a pool, of which children can be taken."""
    return hasattr(proposal, "pool")
