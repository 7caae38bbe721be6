"""The evidence of ours and of genlm-control's SMC(AWRS) on the same problem.

Both are unbiased, so the means of exp(log_ml) over seeds must agree within their errors. The
language model is the same object, a cached engine in float32; the constraint is a regular
expression: genlm-control's `BoolFSA` under its `AWRS`, ours once as a mask (`Regex`), once as
a black-box predicate under head-tail, and once under the paper's Definition 2.

    python tests/benchmarks/agreement.py [--quick] [--check] [--json FILE] [--seeds N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import regex
import torch
from genlm.control import AWRS as GenlmAWRS
from genlm.control import SMC, BoolFSA, PromptedLLM

from awrs_ppl import AWRS, LM, Context, PaperAWRS, infer
from awrs_ppl.potentials import Regex, predicate

# The bars: relative standard errors below, and differences of at most so many of them.
MAX_RELATIVE_ERROR = 0.10
MAX_DIFFERENCE = 4.0

PROMPT = "Fruit: apple\nColour: red\nFruit: banana\nColour: yellow\nFruit: plum\nColour:"
PATTERN = r" (re|gr|bl|vi|ye|pi)[a-z]{1,6}( [a-z]{3,6})?"
STOP = "\n"
MAX_TOKENS = 5

Runs = Callable[[int], Awaitable[float]]


def ours(lm: LM, constraint: Any, proposal: Any, particles: int) -> Runs:
    """One run of ours: the evidence at a seed."""

    async def model(ctx: Context) -> str:
        return await ctx.generate(
            lm(PROMPT, stop=STOP) * constraint, max_tokens=MAX_TOKENS, proposal=proposal
        )

    async def evidence(seed: int) -> float:
        posterior = await infer(model, n_particles=particles, seed=seed, progress=False)
        return math.exp(posterior.log_ml)

    return evidence


def genlm(lm: LM, particles: int) -> Runs:
    """One run of genlm-control's."""
    # Its texts end by whole tokens: the end token, and every token that begins with the stop.
    closings = lm(PROMPT, stop=STOP).closings
    ends = list({bytes(lm.vocabulary.tokens[i]): None for i in closings.ids[0].tolist()})
    assert len(closings.ends) == 1, "a token with text before the stop would differ"
    engine: Any = lm.engine
    llm = PromptedLLM(engine, prompt_ids=list(lm.prompt_ids(PROMPT)), eos_byte_strings=ends)
    fsa = BoolFSA.from_regex(PATTERN).coerce(llm, f=b"".join)
    # Made once: it reads the whole vocabulary. Its own random streams continue from run to run.
    sampler = SMC(GenlmAWRS(llm, fsa, seed=0))

    async def evidence(seed: int) -> float:
        torch.manual_seed(seed)
        sequences = await sampler(n_particles=particles, ess_threshold=0.5, max_tokens=MAX_TOKENS)
        return math.exp(sequences.log_ml)

    return evidence


async def measure(runs: dict[str, Runs], seeds: int) -> dict[str, dict[str, float]]:
    """Mean and standard error of the evidence of each method, over the same seeds."""
    results = {}
    for name, evidence in runs.items():
        print(f"{name}, {seeds} runs ...", file=sys.stderr)
        values = np.array([await evidence(seed) for seed in range(seeds)])
        mean, error = values.mean(), values.std(ddof=1) / math.sqrt(seeds)
        results[name] = {"mean": mean, "error": error, "relative error": error / mean}
        results[name]["relative variance"] = values.var() / mean**2
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 seeds instead of 400")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--particles", type=int, default=5)
    parser.add_argument("--model", default="gemma3-270m")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args()
    seeds = options.seeds or (100 if options.quick else 400)

    lm = LM.embedded(options.model, dtype="float32")
    matches = regex.compile(PATTERN)
    black_box = predicate(
        lambda text: matches.fullmatch(text, partial=True) is not None,
        complete=lambda text: matches.fullmatch(text) is not None,
    )
    n = options.particles
    runs = {
        "genlm-control SMC(AWRS)": genlm(lm, n),
        "ours, mask": ours(lm, Regex(PATTERN), AWRS(), n),
        "ours, predicate, head-tail": ours(lm, black_box, AWRS(), n),
        "ours, predicate, two-loop": ours(lm, black_box, PaperAWRS("two-loop"), n),
    }
    results = asyncio.run(measure(runs, seeds))

    print(f"{PROMPT!r} {PATTERN!r}, {n} particles, {seeds} seeds, {options.model} in float32")
    print(f"{'':28} {'mean':>11} {'rel. error':>11} {'rel. var.':>11} {'difference':>11}")
    peer = results["genlm-control SMC(AWRS)"]
    missed = []
    for name, row in results.items():
        combined = math.hypot(row["error"], peer["error"])
        row["difference"] = (row["mean"] - peer["mean"]) / combined if row is not peer else 0.0
        print(
            f"{name:28} {row['mean']:11.4g} {row['relative error']:11.3f} "
            f"{row['relative variance']:11.4f} {row['difference']:+9.2f}se"
        )
        if row["relative error"] > MAX_RELATIVE_ERROR:
            missed.append(f"{name}: relative error {row['relative error']:.3f}")
        if abs(row["difference"]) > MAX_DIFFERENCE:
            missed.append(f"{name}: {row['difference']:+.2f} standard errors apart")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"seeds": seeds, "particles": n, "results": results}, file, indent=2)
    for line in missed:
        print("missed:", line)
    raise SystemExit(1 if options.check and missed else 0)


if __name__ == "__main__":
    main()
