"""Many inputs: `infer_many` beside `asyncio.gather` by hand and one after the other.

    python tests/benchmarks/many.py [--quick] [--inputs 200] [--model NAME] [--json FILE] [--check]
    python tests/benchmarks/many.py --memory

Each input is a short text after a prompt of its own, 4 particles, a pattern and a predicate. The
ways are done in turn in one process, each with prompts of its own, so that none finds its rows in
the cache; gather and `infer_many` twice, in both orders, since the cache fills. What counts are the
ratios.

`--memory` does 10,000 inputs on a toy model by `infer_many` and by `RayPool` with two workers, each
in a process of its own, and shows the most memory that this process has had after 1,000 and after
10,000: it must not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from awrs_ppl import LM, Context, ToyLM, infer, infer_many, predicate, run_many
from awrs_ppl.potentials import Regex

# Of seconds: infer_many at most what gather takes, and a third of one after the other.
MOST_OF_GATHER, MOST_OF_ONE_BY_ONE = 1.05, 1 / 3
CONCURRENCY, PARTICLES = 16, 4
INPUTS = 10_000  # of --memory


@predicate
def no_letter_thrice(text: str) -> bool:
    return all(text.count(letter) < 3 for letter in set(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="40 inputs")
    parser.add_argument("--inputs", type=int)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--memory", action="store_true", help="in place of the rest")
    parser.add_argument("--memory-of", choices=["infer_many", "RayPool"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        for way in ("infer_many", "RayPool"):
            subprocess.run([sys.executable, __file__, "--memory-of", way], check=True)
        return
    if options.memory_of:
        memory_of(options.memory_of)
        return
    count = options.inputs or (40 if options.quick else 200)
    torch.set_num_threads(2)
    lm = LM(options.model)

    async def model(ctx: Context, given: str) -> str:
        words = lm(f"{given}. A thing of everyday life:", stop=["\n", ".", ","])
        return await ctx.generate(words * Regex(" [a-z ]{3,20}") * no_letter_thrice, max_tokens=8)

    def inputs(way: str) -> list[str]:
        return [f"{way} number {i}" for i in range(count)]

    settings: dict[str, Any] = {"n_particles": PARTICLES, "seed": 0, "progress": False}

    async def one_by_one(turn: str) -> None:
        for given in inputs(turn):
            await infer(model, given, **settings)

    async def gathered(turn: str) -> None:
        running = asyncio.Semaphore(CONCURRENCY)

        async def one(given: str) -> None:
            async with running:
                await infer(model, given, **settings)

        await asyncio.gather(*map(one, inputs(turn)))

    async def many(turn: str) -> None:
        async for _ in infer_many(model, inputs(turn), concurrency=CONCURRENCY, **settings):
            pass

    asyncio.run(infer(model, "warm", **settings))
    seconds: dict[str, float] = defaultdict(float)
    for turn, way in (
        ("First", one_by_one),
        ("Second", gathered),
        ("Third", many),
        ("Fourth", many),
        ("Fifth", gathered),
    ):
        started = time.perf_counter()
        asyncio.run(way(turn))
        seconds[way.__name__] += time.perf_counter() - started
    seconds["one_by_one"] *= 2
    of_gather = seconds["many"] / seconds["gathered"]
    of_one_by_one = seconds["many"] / seconds["one_by_one"]
    print(f"{count} inputs, {PARTICLES} particles, {CONCURRENCY} at once, {options.model}")
    print(f"infer_many over gather by hand:     {of_gather:.2f}")
    print(f"infer_many over one after the other: {of_one_by_one:.2f}")
    if options.json:
        found = {"of gather": of_gather, "of one by one": of_one_by_one, "seconds": seconds}
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    if options.check and (of_gather > MOST_OF_GATHER or of_one_by_one > MOST_OF_ONE_BY_ONE):
        sys.exit(1)


def memory_of(way: str) -> None:
    """Print the peak of this process's memory, after a tenth of the inputs and after all."""

    async def program(ctx: Context, lm: LM, given: str) -> str:
        return await ctx.generate(lm(given) * Regex("[a-c]*"), max_tokens=4)

    lm = toy()

    async def here(ctx: Context, given: str) -> str:
        return await program(ctx, lm, given)

    inputs = ("abc"[i % 3] * (1 + i % 5) for i in range(INPUTS))
    options: dict[str, Any] = {"n_particles": 2, "seed": 0, "progress": False}
    with ExitStack() as stack:
        if way == "RayPool":
            from awrs_ppl.scale import RayPool

            pool = stack.enter_context(RayPool(toy, workers=2))
            results = pool.map(program, inputs, **options)
        else:
            results = run_many(here, inputs, **options)
        for number, _ in enumerate(results, 1):
            if number in (INPUTS // 10, INPUTS):
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(f"{way}: {peak:.0f} MiB after {number:,} inputs", flush=True)


def toy() -> ToyLM:
    return ToyLM(["a", "b", "c"], seed=1)


if __name__ == "__main__":
    main()
