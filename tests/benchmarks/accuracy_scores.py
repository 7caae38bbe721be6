"""The scores of the runs of `accuracy.py`, its table, and the comparison at equal LM rows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
from accuracy_problems import Problem
from accuracy_references import Reference

__all__ = ["BASELINE", "HEAD", "Row", "compare", "row_of", "survivors"]

BASELINE = "old SMC"
# A total variation above this is a failure that should have had a warning.
BAD = 0.3
# Errors below this count as this much: no ratio is about nothing.
LEAST = 1e-3


@dataclass(frozen=True, slots=True)
class Row:
    """A method on a problem, over runs. What is not known is None.

    `tv`: the mean total variation of the classes of values from their reference (1 for a dead run),
    `bad` the runs with more than `BAD`, `tv_of_mean` that of the mean posterior. `log_error`: the
    mean absolute error of the log evidence, over runs with a survivor; `rms`: the root of the mean
    squared relative error of the evidence, over all. `pairs`: distinct first pairs of tokens.
    `warned`: runs whose header warned.
    """

    problem: str
    method: str
    particles: int
    runs: int
    rows: float
    passes: float
    seconds: float
    tv: float | None
    tv_of_mean: float | None
    bad: int | None
    log_error: float | None
    rms: float | None
    dead: int
    pairs: float
    warned: int

    def __str__(self) -> str:
        figures = [
            f"{self.method:21} {self.particles:4} {self.runs:4} {self.rows:7.0f}",
            f"{self.passes:6.0f} {self.seconds:7.2f}",
            *(f"{'-' if x is None else f'{x:.3f}':>6}" for x in (self.tv, self.tv_of_mean)),
            f"{'-' if self.bad is None else self.bad:>4}",
            *(f"{'-' if x is None else f'{x:.3f}':>7}" for x in (self.log_error, self.rms)),
            f"{self.dead:4} {self.pairs:6.1f} {self.warned:6}",
        ]
        return " ".join(figures)


HEAD = (
    f"{'':21} {'N':>4} {'runs':>4} {'LM rows':>7} {'passes':>6} {'seconds':>7} {'TV':>6} "
    f"{'mean':>6} {f'>{BAD}':>4} {'|log|':>7} {'rms':>7} {'dead':>4} {'pairs':>6} {'warned':>6}"
)


def distance(first: dict[str, float], second: dict[str, float]) -> float:
    """The total variation between two distributions; no distribution at all is at 1."""
    if not first:
        return 1.0
    names = first.keys() | second.keys()
    return sum(abs(first.get(name, 0.0) - second.get(name, 0.0)) for name in names) / 2


def row_of(
    problem: Problem, reference: Reference, key: tuple[str, int], runs: list[dict[str, Any]]
) -> Row:
    """The figures of all runs of a method with a number of particles."""
    tv = of_mean = bad = log_error = rms = None
    if reference.shares:
        away = [distance(run["shares"], reference.shares) for run in runs]
        total: dict[str, float] = defaultdict(float)
        for run in runs:
            for name, share in run["shares"].items():
                total[name] += share / len(runs)
        tv, of_mean = mean(away), distance(total, reference.shares)
        bad = sum(one > BAD for one in away)
    alive = [run for run in runs if run["log_ml"] is not None]
    if reference.log_ml is not None:
        logs = [run["log_ml"] - reference.log_ml for run in alive]
        log_error = mean(map(abs, logs)) if logs else None
        ratios = [*map(math.exp, logs), *[0.0] * (len(runs) - len(alive))]
        rms = math.sqrt(mean((ratio - 1) ** 2 for ratio in ratios))
    return Row(
        problem=problem.name,
        method=key[0],
        particles=key[1],
        runs=len(runs),
        **{name: mean(run[name] for run in runs) for name in ("rows", "passes", "seconds")},
        tv=tv,
        tv_of_mean=of_mean,
        bad=bad,
        log_error=log_error,
        rms=rms,
        dead=len(runs) - len(alive),
        pairs=mean(run["pairs"] for run in runs),
        warned=sum(bool(run["warning"]) for run in runs),
    )


# --- at equal rows of the language model --------------------------------------------------------


def at_rows(points: list[tuple[float, float]], rows: float) -> tuple[float, bool]:
    """The error at a number of rows, from (rows, error) at several numbers of particles.

    Linear in the logarithms of both; and whether `rows` lies outside, where the nearest counts.
    """
    points = sorted(points)
    xs = np.log([x for x, _ in points])
    ys = np.log([max(y, LEAST) for _, y in points])
    x = math.log(rows)
    # A method whose rows do not grow with its particles has no order: nearly equal are one.
    return float(np.exp(np.interp(x, xs, ys))), not xs[0] - 0.05 <= x <= xs[-1] + 0.05


def compare(problems: dict[str, Problem], rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Each method against `BASELINE` at equal rows, printed and returned.

    A ratio is that of the method's error over the baseline's, below 1 where the method is better.
    `beyond` says at how many numbers of particles the baseline had no run with so many rows, or so
    few: its nearest stands for it, which favours neither in a known way, and is printed as `*`.
    """
    found: list[dict[str, Any]] = []
    by: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by[row.problem, row.method].append(row)
    methods = list(dict.fromkeys(method for _, method in by if method != BASELINE))
    for method in methods:
        for figure, families in (("tv", ("exact",)), ("rms", ("exact", "evidence"))):
            for name, problem in problems.items():
                theirs = [r for r in by[name, BASELINE] if getattr(r, figure) is not None]
                ours = [r for r in by[name, method] if getattr(r, figure) is not None]
                if not theirs or not ours or problem.family not in families:
                    continue
                points = [(row.rows, getattr(row, figure)) for row in theirs]
                for row in ours:
                    equal, beyond = at_rows(points, row.rows)
                    error = max(getattr(row, figure), LEAST)
                    found.append(
                        {
                            "method": method,
                            "figure": figure,
                            "problem": name,
                            "family": problem.family,
                            "garden path": problem.is_garden_path,
                            "particles": row.particles,
                            "rows": row.rows,
                            "error": error,
                            "baseline": equal,
                            "ratio": error / equal,
                            "beyond": beyond,
                        }
                    )
    _print(found)
    return found


