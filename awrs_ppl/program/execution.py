"""Executions of a model: each coroutine lives in one task, blocks at its statements and can
be rebuilt from the log of what they gave."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any

from awrs_ppl.errors import ModelError
from awrs_ppl.program import misuse, replay
from awrs_ppl.program.context import Context, Pending
from awrs_ppl.program.log import Record, copied
from awrs_ppl.program.statements import Statement

__all__ = ["Model", "Run", "name_of_model", "require_model"]

Model = Callable[..., Any]


def require_model(model: Any) -> None:
    """Raises `ModelError` for what cannot be called."""
    if not callable(model):
        raise ModelError(f"the model {model!r} is no function: define it with `async def`")


def name_of_model(model: Any) -> str:
    """What a model is called: of a bound one the function, of an object its class."""
    while isinstance(model, functools.partial):
        model = model.func
    return getattr(model, "__qualname__", None) or type(model).__qualname__


class _Dropped(BaseException):
    """Unwinds the coroutine of a particle that was not continued; no user code catches it."""


class Run:
    """One execution of a model, live in a task of its own.

    The values of `records` are given again before any new statement. `notify` is called whenever
    the execution blocks at a statement, ends or fails; `statement` is then that one, or `finished`
    is true. A `strict` run also compares what is weighed and drawn from.
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
        self.statement: Statement | None = None
        self._records = records
        self._replayed = 0
        self._notify = notify
        self._strict = strict
        self._future: asyncio.Future[Any] | None = None
        self._made: Pending[Any] | None = None
        self._dropped = False
        self._fault: BaseException | None = None
        self._given: BaseException | None = None
        self._model = model
        self.context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._main(args), context=self.context)
        self._task.add_done_callback(self._ended)

    async def _main(self, args: Sequence[Any]) -> Any:
        coroutine = self._model(Context(self), *args)
        if not hasattr(coroutine, "__await__"):
            raise misuse.no_coroutine(self._model, coroutine)
        try:
            value = await coroutine
        except Exception as error:
            if self._made is not None:
                # `word = ctx.generate(...)` and then `word.strip()`: the commonest mistake.
                raise self._faulty(misuse.not_awaited(self._made)) from error
            raise
        if self._made is not None:
            raise self._faulty(misuse.not_awaited(self._made, " before the model ended"))
        if self._replayed < len(self._records):
            raise self._faulty(replay.ended_early(self._records[self._replayed].statement))
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
            return misuse.cancelled_inside()
        return self._task.exception()

    @property
    def value(self) -> Any:
        """What the model returned."""
        return self._task.result()

    def resume(self, value: Any, error: BaseException | None = None) -> None:
        """Give the statement that blocks its value, or an exception to raise there."""
        assert self._future is not None
        future, self._future, self.statement = self._future, None, None
        if future.done():
            return  # cancelled from inside the model: `failure` says so
        self._given = error
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

    def made(self, pending: Pending[Any]) -> None:
        """A statement was made. Raises `ModelError` if the one before was never awaited."""
        if self._dropped:
            self._unwind()
        before, self._made = self._made, pending
        if before is not None:
            raise self._faulty(misuse.overtaken(before, pending))

    def perform(self, pending: Pending[Any]) -> Generator[Any, Any, Any]:
        """Serve an awaited statement: from the record, or by blocking until the engine does."""
        if self._dropped:
            self._unwind()
        if self._replayed < len(self._records) and self._made is pending:
            # The rules below were kept the first time, or there would be no record.
            self._made = None
            record = self._records[self._replayed]
            self._replayed += 1
            error = replay.difference(record.statement, pending.statement, self._strict)
            if error is not None:
                raise self._faulty(error)
            if record.error is not None:
                raise record.error
            return copied(record.value)
        if asyncio.current_task() is not self._task or self._future is not None:
            raise self._faulty(misuse.another_task(pending))
        if self._made is not pending:
            raise self._faulty(misuse.awaited_twice(pending))
        self._made = None
        self.statement = pending.statement
        self._future = asyncio.get_running_loop().create_future()
        self._notify()
        try:
            return (yield from self._future)
        except asyncio.CancelledError as error:
            # Something inside a `ctx.call` may have been cancelled: that is the call's result.
            if self._dropped or error is self._given:
                raise
            raise self._faulty(misuse.reached_by_cancellation(pending)) from None

    def _unwind(self) -> None:
        # A generator that asyncio finalizes lives in another task: nothing catches it there.
        own = asyncio.current_task() is self._task
        raise _Dropped if own else asyncio.CancelledError

    def _faulty(self, error: ModelError) -> ModelError:
        self._fault = self._fault or error
        return error
