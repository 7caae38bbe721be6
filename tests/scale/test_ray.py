"""A program in workers on a Ray cluster: what `infer_many` and `infer` give, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arsenal.maths import logmeanexp

from awrs_ppl import (
    LM,
    Bernoulli,
    ModelError,
    ToyLM,
    WorkerError,
    predicate,
    run,
    run_many,
)
from awrs_ppl.errors import PotentialError
from awrs_ppl.potentials import Regex

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from awrs_ppl.scale import RayPool  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    # Of Ray's own: files and sockets that it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@predicate
def no_bb(text: str) -> bool:
    return "bb" not in text


def load() -> ToyLM:
    return ToyLM(["a", "b", "ab", "c"], seed=4)


async def text_after(ctx, lm, prompt: str) -> str:
    first = await ctx.generate(lm(prompt) * no_bb * Regex("[a-c]*"), max_tokens=4)
    await ctx.factor(-0.3 * first.count("a"))
    return first


PROMPTS = [left + right for left in ("a", "b", "c", "ab") for right in "abc"]
QUIET: dict[str, Any] = {"n_particles": 6, "progress": False}


def here(model: Callable[..., Any] = text_after) -> Callable[..., Any]:
    """The same program for one process."""
    lm = load()

    @functools.wraps(model)
    async def given(ctx, *args):
        return await model(ctx, lm, *args)

    del given.__wrapped__  # its signature has `lm`
    return given


def facts(posterior) -> tuple:
    return (
        *(posterior.log_ml, posterior.seed, tuple(posterior.values)),
        *(tuple(posterior.log_weights), tuple(map(facts, posterior.parts))),
    )


# --- a cluster of two machines on the loopback interface ---------------------------------------


def begun() -> Cluster:
    """On a busy machine Ray may take longer to start than it waits."""
    for attempt in range(4):
        found = Cluster()
        try:
            found.add_node(num_cpus=4)
            found.add_node(num_cpus=4)
            return found
        except Exception:
            with contextlib.suppress(Exception):
                found.shutdown()
            if attempt == 3:
                raise
    raise AssertionError


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        found = begun()
        ray.init(address=found.address, logging_level="ERROR", log_to_driver=False)
        yield found
        ray.shutdown()
        found.shutdown()


def ready(pool: RayPool) -> set[int]:
    """Both workers, as soon as both are there: one may come after the other, or be replaced."""

    async def worker(ctx, lm):
        await ctx.call(asyncio.sleep, 0.05)
        return os.getpid()

    until = time.monotonic() + 120
    found: set[int] = set()
    while len(found) < 2 and time.monotonic() < until:
        found = set(pool.infer(worker, runs=2, n_particles=1, progress=False).values)
    return found


@pytest.fixture(scope="module")
def pool(cluster: Cluster) -> Iterator[RayPool]:
    with RayPool(load, workers=2) as found:
        yield found


@dataclass
class Log:
    """A file to which workers write lines: what a model has done there."""

    path: Path

    def write(self, *words: object) -> None:
        with self.path.open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    def read(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def wait_for(self, lines: int) -> None:
        until = time.monotonic() + 60
        while len(self.read()) < lines and time.monotonic() < until:
            time.sleep(0.02)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


# --- the same as in one process ----------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_posteriors_are_those_of_one_process_in_order(pool, concurrency):
    wanted = list(map(facts, run_many(here(), PROMPTS, seed=3, **QUIET)))
    found = pool.map(text_after, iter(PROMPTS), seed=3, concurrency=concurrency, **QUIET)
    assert list(map(facts, found)) == wanted


def test_number_of_workers_makes_no_difference(cluster):
    wanted = list(map(facts, run_many(here(), PROMPTS, seed=3, **QUIET)))
    pooled = facts(run(here(), "a", runs=4, seed=8, **QUIET))
    for workers in (1, 3):
        with RayPool(load, workers=workers) as pool:
            assert list(map(facts, pool.map(text_after, PROMPTS, seed=3, **QUIET))) == wanted
            assert facts(pool.infer(text_after, "a", runs=4, seed=8, **QUIET)) == pooled


@pytest.mark.parametrize("runs", [1, 2, 5])
def test_runs_are_pooled_as_in_one_process(pool, runs):
    found = pool.infer(text_after, "a", runs=runs, seed=5, **QUIET)
    assert facts(found) == facts(run(here(), "a", runs=runs, seed=5, **QUIET))
    evidences = [part.log_ml for part in found.parts or [found]]
    assert len(evidences) == runs
    assert found.log_ml == pytest.approx(logmeanexp(np.array(evidences)), abs=1e-12)
    assert found.stats.lm_rows > 0


def test_keywords_defaults_and_runs_of_an_input(pool):
    async def model(ctx, prompt, *, lm, times=1):
        return [await ctx.generate(lm(prompt), max_tokens=2) for _ in range(times)]

    lm = load()
    alone = run(model, "a", lm=lm, times=2, runs=2, seed=1, **QUIET)
    assert facts(pool.infer(model, "a", times=2, runs=2, seed=1, **QUIET)) == facts(alone)
    assert len(pool.infer(model, "a", **QUIET).parts) == 2  # of two workers
    (found,) = pool.map(model, ["a"], times=2, runs=2, seed=1, **QUIET)
    alone = run(model, "a", lm=lm, times=2, runs=2, seed=found.seed, **QUIET)
    assert facts(found) == facts(alone)
    later = functools.partial(text_after, prompt="c")
    assert facts(pool.infer(later, seed=1, runs=1, **QUIET)) == facts(
        run(later, lm, seed=1, runs=1, **QUIET)
    )


def test_plain_iterator_where_a_loop_runs_and_inputs_of_this_thread(pool):
    threads = []

    def inputs():
        for prompt in PROMPTS[:3]:
            threads.append(threading.current_thread())
            yield prompt

    async def notebook():
        return [posterior.seed for posterior in pool.map(text_after, inputs(), seed=3, **QUIET)]

    assert len(set(asyncio.run(notebook()))) == 3
    assert set(threads) == {threading.main_thread()}


def test_so_many_at_once_and_no_more_inputs_than_needed(pool, log):
    read = 0

    def inputs():
        nonlocal read
        for i in range(1000):
            read += 1
            yield i

    async def model(ctx, lm, i):
        log.write(os.getpid(), 1)
        await ctx.call(asyncio.sleep, 0.01)
        log.write(os.getpid(), -1)
        return i

    ready(pool)
    results = pool.map(model, inputs(), concurrency=3, n_particles=1, progress=False)
    assert [next(results).values for _ in range(20)] == [[i] for i in range(20)]
    results.close()
    assert read <= 20 + 4 * 3 * 2
    running: dict[str, int] = {}
    most = 0
    for line in log.read():
        worker, change = line.split()
        running[worker] = running.get(worker, 0) + int(change)
        most = max(most, running[worker])
    assert len(running) == 2
    assert most == 3


@dataclass(frozen=True)
class Pair:
    left: str
    right: int


def test_classes_of_the_users_module_come_back_as_themselves(pool):
    async def model(ctx, lm, pair):
        assert isinstance(pair, Pair)
        return Pair(await ctx.generate(lm(pair.left), max_tokens=2), pair.right + 1)

    (found,) = pool.map(model, [Pair("a", 1)], **QUIET)
    assert {type(value) for value in found.values} == {Pair}
    assert found.values[0].right == 2


def test_model_gets_what_load_returns_awaited(cluster):
    async def several():
        return load(), Regex("a+")

    async def model(ctx, lm):
        lm, pattern = lm
        return await ctx.generate(lm("a") * pattern, max_tokens=3)

    with RayPool(several, workers=1) as pool:
        assert set(pool.infer(model, **QUIET).values) <= {"a", "aa", "aaa"}


# --- workers and machines that die -------------------------------------------------------------


def machines_of(pool: RayPool, model: Any, log: Log, count: int) -> set[str]:
    """The machines that have had a worker, once there are so many: workers take their time to
    start. They are the parents of the workers, which may outlive them a little."""
    machines: set[str] = set()
    until = time.monotonic() + 240
    while time.monotonic() < until and len(machines) < count:
        list(pool.map(model, PROMPTS[:4], concurrency=1, **QUIET))
        machines = {line.split()[0] for line in log.read()} - {"1"}
    return machines


def test_machine_that_is_lost_in_the_middle_changes_no_result(cluster, log, tmp_path):
    inputs = [PROMPTS[i % len(PROMPTS)] for i in range(40)]

    def model_of(log: Log) -> Any:
        async def model(ctx, lm, prompt):
            await ctx.call(log.write, os.getppid(), prompt)
            await ctx.call(asyncio.sleep, 0.05)
            return await text_after(ctx, lm, prompt)

        return model

    wanted = list(
        map(facts, run_many(here(model_of(Log(tmp_path / "x"))), inputs, seed=3, **QUIET))
    )
    nodes = [cluster.add_node(num_cpus=1, resources={"room": 1}) for _ in range(2)]
    each = {"resources": {"room": 1}}  # so that each has one worker
    with RayPool(load, workers=2, actor_options=each) as pool:
        machines = machines_of(pool, model_of(log), log, 2)
        assert len(machines) == 2
        results = pool.map(model_of(log), inputs, seed=3, concurrency=2, **QUIET)
        found = [facts(next(results)) for _ in range(5)]
        started = len(set(log.read()))
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        found += map(facts, results)
        assert started < 44
        assert found == wanted
        nodes.append(cluster.add_node(num_cpus=1, resources={"room": 1}))
        machines |= machines_of(pool, model_of(log), log, 3)
        assert len(machines) == 3
    for node in nodes:
        cluster.remove_node(node)


def test_worker_that_dies_once_is_replaced_and_its_inputs_done_again(pool, log, tmp_path):
    once = tmp_path / "once"

    async def model(ctx, lm, i):
        log.write(i)
        if i == 7 and not once.exists():
            once.touch()
            os._exit(1)
        await ctx.call(asyncio.sleep, 0.01)
        return i, await ctx.generate(lm("a"), max_tokens=2)

    wanted = list(
        map(facts, run_many(here(model), range(7), seed=2, n_particles=1, progress=False))
    )
    found = list(pool.map(model, range(20), seed=2, n_particles=1, progress=False))
    assert [posterior.values[0][0] for posterior in found] == list(range(20))
    assert list(map(facts, found[:7])) == wanted
    assert once.exists()
    assert log.read().count("7") == 2


def test_input_that_kills_its_worker_is_named_and_the_others_are_done(pool, log):
    async def model(ctx, lm, i):
        if i == 3:
            log.write(i)
            os._exit(1)
        await ctx.call(asyncio.sleep, 0.01)
        return i

    found = list(
        pool.map(model, range(12), n_particles=1, progress=False, on_error="return", seed=0)
    )
    assert [p.values for p in found if not isinstance(p, Exception)] == [
        [i] for i in range(12) if i != 3
    ]
    assert isinstance(found[3], WorkerError)
    assert "a worker died 3 times with the input 3: perhaps it needs more memory" in str(found[3])
    assert any("in input 3: 3" in note for note in found[3].__notes__)
    assert len(log.read()) == 3
    with pytest.raises(WorkerError, match=r"3 times with the model .*model"):
        pool.infer(model, 3, runs=2, **QUIET)
    assert pool.infer(model, 4, runs=1, **QUIET).values[0] == 4


def test_idle_workers_that_die_are_replaced(pool):
    before = ready(pool)
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    after = ready(pool)
    assert len(after) == 2
    assert before.isdisjoint(after)


def test_error_of_load_comes_out_plainly(cluster, log):
    def broken():
        log.write("loaded")
        raise LookupError("no such weights")

    with pytest.raises(LookupError, match="no such weights") as caught, RayPool(broken, workers=1):
        pass
    assert any("in broken" in note for note in caught.value.__notes__)
    assert log.read() == ["loaded"]
    with pytest.raises(ModelError, match=r"load\(\) returned None"), RayPool(print, workers=1):
        pass
    assert ray.is_initialized()


def test_load_that_kills_its_worker_is_not_tried_for_ever(cluster, log):
    def dies():
        log.write("loaded")
        os._exit(1)

    with (
        pytest.raises(WorkerError, match=r"died 3 times before load\(\) had returned: perhaps"),
        RayPool(dies, workers=1),
    ):
        pass
    assert len(log.read()) == 3


def test_load_that_fails_later_leaves_an_error_of_the_pool(cluster, tmp_path):
    """With no worker left, all that wait raise it, whatever `on_error` says."""
    once = tmp_path / "once"

    def first_time():
        if once.exists():
            raise LookupError("the weights have gone")
        once.touch()
        return load()

    async def dies(ctx, lm, i):
        os._exit(1)

    with RayPool(first_time, workers=1) as pool:
        results = pool.map(dies, range(5), on_error="return", **QUIET)
        with pytest.raises(LookupError, match="the weights have gone"):
            list(results)
        with pytest.raises(LookupError, match="the weights have gone"):
            pool.infer(text_after, "a", **QUIET)


# --- failures, and leaving early ---------------------------------------------------------------


async def picky(ctx, lm, i):
    if i % 2:
        raise RuntimeError(f"no {i}")
    return await ctx.sample(Bernoulli(0.5))


def test_failure_names_its_input_and_the_pool_goes_on(pool):
    found = list(pool.map(picky, range(5), on_error="return", **QUIET))
    assert [isinstance(f, RuntimeError) for f in found] == [False, True, False, True, False]
    notes = found[3].__notes__
    assert any("in particle 0" in note for note in notes)
    assert any("In a worker process" in note and "in picky" in note for note in notes)
    assert not any("ray_pool" in note or "in side_by_side" in note for note in notes)
    assert "in input 3: 3" in notes[-1]
    results = pool.map(picky, range(5), **QUIET)
    assert next(results).values
    with pytest.raises(RuntimeError, match="no 1") as caught:
        next(results)
    assert "in input 1: 1" in caught.value.__notes__[-1]
    with pytest.raises(RuntimeError, match="no 1"):
        pool.infer(picky, 1, runs=3, **QUIET)
    assert facts(pool.infer(text_after, "a", runs=1, seed=5, **QUIET)) == facts(
        run(here(), "a", seed=5, **QUIET)
    )


def test_errors_of_the_library_and_odd_ones_come_out(pool):
    class Odd(Exception):
        def __init__(self, first, second):
            super().__init__(first)
            self.lock = threading.Lock()

    async def model(ctx, lm, kind):
        if kind == "odd":
            raise Odd("first", "second")
        if kind == "exit":
            sys.exit(3)
        await ctx.generate(lm("a") * predicate(lambda text: 1 / 0 > 1))

    found = list(pool.map(model, ["odd", "exit", "check"], on_error="return", **QUIET))
    assert [type(error) for error in found] == [RuntimeError, ModelError, PotentialError]
    assert "Odd: first" in str(found[0])
    assert "SystemExit(3)" in str(found[1])
    with pytest.raises(ModelError, match="n_particles"):
        list(pool.map(picky, [0], n_particles=0, progress=False))


def sleepy_of(log: Log) -> Any:
    async def sleepy(ctx, lm, i):
        log.write("began", i)
        try:
            await ctx.call(asyncio.sleep, 0 if i == 0 else 3600)
        finally:
            log.write("ended", i)
        return i

    return sleepy


def test_leaving_early_stops_what_is_in_progress(pool, log):
    ready(pool)
    results = pool.map(sleepy_of(log), range(30), n_particles=1, progress=False, concurrency=2)
    assert next(results).values == [0]
    log.wait_for(6)
    results.close()
    began, ended = ({x[6:] for x in log.read() if x.startswith(w)} for w in ("began", "ended"))
    assert began == ended
    assert 4 < len(began) < 8
    assert pool.infer(text_after, "a", runs=1, **QUIET).alive


@contextlib.contextmanager
def interrupted_after(log: Log, lines: int) -> Iterator[None]:
    def interrupt() -> None:
        log.wait_for(lines)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_interrupt_stops_what_is_in_progress(pool, log):
    ready(pool)
    with pytest.raises(KeyboardInterrupt), interrupted_after(log, 6):
        list(pool.map(sleepy_of(log), range(9), n_particles=1, progress=False, concurrency=2))
    began, ended = ({x[6:] for x in log.read() if x.startswith(w)} for w in ("began", "ended"))
    assert began == ended
    before = len(log.read())
    with pytest.raises(KeyboardInterrupt) as caught, interrupted_after(log, before + 2):
        pool.infer(sleepy_of(log), 1, runs=2, n_particles=1, progress=False)
    assert "partial=True" in caught.value.__notes__[0]
    assert pool.infer(text_after, "a", runs=1, **QUIET).alive


def test_timeout_and_partial_give_what_there_is(pool, log):
    async def half(ctx, lm, i):
        log.write("began", i)
        if await ctx.sample(Bernoulli(0.5)):
            await ctx.call(asyncio.sleep, 3600)
        return i

    options: dict[str, Any] = {"n_particles": 8, "progress": False, "seed": 1}
    (found,) = pool.map(half, [1], timeout=1.0, **options)
    assert found.stopped == "timed out"
    assert 0.4 < found.unfinished < 0.6
    found = pool.infer(half, 1, runs=3, timeout=1.0, **options)
    assert found.stopped == "timed out"
    assert len(found.parts) == 3
    before = len(log.read())
    with interrupted_after(log, before + 24):
        found = pool.infer(half, 1, runs=3, partial=True, **options)
    assert found.stopped == "interrupted"
    assert len(found.parts) == 3
    with pytest.raises(ModelError, match=r"pool\.map got partial=True"):
        pool.map(half, [1], partial=True, **options)


def test_closed_pool_says_so_and_leaves_nothing(cluster):
    with RayPool(load, workers=1) as pool:
        results = pool.map(text_after, PROMPTS, **QUIET)
        next(results)
    with pytest.raises(ModelError, match="the pool was closed"):
        next(results)
    results = pool.map(text_after, PROMPTS, **QUIET)  # it starts again
    assert next(results).values
    pool.close()
    pool.close()
    del results
    assert not [t for t in threading.enumerate() if t.name == "awrs_ppl event loop"][1:]


# --- what cannot be sent -----------------------------------------------------------------------

GLOBAL = load()
WITHIN = {"models": [GLOBAL("a")]}


async def by_global(ctx, lm, i):
    return await ctx.generate(GLOBAL("a"))


async def within_a_global(ctx, lm, i):
    return await ctx.generate(WITHIN["models"][0])


async def by_default(ctx, lm, i, *, other=GLOBAL):
    return await ctx.generate(other("a"))


async def through_another(ctx, lm, i):
    return await by_global(ctx, lm, i)


def closing_over() -> Any:
    mine = load()

    async def closed(ctx, lm, i):
        return await ctx.generate(mine("a"))

    return closed


class Callable_:
    def __init__(self):
        self.prompt = GLOBAL("a") * no_bb

    async def __call__(self, ctx, lm, i):
        return await ctx.generate(self.prompt)


@pytest.mark.parametrize(
    "model",
    [
        *(by_global, within_a_global, by_default, through_another, closing_over()),
        *(functools.partial(by_default, **{"other": [GLOBAL]}), Callable_()),
    ],
)
def test_language_model_of_this_process_is_refused(pool, model):
    for call in (lambda: pool.map(model, [1]), lambda: pool.infer(model, 1)):
        with pytest.raises(ModelError, match="language model of this process") as caught:
            call()
        assert "(ctx, lm, ...)`" in str(caught.value)
    if model is by_global:
        assert "the model by_global uses a language model of this process by the name 'GLOBAL'" in (
            str(caught.value)
        )


def test_what_cannot_be_sent_is_named(pool):
    lock = threading.Lock()

    async def locked(ctx, lm, i):
        return lock

    async def returns(ctx, lm, i):
        return (x for x in range(i))

    async def takes_none(ctx, i):
        return i

    for message, call in {
        "the model .*locked cannot be pickled.*lock.*make it inside": lambda: pool.map(locked, [1]),
        r"the option other=<unlocked": lambda: pool.map(text_after, ["a"], other=lock),
        r"the option other=ToyLM.* uses a language model": lambda: pool.map(
            text_after, ["a"], other=GLOBAL
        ),
        r"the input <unlocked .*lock.* cannot be pickled.*give data": lambda: next(
            pool.map(text_after, [lock])
        ),
        r"the input lm\('a'\) uses a language model": lambda: pool.infer(text_after, GLOBAL("a")),
        "takes_none has no parameter lm: write `async def takes_none\\(ctx, lm": lambda: pool.map(
            takes_none, [1]
        ),
        "lm=.*each worker": lambda: pool.map(text_after, ["a"], lm=3),
        "load=.* uses a language model of this process": lambda: RayPool(lambda: GLOBAL, workers=1),
    }.items():
        with pytest.raises(ModelError, match=message):
            call()
    with pytest.raises(pickle.PicklingError, match="the value of particle 0 is <generator"):
        next(pool.map(returns, [1], **QUIET))
    (found,) = pool.map(text_after, [lock], on_error="return", progress=False)
    assert "in input 0: <unlocked" in found.__notes__[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load": 3}, "load=3"),
        ({"workers": 0}, "workers"),
        ({"num_cpus": -1}, "num_cpus=-1"),
        ({"num_gpus": "all"}, "num_gpus='all'"),
    ],
)
def test_wrong_options_are_quoted(options, message):
    with pytest.raises((ModelError, ValueError, TypeError), match=message):
        RayPool(**{"load": load, "workers": 1, **options})


# --- a folder ----------------------------------------------------------------------------------


def test_folder_is_that_of_infer_many_and_nothing_is_done_again(pool, log, tmp_path):
    async def model(ctx, lm, prompt):
        log.write(prompt)
        return await ctx.generate(lm(prompt), max_tokens=2)

    job = {"save": tmp_path / "job", "n_particles": 1, "progress": False}
    results = pool.map(model, PROMPTS, seed=3, concurrency=1, **job)
    first = [facts(next(results)) for _ in range(4)]
    results.close()
    done = len(list((tmp_path / "job").glob("*-*.gz")))
    begun = len(log.read())
    assert 4 <= done < len(PROMPTS)
    found = list(map(facts, pool.map(model, PROMPTS, **job)))
    assert found[:4] == first
    assert len(log.read()) - begun == len(PROMPTS) - done
    # Here it is read from there, and there it is what is inferred here.
    assert list(map(facts, run_many(here(model), PROMPTS, **job))) == found
    plain = run_many(here(model), PROMPTS, seed=3, n_particles=1, progress=False)
    assert list(map(facts, plain)) == found
    with pytest.raises(ModelError, match="the seed there is 3"):
        pool.map(model, PROMPTS, seed=4, **job)


SCRIPT = """
    import sys
    from awrs_ppl import ToyLM
    from awrs_ppl.scale import RayPool
    async def model(ctx, lm, i):
        def work():
            print(i, file=open(sys.argv[2], "a"), flush=True)
            return i * i
        import asyncio
        await ctx.call(asyncio.sleep, 0.1)
        return await ctx.call(work)
    def load():
        return ToyLM(["a"])
    if __name__ == "__main__":
        options = dict(n_particles=1, seed=0, concurrency=2, progress=False)
        with RayPool(load, workers=1) as pool:
            for p in pool.map(model, range(40), save=sys.argv[1], **options):
                print(p.values[0], flush=True)
        import ray
        print(ray.is_initialized())
