"""Statistical soundness at scale: random programs against exact enumeration, and planted faults.

    python tests/statistical/run.py [--quick] [--programs 200] [--seed N] [--json FILE]

Not collected by pytest. Exit status 1 if a check fails.

*What must hold.* For every program, however few its particles, E[exp(log_ml)] = Z, and the part
of exp(log_ml) that falls on the value v has the mean Z p(v); Z and p are known by enumeration.
The values of a program are sorted into a few classes (the likely ones each by itself, the others
by chance into three), and each of many seeded inferences gives the masses of the classes. From
the same masses come two p-values.

*The coin* (exact). exp(log_ml) may have heavy tails, and a z-test of its mean would then not give
uniform p-values. So each inference gives one event: with B above exp(log_ml) the class c with
probability mass(c) / B, else none. By unbiasedness alone the events of R inferences are R
independent draws from (Z p(c) / B, ..., 1 - Z / B), whatever the distribution of the weights;
also where inferences use what earlier ones remembered, for given it each is unbiased. The p-value
is the rank of Pearson's statistic among those of simulated counts, ties broken at random: uniform,
to the resolution of the simulation. B is 1.5 times the largest exp(log_ml) of a pilot with other
seeds; what a later one has above it is cut off, and reported (the only approximation). Where that
pilot lacks a likely class, its weights are rare and large, and B is that of many particles.

*The mean* (sharp). Hotelling's T-squared of the mean masses sees far smaller biases, for it has
no noise of coins; but its distribution is a limit. The error of a quadratic statistic is of the
order of 1/R, and larger where tails are heavy. Classes whose masses in the pilot came from few
inferences are put together, and programs whose evidence did are left to the coin.
Masses that do not vary (all verdicts known by masks) must equal the truth, but for rare events
that no run may have seen.

*The checks.* Both families of p-values must look uniform (Kolmogorov-Smirnov), and no p-value be
too small (Bonferroni). With the same for the hand-written programs of the faults these are eight
tests, each with a chance of error of `ALPHA`: with a right library and a seed never tried the
script fails with a probability of at most 8 * ALPHA = 0.8 % (of the sharp family as far as its
distribution is the limit). By default the seed is fixed, and so is the result.

*The faults* (`planted_faults.py`): each is planted in the library by a patch, and the same
machinery must find it on a suitable program, with min(1, 2 * the smaller of the two p-values)
below `FOUND`. A fault that only changes variances cannot be found by means; copied random numbers
are therefore looked for in the values of two particles together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import product
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from planted_faults import FAULTS, Fault
from random_programs import Program, random_program
from scipy import stats
from tqdm import tqdm

from awrs_ppl.constraints.verdict_cache import VerdictCache
from awrs_ppl.inference import runs as side_by_side
from awrs_ppl.inference import smc
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.testing import enumerate_posterior

ALPHA = 1e-3  # of each of the eight tests
FOUND = 1e-5  # a fault must give a p-value below this
SIMULATED = 1_000_000  # counts at most for one p-value of the coin
COMMON = 0.03  # a class of its own has this share of the evidence at least
# Where the pilot lacks a class that as many coins at least should fall on, it is rare and heavy:
# then the bound is 1.5 times the largest of so many weights.
MISSED, MANY = 5, 20_000
SEEN = 0.2  # for the mean, the share of the pilot's inferences that count at least (Kish)


@dataclass(frozen=True)
class Result:
    """The result of one program: its two p-values, and some figures.

    Of exp(log_ml): its mean over the evidence, its relative variance, and the share of the
    evidence above B. `hits` is the share of the coins that fell on a class.
    """

    name: str
    shows: str
    coin: float
    mean: float
    evidence: float
    ratio: float
    variance: float
    cut: float
    hits: float
    seconds: float

    @property
    def p(self) -> float:
        """One p-value of both."""
        return min(1.0, 2 * min(p for p in (self.coin, self.mean) if not math.isnan(p)))


# --- one program --------------------------------------------------------------------------


class Classes:
    """Values in a few classes; the one after them is for what no inference should give."""

    def __init__(self, masses: dict[Any, float], rng: np.random.Generator) -> None:
        least = COMMON * math.fsum(masses.values())
        by_mass = sorted(masses, key=lambda value: (-masses[value], repr(value)))
        alone = [value for value in by_mass[:5] if masses[value] >= least]
        chosen = {value: i for i, value in enumerate(alone)}
        chosen |= {value: 5 + int(rng.integers(3)) for value in by_mass[len(alone) :]}
        used = sorted(set(chosen.values()))
        self.of = {value: used.index(i) for value, i in chosen.items()}
        self.targets = np.zeros(len(used))
        for value, i in self.of.items():
            self.targets[i] += masses[value]

    def masses(self, posterior: Posterior, jointly: bool) -> np.ndarray:
        """The part of exp(log_ml) that falls on each class, and after them on none."""
        values = [tuple(posterior.values)] if jointly else posterior.values
        weights = np.exp(posterior.log_weights) / len(posterior)
        found = np.zeros(len(self.targets) + 1)
        for value, mass in zip(values, [weights.sum()] if jointly else weights, strict=True):
            found[self.of.get(value, -1)] += mass
        return found


async def truth(program: Program) -> dict[Any, float]:
    """The evidence that falls on each value, by enumeration."""
    exact = await enumerate_posterior(program.model)
    if program.jointly:
        each = [exact.probabilities.items()] * program.options["n_particles"]
        return {tuple(v for v, _ in all_): math.prod(p for _, p in all_) for all_ in product(*each)}
    evidence = math.exp(exact.log_ml)
    return {value: p * evidence for value, p in exact.probabilities.items() if p > 0.0}


async def inferences(program: Program, classes: Classes, seeds: Sequence[int]) -> np.ndarray:
    """The masses of one inference for each seed, `[seeds, classes + 1]`."""
    rows = []
    for seed in seeds:
        # Of two with one seed the first must know nothing yet.
        fresh = (
            patch.object(side_by_side, "REMEMBERED", VerdictCache(lasts=True))
            if program.again
            else nullcontext()
        )
        with fresh:
            posterior = await smc.infer(program.model, seed=seed, progress=False, **program.options)
            if program.again:
                posterior = await smc.infer(
                    program.model, seed=seed, progress=False, **program.options
                )
        rows.append(classes.masses(posterior, program.jointly))
    return np.array(rows)


async def largest_weight(program: Program, seed: int) -> float:
    """Of many particles that are never resampled."""
    options = {**program.options, "n_particles": MANY, "ess_threshold": 0.0, "progress": False}
    posterior = await smc.infer(program.model, seed=seed, **options)
    return math.exp(float(np.max(posterior.log_weights)))


def examine(
    name: str, program: Program, masses: dict[Any, float], seed: int, runs: int, fault: Any = None
) -> Result:
    """The p-values of a program, under a fault if there is one."""
    started = time.perf_counter()
    rng = np.random.default_rng([seed, *name.encode()])
    classes, targets = (made := Classes(masses, rng)), made.targets
    # What is remembered is empty at first and for this program only. The entropy of a run that
    # remembers, elsewhere from the system, comes from the seed: the script gives the same again.
    entropy = SimpleNamespace(randbits=lambda bits: int(rng.integers(1, 2**63)))
    pilots = runs // 4
    seeds = rng.integers(2**31, size=pilots + runs).tolist()
    with (
        patch.object(side_by_side, "REMEMBERED", VerdictCache(lasts=True)),
        patch.object(side_by_side, "secrets", entropy),
        fault() if fault is not None else nullcontext(),
    ):
        found = asyncio.run(inferences(program, classes, seeds))
        totals, impossible, found = found.sum(1), found[:, -1].any(), found[:, :-1]
        evidence = float(targets.sum())
        bound = 1.5 * max(evidence, totals[:pilots].max())
        missed = (found[:pilots].sum(0) == 0) & (runs * targets > MISSED * bound)
        if missed.any() and not program.jointly:
            bound = max(bound, 1.5 * asyncio.run(largest_weight(program, seed)))
    totals = totals[pilots:]
    coin, hits = by_coins(found[pilots:], targets, bound, rng)
    mean = by_means(*merged(found[pilots:], targets, found[:pilots]))
    return Result(
        name,
        program.shows,
        0.0 if impossible else coin,
        0.0 if impossible else mean,
        evidence,
        ratio=float(totals.mean() / evidence),
        variance=float(totals.var() / evidence**2),
        cut=float(np.maximum(totals - bound, 0.0).mean() / evidence),
        hits=hits,
        seconds=time.perf_counter() - started,
    )


# --- p-values -----------------------------------------------------------------------------


def by_coins(
    found: np.ndarray, targets: np.ndarray, bound: float, rng: np.random.Generator
) -> tuple[float, float]:
    """The exact p-value, and the share of inferences that fell on some class."""
    runs, count = found.shape
    bounds = np.cumsum(found, axis=1) / np.maximum(found.sum(1), bound)[:, None]
    fell = (bounds <= rng.random((runs, 1))).sum(1)
    counts = np.bincount(fell, minlength=count + 1)
    shares = np.append(targets, bound - targets.sum()) / bound

    def pearson(counts: np.ndarray) -> np.ndarray:
        return ((counts - runs * shares) ** 2 / (runs * shares)).sum(-1)

    seen, above, ties, simulated = pearson(counts), 0, 1, 1
    # A small p-value is looked at more closely.
    while simulated < SIMULATED and above <= simulated / 500:
        others = pearson(rng.multinomial(runs, shares, size=50_000))
        equal = np.abs(others - seen) <= 1e-9 * (1.0 + seen)
        ties += int(equal.sum())
        above += int(((others > seen) & ~equal).sum())
        simulated += len(others)
    return (above + rng.random() * ties) / simulated, float(1.0 - counts[-1] / runs)


def counting(masses: np.ndarray) -> np.ndarray:
    """The effective share of the inferences (Kish); of an event, the share that saw it."""
    squares = np.maximum((masses**2).mean(0), 1e-300)
    return masses.mean(0) ** 2 / squares


def merged(
    found: np.ndarray, targets: np.ndarray, pilot: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Classes that are small, or came from few inferences of the pilot, put together as one.

    No class at all if even the evidence did: the mean's distribution is then far from its limit.
    """
    least = COMMON * targets.sum()
    common = (targets >= least) & (counting(pilot) >= SEEN)
    largest = np.arange(len(targets)) == targets.argmax()
    for keep in (common, common & ~largest, np.zeros_like(common)):
        rest = ~keep
        if not rest.any():
            return found, targets
        if targets[rest].sum() >= least and counting(pilot[:, rest].sum(1)) >= SEEN:
            found = np.column_stack([found[:, keep], found[:, rest].sum(1)])
            return found, np.append(targets[keep], targets[rest].sum())
    return found[:, :0], targets[:0]


