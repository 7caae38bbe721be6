"""One posterior of several independent runs of one program."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from awrs_ppl.log_weights import normalize
from awrs_ppl.posterior.records import Effort
from awrs_ppl.stats import Stats

if TYPE_CHECKING:
    from awrs_ppl.posterior.posterior import Posterior
    from awrs_ppl.program.trace import Trace

__all__ = ["heaviest", "pooled"]


def pooled(posteriors: Iterable[Posterior]) -> dict[str, Any]:
    """What makes the posterior of the runs together; see `Posterior.pool`."""
    parts = _require(posteriors)
    total = sum(map(len, parts))
    traces: list[Trace] = []
    for part in parts:
        # Each run counts by its evidence, whatever its number of particles.
        shift = math.log(total / (len(parts) * len(part)))
        traces += [trace.weighed(shift) for trace in part]
    efforts: dict[str, Effort] = {}
    evidences = normalize([part.log_ml for part in parts]).tolist()
    for part, share in zip(parts, evidences, strict=True):
        for name, effort in part.efforts.items():
            whole = efforts.setdefault(name, Effort(effort.kind, effort.filters))
            whole.tokens += effort.tokens
            whole.checks += effort.checks
            whole.seconds += effort.seconds
            whole.forced += effort.forced
            whole.forced_share += share * effort.forced_share
    return {
        "traces": traces,
        "history": heaviest(parts).history,
        "kills": _added(part.kills for part in parts),
        "stats": _stats([part.stats for part in parts]),
        "seed": parts[0].seed,
        "stopped": next((part.stopped for part in parts if part.stopped), None),
        "is_proper": True,
        "deaths": [death for part in parts for death in part.deaths],
        "efforts": efforts,
        "free": sum(part.free for part in parts),
        "parts": parts,
        **_bounds(parts),
    }


def heaviest(parts: Sequence[Posterior]) -> Posterior:
    """The run with the most evidence; of several the first."""
    return max(parts, key=lambda part: part.log_ml)


def _require(posteriors: Iterable[Posterior]) -> list[Posterior]:
    parts = list(posteriors)
    if not parts:
        raise ValueError("Posterior.pool got no posteriors: give it those of independent runs")
    for part in parts:
        if not (hasattr(part, "log_ml") and hasattr(part, "history")):
            raise TypeError(f"Posterior.pool got {part!r}: give it posteriors of one program")
        if math.isnan(part.log_ml):
            raise ValueError(
                f"Posterior.pool got {part!r}, which has no evidence to weigh it by: a proposal "
                "was used whose weights are not proper"
            )
    return [one for part in parts for one in (part.parts or [part])]


def _bounds(parts: Sequence[Posterior]) -> dict[str, Any]:
    """All bounds of one evidence hold."""
    found = [part.log_ml_bounds for part in parts]
    known = [bounds for bounds in found if bounds is not None]
    unbounded = next((part.unbounded for part in parts if part.unbounded), "")
    if len(known) < len(parts):
        return {"log_ml_bounds": None, "unbounded": unbounded}
    lows, highs = zip(*known, strict=True)
    return {"log_ml_bounds": (max(lows), min(highs)), "unbounded": ""}


def _added(counts: Iterable[Any]) -> dict[str, Any]:
    found: Counter[str] = Counter()
    for count in counts:
        found.update(count)
    return dict(found)


def _stats(parts: Sequence[Stats]) -> Stats:
    return Stats(
        tokens=sum(part.tokens for part in parts),
        lm_rows=sum(part.lm_rows for part in parts),
        lm_passes=sum(part.lm_passes for part in parts),
        checks=_added(part.checks for part in parts),
        seconds=_added(part.seconds for part in parts),
        rejections=_added(part.rejections for part in parts),
        check_seconds=_added(part.check_seconds for part in parts),
    )
