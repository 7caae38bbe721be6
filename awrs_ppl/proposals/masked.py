"""Draws where every factor has a mask: all verdicts are known, and W is the mass, without noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.proposals.proposal import Draw
from awrs_ppl.tokens.next_token import Outcomes
from awrs_ppl.tokens.underflow import require_digits
from awrs_ppl.tokens.urn import strata

__all__ = ["draw_masked"]


async def draw_masked(
    outcomes: Outcomes, verdicts: NextVerdicts, rngs: Sequence[np.random.Generator]
) -> list[Draw]:
    """One draw for each generator, by weight among what is allowed."""
    urn = outcomes.urn()
    # Ends are in no mask; with their verdicts nothing is unknown.
    size = verdicts.vocabulary.size
    for outcome in range(size, size + len(verdicts.closings.ends)):
        if urn.weight(outcome) > 0.0 and not await verdicts.check(outcome):
            urn.remove(outcome)
    mass = urn.mass
    require_digits(mass)
    log_weight = outcomes.log_scale + math.log(mass)
    return [Draw(urn.at(position), log_weight) for position in strata(len(rngs), rngs[0])]
