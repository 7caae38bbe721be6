"""Where the weight of an inference went: what cost evidence, and what killed particles."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from awrs_ppl._renamed import renamed
from awrs_ppl.log_weights import equal_shares, normalize
from awrs_ppl.posterior import _certain, _explained
from awrs_ppl.posterior.records import resamplings

if TYPE_CHECKING:
    from awrs_ppl.posterior.posterior import Posterior
    from awrs_ppl.program.trace import Trace

__all__ = ["Deaths", "Explanation", "Importance", "StatementCost", "equal_lineages", "explain"]

_FEWEST_LINEAGES = 5


@dataclass(frozen=True, slots=True)
class StatementCost:
    """What one statement took over all particles and dropped lineages.

    `log_evidence` is what it did to the logarithm of the mean weight; the sum over all
    statements is `log_ml`. `parts` is the same by potentials where there are some: the
    Boolean potentials of one product are reported together, as none is checked where another
    has rejected; "max_tokens" is what forced ends cost. `seconds` are those of the steps it
    took part in.

    `max_tokens` is a condition: texts end within it. `forced` counts the texts that it left nothing
    but their end, which is weighed; `forced_share` is what those that ended so have of the weight
    at the end, 0 if there is none.
    """

    name: str
    log_evidence: float
    parts: dict[str, float]
    deaths: int
    tokens: int
    checks: int
    seconds: float
    forced: int = 0
    forced_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Deaths:
    """How many particles one potential took to weight zero in one step, at one token of a text.

    `killer` is the potential that rejected most of what could have come next, by its weight under
    the language model, whatever was checked last; potentials that reject all of it only together
    are named so ("A and B allow nothing together").

    `step` is that of `Posterior.history`, from 1. `token` counts from 1 and is 0 where it was no
    token; `text` is the end of what had been written before, that of most of them.
    """

    count: int
    step: int
    killer: str
    statement: str
    token: int
    text: str


@dataclass(frozen=True, slots=True)
class Importance:
    """How well importance sampling would have done: the same program and proposals with as many
    particles, none of them resampled.

    Its evidence has the relative variance `(ratio - 1) / n_particles`, and its effective sample
    size is about `ess = n_particles / ratio`, where `ratio = E[V^2] / E[V]^2` and V is the whole
    weight of a particle that is never resampled. As resampling leaves every lineage its own V,
    and E[V^2] / E[V] is the mean of V under the posterior of lineages, this run gives it:
    `ratio` is the mean of V over the final particles, by their weights, over the evidence. That is
    consistent as particles grow in number. `error` is its standard error: particles that descend
    from one of the first particles are counted as one, after Lee and Whiteley, "Variance
    estimation in the particle filter", Biometrika 2018.

    Both have the same number of particles, each with at most one partial text; importance
    sampling does not replace those that die, so it ends sooner.
    """

    ratio: float
    error: float
    n_particles: int

    @property
    def ess(self) -> float:
        """The effective sample size that importance sampling would have had."""
        return self.n_particles / self.ratio

    @property
    def interval(self) -> tuple[float, float]:
        """The `ess` at two standard errors above and below the ratio, between 1 and all."""
        low, high = self.ratio + 2 * self.error, max(1.0, self.ratio - 2 * self.error)
        return max(1.0, self.n_particles / low), self.n_particles / high


@dataclass(frozen=True)
class Explanation:
    """What `Posterior.explain()` gives: as text, as HTML in a notebook, and as data.

    `checks` and `rejections` count evaluations of potentials without a mask, and those that
    rejected, by potential, and `seconds` is how long they took; `deaths` are the largest groups
    first. `lineages` is how many of the first particles those with weight descend from.
    `free` counts the places of particles that were equal to others and are one with them.
    `accepted` is the share of runs of the program by the language model alone that would have
    ended with weight, where statements only filter, else None. `importance` is None where this
    run gives no estimate, and `why_not` says why. The log evidences of the statements, what is
    `unfinished`, and `chance` add up to `log_ml`: where a text must end its price is set aside
    while children are chosen, so that it is the choice that decides what of it is paid.
    """

    n_particles: int
    log_ml: float
    statements: list[StatementCost]
    deaths: list[Deaths]
    checks: dict[str, int]
    rejections: dict[str, int]
    seconds: dict[str, float]
    resamplings: int
    lineages: int
    free: int
    unfinished: float
    chance: float
    accepted: float | None
    importance: Importance | None
    why_not: str

    refusals = renamed("refusals", "rejections")

    def __str__(self) -> str:
        return _explained.text(self)

    def __repr__(self) -> str:
        return f"<Explanation of {self.n_particles} particles: print it>"

    def _repr_html_(self) -> str:
        return _explained.html(self)


def explain(posterior: Posterior) -> Explanation:
    """Where the weight of a posterior went; see `Posterior.explain`."""
    _certain.require_particles(posterior, "explain()")
    statements = _statements(posterior)
    importance = _importance(posterior)
    explained = sum(cost.log_evidence for cost in statements)
    left = explained > -math.inf and posterior.stopped is not None and posterior.is_proper
    return Explanation(
        n_particles=len(posterior),
        log_ml=posterior.log_ml,
        statements=statements,
        deaths=_deaths(posterior),
        checks=dict(Counter(posterior.stats.checks).most_common()),
        rejections=dict(posterior.stats.rejections),
        seconds=dict(posterior.stats.check_seconds),
        resamplings=resamplings(posterior.history),
        lineages=len({root for root, t in _rooted(posterior) if t.log_weight > -math.inf}),
        free=posterior.free,
        unfinished=posterior.log_ml - explained if left else 0.0,
        chance=_chance(posterior, explained),
        accepted=_accepted(posterior),
        importance=importance if isinstance(importance, Importance) else None,
        why_not="" if isinstance(importance, Importance) else importance,
    )


def _chance(posterior: Posterior, explained: float) -> float:
    if posterior.stopped or not posterior.is_proper:
        return 0.0
    return posterior.log_ml - explained if -math.inf < min(explained, posterior.log_ml) else 0.0


def _statements(posterior: Posterior) -> list[StatementCost]:
    parts: dict[str, dict[str, float]] = {name: {} for name in posterior.efforts}
    for sync in posterior.history:
        for loss in sync.losses:
            found = parts.setdefault(loss.statement, {})
            found[loss.part] = found.get(loss.part, 0.0) + loss.log_evidence
    dead = Counter(death.statement for death in posterior.deaths)
    costs = []
    for name, by_part in parts.items():
        effort = posterior.efforts[name]
        costs.append(
            StatementCost(
                name=name,
                log_evidence=math.fsum(by_part.values()) if by_part else 0.0,
                parts={part: loss for part, loss in by_part.items() if part},
                deaths=dead[name],
                tokens=effort.tokens,
                checks=round(effort.checks),
                seconds=effort.seconds,
                forced=effort.forced,
                forced_share=effort.forced_share,
            )
        )
    return costs


def _deaths(posterior: Posterior) -> list[Deaths]:
    groups: dict[tuple[int, str, str, int], list[str]] = defaultdict(list)
    for death in posterior.deaths:
        groups[death.step, death.killer, death.statement, death.token].append(death.text)
    found = [
        Deaths(len(texts), *where, Counter(texts).most_common(1)[0][0])
        for where, texts in groups.items()
    ]
    return sorted(found, key=lambda deaths: -deaths.count)


def _rooted(posterior: Posterior) -> list[tuple[int, Trace]]:
    """Of each particle the first one that it descends from."""
    roots = list(range(len(posterior)))
    for sync in posterior.history:
        if sync.ancestors is not None:
            roots = [roots[ancestor] for ancestor in sync.ancestors]
    return list(zip(roots, posterior, strict=True))


def equal_lineages(posterior: Posterior) -> float:
    """As many equal lineages the weight lies on: 1 / sum (share by first ancestor)^2; 0 of none.

    >>> from awrs_ppl import Bernoulli, run
    >>> async def coin(ctx):
    ...     return await ctx.sample(Bernoulli(0.5))
    >>> equal_lineages(run(coin, n_particles=4, seed=0, progress=False))
    4.0
    """
    roots, shares = _shares_of_roots(posterior)
    return equal_shares(np.bincount(roots, shares))


def _shares_of_roots(posterior: Posterior) -> tuple[np.ndarray, np.ndarray]:
    """Of each particle with weight the first one it descends from, and its share."""
    rooted = [(root, t.log_weight) for root, t in _rooted(posterior) if t.log_weight > -math.inf]
    roots = np.array([root for root, _ in rooted], dtype=np.int64)
    return roots, normalize([log_weight for _, log_weight in rooted])


def _accepted(posterior: Posterior) -> float | None:
    filters = [effort.filters for effort in posterior.efforts.values()]
    if not filters or not all(filters) or posterior.stopped or not posterior.is_proper:
        return None
    return min(1.0, math.exp(posterior.log_ml))


def _importance(posterior: Posterior) -> Importance | str:
    """See `Importance`; or why there is no estimate."""
    if not posterior.is_proper:
        return "the weights of a proposal are not proper"
    if posterior.stopped:
        return "the run was stopped before its end"
    roots, shares = _shares_of_roots(posterior)
    if not len(roots):
        return "no particle has weight"
    if not resamplings(posterior.history):
        return "this run never resampled, so it is importance sampling itself"
    if any(sync.chosen for sync in posterior.history):
        return "children competed, so that no particle has the weight of its own draws"
    lineages = equal_lineages(posterior)
    if lineages < _FEWEST_LINEAGES:
        return (
            f"the weight at the end lies on as much as {lineages:.1f} equal lineages, and at least "
            f"{_FEWEST_LINEAGES} are needed; more particles tell more"
        )
    weighted = [trace for trace in posterior if trace.log_weight > -math.inf]
    whole = np.array([math.fsum(trace.log_weights.values()) for trace in weighted])
    values = np.exp(np.clip(whole - posterior.log_ml, -700.0, 700.0))
    ratio = float(shares @ values)
    clusters = np.bincount(roots, shares * (values - ratio))
    error = float(np.sqrt(np.square(clusters).sum()))
    if error > ratio / 2:
        return "the few particles that carry the weight differ too much for an estimate"
    # It cannot be below 1: there the estimate misses.
    return Importance(max(1.0, ratio), error, len(posterior))
