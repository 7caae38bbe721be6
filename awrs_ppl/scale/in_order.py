"""Many inputs at once, and their results in order."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from itertools import count
from typing import Any

from awrs_ppl._messages import quoted
from awrs_ppl.inference._progress import bar_on_stderr
from awrs_ppl.posterior.posterior import Posterior

__all__ = ["InOrder", "Result", "bar_of"]

# Posteriors that wait for an earlier one to be given: so many times `concurrency`, with those in
# progress. One slow input then does not stop the others at once, and memory stays bounded.
_AHEAD = 4

Result = Posterior | Exception


class InOrder:
    """The inputs in progress, at most `concurrency` at once, and the results that wait.

    An exception names its input; it is raised in its turn if `raises`, else given. All of this
    happens in one event loop.
    """

    def __init__(
        self,
        one: Callable[[int, Any], Awaitable[Posterior]],
        concurrency: int,
        *,
        raises: bool,
        bar: Any = None,
    ) -> None:
        self._one, self._raises, self._bar = one, raises, bar
        self._most = _AHEAD * concurrency
        self._running = asyncio.Semaphore(concurrency)
        self._tasks: deque[asyncio.Task[Result]] = deque()
        self._numbers = count()

    @property
    def room(self) -> int:
        """How many inputs to `start` now."""
        return self._most - len(self._tasks)

    async def start(self, values: Iterable[Any]) -> bool:
        """Start these inputs, which come after those before; whether there is a result to wait
        for."""
        for value in values:
            self._tasks.append(asyncio.create_task(self._outcome(next(self._numbers), value)))
        return bool(self._tasks)

    async def first(self) -> Result:
        """The result of the first input that was not given yet."""
        result = await self._tasks[0]
        self._tasks.popleft()
        if self._raises and isinstance(result, Exception):
            raise result
        return result

    async def stop(self) -> None:
        """Stop what is in progress, and wait until it has."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _outcome(self, number: int, value: Any) -> Result:
        async with self._running:
            try:
                return await self._one(number, value)
            except Exception as error:
                error.add_note(f"awrs_ppl: in input {number}: {quoted(value)}")
                return error
            finally:
                if self._bar is not None:
                    self._bar.update()


def bar_of(named: str, unit: str, total: int | None, progress: bool) -> AbstractContextManager[Any]:
    """A bar on stderr; None where there is none to show."""
    if not progress or sys.stderr is None:
        return nullcontext()
    return closing(bar_on_stderr(named, unit, total))
