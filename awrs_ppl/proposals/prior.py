"""The language model alone as the proposal; the constraint only weighs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from awrs_ppl.knowledge import Knowledge
from awrs_ppl.outcomes import Outcomes, Urn
from awrs_ppl.proposals.proposal import DEAD, Draw

__all__ = ["Prior"]


@dataclass(frozen=True, slots=True)
class Prior:
    """Draw from the LM without looking at the constraint: W = p(all) c(x).

    Without resampling this is sample-and-rerank, with it twisted SMC.

    >>> Prior()
    Prior()
    """

    uses_masks: ClassVar[bool] = False
    is_proper: ClassVar[bool] = True

    async def draw(
        self, outcomes: Outcomes, knowledge: Knowledge, rngs: Sequence[np.random.Generator]
    ) -> list[Draw]:
        """One draw for each generator; see `Proposal`."""
        urn = Urn(outcomes.p)
        mass = urn.mass
        if mass == 0.0:
            return [DEAD] * len(rngs)
        log_weight = outcomes.log_scale + math.log(mass)
        drawn = [urn.draw(rng) for rng in rngs]
        return [
            Draw(outcome, log_weight) if await knowledge.check(outcome) else DEAD
            for outcome in drawn
        ]