def by_means(found: np.ndarray, targets: np.ndarray) -> float:
    """The p-value of Hotelling's T-squared for the means to be `targets`.

    NaN where there is no class, or nothing varies and all is right: there is nothing to test.
    """
    if not len(targets):
        return math.nan
    runs, found, targets = len(found), found / targets.sum(), targets / targets.sum()
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(found, rowvar=False)))
    along, varies = vectors.T @ (found.mean(0) - targets), values > 1e-12
    # What does not vary may still hide a rare event: to take away a share d of the evidence it
    # has a probability of d at least, and is missed by all runs with at most exp(-runs * d).
    missed = math.exp(-runs * np.abs(along[~varies]).max(initial=0.0))
    if missed < ALPHA / 200:
        return missed
    count = int(varies.sum())
    if count == 0:
        return math.nan
    squared = runs * (along[varies] ** 2 / values[varies]).sum()
    ratio = squared * (runs - count) / (count * (runs - 1))
    return float(stats.f.sf(ratio, count, runs - count))


# --- tasks for processes of their own -----------------------------------------------------


def one_program(seed: int, number: int, runs: int) -> Result:
    """A random program with some evidence, examined."""
    for attempt in range(100):
        program = random_program(np.random.default_rng([seed, number, attempt]))
        try:
            masses = asyncio.run(truth(program))
            if math.fsum(masses.values()) > 1e-3:
                return examine(f"program {number}", program, masses, seed, runs)
        except Exception as error:
            error.add_note(f"in program {number} of seed {seed}: {program.shows}")
            raise
    raise RuntimeError(f"no program with evidence among 100: seed {seed}, number {number}")


