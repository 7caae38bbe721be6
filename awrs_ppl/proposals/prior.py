"""The language model alone as the proposal; the constraint only weighs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.proposals.proposal import DEAD, Draw
from awrs_ppl.tokens.next_token import Outcomes
from awrs_ppl.tokens.underflow import require_digits

__all__ = ["Prior"]


@dataclass(frozen=True, slots=True)
class Prior:
    """Draw from the LM without looking at the constraint: W = p(all) c(x).

    Without resampling this is sample-and-rerank, with it twisted SMC.

    >>> Prior()
    Prior()
    """

    uses_masks = False
    uses_verdicts = False
    is_proper = True

    async def draw(
        self, outcomes: Outcomes, verdicts: NextVerdicts, rngs: Sequence[np.random.Generator]
    ) -> list[Draw]:
        """One draw for each generator; see `Proposal`."""
        urn = outcomes.urn()
        mass = urn.mass
        require_digits(mass)  # the end that `max_tokens` forces may be unlikely
        log_weight = outcomes.log_scale + math.log(mass)
        drawn = [urn.draw(rng) for rng in rngs]
        answers = await verdicts.check_all(drawn)
        return [
            Draw(outcome, log_weight) if allowed else DEAD
            for outcome, allowed in zip(drawn, answers, strict=True)
        ]
