"""CPU seconds from `python` to the first posterior, by part, against another checkout.

Each run is a process of its own: imports, `LM.embedded(...)`, a program of 10 tokens under a
pattern with 4 particles, and the program again, of which the first time takes what is made once.
Runs of the checkouts take turns; the median of each part is shown. CPU seconds, and torch has one
thread (several spin while they wait), so that a busy machine changes little; the files are in the
page cache after the first, uncounted run.

    python tests/benchmarks/startup.py [--against FOLDER] [--model NAME] [--runs K] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys, time
parts, last = {}, 0.0

def part(name):
    global last
    now = time.process_time()
    parts[name], last = now - last, now

part("python")
import torch
part("torch")
from awrs_ppl import LM, run
from awrs_ppl.potentials import Regex
part("awrs_ppl")
lm = LM.embedded(sys.argv[1])
part("load")

async def model(ctx):
    return await ctx.generate(lm("Once upon a time") * Regex(r"[a-z ,]+"), max_tokens=10)

first = run(model, n_particles=4, seed=0).mode()
part("first posterior")
total = last
assert run(model, n_particles=4, seed=0).mode() == first
part("again")
print(json.dumps(parts | {"to the first posterior": total}))
"""


def measure(checkout: Path, model: str) -> dict[str, float]:
    """The CPU seconds of each part, in a process."""
    env = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, model]
    done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", type=Path, help="another checkout, the earlier one")
    parser.add_argument("--model", action="append", help="default: both small models")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    checkouts = {"now": Path(__file__).resolve().parents[2]}
    if options.against:
        checkouts["before"] = options.against.resolve()
    found = {}
    for model in options.model or ["smollm2-135m", "gemma3-270m"]:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
        for i in range(options.runs + 1):
            for name, folder in checkouts.items():
                seconds = measure(folder, model)
                if i:
                    runs[name].append(seconds)
        medians = {
            name: {part: statistics.median(run[part] for run in each) for part in each[0]}
            for name, each in runs.items()
        }
        found[model] = medians
        print(f"\n{model}, CPU seconds")
        print(f"{'':24}" + "".join(f"{name:>9}" for name in medians))
        for part in medians["now"]:
            row = [medians[name][part] for name in medians]
            ratio = f"{row[0] / row[1]:9.2f}" if len(row) > 1 and row[1] else ""
            print(f"{part:24}" + "".join(f"{value:9.2f}" for value in row) + ratio)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
