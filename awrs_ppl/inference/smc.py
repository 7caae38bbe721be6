"""Sequential Monte Carlo over programs: `infer` and `check_replay`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from awrs_ppl._values import whole
from awrs_ppl.constraints.verdict_cache import VerdictCache
from awrs_ppl.errors import ReplayError
from awrs_ppl.inference import logger
from awrs_ppl.inference._progress import Bars, StepInfo
from awrs_ppl.inference.check_replay import recheck
from awrs_ppl.inference.failures import interrupted, without_engine
from awrs_ppl.inference.inference import Inference
from awrs_ppl.inference.keywords import with_keywords
from awrs_ppl.inference.resampling import Resampling
from awrs_ppl.inference.runs import pooled_alike, side_by_side, streams_of
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.execution import Model, Run
from awrs_ppl.program.log import Log
from awrs_ppl.program.replay import alike

__all__ = ["check_replay", "infer"]


async def infer(
    model: Model,
    *args: Any,
    n_particles: int = 16,
    ess_threshold: float | None = None,
    resampling: str = "auto",
    runs: int = 1,
    seed: int | None = None,
    remember: bool = False,
    progress: bool | Callable[[StepInfo], object] = True,
    timeout: float | None = None,
    partial: bool = False,
    **keywords: Any,
) -> Posterior:
    """The posterior of `model(ctx, *args, **keywords)`, by sequential Monte Carlo.

    Particles are synchronized after every token of a `generate` and after every weighted
    statement. Where the proposal knows the weights of all next tokens (`AWRS` does), all these
    continuations of all particles, their children, compete for the places at the next token, when
    the effective sample size is below `ess_threshold` (by default 0.75) of them: the heaviest stay
    as they are, the others are drawn, and particles that have made the same choices are one. N
    particles then are N different texts of unequal weights, and the places of equal ones are free
    (`posterior.free`). Before other draws copies are resampled, below 0.5 by default. With
    `ess_threshold=0` neither is done, and critics do not steer either (importance sampling). While
    texts are growing, particles that are ahead of them, such as those whose text has ended, keep
    slot and weight.

    That is `resampling="auto"`. With "children" it is a `ModelError` that a proposal knows no
    weights; "multinomial", "stratified", "systematic" and "residual" resample copies only. Those
    take fewer rows of the language model at equal `n_particles`. At equal rows their error was
    larger on all programs of known posterior from 16 particles on, and with 8 on all but one (1.14
    times), garden paths apart: where a branch weighs little for some tokens and nearly all at the
    end children have up to 1.05 times their error, and both may miss it.

    The same `seed` gives the same posterior, in another process and with `workers=` too, as far
    as the logits are the same: another device, dtype or number of threads, what the engine's
    cache holds, and other inferences in the same forward passes change how they are rounded, and
    so now and then a draw. With `remember=True` what is learned about constraints is kept for
    later runs, which then need fewer checks, and shared with those that run at the same time;
    a seed then no longer fixes the result. Proposals that weigh checks against variance (`AWRS`)
    then check less, too: raise their `effort` for the variance of a run that stands alone.
    After `timeout` seconds the particles that have finished are returned, and the posterior
    says how much is missing; with `partial=True` an interrupt (Ctrl-C, the stop button of a
    notebook, a cancellation) does the same instead of being raised.

    `progress` shows a bar on stderr, for each run its own, or a line every 10 seconds where no
    terminal is; False nothing. A function is called instead, after every step of every run, with
    one argument that has `step` and `run` (both from 1), `ess`, `alive`, `finished` and `tokens`;
    what it raises ends the inference and comes out. For a log, `logging.basicConfig(level="INFO")`
    shows when an inference begins, and what it gave at its end (logger `awrs_ppl`; "DEBUG":
    resamplings too).

    `runs` populations of `n_particles`, independent of one another and side by side in the same
    forward passes, are pooled by their evidence (`Posterior.pool`); what they disagree about says
    how far the result can be relied on. The first of them is the run without `runs`.

    The evidence `exp(posterior.log_ml)` is unbiased. An exception in the model comes out as
    itself. Raises `ModelError` for wrong options, `PotentialError` for a broken potential.

    A keyword that is no option goes to the model, if it has a parameter of this name or takes
    `**kwargs`; else it is a `TypeError`. It is one, too, if the model has a parameter that is named
    like an option, as `seed`: `infer(functools.partial(model, seed=3))` gives it one of its own.

    All particles get the same arguments, so a model must not change them. Particles wait for one
    another: no lock may be held across a statement. An `infer` inside a model needs a seed of
    its own for the outer seed to fix the result.

    Source: Del Moral, Doucet, Jasra, "Sequential Monte Carlo samplers", 2006; Lew et al.,
    "Sequential Monte Carlo steering of large language models using probabilistic programs",
    2023; Fearnhead, Clifford, "On-line inference for hidden Markov models via particle filters",
    2003 (children).

    >>> from awrs_ppl import ToyLM
    >>> from awrs_ppl.potentials import Regex
    >>> lm = ToyLM(["a", "b"], weights=lambda context: [1, 1, 2])
    >>> async def model(ctx):
    ...     return await ctx.generate(lm("a") * Regex("a|ab"))
    >>> posterior = asyncio.run(infer(model, n_particles=20, seed=0, progress=False))
    >>> {text: round(p, 1) for text, p in posterior.probabilities.items()}
    {'a': 0.8, 'ab': 0.2}
    """
    model = with_keywords(infer, model, args, keywords)
    numbers = range(whole("runs", runs, least=1))
    try:
        found = await side_by_side(
            numbers,
            model,
            args,
            n_particles=n_particles,
            ess_threshold=ess_threshold,
            resampling=resampling,
            seed=seed,
            remember=remember,
            progress=progress,
            timeout=timeout,
            partial=partial,
        )
    except Exception as error:
        raise without_engine(error)  # noqa: B904 (it is the same)
    except BaseException as error:
        raise interrupted(error) from None
    posterior = pooled_alike(found)
    logger.ends(model, posterior)
    return posterior


async def check_replay(model: Model, *args: Any, seed: int = 0, **keywords: Any) -> None:
    """Run one particle of a model, then the model again on its record. Arguments are given as to
    `infer`.

    Raises `ReplayError` if the second run makes other requests or weighs a `factor` or
    `condition` otherwise, as a model does that uses `random`, the time or the order of a set;
    and `PotentialError` if a Boolean potential rejects now what it had allowed (the finished texts
    and some of their prefixes are checked again).

    >>> import random
    >>> async def model(ctx):
    ...     await ctx.factor(-random.random())
    >>> asyncio.run(check_replay(model))
    Traceback (most recent call last):
    awrs_ppl.errors.ReplayError: ...
    """
    model = with_keywords(check_replay, model, args, keywords)
    alone = Resampling.of("stratified", 0.0)
    inference = Inference(model, args, 1, alone, streams_of(seed), Bars(False, 1), VerdictCache())
    try:
        await inference.run()
    finally:
        await inference.close()
    records = Log.records(inference.particles[0].log)
    await recheck(records, seed)
    blocked = asyncio.Event()
    again = Run(model, args, records, blocked.set, strict=True)
    try:
        # After a death the model never ended: it blocks again at the statement that came next.
        while not again.finished and again.statement is None:
            blocked.clear()
            await blocked.wait()
        if again.failure is not None:
            raise again.failure
        first = inference.particles[0]
        if again.statement is not None and first.finished:
            raise ReplayError(
                f"run again, the model made {again.statement.shows()} where it had ended"
            )
        if again.finished and not alike(first.value, again.value):
            raise ReplayError(f"run again, the model returned {again.value!r}, not {first.value!r}")
    finally:
        await again.drop()
