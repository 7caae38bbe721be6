"""What an inference leaves behind for its posterior: synchronizations, losses, deaths, efforts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Death", "Effort", "Loss", "Sync", "resamplings"]


@dataclass(frozen=True, slots=True)
class Loss:
    """By how much one part of a statement changed the logarithm of the mean weight in a step.

    `part` names potentials; it is empty where the statement has no parts.
    """

    statement: str
    part: str
    log_evidence: float


@dataclass(frozen=True, slots=True)
class Sync:
    """A synchronization: the ESS of all particles before resampling, those of some weight, and
    the ancestor of each slot if there was a resampling, of which the slots `kept` had no part.

    Of the step before it: `log_weights` are those of all slots, with twists and before
    resampling; `added` what each slot has written, as text to show; `losses` what the statements
    of the step did to the mean weight; `chosen`: that children competed in it, and their parents
    are the ancestors of the synchronization before. `survived` is the share of the weight that
    went on in what was taken, of these children and of the particles resampled.
    """

    ess: float
    alive: int
    ancestors: tuple[int, ...] | None
    log_weights: tuple[float, ...] = ()
    added: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()
    kept: tuple[int, ...] = ()
    chosen: bool = False
    survived: float = 1.0


def resamplings(history: Sequence[Sync]) -> int:
    """How often particles were resampled, or their children competed. Those of the first step have
    no synchronization before it that would have their parents."""
    return sum(s.ancestors is not None for s in history) + bool(history and history[0].chosen)


@dataclass(frozen=True, slots=True)
class Death:
    """How a particle came to weight zero.

    At which synchronization (from 1), in which slot, statement and token of its text (from 1; 0
    where it was no token), by what, and the end of the text before.
    """

    step: int
    slot: int
    statement: str
    token: int
    killer: str
    text: str


@dataclass(slots=True)
class Effort:
    """What a statement took, over all particles and dropped lineages: tokens, checks, seconds.

    `filters`: it only accepts or rejects, as a `condition` or a product of one language model
    and Boolean potentials. `forced` counts the texts that `max_tokens` left nothing but their end,
    and `forced_share` is what those that ended so have of the weight at the end.
    """

    kind: str
    filters: bool
    tokens: int = 0
    checks: float = 0.0
    seconds: float = 0.0
    forced: int = 0
    forced_share: float = 0.0
