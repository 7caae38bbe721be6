"""What is known of the problems of `accuracy.py`: the evidence, and the share of each class.

Found by a best-first search or by many large runs, and kept in
`results/accuracy_references.json`.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_problems import Problem
from best_first import search

from awrs_ppl import LM, infer

__all__ = ["FILE", "Reference", "load", "recompute"]

FILE = Path(__file__).parent / "results" / "accuracy_references.json"
# Classes of their own, where a problem does not say how to coarsen.
LIKELIEST = 9
OTHER = "other"
# Rows of a search at most: SmolLM2 does a hundred in a second, a toy two thousand.
MAX_ROWS, MAX_SPREAD_ROWS, MAX_TOY_ROWS = 6_000, 16_000, 60_000
# Particles where nothing better is known, and the runs that each call adds to those before.
LARGE, MORE = 128, 4


@dataclass(frozen=True, slots=True)
class Reference:
    """The log evidence, the share of each class of values (empty if not known), and how it was
    found: `details` are bounds and rows of a search, or the relative error of runs."""

    log_ml: float | None
    shares: dict[str, float]
    details: dict[str, Any]

    def label(self, problem: Problem, value: Hashable) -> str:
        """The class of a value."""
        if problem.classes is not None:
            return str(problem.classes(value))
        name = repr(value)
        return name if name in self.shares else OTHER


def load(problem: Problem) -> Reference | None:
    """The reference of a problem; None if it has one that was never computed."""
    if problem.reference in ("zero", "table", "none"):
        return Reference(problem.log_ml, {}, {})
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    return Reference(**kept[problem.name]) if problem.name in kept else None


def recompute(problem: Problem, lm: LM) -> Reference:
    """Find a reference anew and keep it; of runs, add some to those that there are."""
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    if problem.reference == "search":
        found = asyncio.run(_searched(problem, lm))
    else:
        before = kept.get(problem.name, {"details": {"log_mls": []}})["details"]["log_mls"]
        found = asyncio.run(_from_runs(problem, lm, before))
    kept[problem.name] = {
        "log_ml": found.log_ml,
        "shares": found.shares,
        "details": found.details,
    }
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(dict(sorted(kept.items())), indent=1, ensure_ascii=False) + "\n")
    return found


async def _searched(problem: Problem, lm: LM) -> Reference:
    program = problem.search or problem.program
    most = MAX_TOY_ROWS if problem.toy else MAX_SPREAD_ROWS if problem.search else MAX_ROWS
    # A problem written otherwise for the search is one whose prefixes outweigh its texts by far.
    options: dict[str, Any] = {"spread": True, "batch": 64} if problem.search else {}
    found = await search(program(lm), max_rows=most, branch=problem.branch, **options)
    shares: dict[str, float] = defaultdict(float)
    for i, (value, share) in enumerate(found.probabilities.items()):
        if problem.classes is not None:
            shares[str(problem.classes(value))] += share
        else:
            shares[repr(value) if i < LIKELIEST else OTHER] += share
    details: dict[str, Any] = {"low": found.low, "high": found.high, "rows": found.rows}
    details["values"] = len(found.masses)
    if problem.branch is not None:
        whole = [
            pair for depth, pair in sorted(found.depths.items()) if depth <= problem.max_tokens
        ]
        details["branch by depth"] = [round(part / total, 5) for total, part in whole if total]
    return Reference(found.low, dict(shares), details)


async def _from_runs(problem: Problem, lm: LM, before: list[float | None]) -> Reference:
    """The mean evidence of independent runs: unbiased, with a standard error."""
    model, logs = problem.program(lm), [-math.inf if x is None else x for x in before]
    for _ in range(MORE):
        options = {"n_particles": LARGE, "seed": 10_000 + len(logs), "progress": False}
        posterior = await infer(model, resampling="stratified", **options)
        logs.append(posterior.log_ml)
    details: dict[str, Any] = {"particles": LARGE}
    details["log_mls"] = [None if x == -math.inf else round(x, 4) for x in logs]
    peak = max(logs)
    if peak == -math.inf:
        return Reference(None, {}, details)
    values = np.exp(np.array(logs) - peak)
    details["relative error"] = float(values.std(ddof=1) / math.sqrt(len(logs)) / values.mean())
    return Reference(peak + math.log(values.mean()), {}, details)
