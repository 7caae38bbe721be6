"""Runs of one program: populations side by side in the same forward passes."""

from __future__ import annotations

import asyncio
import secrets
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from awrs_ppl._concurrency import together
from awrs_ppl._values import whole
from awrs_ppl.constraints.verdict_cache import REMEMBERED, VerdictCache
from awrs_ppl.errors import ModelError
from awrs_ppl.inference import logger
from awrs_ppl.inference._progress import Bars, StepInfo
from awrs_ppl.inference.failures import interrupted
from awrs_ppl.inference.inference import Inference
from awrs_ppl.inference.resampling import Resampling
from awrs_ppl.inference.stopping import require_options, stoppable, take_back
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.execution import Model
from awrs_ppl.rng import RandomStreams

__all__ = ["pooled_alike", "side_by_side", "streams_of"]


async def side_by_side(
    numbers: Sequence[int],
    model: Model,
    args: Sequence[Any],
    *,
    n_particles: int,
    ess_threshold: float | None,
    resampling: str,
    seed: int | None,
    remember: bool,
    progress: bool | Callable[[StepInfo], object],
    timeout: float | None,
    partial: bool,
) -> list[Posterior]:
    """Of the runs of a program those of these numbers, from 0; the options are those of `infer`.

    A run is the same whatever other runs are done beside it, up to the rounding of shared passes.
    """
    if not isinstance(remember, bool):
        raise ModelError(f"remember={remember!r}: it must be True or False")
    require_options(timeout, partial)
    # Weights depend on the verdicts known: the random numbers that led to these must not be reused.
    streams = (
        replace(streams_of(seed), entropy=secrets.randbits(64)) if remember else streams_of(seed)
    )
    with Bars(progress, len(numbers)) as bars:
        inferences = [
            Inference(
                model,
                args,
                n_particles,
                Resampling.of(resampling, ess_threshold),
                replace(streams, run=number),
                bars,
                REMEMBERED if remember else VerdictCache(),
                counts_rows=number == numbers[0],
            )
            for number in numbers
        ]
        logger.begins(model, n_particles, len(numbers), streams.seed)
        try:
            stopped = await _run(inferences, timeout, partial)
        except (asyncio.CancelledError, KeyboardInterrupt) as error:
            raise interrupted(error, len(inferences[0].recorder.history)) from None
    if remember and (changed := inferences[0].changed()):
        warnings.warn(
            f"remember=True keeps nothing of {', '.join(changed)}: a list, dict, set or global "
            "that it names has changed, and it may decide otherwise now. To keep results of your "
            "own in it, use functools.cache",
            stacklevel=3,
        )
    return [inference.posterior(stopped=stopped) for inference in inferences]


def pooled_alike(runs: Sequence[Posterior]) -> Posterior:
    """The posterior of runs that were done at the same time; of one, that one."""
    if len(runs) == 1:
        return runs[0]
    posterior = Posterior.pool(runs)
    # They waited for the same passes, side by side.
    longest = max((run.stats.seconds for run in runs), key=lambda parts: sum(parts.values()))
    posterior.stats = replace(posterior.stats, seconds=longest)
    return posterior


def streams_of(seed: int | None) -> RandomStreams:
    """The random streams of a seed, or of one taken from the system."""
    if seed is None:
        return RandomStreams.fresh()
    return RandomStreams(whole("seed", seed, least=0))


async def _run(inferences: list[Inference], timeout: float | None, partial: bool) -> str | None:
    """Run to the end, and unwind what is left; why it ended early, if the caller allows that."""
    try:
        work = together(inference.run() for inference in inferences)
        stopped = await stoppable(work, timeout, partial)
        if stopped is not None:
            for inference in inferences:
                inference.collect()  # those that have just ended count
    finally:
        try:
            await together(inference.close() for inference in inferences)
        except asyncio.CancelledError:
            # All that there is to return is there by now.
            if not (partial and take_back()):
                raise
    return stopped