TITLES = {"tv": "total variation", "rms": "relative rms error of the evidence"}


def _print(found: list[dict[str, Any]]) -> None:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for one in found:
        groups[one["method"], one["figure"]].append(one)
    for (method, figure), points in groups.items():
        print(f"\n{method} over {BASELINE} at equal LM rows, {TITLES[figure]}")
        numbers = sorted({one["particles"] for one in points})
        print(f"{'':42}" + "".join(f"{n:>9}" for n in numbers))
        for name in dict.fromkeys(one["problem"] for one in points):
            cells = {one["particles"]: one for one in points if one["problem"] == name}
            path = any(one["garden path"] for one in cells.values())
            print(f"{name[:42]:42}" + _cells(cells, numbers) + ("  garden path" if path else ""))
        for title, chosen in (
            ("exact problems", [p for p in points if p["family"] == "exact"]),
            ("hard problems", [p for p in points if p["family"] != "exact"]),
        ):
            for path in (False, True):
                these = [p for p in chosen if p["garden path"] is path]
                if these:
                    _print_mean(f"{'garden paths' if path else title}", these, numbers)


def _cells(cells: dict[int, dict[str, Any]], numbers: list[int]) -> str:
    return "".join(
        f"{cells[n]['ratio']:8.2f}{'*' if cells[n]['beyond'] else ' '}" if n in cells else " " * 9
        for n in numbers
    )


def _print_mean(title: str, points: list[dict[str, Any]], numbers: list[int]) -> None:
    """The ratio of the mean errors, and the geometric mean of the ratios, which no problem with a
    huge error decides alone."""
    for name, figure in (("ratio of means", _of_means), ("mean of ratios", _geometric)):
        cells = [[p for p in points if p["particles"] == n] for n in numbers]
        line = "".join(f"{figure(these):8.2f} " if these else " " * 9 for these in cells)
        print(f"{f'{title}, {name}':42}"[:42] + line)


def _of_means(points: list[dict[str, Any]]) -> float:
    return mean(p["error"] for p in points) / mean(p["baseline"] for p in points)


def _geometric(points: list[dict[str, Any]]) -> float:
    return math.exp(mean(math.log(p["ratio"]) for p in points))


def survivors(problems: dict[str, Problem], rows: list[Row]) -> None:
    """How many of the problems that are about survival ended without one."""
    for method in dict.fromkeys(row.method for row in rows):
        these = [r for r in rows if r.method == method and problems[r.problem].family == "survival"]
        if these:
            runs = sum(row.runs for row in these)
            dead = sum(row.dead for row in these)
            print(f"{method}: {dead} of {runs} runs on {len(these)} schemas without a survivor")
