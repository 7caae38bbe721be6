"""Checks in processes of their own: several at once, with a time limit, and safe from crashes.

A worker is a fresh interpreter that is asked one question at a time over its standard streams.
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

from awrs_ppl.workers._pickles import FUNCTIONS, pickled_by_value
from awrs_ppl.workers._worker import ENDED, send
from awrs_ppl.workers.question import NoVerdict, Outcome, Question, ending

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

    The function travels by value, with what it needs of its own module as that is when it is
    first asked, and once more whenever its `function_key` has changed: not for a change inside
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
    question = Question(digest, pickled, text, time_limit)
    _pool(workers).questions.put(question)
    try:
        returned, answer = await asyncio.wrap_future(question.future)
    finally:
        question.stop("cancelled")
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

    def ask(self, question: Question) -> Outcome:
        # Importing what the function needs does not count as time of the check.
        if question.digest not in self._known:
            if len(self._known) >= FUNCTIONS:
                self._known.clear()
                send(self._requests, None)
            send(self._requests, (question.digest, question.function))
            loaded, failure = _unpacked(*pickle.load(self._answers))
            if not loaded:
                return False, NoVerdict(
                    f"cannot be loaded in a worker process: {type(failure).__name__}: {failure}",
                    "import inside the function, from modules that `sys.path` leads to",
                )
            self._known.add(question.digest)
        with question.limited():
            send(self._requests, (question.digest, question.text))
            answer = pickle.load(self._answers)
        return _unpacked(*answer)

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
        self.questions: SimpleQueue[Question | None] = SimpleQueue()
        self._asked: set[Question] = set()
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
            self.questions.put(None)
        for question in list(self._asked):
            question.stop("shutdown")
        for thread in self._threads:
            thread.join(timeout=1)

    def _run(self) -> None:
        worker: _Worker | None = None
        while (question := self.questions.get()) is not None:
            if question.future.set_running_or_notify_cancel():
                self._asked.add(question)
                if self._is_closed:
                    question.stop("shutdown")
                worker, outcome = _answer(worker, question)
                self._asked.discard(question)
                # The loop of a caller that was cancelled may have been closed.
                if question.stopped != "cancelled":
                    question.future.set_result(outcome)
        if worker is not None:
            worker.close()


def _answer(worker: _Worker | None, question: Question) -> tuple[_Worker | None, Outcome]:
    """The worker, or None if it has to be replaced, and the outcome."""
    if question.stopped is not None:
        return worker, (False, question.lost(0))
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
                    f"could not be asked: a worker process did not start ({how})",
                    f"see its standard error, and whether {sys.executable!r} is a Python",
                ),
            )
    outcome = None
    with suppress(*ENDED):
        if question.begin(worker):
            outcome = worker.ask(question)
    question.end()
    if outcome is not None and question.stopped is None:
        return worker, outcome
    code = worker.close()
    return None, outcome or (False, question.lost(code))


def _unpacked(returned: bool, data: bytes, note: str) -> Outcome:
    try:
        answer = pickle.loads(data)
    except Exception as error:
        return False, RuntimeError(f"what a worker process answered cannot be read: {error!r}")
    if not returned:
        answer.add_note(note)
    return returned, answer


_lock = threading.Lock()
_pools: dict[tuple[int, int], _Pool] = {}
atexit.register(shutdown)


def _pool(size: int) -> _Pool:
    with _lock:
        key = (os.getpid(), size)
        if key not in _pools:
            _pools[key] = _Pool(size)
        return _pools[key]
