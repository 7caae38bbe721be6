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

from awrs_ppl.inference.change import Change, Parent
from awrs_ppl.inference.population import is_forced
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

    def of(
        self, before: Sequence[float], changes: Sequence[Change], parents: Sequence[Parent] = ()
    ) -> tuple[Loss, ...]:
        """What the statements of a step do to the mean weight, by their parts. `before` are the
        log-weights of all slots with their twists; `parents` those whose children compete."""
        weights = np.array(before)
        found: list[Loss] = []
        of_particle = {id(parent.change.particle): parent for parent in parents}
        if parents:
            found += self._lost(weights, [(p.change, _parts_of_parent(p)) for p in parents])
            # The choice leaves the sum of the weights as it is.
            for parent in parents:
                weights[parent.change.slot] = -math.inf
            for change in changes:
                parent = of_particle.get(id(change.particle))
                if parent is not None:
                    weights[change.slot] = parent.log_weight + parent.log_mass + change.chosen
        parts = [
            (change, _parts(change, of_particle.get(id(change.particle)))) for change in changes
        ]
        return (*found, *self._lost(weights, parts))

    def _lost(
        self, weights: np.ndarray, changes: Sequence[tuple[Change, Sequence[tuple[int, float]]]]
    ) -> Iterator[Loss]:
        """The losses of parts that act one after the other; `weights` are changed."""
        pieces: dict[tuple[str, int], tuple[list[int], list[float]]] = {}
        for change, parts in changes:
            statement = change.particle.statement
            assert statement is not None
            if not isinstance(statement, Generate):
                self._labels.setdefault((statement.name, 0), "")
            elif change.particle.progress is None:
                self._begin(statement.name, statement)
            for part, log_weight in parts:
                slots, log_weights = pieces.setdefault((statement.name, part), ([], []))
                slots.append(change.slot)
                log_weights.append(log_weight)
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


def _parts_of_parent(parent: Parent) -> Sequence[tuple[int, float]]:
    """What the draw of a token did to the weight of a particle whose children compete."""
    change = parent.change
    whole = parent.log_weight + parent.log_mass - change.particle.total
    begun = []
    if change.particle.progress is None and parent.progress is not None:
        begun = list(enumerate(parent.progress.weights))
    return [*begun, (_main(change), whole - sum(weight for _, weight in begun))]


def _main(change: Change) -> int:
    forced = is_forced(change.generate, change.particle.progress)
    return _FORCED if forced else _CONSTRAINT


def _parts(change: Change, parent: Parent | None = None) -> Sequence[tuple[int, float]]:
    """What a step did to the weight with its twist, by parts; without the draw of its token if
    its parent's children competed."""
    particle, statement = change.particle, change.particle.statement
    if not isinstance(statement, Generate):
        return ((0, change.log_weight),)
    weighted, critic = statement.target.weighted, statement.critic
    if change.error is not None:
        return ((_CONSTRAINT, change.log_weight + change.twist - particle.twist),)
    if change.completes:
        judged = change.log_weight + change.twist - particle.twist
        return ((_CRITIC, judged),) if critic is not None else ()
    before, after = particle.progress, change.progress
    if after is None:
        killer = (change.killer or "").removesuffix(" (at the empty text)")
        names = [repr(weigher.potential) for weigher in weighted]
        return ((names.index(killer) if killer in names else _main(change), -math.inf),)
    # The token's own twist is a guess of what its constraints will say.
    twist = after.twist - (0.0 if before is None else before.twist)
    if parent is not None:
        before = parent.progress
    were = (0.0,) * len(weighted) if before is None else before.weights
    parts = [(i, after.weights[i] - were[i]) for i in range(len(weighted))]
    if parent is None:
        drawn = change.log_weight + twist - sum(weight for _, weight in parts)
        parts.insert(0, (_main(change), drawn))
    if critic is not None:
        parts.append((_CRITIC, change.twist - particle.twist - twist))
    return parts
