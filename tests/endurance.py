"""Long runs: whether memory stays flat, and speed steady.

*Many*: 2,000 inferences one after the other on one language model, every other one with
`remember=True`: the memory of the process after the first hundred and at the end, the time of an
inference in the first and the last quarter, what the cache and the verdict cache hold beside their
bounds. *States*: 10,000 and more states of a constraint over 262,144 tokens pass through the
verdict cache of one process: its bytes beside their bound, and the time of the proposal in the
first and the last quarter. *Wide*: 1,024 particles of 32 tokens. *Long*: one particle of 4,096
tokens, on a model with sliding windows of 512.

    python tests/endurance.py [--quick] [--part NAME] [--json FILE]

The exit status is 1 where a figure misses its bar. It is not a part of the tests that pytest runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
import zlib
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from tqdm import tqdm

from awrs_ppl import LM, Context, infer
from awrs_ppl.constraints.verdict_cache import LIMIT, REMEMBERED
from awrs_ppl.potentials import Regex, predicate

# After the first hundred inferences the process grows by at most so much, and the median
# inference of the last quarter takes at most so many times that of the first.
GROWTH_BAR, SLOWER_BAR = 0.05, 1.15
WARM = 100
# The cache of the many inferences, and what it may be if nothing is said.
SMALL, USUAL = 2**26, 2**31
PROMPTS = ("Once upon a time", "The capital of France is", "A recipe for bread:", "Dear Ada,")


@predicate
def no_z(text: str) -> bool:
    return "z" not in text.lower()


async def story(ctx: Context, lm: LM, number: int) -> str:
    """Other texts each time, so that the cache and the verdict cache have to evict."""
    prompt = f"{PROMPTS[number % len(PROMPTS)]} {number}"
    text = await ctx.generate(lm(prompt) * no_z * Regex(r"[^\n]*"), max_tokens=8)
    return text + await ctx.generate(lm(prompt + text + " And") * no_z, max_tokens=4)


def memory() -> int:
    """Bytes that the process holds."""
    return psutil.Process(os.getpid()).memory_info().rss


def cached(lm: LM) -> int:
    """Bytes of the keys and values that an engine keeps."""
    return cast(Any, lm.engine)._runner.store.nbytes


def many(count: int) -> tuple[dict[str, Any], list[str]]:
    """Inferences one after the other."""
    lm = LM.embedded("smollm2-135m", dtype="float32")
    # So small a cache that it is full after the first hundred.
    plain: Any = lm.engine
    lm.engine = type(plain)(plain.model, plain.tokenizer, memory=SMALL)
    seconds, held = [], []
    for number in tqdm(range(count)):
        started = time.perf_counter()
        asyncio.run(
            infer(
                story,
                lm,
                number,
                n_particles=4,
                seed=number,
                remember=number % 2 == 0,
                progress=False,
            )
        )
        seconds.append(time.perf_counter() - started)
        if number % 20 == 19:
            held.append(memory())
    warm = held[WARM // 20 - 1]
    growth = statistics.median(held[-5:]) / warm - 1
    quarter = (count - WARM) // 4
    slower = statistics.median(seconds[-quarter:]) / statistics.median(
        seconds[WARM : WARM + quarter]
    )
    used = cached(lm)
    verdicts = REMEMBERED.constraint(no_z.key).cost
    figures = {
        "inferences": count,
        "MiB after the first hundred": warm / 2**20,
        "growth since": growth,
        "last quarter over first": slower,
        "MiB of the cache": used / 2**20,
        "MiB of verdicts": verdicts / 2**20,
    }
    missed = []
    if growth > GROWTH_BAR:
        missed.append(f"grew by {growth:.1%}, at most {GROWTH_BAR:.0%}")
    if slower > SLOWER_BAR:
        missed.append(f"{slower:.2f} times as slow at the end, at most {SLOWER_BAR}")
    if used > SMALL or verdicts > LIMIT:
        missed.append("the cache or the verdict cache is over its bound")
    return figures, missed


def states(count: int) -> tuple[dict[str, Any], list[str]]:
    """Texts of a large vocabulary, each prefix of which is a state of its own."""
    lm = LM.embedded("gemma3-270m", dtype="float32")
    engine: Any = lm.engine
    # Real rows, dealt out to contexts: the forward passes would take hours.
    ids = lm.prompt_ids(" ".join(PROMPTS))
    rows = asyncio.run(engine.next_logits([ids[:end] for end in range(1, len(ids) + 1)])).clone()
    rows[:, lm.vocabulary.ends.tolist()] -= 30.0

    async def dealt(contexts: Any) -> torch.Tensor:
        return rows[[zlib.crc32(repr(context).encode()) % len(rows) for context in contexts]]

    engine.next_logits = dealt
    constraint = predicate(lambda text: "z" not in text.lower())

    async def model(ctx: Context, number: int) -> str:
        prompted = lm(f"{number}:", temperature=1.5)
        return await ctx.generate(prompted * constraint, max_tokens=32)

    seconds: list[float] = []
    seen, most, started = 0, 0, memory()
    for number in tqdm(range(count // 512 + 1)):
        posterior = asyncio.run(
            infer(model, number, n_particles=16, seed=number, remember=True, progress=False)
        )
        seen += posterior.stats.tokens
        seconds.append(posterior.stats.seconds["proposal"] / posterior.stats.tokens)
        most = max(most, REMEMBERED.constraint(constraint.key).cost)
    quarter = len(seconds) // 4
    slower = statistics.median(seconds[-quarter:]) / statistics.median(seconds[:quarter])
    figures = {
        "particle-steps": seen,
        "last quarter over first": slower,
        "MiB of verdicts at most": most / 2**20,
        "MiB that the process grew by": (memory() - started) / 2**20,
    }
    missed = []
    if slower > SLOWER_BAR:
        missed.append(f"{slower:.2f} times as slow at the end, at most {SLOWER_BAR}")
    if most > LIMIT:
        missed.append("the verdict cache is over its bound")
    return figures, missed


def wide(particles: int) -> tuple[dict[str, Any], list[str]]:
    """Many particles."""
    lm = LM.embedded("smollm2-135m", dtype="float32")

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm(PROMPTS[0]) * no_z, max_tokens=32)

    started = time.perf_counter()
    posterior = asyncio.run(infer(model, n_particles=particles, seed=0))
    used = cached(lm)
    figures = {
        "particles": particles,
        "seconds": time.perf_counter() - started,
        "alive": posterior.alive,
        "ESS": posterior.ess,
        "MiB of the cache": used / 2**20,
    }
    missed = [] if len(posterior) == particles and posterior.alive else ["no survivors"]
    return figures, missed + (["the cache is over its bound"] if used > USUAL else [])


def long(tokens: int) -> tuple[dict[str, Any], list[str]]:
    """One long text, and its next-token distribution beside a pass without a cache."""
    lm = LM.embedded("gemma3-270m", dtype="float32")
    engine: Any = lm.engine
    # No end before the last token.
    right, ends = engine.next_logits, lm.vocabulary.ends.tolist()
    contexts: list[Any] = []

    async def endless(requested: Any) -> torch.Tensor:
        contexts[:] = requested
        rows = (await right(requested)).clone()
        rows[:, ends] -= 30.0
        return rows

    engine.next_logits = endless

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm(PROMPTS[0]) * no_z, max_tokens=tokens)

    started = time.perf_counter()
    posterior = asyncio.run(infer(model, n_particles=1, seed=0))
    seconds = time.perf_counter() - started
    (context,) = contexts
    with torch.inference_mode():
        cached_row = asyncio.run(right([context]))[0]
        plain = engine.model(torch.tensor([context]), use_cache=False, logits_to_keep=1).logits[
            0, 0
        ]
    apart = float((cached_row.softmax(-1) - plain.softmax(-1)).abs().sum() / 2)
    figures = {
        "tokens": posterior.stats.tokens,
        "seconds": seconds,
        "total variation from an uncached pass": apart,
    }
    missed = []
    if posterior.stats.tokens != tokens:
        missed.append(f"{posterior.stats.tokens} tokens, not {tokens}")
    if apart > 1e-4:
        missed.append(f"the distribution after it differs by {apart:.2g} in total variation")
    return figures, missed


# Each with its size, and that of `--quick`.
PARTS = {
    "many": (many, 2000, 300),
    "states": (states, 12_000, 2000),
    "wide": (wide, 1024, 128),
    "long": (long, 4096, 1024),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--part", choices=list(PARTS), action="append")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    missed: list[str] = []
    for name in options.part or PARTS:
        part, size, quick = PARTS[name]
        results[name], below = part(quick if options.quick else size)
        missed += [f"{name}: {text}" for text in below]
        shown = ", ".join(
            f"{title} {value:.4g}" if isinstance(value, float) else f"{title} {value:,}"
            for title, value in results[name].items()
        )
        print(f"{name}: {shown}", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2))
    for text in missed:
        print("missed:", text)
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
