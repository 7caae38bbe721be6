"""How often `Posterior.diagnose()` warns of a bad posterior, and of a good one.

Small programs on toy language models, whose exact posteriors are enumerated: the *true* error of a
result is its total variation (TV) from that, on the 8 likeliest values each by itself and all
others together. Each problem is inferred by copies (stratified resampling) and by children, with 8
and 32 particles, in 4 runs; the runs are also looked at one by one.

    python tests/benchmarks/warnings_of_runs.py [--quick] [--check] [--tuning] [--json FILE]

A result is bad with a TV above 0.3 and good below 0.05. The thresholds of
`awrs_ppl/posterior/_diagnosed.py` were chosen on the kinds `TUNING` of `toy_problems.py`; what is
reported (and `--check`ed) are the `HELD_OUT`: other kinds, other seeds. Garden paths, where a
branch that weighs little for some tokens has nearly all of the mass at the end, are reported
apart: all runs may miss them alike, and then nothing warns. Results without survivors are counted,
no more.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from toy_problems import HELD_OUT, TUNING, Kind
from tqdm import tqdm

from awrs_ppl import Posterior, infer
from awrs_ppl.posterior._diagnosed import PEAKED
from awrs_ppl.testing import enumerate_posterior

BAD, GOOD = 0.3, 0.05
# With runs: of the bad results at least, of the good ones at most so many warn.
WARNED, ALARMED = 0.8, 0.1
RUNS, PARTICLES, SCHEMES = 4, (8, 32), ("stratified", "auto")
CLASSES = 8
PROBLEMS, SEEDS = 8, 2


def true_error(exact: dict[Any, float], found: dict[Any, float]) -> float:
    likely = sorted(exact, key=lambda value: -exact[value])[:CLASSES]
    pairs = [(exact[value], found.get(value, 0.0)) for value in likely]
    pairs.append((1 - sum(p for p, _ in pairs), 1 - sum(q for _, q in pairs)))
    return sum(abs(p - q) for p, q in pairs) / 2


def row(exact: dict[Any, float], posterior: Posterior) -> dict[str, Any]:
    found = posterior.diagnose()
    return {
        "single": found.runs is None,
        "alive": bool(posterior.values),
        "error": true_error(exact, posterior.probabilities),
        "survived": 1.0 if found.survived is None else found.survived,
        "few": found.ess if found.is_chosen else found.equal_values,
        "lineages": found.lineages,
        "disagreement": found.runs and found.runs.disagreement,
        "spread": found.runs and found.runs.spread,
        "warnings": found.warnings,
    }


def inferred(
    kinds: tuple[Kind, ...], set_number: int, quick: bool
) -> Iterator[tuple[str, str, int, dict[Any, float], Posterior]]:
    """Kind, scheme, particles, exact probabilities and posterior of each case."""
    cases = list(itertools.product(kinds, range(3 if quick else PROBLEMS)))
    for kind, number in tqdm(cases, disable=None):
        model = kind(np.random.default_rng((set_number, number + 1)))
        exact = asyncio.run(enumerate_posterior(model))
        options = itertools.product(SCHEMES, PARTICLES, range(1 if quick else SEEDS))
        for scheme, n, seed in options if exact.probabilities else ():
            posterior = asyncio.run(
                infer(model, n_particles=n, runs=RUNS, resampling=scheme, seed=seed, progress=False)
            )
            yield kind.__name__, scheme, n, exact.probabilities, posterior


def rows_of(kinds: tuple[Kind, ...], set_number: int, quick: bool) -> list[dict[str, Any]]:
    rows = []
    for kind, scheme, n, exact, pooled in inferred(kinds, set_number, quick):
        case = {"kind": kind, "scheme": scheme, "particles": n}
        rows += [case | row(exact, posterior) for posterior in (pooled, *pooled.parts)]
    return rows


def share(rows: list[dict[str, Any]]) -> str:
    return f"{np.mean([bool(r['warnings']) for r in rows]):.2f} of {len(rows)}" if rows else "-"


def report(rows: list[dict[str, Any]]) -> bool:
    """Print the tables; whether the bars are met."""
    print("\nwarned, of bad results (TV > 0.3), of those between, and of good ones (TV < 0.05)")
    groups: dict[str, list[dict[str, Any]]] = {}
    for r in rows:
        of = "1 run" if r["single"] else f"{RUNS} runs"
        where = "garden" if r["kind"] == "garden" else r["scheme"]
        names = [f"{of}, {where}"] + ([f"{of}, all but garden"] if where != "garden" else [])
        for name in names if r["alive"] else ("no survivors",):
            groups.setdefault(name, []).append(r)
    for name, found in sorted(groups.items()):
        bad, between, good = split(found)
        print(f"{name:28} bad {share(bad):14} between {share(between):14} good {share(good)}")
    bad, _, good = split(groups["1 run, all but garden"])
    print("\n1 run: the warning on survived weight alone, by its threshold")
    for threshold in (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0):
        found = [np.mean([lost(r, threshold) for r in group]) for group in (bad, good)]
        print(f"below {threshold:4}: sensitivity {found[0]:.2f}, false alarms {found[1]:.2f}")
    bad, _, good = split(groups[f"{RUNS} runs, all but garden"])
    met = np.mean([bool(r["warnings"]) for r in bad]) >= WARNED
    return bool(met and np.mean([bool(r["warnings"]) for r in good]) <= ALARMED)


def split(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], ...]:
    bad = [r for r in rows if r["error"] > BAD]
    good = [r for r in rows if r["error"] < GOOD]
    return bad, [r for r in rows if GOOD <= r["error"] <= BAD], good


def lost(r: dict[str, Any], threshold: float) -> bool:
    return r["survived"] < threshold and r["few"] < PEAKED


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 problems of each kind, one seed")
    parser.add_argument("--check", action="store_true", help="exit status 1 where a bar is missed")
    parser.add_argument("--tuning", action="store_true", help="the problems of the thresholds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a row for each result")
    options = parser.parse_args()
    kinds, set_number = (TUNING, 1) if options.tuning else (HELD_OUT, 2)
    rows = rows_of(kinds, set_number, options.quick)
    met = report(rows)
    if options.json:
        options.json.write_text(json.dumps(rows) + "\n")
    if options.check and not met:
        raise SystemExit("the bars are missed")


if __name__ == "__main__":
    main()
