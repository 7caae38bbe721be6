"""What a step does to a particle, computed before anything is changed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from awrs_ppl.constraints.verdict_cache import VerdictCache
from awrs_ppl.inference.population import Particle
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.proposals.token_step import Progress, TokenStep
from awrs_ppl.rng import Purpose

if TYPE_CHECKING:
    from awrs_ppl.inference.recorder import Recorder

__all__ = ["Change", "Contest", "Parent", "Shared"]


@dataclass(frozen=True, slots=True)
class Contest:
    """What children compete for: the slots of the growing texts and the `spare` ones, where the
    effective sample size is below `ess_threshold` of all these. `rng` is the choice's."""

    spare: Sequence[int]
    ess_threshold: float
    rng: Callable[[], np.random.Generator]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all particles of a step share: the makers of their random numbers, the verdicts, and
    the log-weight `total` of the whole population. With `steer` critics twist; without a
    `contest` each particle draws one token."""

    stream: Callable[[Particle, Purpose], np.random.Generator]
    recorder: Recorder
    cache: VerdictCache
    total: float
    steer: bool
    contest: Contest | None = None

    def share(self, change: Change) -> float:
        """The part of the population's weight that a particle had before the step."""
        return math.exp(change.particle.total - self.total)


@dataclass(slots=True)
class Change:
    """What a step does to a particle; with `completes` its statement ends with `value`.

    `progress` is the text after the step, None where there is none: before the first token, and
    once it is clear that the particle dies, by `killer`, or that its statement fails.

    Children that were chosen together are one change each. The first stays in its parent's slot,
    the others come to a `new_slot`; `chosen` is by what the choice changed the log-weight,
    compared with a draw.
    """

    particle: Particle
    log_weight: float = 0.0
    twist: float = 0.0
    killer: str | None = None
    progress: Progress | None = None
    completes: bool = False
    value: Any = None
    error: Exception | None = None
    new_slot: int | None = None
    chosen: float = 0.0

    @property
    def slot(self) -> int:
        """Where the particle is after the step."""
        return self.particle.slot if self.new_slot is None else self.new_slot

    @property
    def generate(self) -> Generate:
        """The statement, where a text is generated."""
        statement = self.particle.statement
        assert isinstance(statement, Generate)
        return statement

    def weigh_text(self, weights: tuple[float, ...]) -> None:
        """Keep the log-weights of the weighing factors with the text."""
        assert self.progress is not None
        self.progress = replace(self.progress, weights=weights)

    def die(self, killer: str) -> None:
        """The weight becomes 0, by what is named."""
        self.log_weight, self.twist, self.progress, self.killer = -math.inf, 0.0, None, killer

    def fail(self, error: Exception) -> None:
        """End the statement with an error that its model can catch."""
        # Particles share the first: each is to have its own traceback and notes.
        self.completes, self.progress, self.error = True, None, copy.copy(error)
        self.twist = 0.0

    def apply(self) -> None:
        """Change the particle; if it is still alive, its model can continue."""
        self.particle.weigh(self.log_weight, self.twist, self.killer, self.chosen)
        if not self.completes:
            self.particle.progress = self.progress
        elif self.particle.is_live:
            self.particle.complete(self.value, self.error)


@dataclass(slots=True)
class Parent:
    """A particle whose children compete: what its step does before the draw, the context, its
    text then, its log-weight with the twists that its children share, and what its pool weighs.

    `aside` is what is set aside of its log-weight while children are compared.
    """

    change: Change
    step: TokenStep
    progress: Progress | None
    log_weight: float
    log_mass: float = -math.inf
    aside: float = 0.0

    def child(self, new_slot: int | None, log_weight: float) -> Change:
        """The change to a child of this log-weight, twists included, before its draw is made."""
        return replace(
            self.change,
            new_slot=new_slot,
            chosen=log_weight - self.log_weight - self.log_mass,
        )
