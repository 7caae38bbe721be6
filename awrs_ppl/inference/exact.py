"""Exact posteriors, by best-first search over the executions of a program: `exact`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from awrs_ppl._messages import quoted
from awrs_ppl._values import is_number, whole
from awrs_ppl.envelope.search import Search
from awrs_ppl.envelope.trie import Trie
from awrs_ppl.errors import ModelError
from awrs_ppl.inference._progress import Bars, SearchInfo
from awrs_ppl.inference.certain import found_posterior, most
from awrs_ppl.inference.failures import interrupted, without_engine
from awrs_ppl.inference.keywords import with_keywords
from awrs_ppl.inference.stopping import require_options, stoppable
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.execution import Model
from awrs_ppl.proposals.costs import Costs

__all__ = ["exact"]


async def exact(
    model: Model,
    *args: Any,
    tolerance: float = 1e-3,
    max_rows: int | None = 10_000,
    max_factor: float | None = None,
    seed: int | None = None,
    progress: bool | Callable[[SearchInfo], object] = True,
    timeout: float | None = None,
    partial: bool = False,
    **keywords: Any,
) -> Posterior:
    """The posterior of `model(ctx, *args, **keywords)` without sampling, by best-first search.

    For labels, names, short texts under a pattern, small programs: where few executions have most
    of the weight. Executions are found heaviest first, many contexts in one forward pass of the
    language model. What was found is a lower bound of the evidence, and with all that is still open
    an upper one, for certain; the search ends when at most a share of `tolerance` of the evidence
    may be missing, after `max_rows` rows of the language model (None: no limit), or after `timeout`
    seconds. Of the posterior, `log_ml` is the logarithm of what was found, `log_ml_bounds` has both
    bounds, and `bounds` those of the probability of each value.

    The bounds hold because no execution can weigh more than the probability of its choices. A
    `factor`, a critic, a weighing potential or an observed density can give more: where there is
    one, values and probabilities are those found, without bounds, unless `max_factor` says what all
    of these together multiply an execution's weight by at most. The posterior says which statement
    it is. Probabilities are those of the rows as they were computed, so that bounds are certain up
    to their rounding.

    `sample` must be from `Categorical` or `Bernoulli`. A `call` is made once for equal choices, and
    once more where two spellings of a text lead to them: it must give the same. Proposals and
    `n_particles` have no part in it; nothing is random, and `seed` is only kept. With
    `progress=function` it is called after each pass with one argument that has `step`, `rows` and
    `log_ml_bounds`. `timeout` and `partial` are those of `infer`, and so are errors and keywords of
    the model.

    Raises `ModelError` for a draw that cannot be enumerated, for a `call` that differs at equal
    choices, and for an execution that weighs more than `max_factor`.

    Source: best-first search is as old as A*; the bounds are those of an envelope over prefixes,
    as in constrained adaptive rejection sampling (arXiv 2510.01902).

    >>> from awrs_ppl import ToyLM, exact
    >>> from awrs_ppl.potentials import OneOf
    >>> lm = ToyLM(["y", "n", "."], weights=lambda context: [3, 1, 2, 2])
    >>> async def model(ctx):
    ...     return await ctx.generate(lm("y") * OneOf(["y", "n"]))
    >>> posterior = asyncio.run(exact(model, progress=False))
    >>> {value: round(p, 3) for value, p in posterior.probabilities.items()}
    {'y': 0.75, 'n': 0.25}
    >>> [round(bound, 3) for bound in posterior.log_ml_bounds]
    [-2.079, -2.079]
    """
    model = with_keywords(exact, model, args, keywords)
    if not is_number(tolerance) or not 0 <= tolerance < 1:
        raise ModelError(
            f"tolerance={quoted(tolerance)}: it must be the share of the evidence that may be "
            "missing, at least 0 and below 1"
        )
    if max_rows is not None:
        max_rows = whole("max_rows", max_rows, least=1)
    if seed is not None:
        seed = whole("seed", seed, least=0)
    require_options(timeout, partial)
    bound = most(max_factor)
    with Bars(progress, 1) as bars:
        bar = bars.search("exact")
        trie = Trie(model, args, Costs(), bound)

        async def explore() -> None:
            search = Search(trie)
            await search.begin()
            while not search.is_done and trie.unexplored > tolerance:
                if max_rows is not None and trie.costs.lm_rows >= max_rows:
                    return
                await search.grow()
                bar.grown(trie.costs.lm_rows, trie.log_low, trie.log_high)
                await asyncio.sleep(0)  # where nothing else suspends, a timeout is seen here

        try:
            stopped = await stoppable(explore(), timeout, partial)
        except Exception as error:
            raise without_engine(error)  # noqa: B904 (it is the same)
        except BaseException as error:
            raise interrupted(error) from None
    return found_posterior(trie, 0 if seed is None else seed, stopped)