"""


def test_driver_that_is_killed_does_nothing_again(cluster, log, tmp_path):
    script, job = tmp_path / "script.py", tmp_path / "job"
    script.write_text(textwrap.dedent(SCRIPT).replace("sys.argv[2]", repr(str(log.path))))
    command = [sys.executable, str(script), str(job)]
    # Or Ray takes another address than the loopback's.
    beside = {"RAY_ADDRESS": cluster.address, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    environment = {**os.environ, **beside}
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "env": environment}
    with subprocess.Popen(command, **quiet) as process:  # pyright: ignore
        while process.poll() is None and len(list(job.glob("*-*.gz"))) < 8:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finished = {int(file.name[:6]) for file in job.glob("*-*.json.gz")}
    assert len(finished) < 40, "it was too fast to be killed"
    before, until = 0, time.monotonic() + 60
    while time.monotonic() < until:  # its worker ends with it
        before = len(log.read())
        time.sleep(1.0)
        if len(log.read()) == before:
            break
    out = subprocess.run(command, check=True, **quiet).stdout.decode().split()  # pyright: ignore
    assert out == [*(str(i * i) for i in range(40)), "False"]
    again = set(map(int, log.read()[before:]))
    assert finished.isdisjoint(again)
    assert len(again) == 40 - len(finished)


# --- a real language model, and Ray started here -----------------------------------------------


def test_small_language_model_gives_what_it_gives_in_this_process(cluster):
    """Exactly, where inputs are done one after the other, by as many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        lm = LM.embedded("smollm2-135m")

        async def model(ctx, lm, prompt):
            return await ctx.generate(lm(prompt) * Regex(" [a-z]{3,8}") * no_bb, max_tokens=4)

        async def alone(ctx, prompt):
            return await model(ctx, lm, prompt)

        options: dict[str, Any] = {"concurrency": 1, "seed": 1, "n_particles": 4, "progress": False}
        prompts = ["The cat", "A house", "My", "One day the", "We"]
        wanted = list(map(facts, run_many(alone, prompts, **options)))
        with RayPool(lambda: LM.embedded("smollm2-135m"), workers=2) as pool:
            assert list(map(facts, pool.map(model, prompts, **options))) == wanted
    finally:
        torch.set_num_threads(before)


