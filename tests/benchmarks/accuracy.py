"""How near to the truth a method comes, for the rows of the language model that it takes.

Problems with a known posterior or evidence (`accuracy_problems.py`), SmolLM2 in float32. A row is
a method with a number of particles:

*TV* is the total variation between the posterior and the exact one, over at most ten classes of
values: the mean over runs, that of the mean posterior, and in how many runs it is above .3;
*|log|* the mean absolute error of the log evidence, over runs with a survivor; *rms* the relative
root mean squared error of the evidence; *dead*: runs without a survivor; *pairs*: distinct first
two tokens among the particles; *warned*: runs whose header warned.

Then each method against the old SMC at equal rows of the language model: its error over that of
the old SMC with as many rows, interpolated over numbers of particles (linear in logarithms; `*`
where the old SMC had no run with so many rows or so few: the nearest stands for it).

    python tests/benchmarks/accuracy.py [--data FOLDER] [--quick] [--problem NAME] [--method NAME]
        [--particles 8 16 32 64] [--seeds K] [--minutes M] [--raw FILE] [--json FILE] [--reference]

`--problem` takes all whose names begin so. With `--raw` every run is kept and none is done again;
after `--minutes` no run begins, and what there is is reported. `--reference` finds the truth of the
chosen problems anew, by a best-first search or by many large runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from accuracy_methods import METHODS, NotApplicable, trouble
from accuracy_problems import Problem, problems
from accuracy_references import Reference, load, recompute
from accuracy_scores import HEAD, Row, compare, row_of, survivors
from tqdm import tqdm

from awrs_ppl import LM

PARTICLES, SEEDS = (8, 16, 32, 64), 20
QUICK = {"problem": ["knight", "area", "treaty", "palindromes", "garden path, toy"], "seeds": 2}


class Job(NamedTuple):
    """A run."""

    problem: str
    method: str
    particles: int
    seed: int


class Runs:
    """The runs so far; with a file they are kept there."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.found: dict[Job, dict[str, Any]] = {}
        if path and Path(path).exists():
            for line in Path(path).read_text().splitlines():
                run = json.loads(line)
                self.found[Job(*(run.pop(name) for name in Job._fields))] = run

    def add(self, job: Job, run: dict[str, Any]) -> None:
        """Keep a run."""
        self.found[job] = run
        if self.path:
            with open(self.path, "a") as file:
                file.write(json.dumps(job._asdict() | run) + "\n")


def measure(
    jobs: list[Job],
    chosen: dict[str, Problem],
    known: dict[str, Reference],
    runs: Runs,
    until: float,
) -> None:
    """Do all runs that have not been done, as long as there is time."""
    lm: LM | None = None
    toys = {name: problem.toy() for name, problem in chosen.items() if problem.toy}
    without: set[tuple[str, str]] = set()
    for job in (bar := tqdm(jobs, file=sys.stderr, mininterval=5.0, disable=None)):
        if job in runs.found or (job.problem, job.method) in without:
            continue
        if time.monotonic() > until:
            print("the time is up: the figures are of fewer runs", file=sys.stderr)
            return
        bar.set_description(f"{job.problem}, {job.method}, {job.particles}", refresh=False)
        problem, reference = chosen[job.problem], known[job.problem]
        if problem.toy is None and lm is None:
            lm = LM.embedded("smollm2-135m", dtype="float32")
        used: Any = toys.get(job.problem, lm)

        def label(value: Any, problem: Problem = problem, reference: Reference = reference) -> str:
            return reference.label(problem, value)

        try:
            found = METHODS[job.method].run(problem, used, label, job.particles, job.seed)
        except NotApplicable as why:
            print(f"{job.problem}: {why}", file=sys.stderr)
            without.add((job.problem, job.method))
            continue
        runs.add(job, found.as_json())


