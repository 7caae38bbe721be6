"""A program on many inputs: `infer_many` and `run_many`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal

from awrs_ppl._concurrency import require_no_loop
from awrs_ppl.inference.smc import infer
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.execution import Model
from awrs_ppl.scale.in_order import InOrder, Result, bar_of
from awrs_ppl.scale.job import Job

__all__ = ["infer_many", "run_many"]


def infer_many(
    model: Model,
    inputs: Iterable[Any],
    *,
    concurrency: int = 8,
    on_error: Literal["raise", "return"] = "raise",
    save: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    progress: bool = True,
    **options: Any,
) -> AsyncGenerator[Any, None]:
    """The posteriors of `model(ctx, input)` for many inputs, in their order, as an async iterator.

    `concurrency` inferences are done at once, and share the forward passes of their language
    model. Inputs are read when they are needed, so that they may be a generator; what is done
    ahead of its turn is bounded. `options` are those of `infer`. The seconds and rows in the
    `stats` of a posterior are those of the time it took, with what others did in the same passes.

    Input i has a seed of its own that follows from `seed` and i: its posterior does not depend on
    the other inputs (up to the rounding of shared passes), and `posterior.seed` gives it again by
    `infer`. An exception names its input. With `on_error="return"` it is given in the place of the
    posterior, and the others go on.

    With `save=folder` every posterior is kept in a file as soon as it is there, and given as it is
    read from there: values that are dataclasses or Pydantic objects are dicts (`Posterior.save`).
    When the same is done again, what is there is read and not inferred. Of the model only the name
    is compared: after a change of its code give another folder. Raises `ModelError` for that of
    another job. `Posterior.load` reads each file by itself.

    Who leaves the loop early waits for nothing, and what is in progress is stopped.

    >>> import asyncio
    >>> from awrs_ppl import Categorical
    >>> async def model(ctx, sides):
    ...     return await ctx.sample(Categorical(range(1, sides + 1)))
    >>> async def main():
    ...     dice = infer_many(model, [4, 6], n_particles=12, seed=0, progress=False)
    ...     return [len(posterior.probabilities) async for posterior in dice]
    >>> asyncio.run(main())
    [4, 6]
    """
    job = Job.of(
        "infer_many",
        model,
        inputs,
        options,
        concurrency=concurrency,
        on_error=on_error,
        save=save,
        seed=seed,
    )

    async def alone(value: Any, seed: int) -> Posterior:
        return await infer(model, value, seed=seed, progress=False, **options)

    return _results(job, alone, progress)


def run_many(model: Model, inputs: Iterable[Any], **options: Any) -> Iterator[Any]:
    """`infer_many` for scripts: an iterator of posteriors, with an event loop of its own.

    >>> from awrs_ppl import Bernoulli
    >>> async def model(ctx, p):
    ...     return await ctx.sample(Bernoulli(p))
    >>> [posterior.mode() for posterior in run_many(model, [0.0, 1.0], progress=False)]
    [False, True]
    """
    require_no_loop("run_many(...)", "async for posterior in infer_many(...)")
    return _driven(infer_many(model, inputs, **options))


def _driven(results: AsyncGenerator[Result, None]) -> Iterator[Result]:
    async def following() -> Result:
        return await anext(results)

    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    yield runner.run(following())
                except StopAsyncIteration:
                    return
        finally:
            runner.run(results.aclose())  # pyright: ignore[reportArgumentType]


async def _results(
    job: Job, alone: Callable[[Any, int], Awaitable[Posterior]], progress: bool
) -> AsyncGenerator[Result, None]:
    with bar_of("infer_many", " inputs", job.total, progress) as bar:
        one = partial(job.posterior, infer=alone)
        order = InOrder(one, job.concurrency, raises=job.raises, bar=bar)
        try:
            while await order.start(islice(job.inputs, order.room)):
                yield await order.first()
        finally:
            await order.stop()
