"""The algorithms by name, for scripts: `run`."""

from __future__ import annotations

import asyncio
from typing import Any

from awrs_ppl._concurrency import require_no_loop
from awrs_ppl._messages import quoted
from awrs_ppl.errors import ModelError
from awrs_ppl.inference.exact import exact
from awrs_ppl.inference.failures import interrupted
from awrs_ppl.inference.rejection import rejection
from awrs_ppl.inference.smc import infer
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.execution import Model

__all__ = ["run"]

_ALGORITHMS = {"smc": infer, "exact": exact, "rejection": rejection}


def run(model: Model, *args: Any, algorithm: str = "smc", **options: Any) -> Posterior:
    """Inference for scripts: starts an event loop of its own.

    `algorithm` is "smc" (`infer`), "exact" or "rejection"; options are those of that function, and
    all other keywords go to the model. Raises `ModelError` for another algorithm, and where an
    event loop is running already.

    >>> from awrs_ppl import Bernoulli
    >>> async def coin(ctx):
    ...     return await ctx.sample(Bernoulli(0.5))
    >>> run(coin, n_particles=4, seed=0, progress=False)
    <Posterior: 4 particles, 2 values, ESS 4.0, log_ml 0.00>
    >>> run(coin, algorithm="exact", progress=False)
    <Posterior: 2 executions found, 2 values, log_ml 0.00>
    """
    if algorithm not in _ALGORITHMS:
        names = ", ".join(map(repr, _ALGORITHMS))
        raise ModelError(f"algorithm={quoted(algorithm)}: choose one of {names}")
    infers = _ALGORITHMS[algorithm]
    require_no_loop("run(...)", f"posterior = await {infers.__name__}(...)")
    try:
        return asyncio.run(infers(model, *args, **options))
    except KeyboardInterrupt as error:
        raise interrupted(error) from None
