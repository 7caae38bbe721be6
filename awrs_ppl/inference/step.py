"""One step of weighted statements: a token of each text, or the whole of another statement.

Everything is computed before anything is changed, so that a timeout or an exception leaves
whole steps behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from awrs_ppl._concurrency import together
from awrs_ppl.constraints.weighing import Weigher, weigh_texts
from awrs_ppl.errors import ContextLengthError
from awrs_ppl.inference.change import Change, Shared
from awrs_ppl.inference.population import Particle
from awrs_ppl.inference.text_step import draw_tokens
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.rng import Purpose
from awrs_ppl.tokens.text import as_str

__all__ = ["make_step"]


async def make_step(active: Sequence[Particle], shared: Shared) -> list[Change]:
    """One step of particles that are at weighted statements."""
    texts = [p for p in active if isinstance(p.statement, Generate)]
    growing = [p for p in texts if p.progress is None or not p.progress.ended]
    others = [p for p in active if not isinstance(p.statement, Generate)]
    if not growing and not others:
        return await _end(texts, shared)
    changes = [Change(particle, progress=particle.progress) for particle in growing]
    if growing:
        changes = await draw_tokens(changes, shared)
        with shared.recorder.part("critic"):
            await _steer(changes, shared)
    with shared.recorder.part("observe"):
        changes += await together(_judge(p, shared) for p in others)
    return changes


async def _steer(changes: Sequence[Change], shared: Shared) -> None:
    """The twists of critics, on the texts that continue."""
    steered = [
        (change, critic, change.progress.lasting(change.generate.target.stops))
        for change in changes
        if change.progress is not None
        and (critic := change.generate.critic) is not None
        and shared.steer
        and not critic.potential.is_terminal_only()
    ]
    if not steered:
        return
    twists = await weigh_texts([(critic, text, False) for _, critic, text in steered])
    for (change, critic, _), twist in zip(steered, twists, strict=True):
        if isinstance(twist, ContextLengthError):
            change.fail(twist)
            continue
        change.twist += twist
        if twist == -math.inf:
            change.killer = _name(critic)


async def _end(texts: Sequence[Particle], shared: Shared) -> list[Change]:
    """All have ended their text: critics weigh it as a whole, and the models continue."""
    changes, judged = [], []
    for particle in texts:
        assert particle.progress is not None
        text = particle.progress.text
        change = Change(particle, completes=True, value=as_str(text.data))
        changes.append(change)
        if (critic := change.generate.critic) is not None:
            judged.append((change, critic, text))
    with shared.recorder.part("critic"):
        weights = await weigh_texts([(critic, text, True) for _, critic, text in judged])
    for (change, critic, _), weight in zip(judged, weights, strict=True):
        if isinstance(weight, ContextLengthError):
            change.fail(weight)
            continue
        change.log_weight, change.killer = weight, _name(critic)
    return changes


async def _judge(particle: Particle, shared: Shared) -> Change:
    """A statement that is weighed at once; its `errors` are raised in the model."""
    statement = particle.statement
    assert statement is not None
    change = Change(particle, completes=True, killer=f"{statement.kind} {statement.name!r}")
    try:
        rng = partial(shared.stream, particle, Purpose.SAMPLE)
        change.value, change.log_weight = await statement.weigh(rng)
    except statement.errors as error:
        if isinstance(error, ContextLengthError):
            change.fail(error)
        else:
            change.error = error
    return change


def _name(critic: Weigher) -> str:
    return f"critic {critic.potential!r}"
