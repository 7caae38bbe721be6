"""Coroutines side by side, none of them left running."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from awrs_ppl.errors import ModelError

__all__ = ["require_no_loop", "resolve", "together"]

T = TypeVar("T")


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results, in order. The first exception comes out as itself, the rest cancelled.

    >>> async def double(x):
    ...     return 2 * x
    >>> asyncio.run(together(double(x) for x in range(3)))
    [0, 2, 4]
    """
    pending = list(coroutines)
    if len(pending) == 1:
        return [await pending[0]]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in pending]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        # gather leaves the others running.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def require_no_loop(called: str, instead: str) -> None:
    """Raises `ModelError` where an event loop is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ModelError(
        f"{called} was called where an event loop is running already (a notebook, or async "
        f"code): write `{instead}`"
    )


async def resolve(value: Any) -> Any:
    """The value, awaited if it must be."""
    return await value if inspect.isawaitable(value) else value
