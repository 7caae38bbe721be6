"""How much of the evidence each part of a statement cost.

The evidence is a product over steps: each changes the mean weight of the population by a factor,
and resampling leaves the mean as it is. Where several parts act in one step, their factors are
separated by letting them act one after the other; they multiply to that of the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from awrs_ppl.inference.change import Change
from awrs_ppl.log_weights import log_sum
from awrs_ppl.posterior.records import Loss
from awrs_ppl.program.text_statements import Generate

__all__ = ["Losses"]

# Parts of a `generate` beside its weighing factors, which are numbered from 0.
_CONSTRAINT, _FORCED, _CRITIC = -1, -2, -3


class Losses:
    """The losses of one step after another; the labels of parts are those of the first."""

    def __init__(self) -> None:
        self._labels: dict[tuple[str, int], str] = {}

    def of(self, before: Sequence[float], changes: Sequence[Change]) -> tuple[Loss, ...]:
        """What the statements of a step do to the mean weight, by their parts. `before` are the
        log-weights of all slots with their twists."""
        pieces: dict[tuple[str, int], tuple[list[int], list[float]]] = {}
        for change in changes:
            statement = change.particle.statement
            assert statement is not None
            parts: Sequence[tuple[int, float]] = ((0, change.log_weight),)
            if isinstance(statement, Generate):
                if change.particle.progress is None:
                    self._begin(statement.name, statement)
                parts = _parts(change)
            else:
                self._labels.setdefault((statement.name, 0), "")
            for part, log_weight in parts:
                slots, weights = pieces.setdefault((statement.name, part), ([], []))
                slots.append(change.particle.slot)
                weights.append(log_weight)
        return tuple(self._lost(before, pieces))

    def _lost(self, before: Sequence[float], pieces: Any) -> Iterator[Loss]:
        weights = np.array(before)
        total = log_sum(weights)
        for (name, part), (slots, log_weights) in pieces.items():
            weights[slots] += log_weights
            left = log_sum(weights)
            yield Loss(name, self._labels[name, part], left - total)
            if left == -math.inf:
                return
            total = left

    def _begin(self, name: str, statement: Generate) -> None:
        target = statement.target
        factors = [factor.potential for factor in target.boolean]
        models = ""
        if len(target.dense) > 1:
            models = f"{len(target.dense)} language models"
        elif not factors:
            models = "the language model"
        self._label(name, _CONSTRAINT, factors, models)
        self._labels[name, _FORCED] = "max_tokens"
        for i, weigher in enumerate(target.weighted):
            self._label(name, i, [weigher.potential])
        if statement.critic is not None:
            self._label(name, _CRITIC, [statement.critic.potential], before="critic ")

    def _label(
        self, name: str, part: int, factors: list[Any], models: str = "", before: str = ""
    ) -> None:
        more = [models] if models else []
        label = before + " * ".join([*map(repr, factors), *more])
        if self._labels.setdefault((name, part), label) != label:
            # A statement whose potentials differ between particles: their kinds do not.
            kinds = [type(factor).__name__ for factor in factors]
            self._labels[name, part] = before + " * ".join([*kinds, *more])


def _parts(change: Change) -> Sequence[tuple[int, float]]:
    """What a step of a `generate` did to the weight with its twist, by parts."""
    particle, statement = change.particle, change.particle.statement
    assert isinstance(statement, Generate)
    weighted, critic = statement.target.weighted, statement.critic
    if change.error is not None:
        return ((_CONSTRAINT, change.log_weight + change.twist - particle.twist),)
    if change.completes:
        judged = change.log_weight + change.twist - particle.twist
        return ((_CRITIC, judged),) if critic is not None else ()
    before, after = particle.progress, change.progress
    tokens = 0 if before is None else len(before.text.tokens)
    main = _FORCED if tokens >= statement.max_tokens - 1 else _CONSTRAINT
    # The token's own twist is a guess of what its constraints will say.
    twist = 0.0 if after is None else after.twist - (0.0 if before is None else before.twist)
    if not weighted and critic is None:
        return ((main, change.log_weight + twist),)
    if after is None:
        killer = (change.killer or "").removesuffix(" (at the empty text)")
        names = [repr(weigher.potential) for weigher in weighted]
        return ((names.index(killer) if killer in names else main, -math.inf),)
    were = (0.0,) * len(weighted) if before is None else before.weights
    soft = [(i, after.weights[i] - were[i]) for i in range(len(weighted))]
    parts = [(main, change.log_weight + twist - sum(weight for _, weight in soft)), *soft]
    if critic is not None:
        parts.append((_CRITIC, change.twist - particle.twist - twist))
    return parts
