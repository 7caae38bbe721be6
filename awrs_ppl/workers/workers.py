"""Checks in processes of their own: several at once, with a time limit, and safe from crashes.

A worker is a fresh interpreter that runs one check at a time, sent over its standard streams.
It does not run the script that started it again, and it ends with it.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from awrs_ppl.workers._answers import opened
from awrs_ppl.workers._pickles import FUNCTIONS, pickled_by_value
from awrs_ppl.workers._worker import ENDED, send
from awrs_ppl.workers.pending_check import NoVerdict, Outcome, PendingCheck, ending

__all__ = ["NoVerdict", "check", "shutdown"]

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from awrs_ppl.workers._worker import serve; serve()"
)


async def check(
    function: Callable[[str], Any], text: str, *, workers: int, time_limit: float | None = None
) -> Any:
    """`function(text)`, from one of so many worker processes, which all calls share.

    What the function raises is raised here. `NoVerdict` if it takes more than `time_limit`
    seconds, if its process ends, or if it cannot be sent. If the caller is cancelled, the
    process is ended, with all it has started.

    The function travels by value, with what it needs of its own module as that is at its
    first check, and once more whenever its `function_key` has changed: not for a change inside
    a list. Other modules are imported in the worker.

    >>> asyncio.run(check(str.isupper, "LOUD", workers=1))
    True
    """
    try:
        digest, pickled = pickled_by_value(function)
    except Exception as error:
        raise NoVerdict(
            f"cannot be sent to a worker process: {type(error).__name__}: {error}",
            "make what it needs inside the function, or leave out `workers`",
        ) from error
    pending = PendingCheck(digest, pickled, text, time_limit)
    _pool(workers).queue.put(pending)
    try:
        returned, answer = await asyncio.wrap_future(pending.future)
    finally:
        pending.stop("cancelled")
    if not returned:
        raise answer
    return answer


def shutdown() -> None:
    """End all workers, as the end of the interpreter does; a further check starts new ones."""
    with _lock:
        # A forked process has not got its parent's workers.
        closing = [_pools.pop(key) for key in list(_pools) if key[0] == os.getpid()]
    for pool in closing:
        pool.close()


class _Worker:
    """One process, as seen from here; raises one of `ENDED` when that has ended."""

    def __init__(self) -> None:
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Else sets are ordered differently in each worker, and verdicts may depend on it.
            env={"PYTHONHASHSEED": "0", **os.environ},
            # Interrupts are for the program, and what a check has started can be ended with it.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._known: set[bytes] = set()
        self._lock = threading.Lock()

    def wait_until_ready(self) -> None:
        pickle.load(self._answers)

    def run(self, pending: PendingCheck) -> Outcome:
        # Importing what the function needs does not count as time of the check.
        if pending.digest not in self._known:
            if len(self._known) >= FUNCTIONS:
                self._known.clear()
                send(self._requests, None)
            send(self._requests, (pending.digest, pending.function))
            loaded, failure = opened(pickle.load(self._answers))
            if not loaded:
                return False, NoVerdict(
                    f"cannot be loaded in a worker process: {type(failure).__name__}: {failure}",
                    "import inside the function, from modules that `sys.path` leads to",
                )
            self._known.add(pending.digest)
        with pending.limited():
            send(self._requests, (pending.digest, pending.text))
            answer = pickle.load(self._answers)
        return opened(answer)

    def is_alive(self) -> bool:
        with self._lock:
            return self._process.poll() is None

    def kill(self) -> None:
        """End the process, and those that it has started."""
        with self._lock, suppress(OSError):
            if self._process.returncode is not None:
                return
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> int:
        """End the process; returns its exit code."""
        self.kill()
        with self._lock:
            code = self._process.wait()
        for stream in (self._requests, self._answers):
            with suppress(OSError):
                stream.close()
        return code


class _Pool:
    """So many threads, each with one worker, which starts when it is first needed."""

    def __init__(self, size: int) -> None:
        self.queue: SimpleQueue[PendingCheck | None] = SimpleQueue()
        self._running: set[PendingCheck] = set()
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._run, name="awrs_ppl worker", daemon=True)
            for _ in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._is_closed = True
        for _ in self._threads:
            self.queue.put(None)
        for pending in list(self._running):
            pending.stop("shutdown")
        for thread in self._threads:
            thread.join(timeout=1)

    def _run(self) -> None:
        worker: _Worker | None = None
        while (pending := self.queue.get()) is not None:
            if pending.future.set_running_or_notify_cancel():
                self._running.add(pending)
                if self._is_closed:
                    pending.stop("shutdown")
                worker, outcome = _answer(worker, pending)
                self._running.discard(pending)
                # The loop of a caller that was cancelled may have been closed.
                if pending.stopped != "cancelled":
                    pending.future.set_result(outcome)
        if worker is not None:
            worker.close()


def _answer(worker: _Worker | None, pending: PendingCheck) -> tuple[_Worker | None, Outcome]:
    """The worker, or None if it has to be replaced, and the outcome."""
    if pending.stopped is not None:
        return worker, (False, pending.lost(0))
    if worker is not None and not worker.is_alive():
        worker.close()
        worker = None
    if worker is None:
        try:
            worker = _Worker()
            worker.wait_until_ready()
        except Exception as error:
            how = repr(error) if worker is None else ending(worker.close())
            return None, (
                False,
                NoVerdict(
                    f"could not be run: a worker process did not start ({how})",
                    f"see its standard error, and whether {sys.executable!r} is a Python",
                ),
            )
    outcome = None
    with suppress(*ENDED):
        if pending.begin(worker):
            outcome = worker.run(pending)
    pending.end()
    if outcome is not None and pending.stopped is None:
        return worker, outcome
    code = worker.close()
    return None, outcome or (False, pending.lost(code))


_lock = threading.Lock()
_pools: dict[tuple[int, int], _Pool] = {}
atexit.register(shutdown)


def _pool(size: int) -> _Pool:
    with _lock:
        key = (os.getpid(), size)
        if key not in _pools:
            _pools[key] = _Pool(size)
        return _pools[key]
