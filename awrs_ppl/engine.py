"""Executions of a model: each coroutine lives in one task, blocks at its statements and can
be rebuilt from the log of what they gave."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

from awrs_ppl.errors import ModelError, ReplayError
from awrs_ppl.program import Context, Statement
from awrs_ppl.trace import Record, Request, copied

__all__ = ["Model", "Run"]

Model = Callable[..., Any]

_USUAL_CAUSES = (
    "a model must do the same again with the same values. The usual causes: `random` or the time "
    "outside ctx.sample or ctx.call, the order of a set, a global that changed"
)


class _Dropped(BaseException):
    """Unwinds the coroutine of a particle that was not continued; no user code catches it."""


class Run:
    """One execution of a model, live in a task of its own.

    `records` are given again before anything is asked. `notify` is called whenever the
    execution blocks at a statement, ends or fails; `request` is then the statement's request,
    or `finished` is true. A `strict` run also compares the weights of `factor` and `condition`.
    """

    def __init__(
        self,
        model: Model,
        args: Sequence[Any],
        records: Sequence[Record],
        notify: Callable[[], None],
        *,
        strict: bool = False,
    ) -> None:
        self.request: Request | None = None
        self._records = records
        self._replayed = 0
        self._notify = notify
        self._strict = strict
        self._future: asyncio.Future[Any] | None = None
        self._made: Statement[Any] | None = None
        self._dropped = False
        self._fault: BaseException | None = None
        self._model = model
        self._task = asyncio.get_running_loop().create_task(
            self._main(args), context=contextvars.copy_context()
        )
        self._task.add_done_callback(self._ended)

    async def _main(self, args: Sequence[Any]) -> Any:
        coroutine = self._model(Context(self), *args)
        if not hasattr(coroutine, "__await__"):
            raise ModelError(
                f"the model {_named(self._model)} gave {coroutine!r}, not a coroutine: define it "
                "with `async def`"
            )
        value = await coroutine
        if self._made is not None:
            raise self._faulty(ModelError(_not_awaited(self._made) + " before the model ended"))
        if self._replayed < len(self._records):
            missing = self._records[self._replayed].request
            raise self._faulty(
                ReplayError(
                    f"run again, the model ended where it had made {missing.shows()}: "
                    + _USUAL_CAUSES
                )
            )
        return value

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as lost
        self._notify()

    # --- what the engine sees -------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the model has returned or raised."""
        return self._task.done()

    @property
    def failure(self) -> BaseException | None:
        """What the model raised, if it did. Misuse is reported even if the model caught it."""
        if self._fault is not None:
            return self._fault
        if not self._task.done():
            return None
        if self._task.cancelled():
            return asyncio.CancelledError("the model was cancelled from inside")
        return self._task.exception()

    @property
    def value(self) -> Any:
        """What the model returned."""
        return self._task.result()

    def resume(self, value: Any, error: BaseException | None = None) -> None:
        """Give the statement that blocks its value, or an exception to raise there."""
        assert self._future is not None
        future, self._future, self.request = self._future, None, None
        if future.done():
            return  # cancelled from inside the model: `failure` tells
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    async def drop(self) -> None:
        """Unwind the coroutine, so that its `finally` clauses run; never raises."""
        self._dropped = True
        if self._task.done():
            return
        if self._future is not None and not self._future.done():
            self._future.set_exception(_Dropped())
        else:
            self._task.cancel()
        await asyncio.wait([self._task])

    # --- what statements see --------------------------------------------------------------

    def made(self, statement: Statement[Any]) -> None:
        """A statement was made. Raises `ModelError` if the one before was never awaited."""
        if self._dropped:
            raise _Dropped
        before, self._made = self._made, statement
        if before is not None:
            raise self._faulty(
                ModelError(
                    f"{_not_awaited(before)} before ctx.{statement.request.kind}(...) at "
                    f"{statement.line}: statements run one after the other, so await each in "
                    "turn, and make no asyncio.gather or TaskGroup of them; for many texts at "
                    "once raise n_particles"
                )
            )

    def perform(self, statement: Statement[Any]) -> Generator[Any, Any, Any]:
        """Serve an awaited statement: from the record, or by blocking until the engine does."""
        if self._dropped:
            raise _Dropped
        request = statement.request
        if asyncio.current_task() is not self._task or self._future is not None:
            raise self._faulty(
                ModelError(
                    f"ctx.{request.kind}(...) at {statement.line} was awaited in another task: "
                    "statements of one particle cannot run side by side. Instead of "
                    "asyncio.gather, TaskGroup or wait_for, await them in turn"
                )
            )
        if self._made is not statement:
            raise self._faulty(
                ModelError(f"ctx.{request.kind}(...) at {statement.line} was awaited twice")
            )
        self._made = None
        if self._replayed < len(self._records):
            record = self._records[self._replayed]
            self._replayed += 1
            self._check(record.request, request)
            if record.error is not None:
                raise record.error
            return copied(record.value)
        self.request = request
        self._future = asyncio.get_running_loop().create_future()
        self._notify()
        try:
            return (yield from self._future)
        except asyncio.CancelledError:
            if self._dropped:
                raise
            raise self._faulty(
                ModelError(
                    f"a cancellation reached ctx.{request.kind}(...) at {statement.line}: "
                    "asyncio.timeout, TaskGroup and wait_for must not span a statement; give "
                    "`infer` a timeout, or put what is slow into ctx.call"
                )
            ) from None

    def _check(self, recorded: Request, request: Request) -> None:
        def identity(r: Request) -> tuple[Any, ...]:
            return (r.kind, r.name, r.fingerprint)

        same = identity(recorded) == identity(request)
        if same and self._strict and request.kind in ("factor", "condition"):
            same = recorded.arguments == request.arguments or math.isclose(
                recorded.arguments, request.arguments, rel_tol=1e-6
            )
        if not same:
            raise self._faulty(
                ReplayError(
                    f"run again, the model made another request.\n  first: {recorded.shows()}\n"
                    f"  now:   {request.shows()}\n{_USUAL_CAUSES}"
                )
            )

    def _faulty(self, error: ModelError) -> ModelError:
        self._fault = self._fault or error
        return error


def _named(model: Model) -> str:
    return getattr(model, "__qualname__", repr(model))


def _not_awaited(statement: Statement[Any]) -> str:
    call = f"ctx.{statement.request.kind}(...)"
    return f"{call} at {statement.line} was made and not awaited: write `await {call}`"
