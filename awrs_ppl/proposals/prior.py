"""The language model alone as the proposal; the constraint only weighs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from awrs_ppl.constraints.next_verdicts import Knowledge
from awrs_ppl.proposals.proposal import DEAD, Draw
from awrs_ppl.tokens.next_token import Outcomes

__all__ = ["Prior"]


@dataclass(frozen=True, slots=True)
class Prior:
    """Draw from the LM without looking at the constraint: W = p(all) c(x).

    Without resampling this is sample-and-rerank, with it twisted SMC.

    >>> Prior()
    Prior()
    """

    uses_masks = False
    uses_knowledge = False
    is_proper = True

    async def draw(
        self, outcomes: Outcomes, knowledge: Knowledge, rngs: Sequence[np.random.Generator]
    ) -> list[Draw]:
        """One draw for each generator; see `Proposal`."""
        urn = outcomes.urn()
        mass = urn.mass
        if outcomes.is_faint(mass):  # the end that `max_tokens` forces may be unlikely
            rescaled = outcomes.rescaled(np.empty(0, dtype=np.int64))
            if rescaled is not None:
                return await self.draw(rescaled, knowledge, rngs)
        if mass == 0.0:
            return [DEAD] * len(rngs)
        log_weight = outcomes.log_scale + math.log(mass)
        drawn = [urn.draw(rng) for rng in rngs]
        verdicts = await knowledge.check_all(drawn)
        return [
            Draw(outcome, log_weight) if allowed else DEAD
            for outcome, allowed in zip(drawn, verdicts, strict=True)
        ]
