"""What goes wrong in an inference ends in a clear error, and leaves nothing running."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import psutil
import pytest

from awrs_ppl import (
    Bernoulli,
    BooleanPotential,
    Context,
    PotentialError,
    ToyLM,
    check_replay,
    infer,
    predicate,
)
from awrs_ppl.potentials import Soft

LM = ToyLM(["a", "b", "ab"], seed=3)
OPTIONS: dict[str, Any] = {"n_particles": 6, "seed": 0, "progress": False}


@predicate
async def no_bb(text: str) -> bool:
    await asyncio.sleep(0)
    return "bb" not in text


async def longer(text: str) -> float:
    await asyncio.sleep(0)
    return 0.2 * len(text)


async def lookup(text: str) -> int:
    await asyncio.sleep(0)
    return len(text)


async def model(ctx: Context) -> str:
    """Every kind of statement, and everything that can be waited for."""
    try:
        text = await ctx.generate(LM("a") * no_bb, max_tokens=4, critic=Soft(longer))
        await asyncio.sleep(0)
        if await ctx.sample(Bernoulli(0.5)):
            text += await ctx.generate(LM("b") * no_bb, max_tokens=3)
        await ctx.observe(Bernoulli(0.8), await ctx.call(lookup, text) > 2)
        await ctx.observe(LM("a"), text)
        await ctx.factor(-0.1)
        await ctx.condition(text != "a")
        return text
    finally:
        await asyncio.sleep(0)


def held() -> tuple[int, int, int]:
    """Tasks, threads and open files."""
    files = psutil.Process(os.getpid()).num_fds()
    return len(asyncio.all_tasks()), threading.active_count(), files


def more_than(before: tuple[int, int, int]) -> bool:
    """Whether more is held; threads of earlier tests may end whenever their engines go."""
    return any(now > then for now, then in zip(held(), before, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("partial", [False, True])
async def test_cancellation_at_any_turn_of_the_event_loop_leaves_nothing(partial: bool) -> None:
    whole = await infer(model, **OPTIONS)
    before = held()
    turns = ended = 0
    while True:
        task = asyncio.create_task(infer(model, partial=partial, **OPTIONS))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.cancel():
            break
        try:
            posterior = await task
        except asyncio.CancelledError:
            assert not partial or turns == 0  # the task had not begun
        else:
            ended += 1
            assert partial
            # At the very end nothing is missing.
            assert posterior.stopped == "interrupted" or posterior.values == whole.values
            assert len(posterior) == len(whole)
        assert not more_than(before)
        turns += 1
    assert turns > 50
    assert ended == (turns - 1 if partial else 0)
    again = await infer(model, **OPTIONS)
    assert (again.log_ml, again.values) == (whole.log_ml, whole.values)


@pytest.mark.parametrize("kind", ["language model", "check", "critic", "call"])
async def test_exception_raised_once_is_reported_and_changes_no_later_run(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await infer(model, **OPTIONS)
    before, left = held(), [5]

    def fails(function: Any) -> Any:
        async def once(*args: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise OSError("the line is dead")
            return await function(*args)

        return once

    if kind == "language model":
        monkeypatch.setattr(LM.engine, "next_logits", fails(LM.engine.next_logits))
    elif kind == "check":
        monkeypatch.setattr(no_bb, "advance", fails_in_advance(left))
    else:
        name = {"critic": "longer", "call": "lookup"}[kind]
        monkeypatch.setitem(globals(), name, fails(globals()[name]))
    error: type[Exception] = PotentialError if kind in ("check", "critic") else OSError
    with pytest.raises(error, match="the line is dead"):
        await infer(model, **OPTIONS)
    assert not more_than(before)
    again = await infer(model, **OPTIONS)
    assert (again.log_ml, again.values) == (whole.log_ml, whole.values)


def fails_in_advance(left: list[int]) -> Any:
    right = type(no_bb).advance

    async def advance(state: Any, data: bytes) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise OSError("the line is dead")
        answer: Any = right(no_bb, state, data)
        return await answer if hasattr(answer, "__await__") else answer

    return advance


async def test_predicate_that_contradicts_itself_is_found() -> None:
    seen: set[str] = set()

    @predicate
    def fickle(text: str) -> bool:
        new = text not in seen
        seen.add(text)
        return new

    async def tired(ctx: Context) -> str:
        return await ctx.generate(ToyLM(["a", "b"], seed=1)("a") * fickle, max_tokens=3)

    async def check() -> None:
        for seed in range(10):  # particles that die have no finished text
            seen.clear()
            await check_replay(tired, seed=seed)

    with pytest.raises(PotentialError, match=r"fickle.* had allowed .* rejects it when checked"):
        await check()


class Even(BooleanPotential):
    """Rejects "a" and allows "ab"."""

    def start(self) -> bytes:
        return b""

    def advance(self, state: bytes, data: bytes) -> bytes | None:
        return None if state + data == b"a" else state + data

    def accepts(self, state: bytes) -> bool:
        return True


async def test_potential_that_is_not_prefix_closed_is_found() -> None:
    async def jumps(ctx: Context) -> str:
        return await ctx.generate(ToyLM(["ab"], seed=0)("ab") * Even(), max_tokens=3)

    async def check() -> None:
        for seed in range(10):
            await check_replay(jumps, seed=seed)

    with pytest.raises(PotentialError, match=r"'a' as a prefix of 'ab"):
        await check()


async def test_potentials_that_are_sound_pass() -> None:
    for seed in range(5):
        await check_replay(model, seed=seed)
