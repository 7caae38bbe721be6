"""What many tasks request of an engine, done together, batch by batch, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from awrs_ppl.lm.jobs import Job

__all__ = ["Passes"]

# An inference takes about a dozen turns of the event loop from an answer to its next request;
# an empty turn takes microseconds.
_QUIET_TURNS = 32


@dataclass(slots=True)
class _Line:
    """The requests of one event loop that wait for the next pass."""

    waiting: list[tuple[list[Job], asyncio.Future]] = field(default_factory=list)
    busy: bool = False


class Passes:
    """Batches of jobs of one engine, from any number of event loops.

    `run` has one answer for each job. `after_fork` is called in a forked process before its first
    pass: a fork copies no threads, and may have come in the middle of a pass.
    """

    def __init__(
        self, run: Callable[[list[Job]], Sequence[torch.Tensor]], after_fork: Callable[[], None]
    ) -> None:
        self._run, self._after_fork = run, after_fork
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = (
            weakref.WeakKeyDictionary()
        )
        self._start_worker()

    def _start_worker(self) -> None:
        # One thread: a pass uses all cores anyway, and a cache needs no lock.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="awrs_ppl-lm")
        self._process = os.getpid()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have the worker thread call a function."""
        if self._process != os.getpid():
            self._after_fork()
            self._start_worker()
        return self._worker.submit(function, *arguments)

    async def answers(self, jobs: list[Job]) -> list[torch.Tensor]:
        """Have jobs done together with those of other tasks of this event loop."""
        if not jobs:
            return []
        loop = asyncio.get_running_loop()
        line = self._lines.setdefault(loop, _Line())
        future = loop.create_future()
        line.waiting.append((jobs, future))
        if not line.busy:
            line.busy = True
            loop.call_soon(self._dispatch, loop, line, len(line.waiting))
        return await future

    def _dispatch(
        self, loop: asyncio.AbstractEventLoop, line: _Line, seen: int, quiet: int = 0
    ) -> None:
        """Start a pass as soon as some turns of the event loop bring no further request.

        So inferences that were answered together send their next requests together: each needs
        a few turns from an answer to its next request. Not in a caller's task: a cancelled caller
        would take the others with it.
        """
        quiet = quiet + 1 if len(line.waiting) == seen else 0
        if line.waiting and quiet < _QUIET_TURNS:
            loop.call_soon(self._dispatch, loop, line, len(line.waiting), quiet)
            return
        batch, line.waiting = [entry for entry in line.waiting if not entry[1].done()], []
        line.busy = bool(batch)
        if not batch:
            return
        work = self.submit(self._run, [job for jobs, _ in batch for job in jobs])

        def deliver() -> None:
            error = work.exception()
            answers = iter(() if error else work.result())
            for jobs, future in batch:
                mine = list(islice(answers, len(jobs)))
                if future.done():
                    continue
                if error:
                    future.set_exception(error)
                else:
                    future.set_result(mine)
            loop.call_soon(self._dispatch, loop, line, len(line.waiting))

        def wake(_: Future) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(deliver)

        work.add_done_callback(wake)
