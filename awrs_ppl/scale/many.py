"""A program on many inputs: `infer_many` and `run_many`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from itertools import count
from typing import Any, Literal

import numpy as np

from awrs_ppl._concurrency import require_no_loop
from awrs_ppl._messages import quoted
from awrs_ppl._values import whole
from awrs_ppl.errors import ModelError
from awrs_ppl.inference._progress import bar_on_stderr
from awrs_ppl.inference.smc import infer
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.execution import Model, name_of_model, require_model
from awrs_ppl.rng import RandomStreams
from awrs_ppl.scale.folder import Folder

__all__ = ["infer_many", "run_many"]

# Posteriors that wait for an earlier one to be given: so many times `concurrency`, with those in
# progress. One slow input then does not stop the others at once, and memory stays bounded.
_AHEAD = 4

Result = Posterior | Exception


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
    require_model(model)
    concurrency = whole("concurrency", concurrency, least=1)
    if on_error not in ("raise", "return"):
        raise ModelError(f"on_error={on_error!r}: choose 'raise' or 'return'")
    if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
        raise ModelError(f"infer_many got the inputs {quoted(inputs)}: give a list of inputs")
    if options.get("partial"):
        raise ModelError(
            "infer_many got partial=True: leave it out; with save= what is finished is kept"
        )
    if seed is not None:
        seed = whole("seed", seed, least=0)
    folder = None if save is None else Folder(save)
    fresh = RandomStreams.fresh().seed
    if folder is not None:
        # Without its module: a script is `__main__`, and another name where it is imported.
        seed = folder.begin(name_of_model(model), seed, options, fresh)
    base = fresh if seed is None else seed

    async def one(number: int, value: Any) -> Posterior:
        found = None if folder is None else folder.load(number, value)
        if found is not None:
            return found
        posterior = await infer(model, value, seed=_seed(base, number), progress=False, **options)
        if folder is None:
            return posterior
        folder.save(number, value, posterior)
        # As it comes from there the next time: a dataclass is a dict in a file.
        return Posterior.load(folder.path_of(number))

    total = len(inputs) if hasattr(inputs, "__len__") else None  # pyright: ignore
    return _in_order(one, iter(inputs), concurrency, on_error == "raise", progress, total)


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


async def _in_order(
    one: Callable[[int, Any], Awaitable[Posterior]],
    inputs: Iterator[Any],
    concurrency: int,
    raises: bool,
    progress: bool,
    total: int | None,
) -> AsyncGenerator[Result, None]:
    running = asyncio.Semaphore(concurrency)
    waiting: deque[asyncio.Task[Result]] = deque()
    numbers = count()
    shown = progress and sys.stderr is not None
    with closing(bar_on_stderr("infer_many", " inputs", total)) if shown else nullcontext() as bar:

        async def outcome(number: int, value: Any) -> Result:
            async with running:
                try:
                    return await one(number, value)
                except Exception as error:
                    error.add_note(f"awrs_ppl: in input {number}: {quoted(value)}")
                    return error
                finally:
                    if bar is not None:
                        bar.update()

        def fill() -> None:
            while len(waiting) < _AHEAD * concurrency:
                try:
                    value = next(inputs)
                except StopIteration:
                    return
                waiting.append(asyncio.create_task(outcome(next(numbers), value)))

        try:
            fill()
            while waiting:
                result = await waiting[0]
                waiting.popleft()
                if raises and isinstance(result, Exception):
                    raise result
                yield result
                fill()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


def _seed(base: int, number: int) -> int:
    """The seed of an input: from its number, so that it does not depend on what others do."""
    return int(np.random.SeedSequence((base, number)).generate_state(1, np.uint64)[0])
