"""Independent exact draws, by adaptive rejection sampling over executions: `rejection`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from awrs_ppl._values import whole
from awrs_ppl.envelope.attempts import Attempt, Attempts
from awrs_ppl.envelope.search import Search
from awrs_ppl.envelope.trie import Trie
from awrs_ppl.inference._progress import Bars, SearchInfo
from awrs_ppl.inference.certain import drawn_posterior, most
from awrs_ppl.inference.failures import interrupted, without_engine
from awrs_ppl.inference.keywords import with_keywords
from awrs_ppl.inference.runs import streams_of
from awrs_ppl.inference.stopping import require_options, stoppable
from awrs_ppl.log_weights import log_sum
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.execution import Model
from awrs_ppl.proposals.costs import Costs

__all__ = ["rejection"]

_BATCH = 32  # attempts side by side


async def rejection(
    model: Model,
    *args: Any,
    n: int = 100,
    attempts: int | None = None,
    prime_rows: int = 400,
    max_factor: float | None = None,
    seed: int | None = None,
    progress: bool | Callable[[SearchInfo], object] = True,
    timeout: float | None = None,
    partial: bool = False,
    **keywords: Any,
) -> Posterior:
    """Independent exact draws from the posterior of `model(ctx, *args, **keywords)`.

    For broad constraints under which much of the language model's weight is allowed, where draws
    must be independent: no resampling, no weights. An attempt draws an execution token by token
    from the language model and is rejected where it breaks a constraint. What was rejected is kept
    in a trie and never drawn again, so that attempts come out ever more often. Before them the trie
    is primed: it is grown where executions are heaviest, with `prime_rows` rows of the language
    model, as by `exact`.

    It gives `n` draws of equal weight, or with `attempts=k` those of exactly k attempts, perhaps
    none. Draws are independent and exact, however little is known. The evidence `exp(log_ml)` is
    unbiased with `attempts`; with `n` it is consistent: the last attempt is always one that came
    out. `log_ml_bounds` are certain as in `exact`.

    The weights that `factor`, critics, weighing potentials and observed densities give to an
    execution must together be at most 1, or at most `max_factor`, by which draws come out so much
    the less often. `sample` may be from any distribution. A `call` must give the same at equal
    choices. `timeout`, `partial` and the keywords of the model are those of `infer`, `progress`
    that of `exact`. The same `seed` gives the same draws, as with `infer`.

    Raises `ModelError` for an execution that weighs more than allowed, and for wrong options.

    Source: constrained adaptive rejection sampling (arXiv 2510.01902), with a primed trie, attempts
    side by side, and rejections learned of at once (`awrs_ppl.envelope.attempts`).

    >>> from awrs_ppl import ToyLM, rejection
    >>> from awrs_ppl.potentials import Regex
    >>> lm = ToyLM(["a", "b"], weights=lambda context: [1, 1, 1])
    >>> async def model(ctx):
    ...     return await ctx.generate(lm("a") * Regex("a*b"))
    >>> draws = asyncio.run(rejection(model, n=200, seed=0, progress=False))
    >>> len(draws), 0.55 < draws.probabilities["b"] < 0.8
    (200, True)
    """
    model = with_keywords(rejection, model, args, keywords)
    n = whole("n", n, least=1)
    if attempts is not None:
        attempts = whole("attempts", attempts, least=1)
    prime_rows = whole("prime_rows", prime_rows, least=0)
    require_options(timeout, partial)
    streams = streams_of(seed)
    bound = most(max_factor)
    finished: list[Attempt] = []
    with Bars(progress, 1) as bars:
        bar = bars.search("rejection")
        trie = Trie(model, args, Costs(), bound, strict=True)

        async def draw() -> None:
            search = Search(trie, opaque=True)
            await search.begin()
            while not search.is_done and trie.costs.lm_rows < prime_rows:
                await search.grow()
                bar.grown(trie.costs.lm_rows, trie.log_low, trie.log_high)
                await asyncio.sleep(0)
            walks = Attempts(trie)
            walking: list[Attempt] = []
            begun = accepted = 0
            while True:
                # In their order: those that are over first would be the short ones.
                while walking and walking[0].node is None:
                    finished.append(walking.pop(0))
                    accepted += finished[-1].end is not None
                    if (attempts is None and accepted == n) or len(finished) == attempts:
                        return
                if trie.log_high == -math.inf and attempts is None:
                    return
                while len(walking) < _BATCH and begun != attempts:
                    walking.append(walks.begin(_rng(streams.seed, begun)))
                    begun += 1
                await walks.walk(walking)
                bar.grown(trie.costs.lm_rows, trie.log_low, trie.log_high)
                await asyncio.sleep(0)  # where nothing else suspends, a timeout is seen here

        try:
            stopped = await stoppable(draw(), timeout, partial)
        except Exception as error:
            raise without_engine(error)  # noqa: B904 (it is the same)
        except BaseException as error:
            raise interrupted(error) from None
    ends = [attempt.end for attempt in finished if attempt.end is not None]
    roots = [attempt.log_root for attempt in finished if attempt.end is not None]
    log_ml = log_sum(roots) - math.log(len(finished)) if finished else -math.inf
    return drawn_posterior(trie, ends, log_ml, streams.seed, stopped)


def _rng(seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((seed, index)))
