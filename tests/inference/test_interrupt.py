"""What an interrupt shows: a note of three lines in place of the engine's frames."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import traceback
from typing import Any

import pytest

from awrs_ppl import Bernoulli, Context, Posterior, infer

CODE = """
import asyncio, os, signal
from awrs_ppl import Bernoulli, infer, run

async def model(ctx):
    await ctx.factor(-0.1)
    if await ctx.sample(Bernoulli(0.5)):
        return "done"
    await ctx.call(stopped)

async def stopped():
    print("now", flush=True)
    await asyncio.sleep(60)
"""


async def model(ctx: Context) -> None:
    await ctx.factor(-0.1)
    await ctx.call(asyncio.sleep, 60)


async def cancelled(**options: Any) -> tuple[asyncio.Task[Posterior], BaseException]:
    task = asyncio.create_task(infer(model, n_particles=4, seed=0, progress=False, **options))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as found:
        await task
    return task, found.value


async def test_cancellation_has_a_note_and_no_frame_of_the_engine() -> None:
    task, error = await cancelled()
    assert task.cancelled()
    assert type(error) is asyncio.CancelledError
    (note,) = error.__notes__
    assert "stopped after 1 step, and nothing of it is kept" in note
    assert "partial=True" in note
    assert "timeout=60" in note
    assert note.count("\n") == 1
    assert error.__suppress_context__
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    assert sum("awrs_ppl" + os.sep in file and "inference" in file for file in files) <= 1


async def test_cancellation_is_still_a_timeout_of_asyncio() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await infer(model, n_particles=4, seed=0, progress=False)


async def test_note_is_not_repeated_by_inferences_around() -> None:
    async def outer(ctx: Context) -> None:
        await ctx.call(infer, model)

    task = asyncio.create_task(infer(outer, n_particles=2, progress=False))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as found:
        await task
    assert len(found.value.__notes__) == 1


def script(end: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CODE + end],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
def test_interrupted_script_shows_where_it_was_and_the_note() -> None:
    process = script("run(model, n_particles=8, seed=0, progress=False)")
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGINT)
    shown = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode != 0
    at = shown.index("KeyboardInterrupt")
    assert len(shown[at:]) == 3
    assert "partial=True" in shown[-1]
    assert "During handling" not in "\n".join(shown)
    assert sum(line.strip().startswith("File ") for line in shown) == 2  # the script, and `run`


async def test_error_of_a_model_shows_frames_of_the_user_alone() -> None:
    async def broken(ctx: Context) -> None:
        await ctx.sample(Bernoulli(0.5))
        raise LookupError("mine")

    with pytest.raises(LookupError) as found:
        await infer(broken, progress=False)
    names = [frame.name for frame in traceback.extract_tb(found.value.__traceback__)]
    assert names == ["test_error_of_a_model_shows_frames_of_the_user_alone", "infer", "broken"]


@pytest.mark.slow
@pytest.mark.parametrize("partial", [False, True])
def test_stop_button_of_a_notebook_shows_three_lines(partial: bool) -> None:
    jupyter = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    manager, client = jupyter.start_new_kernel()
    try:
        client.execute(CODE)
        end = f"await infer(model, n_particles=8, seed=0, progress=False, partial={partial})"
        asked = client.execute(textwrap.dedent(end))
        while True:
            message = client.get_iopub_msg(timeout=60)
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and "now" in content["text"]:
                manager.interrupt_kernel()
            if message["parent_header"].get("msg_id") == asked and kind in (
                "error",
                "execute_result",
            ):
                break
        if partial:
            assert "interrupted" in content["data"]["text/plain"]
            assert "of the weight is unfinished; so far:" in content["data"]["text/html"]
        else:
            assert content["ename"] == "CancelledError"
            lines = "\n".join(content["traceback"]).splitlines()
            assert len(lines) <= 3
            assert "partial=True" in lines[-1]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