def report(
    jobs: list[Job], chosen: dict[str, Problem], known: dict[str, Reference], runs: Runs
) -> dict[str, Any]:
    """Print tables and comparison; their figures."""
    rows: list[Row] = []
    for name, problem in chosen.items():
        groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
        for job in jobs:
            if job.problem == name and job in runs.found:
                groups[job.method, job.particles].append(runs.found[job])
        these = [row_of(problem, known[name], key, group) for key, group in groups.items()]
        rows += these
        if these and problem.family != "survival":
            path = ", a garden path" if problem.is_garden_path else ""
            truth = known[name].log_ml
            print(
                f"\n{name}{path}: log evidence {'?' if truth is None else f'{truth:.3f}'}\n{HEAD}"
            )
            for row in sorted(
                these, key=lambda row: (list(METHODS).index(row.method), row.particles)
            ):
                print(row)
    comparison = compare(chosen, rows)
    survivors(chosen, rows)
    return {"rows": [asdict(row) for row in rows], "at equal rows": comparison}


def choose(every: dict[str, Problem], names: list[str] | None) -> dict[str, Problem]:
    """All problems whose names begin with one of `names`. Raises `ValueError` if there is none."""
    for name in names or ():
        if not any(one.startswith(name) for one in every):
            raise ValueError(f"no problem's name begins with {name!r}: choose from {list(every)}")
    prefixes = tuple(names or [""])
    return {name: problem for name, problem in every.items() if name.startswith(prefixes)}


def plan(chosen: dict[str, Problem], methods: list[str], particles: list[int], seeds: int) -> Any:
    """All runs, seed by seed, so that a run that is stopped has some of everything."""
    return [
        Job(name, method, n, seed)
        for seed in range(seeds)
        for name, problem in chosen.items()
        for method in methods
        for n in problem.particles or particles
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="for bias cases and schemas: see the README here")
    parser.add_argument("--quick", action="store_true", help="five problems, 2 seeds")
    parser.add_argument("--problem", action="append", metavar="NAME")
    parser.add_argument("--method", choices=list(METHODS), action="append")
    parser.add_argument("--particles", type=int, nargs="+", default=list(PARTICLES))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--raw", metavar="FILE", help="keep all runs here, and continue from there")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--reference", action="store_true", help="only find the truth anew")
    given = parser.parse_args()
    if given.data is None:
        print("no --data: without the cases of bias.py and the schemas", file=sys.stderr)
    try:
        names = given.problem or (QUICK["problem"] if given.quick else None)
        chosen = choose(problems(given.data), names)
    except ValueError as error:
        parser.error(str(error))
    if given.reference:
        lm = LM.embedded("smollm2-135m", dtype="float32")
        for name, problem in chosen.items():
            if problem.reference in ("search", "runs"):
                found = recompute(problem, problem.toy() if problem.toy else lm)
                print(f"{name}: log evidence {found.log_ml}, {found.details}", flush=True)
        return
    known = {name: load(problem) for name, problem in chosen.items()}
    if missing := [name for name, reference in known.items() if reference is None]:
        print(f"left out without a reference (run --reference): {missing}", file=sys.stderr)
    found = {name: reference for name, reference in known.items() if reference is not None}
    chosen = {name: problem for name, problem in chosen.items() if name in found}
    methods = []
    for name in given.method or METHODS:
        if why := trouble(METHODS[name]):
            print(f"{name} is skipped: {why}", file=sys.stderr)
        else:
            methods.append(name)
    seeds = given.seeds or (QUICK["seeds"] if given.quick else SEEDS)
    jobs = plan(chosen, methods, given.particles, seeds)
    runs = Runs(given.raw)
    measure(jobs, chosen, found, runs, time.monotonic() + 60 * given.minutes)
    results = report(jobs, chosen, found, runs)
    if given.json:
        settings = {"particles": given.particles, "seeds": seeds, "methods": methods}
        Path(given.json).write_text(json.dumps({"settings": settings} | results, indent=1))


if __name__ == "__main__":
    main()
