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
from dataclasses import asdict, dataclass
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
MAX_ROWS, MAX_SPREAD_ROWS, MAX_TOY_ROWS = 6_000, 9_000, 60_000
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
    if problem.reference == "search":
        return _keep(problem, asyncio.run(_searched(problem, lm)))
    model, found = problem.program(lm), load(problem)
    logs: list[float | None] = list(found.details["log_mls"]) if found else []
    for _ in range(MORE):
        options = {"n_particles": LARGE, "seed": 10_000 + len(logs), "progress": False}
        posterior = asyncio.run(infer(model, resampling="stratified", **options))
        logs.append(None if posterior.log_ml == -math.inf else posterior.log_ml)
        found = _keep(problem, _of_runs(logs))
    assert found is not None
    return found


def _keep(problem: Problem, found: Reference) -> Reference:
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    kept[problem.name] = asdict(found)
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


def _of_runs(logs: list[float | None]) -> Reference:
    """The mean evidence of independent runs: unbiased, with a standard error."""
    details: dict[str, Any] = {"particles": LARGE, "log_mls": logs}
    alive = [x for x in logs if x is not None]
    if not alive:
        return Reference(None, {}, details)
    values = np.array([0.0 if x is None else math.exp(x - max(alive)) for x in logs])
    if len(logs) > 1:
        error = values.std(ddof=1) / math.sqrt(len(logs)) / values.mean()
        details["relative error"] = float(error)
    return Reference(max(alive) + math.log(values.mean()), {}, details)
