"""Inferences on a GPU beside their floor, on models with random weights: see `tests/gpu.sh`.

For each shape, dtype and number of particles: milliseconds a step, the ratio to the bare forward
passes (`overhead.py`) under a mask and a predicate, GiB of the device at most, and how far the
engine's distributions are from the model alone on contexts that fork, in total variation, as a
share of how far those of two contexts are from each other.

    python tests/benchmarks/gpu_steps.py [--device cuda|cpu] [--shape SHAPE ...] [--tokens 64]

On a CPU the shape is `tiny`: that shows that the script runs, and measures nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch

from awrs_ppl.errors import AwrsError

sys.path.insert(0, str(Path(__file__).parent))
import overhead
from random_models import SHAPES, random_lm

PARTICLES = (8, 64)
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# How far distributions may be from the model alone, as a share of what contexts make: ten times
# what rounding does.
MOST_APART = {"bfloat16": 0.25, "float32": 1e-3}


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float().softmax(-1) - other.float().softmax(-1)).abs().sum()) / 2


@torch.inference_mode()
def apart(lm: Any) -> float:
    """How far the engine is from the model alone, one context a pass, at most."""
    rng, worst, spread = random.Random(0), 0.0, 0.0
    texts = [tuple(lm.prompt_ids(overhead.PROMPT))]
    for _ in range(6):
        texts = [
            (*rng.choice(texts), *rng.choices(range(3, 40_000), k=rng.choice((1, 1, 3))))
            for _ in range(8)
        ]
        rows = asyncio.run(lm.engine.next_logits(texts))
        for text, row in zip(texts, rows, strict=True):
            ids = torch.tensor([text], device=lm.engine.device)
            alone = lm.engine.model(ids, use_cache=False).logits[0]
            worst = max(worst, _distance(row, alone[-1]))
            spread = max(spread, _distance(alone[-1], alone[-2]))
    return worst / spread


def rows_of(shape: str, dtype: str, device: str, tokens: int, repetitions: int) -> bool:
    """Print the lines of a model; whether it is as close as it must be."""
    cuda = device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    lm = random_lm(shape, device=device, dtype=DTYPES[dtype], positions=2048)
    made = time.perf_counter() - started
    far = apart(lm)
    for particles in PARTICLES:
        found = {
            name: overhead.measure(lm, name, repetitions, tokens, particles)
            for name in ("mask", "predicate")
        }
        step = 1000 * found["mask"]["floor seconds"] * found["mask"]["ratio"] / tokens
        held = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if cuda else "-"
        print(
            f"| {shape} | {dtype} | {particles} | {step:.1f} | {found['mask']['ratio']:.2f} "
            f"| {found['predicate']['ratio']:.2f} | {held} | {far:.1e} | {made:.0f} |",
            flush=True,
        )
    return far <= MOST_APART[dtype]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=list(SHAPES), action="append")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    cuda = given.device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device: --device cpu shows whether the script runs")
    name = torch.cuda.get_device_name() if cuda else "a CPU, a trial of the script"
    print(f"{name}; torch {torch.__version__}; {given.tokens} tokens")
    print("| model | dtype | particles | ms a step | mask / floor | predicate / floor", end="")
    print(" | GiB | from the model alone | seconds to make |")
    print("|" + " --- |" * 9)
    failed = []
    for shape in given.shape or (["smollm2-135m", "7b"] if cuda else ["tiny"]):
        for dtype in DTYPES:
            try:
                if not rows_of(shape, dtype, given.device, given.tokens, given.repetitions):
                    failed.append(f"{shape} in {dtype} differs from the model alone")
            except (torch.OutOfMemoryError, AwrsError) as error:
                if "out of memory" not in str(error):
                    raise
                print(f"| {shape} | {dtype} | does not fit this device |" + " |" * 6, flush=True)
            gc.collect()
            if cuda:
                torch.cuda.empty_cache()
    for line in failed:
        print("failed:", line)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
