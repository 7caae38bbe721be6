"""Inferences that end early: by a timeout, or by an interrupt if the caller allows that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from awrs_ppl.errors import ModelError

__all__ = ["require_options", "stoppable", "take_back"]


def require_options(timeout: Any, partial: Any) -> None:
    """Raises `ModelError` for what is no number of seconds, and no truth value."""
    if timeout is not None and not (isinstance(timeout, int | float) and timeout >= 0):
        raise ModelError(f"timeout={timeout!r}: it must be seconds, or None")
    if not isinstance(partial, bool):
        raise ModelError(f"partial={partial!r}: it must be True or False")


async def stoppable(work: Awaitable[object], timeout: float | None, partial: bool) -> str | None:
    """Do the work; why it ended early, if the caller allows that, else None."""
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            await work
    except TimeoutError:
        if not scope.expired():
            raise
        return "timed out"
    except asyncio.CancelledError:
        if not (partial and take_back()):
            raise
        return "interrupted"
    return None


def take_back() -> bool:
    """Let the cancellation of this task end here."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    return task is not None