def one_fault(seed: int, index: int, runs: int) -> tuple[Result, Result]:
    """A fault on its program, and the program without it."""
    fault: Fault = FAULTS[index]
    masses = asyncio.run(truth(fault.program))
    right = examine(f"right {fault.name}", fault.program, masses, seed, runs)
    return examine(fault.name, fault.program, masses, seed, runs, fault.planted), right


# --- the report ---------------------------------------------------------------------------


def look_uniform(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Kolmogorov-Smirnov and the smallest of a family of p-values."""
    p = np.array([value for value in values if not math.isnan(value)])
    result = stats.kstest(p, "uniform")
    smallest = float(min(1.0, len(p) * p.min()))
    tenths = np.histogram(p, bins=10, range=(0, 1))[0].tolist()
    print(f"{name:22} {len(p):4} {result.pvalue:10.4f} {smallest:12.4f}   {tenths}")
    return {
        "family": name,
        "count": len(p),
        "ks": float(result.pvalue),
        "smallest": smallest,
        "tenths": tenths,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="20 programs, fewer inferences")
    parser.add_argument("--programs", type=int)
    parser.add_argument("--runs", type=int, help="inferences a program, a pilot not counted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    programs = options.programs or (20 if options.quick else 200)
    runs = options.runs or (300 if options.quick else 600)

    started = time.perf_counter()
    with ProcessPoolExecutor(
        options.workers,
        # Spawned: threads of torch do not survive a fork.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        tasks = [
            pool.submit(one_fault, options.seed, i, fault.runs) for i, fault in enumerate(FAULTS)
        ]
        more = [pool.submit(one_program, options.seed, i, runs) for i in range(programs)]
        pairs = [task.result() for task in tqdm(tasks, "faults", disable=None)]
        results = [task.result() for task in tqdm(more, "programs", disable=None)]
    seconds = time.perf_counter() - started
    faulty, right = (list(some) for some in zip(*pairs, strict=True))

    print(f"{'fault':36} {'coin':>9} {'mean':>9} {'ratio':>7}   {'without it':>19}")
    for broken, sound in pairs:
        print(
            f"{broken.name:36} {broken.coin:9.1e} {broken.mean:9.1e} {broken.ratio:7.3f}   "
            f"{sound.coin:9.3f} {sound.mean:9.3f}{'' if broken.p < FOUND else '   NOT FOUND'}"
        )
    print(f"\n{'p-values':22} {'':>4} {'KS':>10} {'Bonferroni':>12}   in tenths")
    families = [
        look_uniform(f"{name}, {kind}", [getattr(result, kind) for result in some])
        for name, some in (("programs", results), ("without faults", right))
        for kind in ("coin", "mean")
    ]
    print("\nthe smallest p-values")
    for result in sorted(results, key=lambda result: result.p)[:3]:
        print(f"  {result.name}: coin {result.coin:.2g}, mean {result.mean:.2g}, {result.shows}")
    ratios = [result.ratio for result in results]
    print(
        f"\n{programs} programs, {runs} inferences each: mean of exp(log_ml) over the evidence "
        f"{np.mean(ratios):.4f} in the mean, {min(ratios):.3f} to {max(ratios):.3f}; relative "
        f"variance {np.median([result.variance for result in results]):.3f} in the median; "
        f"{np.mean([result.hits for result in results]):.0%} of the coins hit; at most "
        f"{max(result.cut for result in results):.1%} of an evidence cut off"
    )
    missed = [result.name for result in faulty if not result.p < FOUND]
    wrong = [f["family"] for f in families if min(f["ks"], f["smallest"]) < ALPHA]
    print(
        f"{len(faulty) - len(missed)} of {len(faulty)} faults found at p < {FOUND:g}; "
        f"seed {options.seed}, {seconds:.0f} s"
    )
    for name in missed:
        print(f"FAILED: the fault was not found: {name}")
    for name in wrong:
        print(f"FAILED: the p-values are not uniform: {name}")
    if options.json:
        report = {
            "seed": options.seed,
            "runs": runs,
            "seconds": seconds,
            "families": families,
            "missed": missed,
            "programs": [asdict(result) for result in results],
            "faults": [asdict(result) for result in faulty],
            "right": [asdict(result) for result in right],
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    sys.exit(1 if missed or wrong else 0)


if __name__ == "__main__":
    main()
