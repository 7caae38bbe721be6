"""One round of weighted statements: a token of each text, or the whole of another statement.

Everything is computed before anything is changed, so that a timeout or an exception leaves
whole rounds behind.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from awrs_ppl._concurrency import together
from awrs_ppl.constraints.adapters import Text, Weigher
from awrs_ppl.constraints.verdict_cache import Memory
from awrs_ppl.errors import ContextLengthError
from awrs_ppl.inference.population import Particle
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.proposals.token_step import Item, Meter, Progress, begin, step, weigh
from awrs_ppl.rng import Purpose
from awrs_ppl.tokens.vocabulary import stop_tail

__all__ = ["Change", "play"]

# The stream of a particle in this round.
Stream = Callable[[Particle, Purpose], np.random.Generator]


@dataclass(slots=True)
class Change:
    """What a round does to a particle; with `completes` its statement ends with `value`."""

    particle: Particle
    log_weight: float = 0.0
    twist: float = 0.0
    killer: str | None = None
    progress: Progress | None = None
    completes: bool = False
    value: Any = None
    error: Exception | None = None

    def fail(self, error: Exception) -> None:
        """End the statement with an error that its model can catch."""
        # Particles share the first: each is to have its own traceback and notes.
        self.completes, self.progress, self.error = True, None, copy.copy(error)

    def apply(self) -> None:
        """Change the particle; if it is still alive, its model may go on."""
        self.particle.weigh(self.log_weight, self.twist, self.killer)
        if not self.completes:
            self.particle.progress = self.progress
        elif self.particle.is_live:
            self.particle.complete(self.value, self.error)


async def play(
    active: Sequence[Particle],
    stream: Stream,
    meter: Meter,
    memory: Memory,
    total: float,
    *,
    steer: bool,
) -> list[Change]:
    """One round for particles at weighted statements; with `steer` critics twist.

    `total` is the log-weight of the whole population.
    """
    texts = [p for p in active if isinstance(p.statement, Generate)]
    growing = [p for p in texts if p.progress is None or not p.progress.ended]
    others = [p for p in active if not isinstance(p.statement, Generate)]
    if not growing and not others:
        return await _end(texts, meter)
    changes = []
    if growing:
        changes += await _grow(growing, stream, meter, memory, total, steer=steer)
    started = time.perf_counter()
    changes += await together(_judge(p, stream) for p in others)
    meter.lap("observe", started)
    return changes


async def _grow(
    growing: Sequence[Particle],
    stream: Stream,
    meter: Meter,
    memory: Memory,
    total: float,
    *,
    steer: bool,
) -> list[Change]:
    """One token of each text, and the twists of critics that steer."""
    changes = [Change(p, progress=p.progress) for p in growing]
    asked = [_generation(p) for p in growing]
    fresh = [i for i, p in enumerate(growing) if p.progress is None]
    for i, first in zip(fresh, await begin([asked[i] for i in fresh]), strict=True):
        changes[i].log_weight, changes[i].killer = first.log_weight, first.killer
        changes[i].progress = first.progress
        if first.error is not None:
            changes[i].fail(first.error)
    going = [(i, c.progress) for i, c in enumerate(changes) if c.progress is not None]
    items = [
        Item(
            asked[i],
            now,
            partial(stream, growing[i], Purpose.TOKEN),
            math.exp(growing[i].total - total),
        )
        for i, now in going
    ]
    for (i, _), advance in zip(going, await step(items, meter, memory), strict=True):
        changes[i].log_weight += advance.log_weight
        changes[i].progress, changes[i].killer = advance.progress, advance.killer
        changes[i].twist = advance.progress.twist if advance.progress is not None else 0.0
        if advance.error is not None:
            changes[i].fail(advance.error)
    started = time.perf_counter()
    steered = [
        (c, critic, _lasting(c.progress, generation))
        for c, generation in zip(changes, asked, strict=True)
        if c.progress is not None
        and (critic := generation.critic) is not None
        and steer
        and not critic.potential.is_terminal_only()
    ]
    twists = await weigh([(critic, text, False) for _, critic, text in steered])
    for (change, critic, _), twist in zip(steered, twists, strict=True):
        if isinstance(twist, ContextLengthError):
            change.twist = 0.0
            change.fail(twist)
            continue
        change.twist += twist
        if twist == -math.inf:
            change.killer = _name(critic)
    meter.lap("critic", started)
    return changes


def _lasting(progress: Progress, generation: Generate) -> Text:
    """The part of a text that no stop can take away: what it ends as begins with this."""
    text = progress.text
    tail = b"" if progress.ended else stop_tail(text.data, generation.target.stops)
    return replace(text, data=text.data[: len(text.data) - len(tail)])


async def _end(texts: Sequence[Particle], meter: Meter) -> list[Change]:
    """All have ended their text: critics weigh it for good, and the models go on."""
    started = time.perf_counter()
    changes = []
    for particle in texts:
        assert particle.progress is not None
        text = particle.progress.text.data.decode("utf-8", "surrogateescape")
        changes.append(Change(particle, completes=True, value=text))
    judged = [
        (change, critic, change.particle.progress.text)
        for change in changes
        if (critic := _generation(change.particle).critic) is not None
        and change.particle.progress is not None
    ]
    weights = await weigh([(critic, text, True) for _, critic, text in judged])
    for (change, critic, _), weight in zip(judged, weights, strict=True):
        if isinstance(weight, ContextLengthError):
            change.fail(weight)
            continue
        change.log_weight, change.killer = weight, _name(critic)
    meter.lap("critic", started)
    return changes


async def _judge(particle: Particle, stream: Stream) -> Change:
    """A statement that is weighed at once; its `errors` are raised in the model."""
    statement = particle.statement
    assert statement is not None
    change = Change(particle, completes=True, killer=f"{statement.kind} {statement.name!r}")
    try:
        rng = partial(stream, particle, Purpose.SAMPLE)
        change.value, change.log_weight = await statement.weigh(rng)
    except statement.errors as error:
        if isinstance(error, ContextLengthError):
            change.fail(error)
        else:
            change.error = error
    return change


def _generation(particle: Particle) -> Generate:
    assert isinstance(particle.statement, Generate)
    return particle.statement


def _name(critic: Weigher) -> str:
    return f"critic {critic.potential!r}"
