"""A run in the record format of genlm-control, which its `InferenceVisualizer` opens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from awrs_ppl.log_weights import log_mean

if TYPE_CHECKING:
    from awrs_ppl.posterior.records import Sync

__all__ = ["genlm_record"]


def genlm_record(history: Sequence[Sync], n: int) -> list[dict[str, Any]]:
    """One entry for each step: "init", "smc_step", or "resample" with the ancestors before it.

    An entry shows the particles after the step: the text added (tokens and statements, joined
    by "|"), the log-weight, and what the step did to it. Numbers are text, as genlm-control
    writes them.
    """
    entries: list[dict[str, Any]] = []
    before = [0.0] * n
    ancestors: tuple[int, ...] | None = None
    for step, sync in enumerate(history, 1):
        entry = _entry(step, ancestors)
        after = sync.log_weights or (0.0,) * n
        added = sync.added or ("",) * n
        entry["particles"] = [
            _particle(text, weight, old)
            for text, weight, old in zip(added, after, before, strict=True)
        ]
        entries.append(entry)
        ancestors, before = sync.ancestors, list(after)
        if ancestors is not None and step < len(history) and history[step].chosen:
            # The children weigh what they do; the choice is in the increments of their step.
            before = [after[ancestor] for ancestor in ancestors]
        elif ancestors is not None:
            kept = set(sync.kept)
            mean = log_mean([weight for slot, weight in enumerate(after) if slot not in kept])
            before = [weight if slot in kept else mean for slot, weight in enumerate(after)]
    if ancestors is not None:  # stopped between a resampling and the next step
        entry = _entry(len(entries) + 1, ancestors)
        entry["particles"] = [_particle("", weight, weight) for weight in before]
        entries.append(entry)
    return entries


def _entry(step: int, ancestors: tuple[int, ...] | None) -> dict[str, Any]:
    if ancestors is not None:
        return {"mode": "resample", "step": step, "ancestors": list(ancestors)}
    return {"mode": "init" if step == 1 else "smc_step", "step": step}


def _particle(added: str, log_weight: float, before: float) -> dict[str, str]:
    change = 0.0 if log_weight == before else log_weight - before
    return {
        "contents_incr": added,
        "logweight": _number(log_weight),
        "weight_incr": _number(change),
    }


def _number(log_weight: float) -> str:
    # JavaScript reads "-Infinity" as a number, and "-inf" not.
    return "-Infinity" if log_weight == -math.inf else str(log_weight)
