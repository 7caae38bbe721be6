"""What is said of a model that does not keep to the rules of statements.

A first reading can skip it: each function makes an error that says what to write instead. The rule
itself is in `execution`: statements are made and awaited one after the other.
"""

from __future__ import annotations

from typing import Any

from awrs_ppl.errors import ModelError
from awrs_ppl.program.context import Pending

__all__ = [
    "another_task",
    "awaited_twice",
    "cancelled_inside",
    "no_coroutine",
    "not_awaited",
    "overtaken",
    "reached_by_cancellation",
]


def no_coroutine(model: Any, given: Any) -> ModelError:
    """A model that is no `async def`."""
    name = getattr(model, "__qualname__", repr(model))
    return ModelError(
        f"the model {name} gave {given!r}, not a coroutine: define it with `async def`"
    )


def not_awaited(pending: Pending[Any], when: str = "") -> ModelError:
    """A statement that was made and not awaited."""
    call = f"ctx.{pending.statement.kind}(...)"
    return ModelError(
        f"{call} at {pending.line} was made and not awaited: write `await {call}`{when}"
    )


def overtaken(before: Pending[Any], pending: Pending[Any]) -> ModelError:
    """A statement that was not awaited before the next one."""
    return not_awaited(
        before,
        f" before {_shown(pending)}: statements run one after the other, so await each in turn, "
        "and make no asyncio.gather or TaskGroup of them; for many texts at once raise n_particles",
    )


def another_task(pending: Pending[Any]) -> ModelError:
    """A statement awaited beside another one, or in a task of its own."""
    return ModelError(
        f"{_shown(pending)} was awaited in another task: "
        "statements of one particle cannot run side by side. Instead of "
        "asyncio.gather, TaskGroup or wait_for, await them in turn, and leave an "
        "async generator by contextlib.aclosing"
    )


def awaited_twice(pending: Pending[Any]) -> ModelError:
    """A statement that has had its value."""
    return ModelError(f"{_shown(pending)} was awaited twice")


def reached_by_cancellation(pending: Pending[Any]) -> ModelError:
    """A statement cancelled by the model itself."""
    return ModelError(
        f"a cancellation reached {_shown(pending)}: "
        "asyncio.timeout, TaskGroup and wait_for must not span a statement; give "
        "`infer` a timeout, or put what is slow into ctx.call"
    )


def cancelled_inside() -> ModelError:
    """A model that let out a cancellation of its own."""
    return ModelError("the model was cancelled from inside: it let a CancelledError out")


def _shown(pending: Pending[Any]) -> str:
    return f"ctx.{pending.statement.kind}(...) at {pending.line}"
