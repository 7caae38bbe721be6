"""Many inputs, and runs, on many machines: `RayPool`."""

from __future__ import annotations

import asyncio
import logging
import os
from asyncio import Task
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal, Self, TypeVar

from awrs_ppl._messages import quoted
from awrs_ppl._values import is_number, whole
from awrs_ppl.errors import ModelError
from awrs_ppl.inference.failures import interrupted
from awrs_ppl.inference.runs import pooled_alike, streams_of
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.execution import Model, name_of_model, require_model
from awrs_ppl.scale.actor import Actor
from awrs_ppl.scale.background import Background
from awrs_ppl.scale.closed_over import sent_input, sent_load, sent_model
from awrs_ppl.scale.in_order import InOrder, bar_of
from awrs_ppl.scale.job import Job
from awrs_ppl.scale.lm_parameter import require_lm
from awrs_ppl.scale.ray_start import imported, start
from awrs_ppl.scale.ray_workers import PoolFailed, Sent, Workers

__all__ = ["RayPool"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class RayPool:
    """Workers on the machines of a Ray cluster, each with a language model of its own.

    `load()` makes the language model in each of the `workers`, or whatever else the programs want
    as their parameter `lm`: `async def model(ctx, lm, ...)`. A worker has `num_gpus` GPUs and
    `num_cpus` CPUs, which is also how many threads torch uses in it: results are rounded alike
    whatever the number of workers. `actor_options` are further options of Ray's actors, such as
    `{"memory": 8 * 2**30, "runtime_env": {"working_dir": "."}}`.

    A context manager; it starts at its first use too, and ends by `close()`. Ray is started on this
    machine, and shut down at the end, unless `ray.init` was called before or the environment names
    a cluster by `RAY_ADDRESS`. Programs, inputs and posteriors travel as pickles: what is in the
    module of a program by value, other modules must be there.

    A worker that dies is replaced, and what it did is done again elsewhere.
    Raises `ImportError` without the extra `ray`, what `load` raises, and `ModelError` for wrong
    options.

    >>> from awrs_ppl import ToyLM
    >>> from awrs_ppl.scale import RayPool
    >>> async def model(ctx, lm, prompt):
    ...     return await ctx.generate(lm(prompt), max_tokens=3)
    >>> with RayPool(lambda: ToyLM(["a", "b"]), workers=2) as pool:  # doctest: +SKIP
    ...     for posterior in pool.map(model, ["a", "ab"], seed=0):
    ...         print(posterior.mode())
    ...     print(pool.infer(model, "b", runs=4, seed=0).log_ml)
    """

    def __init__(
        self,
        load: Callable[[], Any],
        *,
        workers: int,
        num_cpus: float = 1,
        num_gpus: float = 0,
        actor_options: Mapping[str, Any] | None = None,
    ) -> None:
        imported()
        if not callable(load):
            raise ModelError(
                f"RayPool got load={quoted(load)}: give a function that makes the language model, "
                "such as lambda: LM(...)"
            )
        self._number = whole("workers", workers, least=1)
        for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus)):
            if not is_number(value) or not value >= 0:
                raise ModelError(f"{name}={quoted(value)}: give a number, from 0")
        self._load = sent_load(load)
        self._each = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self._actor_options = dict(actor_options or {})
        self._loop: Background | None = None
        self._workers: Workers | None = None
        self._started_ray = False

    def __enter__(self) -> Self:
        self._running()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, and Ray if it was started here."""
        loop, workers = self._loop, self._workers
        self._loop = self._workers = None
        try:
            if loop is not None and workers is not None:
                loop.run(workers.close())
        finally:
            if loop is not None:
                loop.close()
            if self._started_ray:
                self._started_ray = False
                imported().shutdown()

    def map(
        self,
        model: Model,
        inputs: Iterable[Any],
        *,
        concurrency: int = 8,
        on_error: Literal["raise", "return"] = "raise",
        save: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        progress: bool = True,
        **options: Any,
    ) -> Iterator[Any]:
        """The posteriors of `model(ctx, lm, input)` for many inputs, in their order.

        As `infer_many`: the same options, seeds, results, folder and failures. It is a plain
        iterator, in a notebook and in async code too: nothing is inferred in this process, and a
        `for` waits. Each worker does `concurrency` inputs at once, which share its passes.

        An input is done again if its worker dies, alone in a worker; when three have died with it,
        that is a `WorkerError`. Raises `ModelError` for a program, an input or an option that uses
        a language model of this process, or cannot be pickled.
        """
        total = whole("concurrency", concurrency, least=1) * self._number
        runs = whole("runs", options.get("runs", 1), least=1)
        data = _sent(model, options, "pool.map")
        job = Job.of(
            "pool.map",
            model,
            inputs,
            options,
            concurrency=total,
            on_error=on_error,
            save=save,
            seed=seed,
        )
        self._running()
        return self._results(job, model, data, range(runs), concurrency, progress)

    def infer(
        self,
        model: Model,
        *args: Any,
        runs: int | None = None,
        seed: int | None = None,
        progress: bool = True,
        **options: Any,
    ) -> Posterior:
        """The pooled posterior of independent runs of `model(ctx, lm, *args)`.

        It is that of `infer(model, lm, *args, runs=runs, seed=seed)` whatever the number of
        workers, up to the rounding of shared passes; by default a run for each of them. Runs in
        one worker share its passes. Options and keywords are those of `infer`, but `progress` is
        True or False. With `partial=True` an interrupt gives what the runs have by then.
        """
        runs = self._number if runs is None else whole("runs", runs, least=1)
        base = streams_of(seed).seed
        call = [_sent(model, options, "pool.infer"), base, sent_input(model, args)]
        groups = [range(i, runs, self._number) for i in range(min(runs, self._number))]
        takes_part = options.get("partial") is True
        loop, workers = self._running()
        with bar_of("pool.infer", " runs", runs, progress) as bar:

            async def one(numbers: range) -> dict[int, Posterior]:
                about = f"the model {name_of_model(model)}"
                found = await workers.infer(about, 1, takes_part, numbers, *call)
                for _ in numbers:
                    if bar is not None:
                        bar.update()
                return dict(zip(numbers, found, strict=True))

            tasks = loop.run(_begun(one, groups))
            try:
                parts = loop.run(_all(tasks))
            except PoolFailed as failed:
                raise failed.error from None
            except KeyboardInterrupt as error:
                parts = [it for it in loop.run(_ended(tasks)) if isinstance(it, dict)]
                if not (takes_part and parts):
                    raise interrupted(error) from None
        found = {number: run for part in parts for number, run in part.items()}
        return pooled_alike([found[number] for number in sorted(found)])

    def _results(
        self, job: Job, model: Model, data: Sent, numbers: range, most: int, progress: bool
    ) -> Iterator[Any]:
        loop, workers = self._running()

        async def alone(value: Any, seed: int) -> Posterior:
            call = data, seed, sent_input(model, [value])
            about = f"the input {quoted(value)}"
            return pooled_alike(await workers.infer(about, most, False, numbers, *call))

        with bar_of("pool.map", " inputs", job.total, progress) as bar:
            one = partial(job.posterior, infer=alone)
            order = InOrder(one, job.concurrency, raises=job.raises, bar=bar)
            try:
                # Inputs are read here and not in the loop's thread: they may be rows of a database.
                while loop.run(order.start(list(islice(job.inputs, order.room)))):
                    yield loop.run(order.first())
            except PoolFailed as failed:
                raise failed.error from None
            finally:
                if not loop.is_closed:
                    loop.run(order.stop())

    def _running(self) -> tuple[Background, Workers]:
        if self._loop is None or self._workers is None:
            self._started_ray = start()
            self._loop = Background()
            try:
                self._require_room()
                threads = max(1, int(self._each["num_cpus"]))
                self._workers = Workers(self._actor, self._number, self._load, threads)
                self._loop.run(self._workers.start())
            except BaseException:
                self.close()
                raise
        return self._loop, self._workers

    def _actor(self) -> Any:
        given = {"scheduling_strategy": "SPREAD", **self._actor_options, **self._each}
        return imported().remote(Actor).options(max_restarts=0, **given).remote()

    def _require_room(self) -> None:
        """Raises `ModelError` where the workers have no room, and more machines cannot join."""
        there = imported().cluster_resources()
        for option, kind in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
            needed, has = self._number * self._each[option], there.get(kind, 0)
            if needed <= has:
                continue
            text = (
                f"workers={self._number} with {option}={self._each[option]:g} need {needed:g} "
                f"{kind}s, and there are {has:g}"
            )
            if self._started_ray and not os.environ.get("RAY_ADDRESS"):
                raise ModelError(f"{text}: give fewer workers, or a smaller {option} to each")
            _log.warning("%s: some workers start when more machines have joined", text)


def _sent(model: Model, options: Mapping[str, Any], called: str) -> Sent:
    require_model(model)
    require_lm(model)
    if "lm" in options:
        raise ModelError(f"{called} got lm=...: each worker gives the model its own, from load()")
    return Sent(sent_model(model, options))


async def _begun(one: Callable[[T], Coroutine[Any, Any, R]], of: Iterable[T]) -> list[Task[R]]:
    return [asyncio.create_task(one(it)) for it in of]


async def _all(tasks: Sequence[Task[R]]) -> list[R]:
    try:
        return list(await asyncio.gather(*tasks))
    except asyncio.CancelledError:
        raise  # they are cancelled too, once: what they have by then they give
    except BaseException:
        for task in tasks:
            task.cancel()
        await _ended(tasks)
        raise


async def _ended(tasks: Sequence[Task[R]]) -> list[R | BaseException]:
    return list(await asyncio.gather(*tasks, return_exceptions=True))
