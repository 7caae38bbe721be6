"""Seconds a step of the engine for vLLM, beside those of the engine for transformers.

    python tests/benchmarks/vllm_steps.py [--model NAME] [--contexts 8] [--tokens 12] [--compiled]

A step requests the next tokens' logits after some contexts with a common prompt, each of which then
grows by a token, as in an inference. The engines take turns, five times with new contexts; of the
medians of each turn the least is shown, since another process can only slow a turn down. Run by
tests/vllm.sh in an environment that has vLLM.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import statistics
import time
from typing import Any

from awrs_ppl import LM

ROUNDS = 5
PROMPTS = (20, 200, 800)


def grown(lm: Any, seed: int, prompt: int, contexts: int, tokens: int) -> float:
    """Seconds of a step, the median; that of the prompt is left out."""
    rng = random.Random(seed)

    def draw() -> int:
        return rng.randrange(5, min(40_000, lm.vocabulary.size))

    async def run() -> float:
        start = tuple(draw() for _ in range(prompt))
        texts = [start] * contexts
        await lm.engine.next_logits(texts)
        found = []
        for _ in range(tokens):
            texts = [(*text, draw()) for text in texts]
            before = time.perf_counter()
            await lm.engine.next_logits(texts)
            found.append(time.perf_counter() - before)
        return statistics.median(found)

    return asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--contexts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--compiled", action="store_true", help="also vLLM with its compiler")
    given = parser.parse_args()
    loads = {
        "transformers": lambda: LM.embedded(given.model, dtype="float32"),
        "vLLM": lambda: LM.vllm(given.model),
    }
    if given.compiled:
        loads["vLLM, compiled"] = lambda: LM.vllm(given.model, enforce_eager=False)
    engines, seconds = {}, {}
    for name, load in loads.items():
        before = time.perf_counter()
        engines[name] = load()
        seconds[name] = time.perf_counter() - before
    times = {(name, prompt): math.inf for name in engines for prompt in PROMPTS}
    for seed in range(ROUNDS):
        for prompt in PROMPTS:
            for name, lm in engines.items():
                once = grown(lm, seed, prompt, given.contexts, given.tokens)
                times[name, prompt] = min(times[name, prompt], once)
    print(f"{given.model}, float32, {given.contexts} contexts a step, seconds a step")
    print("| engine | load |", *(f"prompt of {prompt} |" for prompt in PROMPTS))
    print("| --- | --- |", *("--- |" for _ in PROMPTS))
    for name in engines:
        print(f"| {name} | {seconds[name]:.0f} s |", *(f"{times[name, n]:.3f} |" for n in PROMPTS))


if __name__ == "__main__":
    main()
