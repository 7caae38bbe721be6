"""The workers of a `RayPool`: actors that are started, given calls, and replaced when they die."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from awrs_ppl._messages import shorten
from awrs_ppl.errors import WorkerError
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.scale.ray_start import imported
from awrs_ppl.workers._answers import opened

__all__ = ["PoolFailed", "Workers"]

_log = logging.getLogger(__name__)
# How often a worker may die in the same place: with the same input, or in load().
_DEATHS = 3
# Seconds that a worker has to stop a call before it is killed: one forward pass may have begun.
_PATIENCE = 30.0
_keys = count()


class PoolFailed(BaseException):
    """No worker is left: the error is that of the pool and of no input."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Sent:
    """A pickled model with its options, put into Ray's object store when it is first sent."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data
        self._digest = hashlib.sha256(data).digest()
        self._reference: Any = None

    def parts(self) -> tuple[bytes, list[Any]]:
        """The digest, and the reference to the data in a list, so that Ray leaves it one."""
        if self._data is not None:
            self._reference, self._data = imported().put(self._data), None
        return self._digest, [self._reference]


class _Worker:
    """One actor, as seen from here."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.calls = 0
        self.is_dead = False
        self.is_reserved = False
        self.idle = asyncio.Event()
        self.idle.set()

    def begin(self) -> None:
        self.calls += 1
        self.idle.clear()

    def end(self) -> None:
        self.calls -= 1
        if not self.calls:
            self.idle.set()

    async def call(self, partial: bool, *given: Any) -> tuple[bool, Any]:
        """What the actor answers; raises what Ray raises where it died.

        A call that is cancelled is stopped there; if `partial`, what it has by then is given.
        """
        key = next(_keys)
        answer = asyncio.wrap_future(self.actor.infer.remote(key, *given).future())
        try:
            return opened(await asyncio.shield(answer))
        except asyncio.CancelledError:
            await self._stop(key)
            with suppress(Exception):  # it may have died
                found = opened(await answer)
                task = asyncio.current_task()
                if partial and found[0] and task is not None:
                    task.uncancel()
                    return found
            raise

    async def _stop(self, key: int) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.actor.stop.remote(key)
        except Exception as error:
            _log.warning("a worker did not stop in time and is killed: %r", error)
            self.kill()

    def kill(self) -> None:
        self.is_dead = True
        with suppress(Exception):
            imported().kill(self.actor)


class Workers:
    """So many actors, by `make`, each of which first makes its language model by `load`.

    All of this happens in one event loop.
    """

    def __init__(self, make: Callable[[], Any], number: int, load: bytes, threads: int) -> None:
        self._make, self._number, self._load, self._threads = make, number, load, threads
        self._live: list[_Worker] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._failures: list[BaseException] = []
        self._changed = asyncio.Event()
        self._is_closed = False
        self._errors: tuple[type[Exception], ...] = (imported().exceptions.RayError,)

    async def start(self) -> None:
        """Start them, and wait for the first; raises what `load` raises."""
        self._keepers = [asyncio.create_task(self._keep()) for _ in range(self._number)]
        while not self._live and not self._failures:
            await self._change()
        if self._failures:
            raise self._failures[0]

    async def close(self) -> None:
        """End all of them, and what they do."""
        self._is_closed = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def infer(
        self,
        about: str,
        most: int,
        partial: bool,
        numbers: Sequence[int],
        sent: Sent,
        seed: int,
        args: bytes,
    ) -> list[Posterior]:
        """The posteriors of runs of a model, by a worker that has fewer than `most` calls.

        If the worker dies the call is made again, alone in a worker, since it may be what killed
        it. Raises `WorkerError` when that has happened too often.
        """
        deaths = 0
        while True:
            alone = deaths > 0
            worker = await self._taken(most, alone)
            try:
                if alone:
                    await worker.idle.wait()
                if worker.is_dead:
                    continue
                worker.begin()
                try:
                    went_well, found = await worker.call(
                        partial, list(numbers), seed, args, *sent.parts()
                    )
                finally:
                    worker.end()
            except self._errors as error:
                worker.kill()
                if self._is_closed:
                    raise asyncio.CancelledError from None
                deaths += 1
                if deaths == _DEATHS:
                    raise WorkerError(
                        f"a worker died {deaths} times with {about}: perhaps it needs more memory "
                        f"than there is, or crashes; Ray says: {_said(error)}"
                    ) from None
                _log.info("a worker died with %s, which is done again", about)
                continue
            finally:
                if alone:
                    worker.is_reserved = False
                self._notify()
            if not went_well:
                raise found
            return found

    async def _taken(self, most: int, alone: bool) -> _Worker:
        """A worker with room; `alone`: one that is given nothing else, reserved."""
        while True:
            open_ = [w for w in self._live if not w.is_reserved and not w.is_dead]
            able = [w for w in open_ if alone or w.calls < most]
            if able:
                worker = min(able, key=lambda w: w.calls)
                if alone:
                    worker.is_reserved = True
                return worker
            if len(self._failures) == self._number:
                raise PoolFailed(self._failures[0])
            await self._change()

    async def _change(self) -> None:
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _keep(self) -> None:
        """Keep one worker alive, until it cannot be started."""
        try:
            deaths = 0
            while True:
                worker = _Worker(self._make())
                try:
                    await self._loaded(worker)
                    deaths = 0
                    self._live.append(worker)
                    self._notify()
                    await worker.actor.wait.remote()
                except self._errors as error:
                    deaths += worker not in self._live
                    if deaths == _DEATHS:
                        raise WorkerError(
                            f"a worker died {deaths} times before load() had returned: perhaps the "
                            "language model needs more memory than there is, or the library is not "
                            f"installed there; Ray says: {_said(error)}"
                        ) from None
                    _log.warning("a worker died, and another is started: %s", _said(error))
                finally:
                    worker.kill()
                    if worker in self._live:
                        self._live.remove(worker)
                    self._notify()
        except Exception as error:
            self._failures.append(error)
            if self._live:
                _log.warning("a worker could not be started, the others go on: %r", error)
            self._notify()

    async def _loaded(self, worker: _Worker) -> None:
        went_well, found = opened(await worker.actor.begin.remote(self._load, self._threads))
        if not went_well:
            raise found


def _said(error: Exception) -> str:
    """What Ray says of a death, without the numbers of what died."""
    lines = [line for line in str(error).splitlines() if not line.startswith("\t")]
    return shorten(" ".join(" ".join(lines).split()), 200, tail=0)
