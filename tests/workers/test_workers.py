"""Checks in worker processes: their verdicts, their failures, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from awrs_ppl import Context, PotentialError, ToyLM, infer, predicate
from awrs_ppl.potentials import Soft
from awrs_ppl.testing import assert_prefix_closed
from awrs_ppl.workers.workers import NoVerdict, check, shutdown

LIMIT = 3


class Odd(Exception):
    """Cannot be pickled: it is made from two values, and keeps one."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one + two)


def short(text: str) -> bool:
    return len(text) < LIMIT


def process(text: str) -> int:
    return os.getpid()


def fail(text: str) -> bool:
    """What the text says."""
    if text == "exit":
        os._exit(0)
    if text == "exit 3":
        os._exit(3)
    if text == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if text == "leave":
        sys.exit()
    if text == "odd":
        raise Odd(1, 2)
    if text == "stop":
        raise StopIteration
    if text == "wait":
        time.sleep(3600)
    if text == "none":
        return None  # pyright: ignore[reportReturnType]
    if text == "print":
        print("not an answer")
        os.write(1, b"nor this\n")
    if text == "read":
        return sys.stdin.read() == ""
    return text != "no"


def has_ended(pid: int) -> bool:
    """Within a minute. What nobody has waited for yet has ended too."""
    for _ in range(3000):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


async def test_verdicts_in_workers_are_those_of_the_function() -> None:
    here = predicate(short, complete=str.isupper)
    there = predicate(short, complete=str.isupper, workers=2)
    for text in ("", "a", "A", "ab", "AB", "abc", "雪"):
        data = text.encode()
        assert await there.prefix(data) == await here.prefix(data)
        assert await there.complete(data) == await here.complete(data)
    assert there("ab") is True, "still callable, here"
    await assert_prefix_closed(there, ["abcd", "é雪a"])


async def test_function_in_a_worker_has_what_it_closes_over() -> None:
    words = frozenset({"ab", "cd"})
    here = os.getpid()
    assert await check(lambda text: text in words and os.getpid() != here, "ab", workers=2)
    assert await check(Rule("x").holds, "x", workers=2), "a method, of a class of this module"


class Rule:
    def __init__(self, text: str) -> None:
        self.text = text

    def holds(self, text: str) -> bool:
        return text == self.text


async def test_changed_global_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = predicate(short, workers=2)
    assert await potential.prefix(b"abc") < 0
    monkeypatch.setitem(globals(), "LIMIT", 4)
    assert await potential.prefix(b"abc") == 0
    monkeypatch.undo()
    assert await potential.prefix(b"abc") < 0


