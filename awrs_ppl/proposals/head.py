"""What is known when the randomness of a draw begins: the head A, and the unknown rest U."""

from __future__ import annotations

import math

import numpy as np

from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.tokens.next_token import Outcomes
from awrs_ppl.tokens.urn import Urn

__all__ = ["Head"]

_LEAST_SHARE = 0.01  # no guess says that less of a tail is allowed
_LEAST_TWIST = 0.03  # whatever its twist says, no token weighs more than 33 times what it would


class Head:
    """What is known when the randomness begins: A with its weights, and U.

    Of A, what was known at first stays in arrays, for there may be thousands. `mass` is what A
    weighs with its twist.
    """

    def __init__(self, unknown: Urn, outcomes: Outcomes, verdicts: NextVerdicts) -> None:
        self.unknown, self._all, self._verdicts = unknown, outcomes.mass, verdicts
        self._accepted, self._weights = outcomes.accepted, outcomes.accepted_weights
        self._more: list[int] = []
        self._more_weights: list[float] = []
        self._waits = np.isin(self._accepted, list(verdicts.waiting))
        self._more_waits: list[bool] = []
        self._waiting = float(self._weights[self._waits].sum())
        self._whole = max(float(self._weights.sum()) - self._waiting, 0.0)
        self.draws, self.visits = 0, 1.0

    @property
    def lasts(self) -> bool:
        """Whether later runs will know what is learned here."""
        return self._verdicts.cache.lasts

    @property
    def cost(self) -> float:
        """Rows of the language model that a check is worth."""
        return self._verdicts.cost

    @property
    def mass(self) -> float:
        """What A weighs: tokens that wait for a verdict by their twist."""
        return self._whole + (self.twist() * self._waiting if self._waiting else 0.0)

    def twist(self) -> float:
        """What part of their weight those that wait are drawn by: a guess of their verdicts, by
        the others here. In a multi-byte character nothing new is known of it."""
        log_twist = self._verdicts.log_twist
        return max(self._allowed(), _LEAST_TWIST) if log_twist is None else math.exp(log_twist)

    def allowed_share(self) -> float:
        """What share of U is allowed: a guess by the verdicts so far, which counts for one draw,
        and by earlier draws."""
        share = self._allowed()
        for tail in self._verdicts.tails:
            share = (tail.allowed + share) / (tail.drawn + 1.0)
        return max(share, _LEAST_SHARE)

    def _allowed(self) -> float:
        """The allowed share of the mass that is not waiting, half of what is unknown."""
        rest = self.unknown.mass
        rejected = max(self._all - self._whole - self._waiting - rest, 0.0)
        total = self._whole + rejected + rest
        return (self._whole + 0.5 * rest) / total if total > 0.0 else 0.5

    def mean(self, share: float) -> float:
        """What W is expected to be."""
        return self.mass + share * self.unknown.mass

    def accept(self, outcome: int) -> None:
        """Move an outcome from U to A."""
        weight = self.unknown.remove(outcome)
        self._more.append(outcome)
        self._more_weights.append(weight)
        waits = outcome in self._verdicts.waiting
        self._more_waits.append(waits)
        if waits:
            self._waiting += weight
        else:
            self._whole += weight

    def frozen(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The outcomes of A, their weights, and by which part of these they are drawn.

        Others may learn while the tail is checked; this does not change with it.
        """
        outcomes, weights, waits = self._accepted, self._weights, self._waits
        if self._more:
            outcomes = np.concatenate([outcomes, np.array(self._more, outcomes.dtype)])
            weights = np.concatenate([weights, self._more_weights])
            waits = np.concatenate([waits, self._more_waits])
        return outcomes, weights, np.where(waits, self.twist(), 1.0)