ALONE = """
    import sys
    import awrs_ppl.scale
    assert "ray" not in sys.modules
    from awrs_ppl import ModelError, ToyLM
    from awrs_ppl.scale import RayPool
    async def model(ctx, lm, prompt):
        import os
        return os.environ["OMP_NUM_THREADS"], await ctx.generate(lm(prompt), max_tokens=2)
    if __name__ == "__main__":
        import psutil
        with RayPool(lambda: ToyLM(["a"]), workers=1, num_cpus=1) as pool:
            found = [p.values[0][0] for p in pool.map(model, ["a", "aa"], n_particles=2, seed=1)]
            here = psutil.Process()
            every = [here, *here.children(recursive=True)]
            ports = [c.laddr.ip for p in every for c in p.net_connections() if c.status == "LISTEN"]
            assert len(ports) > 2
            print(found, {ip.removeprefix("::ffff:") for ip in ports})
        import ray
        print(ray.is_initialized())
        try:
            RayPool(lambda: ToyLM(["a"]), workers=1000).__enter__()
        except ModelError as error:
            print(error)
        print(ray.is_initialized())
"""


def test_ray_is_started_on_the_loopback_and_shut_down(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(ALONE))
    without = ("RAY_ADDRESS", "RAY_AUTH_MODE", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in without}
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(script)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["['1', '1'] {'127.0.0.1'}", "False"], done.stdout + done.stderr
    assert "workers=1000 with num_cpus=1 need 1000 CPUs" in lines[2]
    assert lines[3] == "False"


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"RayPool needs ray: pip install .*\[ray\]"):
        RayPool(load, workers=1)
