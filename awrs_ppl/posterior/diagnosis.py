"""How far a posterior can be relied on: what was thrown away, and what runs disagree about."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from awrs_ppl.log_weights import equal_shares, log_mean, normalize
from awrs_ppl.posterior import _certain, _diagnosed
from awrs_ppl.posterior.by_value import ByValue
from awrs_ppl.posterior.explanation import equal_lineages

if TYPE_CHECKING:
    from awrs_ppl.posterior.posterior import Posterior

__all__ = ["Diagnosis", "Runs", "diagnose"]

# Values that are rarer than the floor are compared together: where texts are many, each run has
# others, which is no disagreement. 0.02 to 0.1 do about as well on the toys of
# `tests/benchmarks/warnings_of_runs.py`, and without it broad posteriors of few particles warn.
_CLASSES = 8
_FLOOR = 0.05
# With fewer particles the number of lineages says little.
_FEWEST_FOR_LINEAGES = 10


@dataclass(frozen=True, slots=True)
class Runs:
    """What independent runs of one program disagree about, each weighted by its evidence.

    `log_mls` is the logarithm of the evidence of each, `shares` its part of the sum of all.
    `disagreement` is the total variation between a run and the others together, the mean over the
    runs by their shares, on at most 9 classes of values: the likeliest of the pooled values each
    by itself (up to 8, of at least 0.05), all others together. None where fewer than two runs
    have values. `spread` is the standard deviation of `log_mls`, infinite if some are dead.

    `errors` (by value, as in `Posterior.probabilities`) and `log_ml_error` are jackknife standard
    errors: they come from leaving out one run at a time. Where only one run has evidence they
    are infinite. Source: Efron, "The jackknife, the bootstrap and other resampling plans", 1982.
    """

    log_mls: list[float]
    shares: list[float]
    disagreement: float | None
    spread: float
    errors: dict[Any, float]
    log_ml_error: float

    @property
    def dead(self) -> int:
        """How many runs have no evidence."""
        return self.log_mls.count(-math.inf)


@dataclass(frozen=True)
class Diagnosis:
    """What `Posterior.diagnose()` gives: as text, as HTML in a notebook, and as data.

    `survived` is the part of the weight that survived resampling: the product over all
    resamplings of the share of what was taken, of particles or of all their children; of several
    runs the mean by evidence. `lost_by` is the statement after which most was thrown away. None
    and "" where nothing was resampled. `is_chosen`: children competed, so particles differ
    and their weights are unequal. `equal_values` is how many equally likely values the distinct
    ones are worth: 1 / sum p^2. `lineages` is how many equal first ancestors the weight lies on,
    where slots are copies and there are at least 10, else None; of several runs the heaviest's.

    `runs` is None for a single run, which gives no standard errors. `warnings` has a line for
    each reason not to rely on the result, with its remedy, the gravest first. An empty list is no
    proof that the result is right: where a text pays only at its end, all runs may miss it alike.
    `certain` is what is known for certain, of results of `exact` and `rejection`.

    >>> from awrs_ppl import Bernoulli, run
    >>> async def coin(ctx):
    ...     return await ctx.sample(Bernoulli(0.5))
    >>> found = run(coin, n_particles=50, runs=4, seed=0, progress=False).diagnose()
    >>> len(found.runs.log_mls), found.runs.disagreement < 0.15
    (4, True)
    """

    n_particles: int
    alive: int
    log_ml: float
    ess: float
    distinct: int
    equal_values: float
    probabilities: dict[Any, float]
    survived: float | None
    lost_by: str
    is_chosen: bool
    lineages: float | None
    runs: Runs | None
    warnings: list[str]
    certain: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        return _diagnosed.text(self)

    def __repr__(self) -> str:
        return f"<Diagnosis of {self.n_particles} particles: print it>"

    def _repr_html_(self) -> str:
        return _diagnosed.html(self)


def diagnose(posterior: Posterior) -> Diagnosis:
    """See `Posterior.diagnose`."""
    parts = posterior.parts or [posterior]
    shares = normalize([part.log_ml for part in parts]) if len(parts) > 1 else np.ones(1)
    if not shares.any():
        shares = np.full(len(parts), 1 / len(parts))
    resampled = any(_is_resampled(part) for part in parts)
    chosen = any(sync.chosen for part in parts for sync in part.history)
    heaviest = posterior.heaviest
    copies = _is_resampled(heaviest) and not chosen and len(heaviest) >= _FEWEST_FOR_LINEAGES
    found = Diagnosis(
        n_particles=len(posterior),
        alive=posterior.alive,
        log_ml=posterior.log_ml,
        ess=posterior.ess,
        distinct=len(posterior._results),
        equal_values=equal_shares([share for *_, share in posterior._results]),
        probabilities=posterior.probabilities,
        survived=float(shares @ [_survived(part) for part in parts]) if resampled else None,
        lost_by=_lost_by(parts, shares),
        is_chosen=chosen,
        lineages=equal_lineages(heaviest) or None if copies else None,
        runs=_runs(posterior) if len(posterior.parts) > 1 else None,
        warnings=[],
        certain=[] if _certain.is_sampled(posterior) else _certain.facts(posterior),
    )
    found.warnings.extend(_diagnosed.warnings(found, posterior))
    return found


def _is_resampled(posterior: Posterior) -> bool:
    return any(sync.ancestors is not None or sync.survived < 1 for sync in posterior.history)


def _survived(posterior: Posterior) -> float:
    return min(1.0, math.prod(sync.survived for sync in posterior.history))


def _lost_by(parts: Sequence[Posterior], shares: np.ndarray) -> str:
    """The statement in whose steps most of the weight was thrown away; of several that took part
    in a step the one that cost most evidence."""
    lost: dict[str, float] = defaultdict(float)
    for part, share in zip(parts, shares.tolist(), strict=True):
        for sync in part.history:
            costs: dict[str, float] = defaultdict(float)
            for loss in sync.losses:
                costs[loss.statement] += loss.log_evidence
            if sync.survived < 1 and costs:
                nats = -math.log(sync.survived) if sync.survived > 0 else math.inf
                lost[min(costs, key=costs.__getitem__)] += share * nats if share else 0.0
    return max(lost, key=lost.__getitem__, default="")


# --- several runs ---------------------------------------------------------------------------


def _runs(posterior: Posterior) -> Runs:
    parts = posterior.parts
    log_mls = [part.log_ml for part in parts]
    each = [part.probabilities for part in parts]
    values = list(posterior.probabilities)
    table = np.array([[found.get(value, 0.0) for value in values] for found in each])
    table = table.reshape(len(parts), len(values))
    alive = sum(log_ml > -math.inf for log_ml in log_mls)
    weights = np.array(log_mls)
    without = [np.delete(weights, i) for i in range(len(parts))]
    log_ml_error = math.inf
    errors = np.full(len(values), math.inf)
    if alive > 1:
        log_ml_error = float(_jackknife(np.array([log_mean(rest) for rest in without])))
        errors = _jackknife(
            np.array([normalize(w) @ np.delete(table, i, axis=0) for i, w in enumerate(without)])
        )
    return Runs(
        log_mls=log_mls,
        shares=normalize(weights).tolist(),
        disagreement=_disagreement(posterior, table, weights) if alive > 1 else None,
        spread=float(np.std(weights, ddof=1)) if alive == len(parts) else math.inf,
        errors=ByValue(zip(values, errors.tolist(), strict=True)),
        log_ml_error=log_ml_error,
    )


def _jackknife(without: np.ndarray) -> np.ndarray:
    """The standard error of an estimate from what it is without each of k runs, shape [k, ...]."""
    k = len(without)
    return np.sqrt((k - 1) / k * np.square(without - without.mean(axis=0)).sum(axis=0))


def _disagreement(posterior: Posterior, table: np.ndarray, weights: np.ndarray) -> float:
    """The mean total variation between a run and the others together; see `Runs`."""
    likely = [i for i, p in enumerate(posterior.probabilities.values()) if p >= _FLOOR][:_CLASSES]
    classes = np.column_stack([table[:, likely], 1 - table[:, likely].sum(axis=1)])
    found = 0.0
    for i, share in enumerate(normalize(weights).tolist()):
        if share > 0:
            others = normalize(np.delete(weights, i)) @ np.delete(classes, i, axis=0)
            found += share * float(np.abs(classes[i] - others).sum()) / 2
    return found