async def test_exception_in_a_worker_is_raised_here() -> None:
    raising = predicate(lambda text: 1 / len(text) > 0, workers=2)
    with pytest.raises(PotentialError, match="raised ZeroDivisionError: division by zero on the"):
        await raising.prefix(b"")
    with pytest.raises(ZeroDivisionError) as caught:
        await check(lambda text: 1 // 0, "", workers=2)
    (note,) = caught.value.__notes__
    assert "in <lambda>" in note
    for text, message in (("odd", "RuntimeError: Odd: 3"), ("stop", "StopIteration")):
        with pytest.raises(PotentialError, match=message):
            await predicate(fail, workers=2).prefix(text.encode())
    rejecting = predicate(fail, on_error="reject", workers=2)
    assert await rejecting.prefix(b"odd") < 0
    assert await rejecting.prefix(b"yes") == 0


async def test_verdict_that_is_no_bool_is_an_error() -> None:
    with pytest.raises(PotentialError, match="returned None on the text 'none'"):
        await predicate(fail, workers=2).prefix(b"none")
    with pytest.raises(PotentialError, match=r"(?i)cannot pickle"):
        await predicate(lambda text: threading.Lock(), workers=2).prefix(b"")  # pyright: ignore


async def test_function_that_prints_or_reads_leaves_the_streams_alone() -> None:
    assert await check(fail, "print", workers=2)
    assert await check(fail, "read", workers=2)


@pytest.mark.parametrize("on_error", ["raise", "reject"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit", r"ended its worker process \(exit code 0\) on the text 'exit'"),
        ("exit 3", r"ended its worker process \(exit code 3\) on the text 'exit 3'"),
        ("leave", r"ended its worker process \(exit code 1\)"),
        ("crash", r"ended its worker process \(SIGSEGV\)"),
        ("wait", r"took more than 0\.2 s on the text 'wait'; .* raise `time_limit`"),
    ],
)
async def test_check_without_an_answer_raises(text: str, message: str, on_error: Any) -> None:
    """The other checks in the same workers, and those that come later, are not concerned."""
    time_limit = 0.2 if text == "wait" else None
    potential = predicate(fail, on_error=on_error, workers=2, time_limit=time_limit)
    others = [asyncio.create_task(check(process, str(i), workers=2)) for i in range(20)]
    with pytest.raises(PotentialError, match=rf"^predicate\(fail\) {message}"):
        await potential.prefix(text.encode())
    assert os.getpid() not in await asyncio.gather(*others)
    assert await predicate(fail, workers=2).prefix(b"yes") == 0
    assert await predicate(fail, workers=2).prefix(b"no") < 0


async def test_time_limit_of_queued_checks_counts_each_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for waiting in the queue, nor for starting a process, nor for imports there."""
    shutdown()
    running: set[Any] = set()
    begun: list[tuple[int, bool]] = []

    class Counted:
        """A clock that only says when it was started and stopped."""

        def __init__(self, seconds: float, function: Any, args: Any) -> None:
            assert seconds == 1.5

        def start(self) -> None:
            running.add(self)
            begun.append((len(running), (tmp_path / "loaded").exists()))

        def cancel(self) -> None:
            running.discard(self)

    class Imported:
        """Makes a file where it is unpickled."""

        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "loaded",)

    imported = Imported()
    monkeypatch.setattr(threading, "Timer", Counted)
    checks = [
        check(lambda text: imported is None, str(i), workers=2, time_limit=1.5) for i in range(8)
    ]
    assert await asyncio.gather(*checks) == [True] * 8
    assert len(begun) == 8
    assert max(count for count, _ in begun) <= 2, "the clocks of those in the queue run"
    assert all(loaded for _, loaded in begun)
    assert not running


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")
async def test_process_started_by_a_check_ends_with_it(tmp_path: Path) -> None:
    def solver(text: str) -> bool:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        (tmp_path / "made").write_text(str(child.pid))
        (tmp_path / "made").rename(tmp_path / "pid")
        return child.wait() == 0

    # On a busy machine it takes a while until the solver has begun.
    for limit in (1, 10, 100):
        with pytest.raises(NoVerdict, match=f"took more than {limit} s"):
            await check(solver, "", workers=2, time_limit=limit)
        if (tmp_path / "pid").exists():
            break
    assert has_ended(int((tmp_path / "pid").read_text()))


async def test_checks_in_several_workers_run_side_by_side(tmp_path: Path) -> None:
    """Each waits until it sees all the others."""

    def meet(text: str) -> str:
        (tmp_path / text).write_text(str(os.getpid()))
        for _ in range(30_000):
            if len(list(tmp_path.iterdir())) == 8:
                return str(os.getpid())
            time.sleep(0.02)
        raise TimeoutError

    pids = await asyncio.gather(*(check(meet, f"text {i}", workers=8) for i in range(8)))
    assert len(set(pids)) == 8
    again = await asyncio.gather(*(check(process, str(i), workers=8) for i in range(8)))
    assert {str(pid) for pid in again} <= set(pids), "the processes are kept"


async def test_cancelled_caller_cancels_its_check(tmp_path: Path) -> None:
    def wait(text: str) -> bool:
        (tmp_path / "made").write_text(str(os.getpid()))
        (tmp_path / "made").rename(tmp_path / text)
        time.sleep(3600)
        return True

    checks = [asyncio.create_task(check(wait, f"pid{i}", workers=1)) for i in range(2)]
    while not (tmp_path / "pid0").exists():
        await asyncio.sleep(0.02)
    for task in checks:
        task.cancel()
    assert all(isinstance(e, asyncio.CancelledError) for e in await gather_all(checks))
    assert has_ended(int((tmp_path / "pid0").read_text()))
    assert await check(fail, "yes", workers=1)
    assert not (tmp_path / "pid1").exists(), "the one in the queue has not begun"


async def gather_all(tasks: Any) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_worker_that_died_while_idle_is_replaced() -> None:
    pid = await check(process, "", workers=1)
    os.kill(pid, signal.SIGTERM)
    assert has_ended(pid)
    # A process is shown as ended before the last of its threads is, and can be waited for then.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert await check(process, "", workers=1) != pid


async def test_workers_after_shutdown_start_again(tmp_path: Path) -> None:
    def wait(text: str) -> None:
        (tmp_path / "begun").touch()
        time.sleep(3600)

    pid = await check(process, "", workers=1)
    assert await check(process, "", workers=1) == pid
    waiting = asyncio.create_task(check(wait, "", workers=1))
    while not (tmp_path / "begun").exists():
        await asyncio.sleep(0.02)
    shutdown()
    assert has_ended(pid)
    with pytest.raises(NoVerdict, match="shut down"):
        await waiting
    assert await check(process, "", workers=1) != pid


async def test_functions_beyond_the_limit_are_sent_again() -> None:
    """More than it keeps."""
    functions = [lambda text, i=i: f"{text}{i}" for i in range(70)]
    for _ in range(2):
        answers = [await check(function, "t", workers=1) for function in functions]
        assert answers == [f"t{i}" for i in range(70)]


async def test_function_that_cannot_be_sent_is_an_error() -> None:
    lock = threading.Lock()
    with pytest.raises(PotentialError, match=r"predicate\(<lambda>\) cannot be sent .*lock"):
        await predicate(lambda text: lock.locked(), workers=2).prefix(b"a")

    class Stranger:
        def __reduce__(self) -> Any:
            return (__import__, ("no_such_module",))

    stranger = Stranger()
    with pytest.raises(PotentialError, match=r"cannot be loaded .*no_such_module"):
        await predicate(lambda text: bool(stranger), on_error="reject", workers=2).prefix(b"a")
    assert await check(fail, "yes", workers=2)


async def test_worker_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    shutdown()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(NoVerdict, match=r"did not start .*'/bin/false' is a Python"):
            await check(fail, "yes", workers=1)
        patch.setattr(sys, "executable", "/no/such/file")
        with pytest.raises(NoVerdict, match=r"did not start .*No such file"):
            await check(fail, "yes", workers=1)
    assert await check(fail, "yes", workers=1)


async def test_worker_imports_only_what_the_function_needs() -> None:
    def loaded(text: str) -> list[str]:
        return [name for name in ("torch", "genlm", "numpy", "asyncio") if name in sys.modules]

    assert await check(loaded, "", workers=2) == []


SCRIPT = """
import asyncio, os, signal, sys, time
from awrs_ppl.workers.workers import check
print("begun", flush=True)
def pid(text):
    return os.getpid()
def wait(text):
    time.sleep(3600)
async def main():
    print(await check(pid, "", workers=1), flush=True)
    asyncio.create_task(check(wait, "", workers=1))
    await asyncio.sleep(0.2)
    {end}
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "end",
    ["pass", "sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)"],
    ids=["returns", "exits", "is killed"],
)
def test_workers_of_a_script_end_with_it_and_do_not_run_it(end: str, tmp_path: Path) -> None:
    """Without `if __name__ == "__main__"`, and with a check under way."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(end=end))
    done = subprocess.run(
        [sys.executable, "-W", "error", script], capture_output=True, text=True, check=False
    )
    begun, pid = done.stdout.split()
    assert begun == "begun"
    assert done.stderr == ""
    assert has_ended(int(pid))


def test_arguments_without_meaning_are_rejected() -> None:
    async def waits(text: str) -> bool:
        return True

    with pytest.raises(ValueError, match=r"time_limit=2 without workers: .* add workers=1"):
        predicate(short, time_limit=2)
    with pytest.raises(ValueError, match="workers=0: give a number of processes"):
        predicate(short, workers=0)
    with pytest.raises(ValueError, match="time_limit=0: give a number of seconds"):
        predicate(short, workers=1, time_limit=0)
    with pytest.raises(ValueError, match="workers=2 and an async function"):
        predicate(waits, workers=2)
    with pytest.raises(ValueError, match="workers=2 and an async function"):
        predicate(short, complete=waits, workers=2)


def test_checks_that_wait_are_evaluated_several_at_once() -> None:
    async def waits(text: str) -> bool:
        return True

    class Waits:
        async def __call__(self, text: str) -> bool:
            return True

    assert predicate(short).speculation == 1
    for potential in (predicate(short, workers=2), predicate(waits), predicate(Waits())):
        assert potential.speculation == 8


async def test_inference_with_workers_gives_what_it_gives_without() -> None:
    lm = ToyLM(["a", "b", "ab", "c"], seed=1)

    def no_double(text: str) -> bool:
        return "aa" not in text and "bb" not in text

    async def model(ctx: Context, workers: int | None) -> str:
        rule = predicate(no_double, workers=workers, cost=1 / 16)
        return await ctx.generate(lm("go") * rule, max_tokens=4)

    one, two = [
        await infer(model, workers, n_particles=8, seed=0, progress=False) for workers in (None, 2)
    ]
    assert list(one.values) == list(two.values)
    assert one.log_ml == pytest.approx(two.log_ml)


def meet(text: str, folder: Path, others: int) -> float:
    """Waits until as many texts are weighed at once."""
    (folder / f"{os.getpid()}").touch()
    while len(list(folder.iterdir())) < others:
        time.sleep(0.01)
    return -float(len(text))


async def test_critics_in_workers_weigh_particles_side_by_side(tmp_path: Path) -> None:
    """Each of two processes waits for the other: one after the other would never end."""
    critic = Soft(partial(meet, folder=tmp_path, others=2), workers=2, time_limit=600)
    assert await critic.batch_complete([b"a", b"bcd"]) == pytest.approx([-1.0, -3.0])


async def test_critics_in_workers_weigh_as_those_without() -> None:
    lm = ToyLM(["a", "b"], seed=1)

    def model_of(**options: Any) -> Any:
        async def model(ctx: Context) -> str:
            return await ctx.generate(lm("a"), critic=Soft(weigh, **options), max_tokens=4)

        return model

    here, there = [
        await infer(model_of(**options), n_particles=6, seed=2, progress=False)
        for options in ({}, {"workers": 2})
    ]
    assert here.values == there.values
    assert here.log_weights == pytest.approx(there.log_weights)


def weigh(text: str) -> float:
    return 0.5 * text.count("a")


async def test_critic_without_an_answer_raises() -> None:
    for text, message in (("wait", "more than 0.5 s"), ("exit", "ended"), ("odd", "Odd")):
        limit = 0.5 if text == "wait" else None
        with pytest.raises(PotentialError, match=message):
            await Soft(fail, workers=1, time_limit=limit).complete(text.encode())
    with pytest.raises(ValueError, match="without workers"):
        Soft(weigh, time_limit=1)
