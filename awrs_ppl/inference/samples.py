"""Draws from finite distributions, stratified over the particles that draw at once.

A refinement. Of n particles that draw from the same probabilities each gets one of n equal strata
of [0, 1), in random order. Each draw has its distribution, so that weights stay right; together
they are spread: of 40 particles 10 have a value of probability .25, not 10 give or take 2.7.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from awrs_ppl.distributions import Bernoulli, Categorical
from awrs_ppl.inference.population import Particle
from awrs_ppl.program.statements import Sample
from awrs_ppl.rng import Purpose
from awrs_ppl.tokens.urn import strata

__all__ = ["stratified"]


def stratified(
    particles: Sequence[Particle], stream: Callable[[Particle, Purpose], np.random.Generator]
) -> dict[int, Any]:
    """The values of particles that draw from equal finite distributions, by their slots.

    The numbers of a group come from the stream of its first particle.
    """
    groups: dict[Any, list[Particle]] = defaultdict(list)
    for particle in sorted(particles, key=lambda particle: particle.slot):
        statement = particle.statement
        if isinstance(statement, Sample) and not statement.is_weighted:
            distribution = statement.distribution
            if type(distribution) is Bernoulli:
                groups[statement.name, distribution.p].append(particle)
            elif type(distribution) is Categorical:
                groups[statement.name, distribution.probabilities.tobytes()].append(particle)
    return {
        particle.slot: particle.statement.distribution.at(position)  # pyright: ignore
        for members in groups.values()
        if len(members) > 1
        for particle, position in zip(
            members, strata(len(members), stream(members[0], Purpose.SAMPLE)).tolist(), strict=True
        )
    }
