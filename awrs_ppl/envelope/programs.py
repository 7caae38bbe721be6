"""Programs between draws: run on from some choices to the next draw, or to the end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from awrs_ppl.distributions import Bernoulli, Categorical
from awrs_ppl.posterior.by_value import entry
from awrs_ppl.program import notes
from awrs_ppl.program.execution import Model, Run
from awrs_ppl.program.log import Log, Record, copied
from awrs_ppl.program.statements import Call, Factor, Sample, Statement
from awrs_ppl.program.text_statements import Generate, Observe

__all__ = ["Stop", "is_at_most_one", "run_on", "support"]


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a program has come to: the records so far, the `statement` that draws next, or the
    returned `value` where there is none.

    `log_weight` is what the statements between have done to the weight, that cannot be above 1:
    conditions, and the probabilities of observed values; `factor` what those did that may be above
    1 and be taken back later; `unbounded` names the first of these. `rows`: a language model
    weighed something on the way.
    """

    log: Log | None
    statement: Statement | None = None
    value: Any = None
    log_weight: float = 0.0
    factor: float = 0.0
    unbounded: str = ""
    rows: bool = False


async def run_on(model: Model, args: Sequence[Any], log: Log | None) -> Stop:
    """Run a program on from its choices to the next draw; all statements between are served."""
    blocked = asyncio.Event()
    run = Run(model, args, Log.records(log), blocked.set)
    stop = Stop(log)
    try:
        while True:
            while not run.finished and run.statement is None:
                blocked.clear()
                await blocked.wait()
            if run.failure is not None:
                notes.add(run.failure, f"in an execution, {notes.where(Log.records(stop.log))}")
                raise run.failure
            if run.statement is None:
                return replace(stop, value=run.value)
            if isinstance(run.statement, Generate | Sample):
                return replace(stop, statement=run.statement)
            stop = await _served(run, stop)
            if stop.log_weight == -math.inf or stop.factor == -math.inf:
                return stop
    finally:
        await run.drop()


async def _served(run: Run, stop: Stop) -> Stop:
    """Serve a statement that draws nothing."""
    statement = run.statement
    assert statement is not None
    value, weight, error = None, 0.0, None
    try:
        if isinstance(statement, Call):
            value = await statement.answer(np.random.default_rng, run.context)
        else:
            value, weight = await statement.weigh(np.random.default_rng)
    except asyncio.CancelledError:
        raise
    except Exception as raised:
        if not isinstance(statement, Call) and not isinstance(raised, statement.errors):
            raise
        error = raised
    kept = copied(value)
    stop = replace(
        stop,
        log=Log.append(stop.log, Record(statement, kept, weight, error)),
        rows=stop.rows or bool(statement.lms),
    )
    if is_at_most_one(statement):
        stop = replace(stop, log_weight=stop.log_weight + weight)
    else:
        unbounded = stop.unbounded or f"{statement.kind} {statement.name!r}"
        stop = replace(stop, factor=stop.factor + weight, unbounded=unbounded)
    if weight > -math.inf:
        run.resume(copied(kept), error)
    return stop


def is_at_most_one(statement: Statement) -> bool:
    """Whether what a statement does to the weight is a probability, whatever comes."""
    if isinstance(statement, Observe):
        source: Any = statement.source
        weighted = getattr(source, "weighted", None)
        return isinstance(source, Categorical | Bernoulli) if weighted is None else not weighted
    return not isinstance(statement, Factor)


def support(sample: Sample) -> list[tuple[Any, float]] | None:
    """The values that a statement can draw, with their log-probabilities, the likeliest first;
    None if there are not finitely many that are known."""
    distribution = sample.distribution
    values: Iterable[Any]
    if isinstance(distribution, Bernoulli):
        values = (True, False)
    elif isinstance(distribution, Categorical):
        values = {entry(value): value for value in distribution.values}.values()
    else:
        return None
    pairs = [(value, distribution.log_prob(value)) for value in values]
    return sorted((pair for pair in pairs if pair[1] > -math.inf), key=lambda pair: -pair[1])
