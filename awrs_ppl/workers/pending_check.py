"""A check that is waited for: it may be stopped, be late, or lose its worker."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

__all__ = ["NoVerdict", "Outcome", "PendingCheck", "ending"]

# Whether the function returned, and what it returned or raised.
Outcome: TypeAlias = tuple[bool, Any]


class NoVerdict(Exception):
    """The check could not run, or its process ended first: why, and what to do."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(f"{why}; {remedy}")
        self.why, self.remedy = why, remedy


class Killable(Protocol):
    """A worker, as far as a check knows it."""

    def kill(self) -> None: ...


@dataclass(eq=False, slots=True)
class PendingCheck:
    digest: bytes
    function: bytes
    text: str
    time_limit: float | None
    # An exception is a result too: asyncio rejects some kinds, and would wait for ever.
    future: Future[Outcome] = field(default_factory=Future)
    stopped: str | None = None
    _worker: Killable | None = None
    _is_over: bool = False
    _lock: Any = field(default_factory=threading.Lock)

    def begin(self, worker: Killable) -> bool:
        """Whether the worker should run it: it may have been stopped before."""
        with self._lock:
            self._worker = worker
            return self.stopped is None

    def stop(self, reason: str) -> None:
        """End the worker that runs it, if one does."""
        with self._lock:
            if self._is_over:
                return
            self.stopped = self.stopped or reason
            if self._worker is not None:
                self._worker.kill()
        self.future.cancel()

    def end(self) -> None:
        """From here on the worker must not be ended for this check."""
        with self._lock:
            self._is_over = True

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Stop the check when its time is up."""
        if self.time_limit is None:
            yield
            return
        timer = threading.Timer(self.time_limit, self.stop, ["late"])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def lost(self, code: int) -> NoVerdict:
        """Why there is no answer from a worker that has ended with this exit code."""
        if self.stopped == "late":
            return NoVerdict(
                f"took more than {self.time_limit:g} s",
                "that neither allows nor rejects: raise `time_limit`, or answer sooner",
            )
        if self.stopped is not None:
            return NoVerdict("its worker process was shut down", "check again")
        return NoVerdict(
            f"ended its worker process ({ending(code)})",
            "that neither allows nor rejects: call the function on this text to see why",
        )


def ending(code: int) -> str:
    """How a process ended, as text."""
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"exit code {code}"
