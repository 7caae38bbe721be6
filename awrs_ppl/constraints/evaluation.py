"""Evaluating Boolean factors: what they raise becomes an error that names the text."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from awrs_ppl._messages import show
from awrs_ppl.constraints.adapters import Factor, Text
from awrs_ppl.constraints.potential import State
from awrs_ppl.constraints.product import Target
from awrs_ppl.errors import AwrsError, PotentialError

__all__ = ["evaluate", "start"]

EMPTY = Text()


async def evaluate(factor: Factor, answer: Awaitable[Any], text: bytes) -> Any:
    """What a factor gives; what it raises becomes a `PotentialError` that names the text."""
    try:
        return await answer
    except AwrsError:
        raise
    except Exception as error:
        raise PotentialError(
            f"{factor.potential!r} raised {type(error).__name__}: {error} on the text {show(text)}"
        ) from error


async def start(target: Target, text: Text = EMPTY) -> tuple[State, ...] | str:
    """The states after a text, or the name of a Boolean factor that rejects it."""
    states: list[State] = []
    for factor in target.boolean:
        state = await evaluate(factor, factor.begin(text), text.data)
        if state is None:
            return repr(factor.potential)
        states.append(state)
    return tuple(states)
