"""An event loop in a thread of its own, for callers that have none, or have one that runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from awrs_ppl.errors import ModelError

__all__ = ["Background"]

T = TypeVar("T")


class Background:
    """Runs coroutines one call after the other, while their tasks go on between the calls.

    >>> background = Background()
    >>> async def three():
    ...     return 3
    >>> background.run(three())
    3
    >>> background.close()
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="awrs_ppl event loop", daemon=True
        )
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """Whether it runs nothing more."""
        return self._loop.is_closed()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns or raises. An interrupt of the caller cancels it.

        Raises `ModelError` after `close`.
        """
        if self.is_closed:
            coroutine.close()
            raise ModelError("the pool was closed: take all results within its `with`")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is left, and end the loop and its thread."""
        if self.is_closed:
            return
        self.run(_cancelled())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancelled() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
