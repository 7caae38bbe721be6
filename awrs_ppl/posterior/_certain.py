"""Results of `exact` and `rejection` in words: what is known of them for certain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from awrs_ppl.posterior._style import percent, plural, safe

if TYPE_CHECKING:
    from awrs_ppl.posterior.posterior import Posterior

__all__ = [
    "between",
    "evidence",
    "facts",
    "found_share",
    "is_sampled",
    "nothing",
    "of",
    "require_particles",
    "warnings",
]

_NAME = 60
_ALL = 0.995  # of the evidence: then what is missing changes no probability that is shown
_FEW = 0.01  # of the evidence, which are shown as what is missing
_NOTHING = 1e-9  # of the evidence: rounding
# Bounds of an evidence of which one is four hundred times the other: wider ones say nothing to a
# reader that the number alone does not.
_SAYS = 6.0
_SAME = 0.005  # two bounds that are one when they are shown


def is_sampled(posterior: Posterior) -> bool:
    """Whether it is a population of particles, as `infer` gives it."""
    return posterior.method == "smc"


def require_particles(posterior: Posterior, what: str) -> None:
    """Raises `ValueError` for results without a population, which has steps and deaths."""
    if not is_sampled(posterior):
        raise ValueError(
            f"{what} is about the particles of infer, and this is a result of {posterior.method}: "
            "it has none"
        )


def of(posterior: Posterior) -> str:
    """What it is a posterior of."""
    n, s = len(posterior), plural(len(posterior))
    if posterior.method == "exact":
        return f"{n:,} execution{s} found"
    return f"{n:,} independent draw{s}"


def found_share(posterior: Posterior) -> float | None:
    """Which share of the evidence was found at least."""
    if posterior.log_ml_bounds is None:
        return None
    low, high = posterior.log_ml_bounds
    return math.exp(min(low - high, 0.0)) if high > -math.inf else 1.0


def evidence(posterior: Posterior) -> str:
    """The log evidence, and between what it is."""
    how = "found" if posterior.method == "exact" else "by the share of attempts"
    number = f"{posterior.log_ml:.2f} {how}"
    if posterior.log_ml_bounds is None:
        why = f"{safe(posterior.unbounded, _NAME)} may multiply a weight by more than 1"
        return f"{number}; no bounds, as {why} (max_factor= says by what at most)"
    low, high = posterior.log_ml_bounds
    if high - low < _SAME:
        return f"{low:.2f}, for certain"
    return f"{number}, certainly between {low:.2f} and {high:.2f}"


def between(posterior: Posterior) -> str:
    """What to add to the evidence of a population, where its bounds say something."""
    if posterior.log_ml_bounds is None:
        return ""
    low, high = posterior.log_ml_bounds
    return f", certainly between {low:.2f} and {high:.2f}" if high - low < _SAYS else ""


def facts(posterior: Posterior) -> list[tuple[str, str]]:
    """Label and text of what there is beside values and costs."""
    rows = [("log evidence", evidence(posterior))]
    share = found_share(posterior)
    if posterior.method == "exact" and share is not None:
        part = "all" if share > 1.0 - _NOTHING else f"at least {percent(share)}"
        if _NOTHING < 1.0 - share < _FEW:
            part = f"all but {100 * (1.0 - share):.1g} % at most"
        rows.append(("found", f"{part} of the evidence"))
    return rows


def warnings(posterior: Posterior) -> list[str]:
    """Why not to rely on it, with a remedy."""
    if not posterior.values:
        sentence = nothing(posterior)
        return [f"{sentence[0].upper()}{sentence[1:]}."]
    share = found_share(posterior)
    if posterior.method == "exact" and share is not None and share < _ALL:
        return [
            f"Up to {percent(1.0 - share)} of the evidence may not have been found; `bounds` says "
            "between what each probability is. Allow more max_rows, or use infer."
        ]
    return []


def nothing(posterior: Posterior) -> str:
    """Why there are no values."""
    rows = posterior.stats.lm_rows
    if posterior.log_ml_bounds is not None and posterior.log_ml_bounds[1] == -math.inf:
        return "no execution has any weight, for certain: the constraints allow nothing"
    return (
        f"no execution was found in {rows:,} row{plural(rows)} of the language model: allow more "
        "max_rows or a longer timeout, or use infer"
    )
