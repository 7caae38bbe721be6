"""How the cost of an inference grows with length, particles and vocabulary, and its memory.

Each run is timed beside its floor (see `overhead.py`): after a step of the run the floor makes
the pass of that step, so that both meet the same machine. No text ends before it has all its
tokens. In a table: milliseconds a token of each particle, and the ratio to the floor's.

*Length*: the first 32, 128 and 512 tokens of one run. *Particles*: 1 to 32. *Memory*: 64
particles, what the cache holds beside its bound, and how far the process grew. *Peer*:
genlm-control's seconds over ours at short lengths. *Tiny*: on tiny models of architectures with
states or shared keys, where the passes are short, CPU seconds a token at 64 and at 512 tokens.

    python tests/benchmarks/scaling.py [--quick] [--check] [--json FILE] [--model NAME] [--tiny]
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import psutil
import torch

from awrs_ppl import LM
from awrs_ppl.lm.transformers import TransformersEngine

sys.path.insert(0, str(Path(__file__).parent))
import overhead

# The bars: inference over floor at 512 tokens; how much of the floor's gain from 1 to 32
# particles we have, too; genlm-control over ours. Bytes held must not exceed the bound.
LENGTH_BAR = 1.15
PARTICLES_BAR = 0.85
PEER_BAR = 2.0
TINY_BAR = 1.2  # a token at 512 tokens over one at 64

LENGTHS = (32, 128, 512)
PARTICLES = (1, 4, 16, 32)
MEMORY = 2 * 2**30  # of a run of 64 particles and 512 tokens; in proportion for a shorter one
MODELS = ("smollm2-135m", "gemma3-270m")
TINY = ("qwen3_5_text", "gemma4_text", "lfm2")

# By measurement: constraints (one run each), particles, tokens. The subset of --quick: at one
# repetition, gemma3-270m to 128 tokens only.
FULL: dict[str, Any] = {
    "length": (["mask", "predicate"], 8, dict.fromkeys(MODELS, 512)),
    "particles": (["mask", "mask"], PARTICLES, 32),
    "memory": (64, 512),
    "peer": (8, [32, 64]),
}
QUICK: dict[str, Any] = {
    "length": (["mask"], 4, {"smollm2-135m": 512, "gemma3-270m": 128}),
    "particles": (["mask"], PARTICLES, 16),
    "memory": (64, 32),
    "peer": (4, [16]),
}


class Lasting(TransformersEngine):
    """The engine, without the end of a text before a context has `until` tokens.

    `seen` is called with the contexts of each step, before and after they are answered.
    """

    until = 0
    ends: Sequence[int] = ()
    seen: Callable[[Sequence[Any], bool], None] | None = None

    async def next_logits(self, contexts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        if self.seen is not None:
            self.seen(contexts, False)
        rows = (await super().next_logits(contexts)).clone()
        early = [i for i, context in enumerate(contexts) if len(context) < self.until]
        rows[torch.tensor(early, dtype=torch.long)[:, None], torch.tensor(self.ends)] = -torch.inf
        if self.seen is not None:
            self.seen(contexts, True)
        return rows

    @classmethod
    def under(cls, lm: LM, memory: int = MEMORY) -> Lasting:
        """Such an engine in the place of the LM's own."""
        before: Any = lm.engine
        engine = cls(before.model, before.tokenizer, memory=memory)
        engine.ends = lm.vocabulary.ends.tolist()
        lm.engine = engine
        return engine


def run(lm: LM, name: str, particles: int, tokens: int, seed: int, seen: Any) -> None:
    """One inference of exactly so many tokens, watched by `seen`."""
    engine = cast(Lasting, lm.engine)
    whole = len(lm.prompt_ids(overhead.PROMPT)) + tokens - 1
    steps: list[set[int]] = []

    def watch(contexts: Sequence[Any], answered: bool) -> None:
        if not answered:
            steps.append(set(map(len, contexts)))
        seen(contexts, answered)

    engine.until, engine.seen = whole, watch
    try:
        overhead.run(lm, overhead.CONSTRAINTS[name](), particles, tokens, seed)
    finally:
        engine.until, engine.seen = 0, None
    assert len(steps) == tokens, f"{len(steps)} steps, not {tokens}"
    assert steps[-1] == {whole}, f"contexts of {steps[-1]} tokens, not {whole}"


def side_by_side(
    lm: LM, name: str, particles: int, tokens: int, seed: int
) -> list[tuple[float, float]]:
    """Seconds up to the end of each step: of the inference, and of its floor."""
    engine: Any = lm.engine
    requested, answered = queue.SimpleQueue[Any](), queue.SimpleQueue[float]()

    def steps() -> Iterator[list[Any]]:
        while (contexts := requested.get()) is not None:
            started = time.perf_counter()
            yield contexts
            answered.put(time.perf_counter() - started)

    clocks: list[float] = []
    floors: list[float] = []
    waited = 0.0

    def seen(contexts: Sequence[Any], is_answered: bool) -> None:
        nonlocal waited
        now = time.perf_counter()
        if is_answered:
            requested.put(list(dict.fromkeys(contexts)))
            floors.append(answered.get())
            if floor.done():
                floor.result()
            waited += time.perf_counter() - now
        else:
            clocks.append(now - waited)

    with ThreadPoolExecutor(1) as pool:
        floor = pool.submit(overhead.floor, engine.model, cast(Any, steps()))
        # The run must not wait for a floor that has failed.
        floor.add_done_callback(lambda _: answered.put(float("nan")))
        try:
            run(lm, name, particles, tokens, seed, seen)
            clocks.append(time.perf_counter() - waited)
        finally:
            requested.put(None)
        floor.result()
    sums, total = [], 0.0
    for clock, seconds in zip(clocks[1:], floors, strict=True):
        total += seconds
        sums.append((clock - clocks[0], total))
    return sums


def by_length(lm: LM, names: list[str], particles: int, tokens: int) -> dict[int, dict[str, float]]:
    """By length: milliseconds a particle-token, and their ratio to the floor's."""
    runs = [side_by_side(lm, name, particles, tokens, seed) for seed, name in enumerate(names)]
    return {
        length: _row([sums[length - 1] for sums in runs], particles * length)
        for length in LENGTHS
        if length <= tokens
    }


def by_particles(
    lm: LM, names: list[str], counts: Sequence[int], tokens: int
) -> dict[int, dict[str, float]]:
    """By number of particles: the same."""
    return {
        n: _row(
            [side_by_side(lm, name, n, tokens, seed)[-1] for seed, name in enumerate(names)],
            n * tokens,
        )
        for n in counts
    }


def _row(pairs: list[tuple[float, float]], count: int) -> dict[str, float]:
    ours, floor = (1000 * statistics.median(side) / count for side in zip(*pairs, strict=True))
    return {"ours": ours, "floor": floor, "ratio": statistics.median(a / b for a, b in pairs)}


def memory(lm: LM, particles: int, tokens: int) -> dict[str, float]:
    """MiB held by the cache at most, its bound, and by how much the process grew at most."""
    bound = MEMORY * tokens // 512
    engine = Lasting.under(lm, bound)
    store = engine._runner.store
    process, done = psutil.Process(), threading.Event()
    held: list[int] = []
    sizes = [process.memory_info().rss]

    def look() -> None:
        while not done.wait(0.02):
            sizes.append(process.memory_info().rss)

    def seen(contexts: Sequence[Any], is_answered: bool) -> None:
        if is_answered:
            held.append(store.nbytes)

    looking = threading.Thread(target=look)
    looking.start()
    started = time.perf_counter()
    try:
        run(lm, "mask", particles, tokens, 0, seen)
    finally:
        seconds = time.perf_counter() - started
        done.set()
        looking.join()
    mib = 2**20
    found = {"held": max(held) / mib, "bound": bound / mib, "seconds": seconds}
    found |= {"process at first": sizes[0] / mib, "process at most": max(sizes) / mib}
    found |= {"passes": engine.stats.passes, "tokens fed": engine.stats.tokens}
    engine.clear_cache()
    return found


def measure(model: str, plan: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """All measurements of one model, and the bars that it missed; prints its part of the table."""
    missed = []
    lm = LM.embedded(cast(Any, model), dtype="float32")
    particles, tokens = plan["memory"]
    # First, while the process is no larger than the model.
    used = memory(lm, particles, tokens)
    print(
        f"{model:14} {particles} particles, {tokens} tokens: {used['held']:.0f} MiB held, "
        f"{used['bound']:.0f} allowed; the process grew from {used['process at first']:.0f} to "
        f"{used['process at most']:.0f} MiB; {used['passes']} passes, {used['seconds']:.0f} s",
        flush=True,
    )
    if used["held"] > used["bound"]:
        missed.append(f"{model}: {used['held']:.0f} MiB held > {used['bound']:.0f}")

    Lasting.under(lm)
    side_by_side(lm, "mask", 2, 4, 0)  # warms up
    names, particles, tokens = plan["length"]
    lengths = by_length(lm, names, particles, tokens[model])
    for length, row in lengths.items():
        print(f"{model:14} {particles:3} particles, {length:3} tokens: {_shown(row)}", flush=True)
    if max(LENGTHS) in lengths and lengths[max(LENGTHS)]["ratio"] > LENGTH_BAR:
        ratio = lengths[max(LENGTHS)]["ratio"]
        missed.append(f"{model}, {max(LENGTHS)} tokens: {ratio:.3f} of the floor > {LENGTH_BAR}")

    names, counts, tokens = plan["particles"]
    numbers = by_particles(lm, names, counts, tokens)
    for n, row in numbers.items():
        print(f"{model:14} {n:3} particles, {tokens:3} tokens: {_shown(row)}", flush=True)
    first, last = numbers[counts[0]], numbers[counts[-1]]
    gain = first["ratio"] / last["ratio"]
    print(
        f"{model:14} {counts[0]} to {counts[-1]} particles: ours falls to a "
        f"{first['ours'] / last['ours']:.1f}th, the floor to a "
        f"{first['floor'] / last['floor']:.1f}th: {gain:.3f} of its gain"
    )
    if gain < PARTICLES_BAR:
        missed.append(f"{model}: {gain:.3f} of the floor's gain by particles < {PARTICLES_BAR}")
    results = {"memory": used, "length": lengths, "particles": numbers, "gain": gain}

    if model == "smollm2-135m":
        particles, lengths = plan["peer"]
        results["genlm-control over ours"] = ratios = {
            tokens: overhead.peer(lm, tokens, particles) for tokens in lengths
        }
        for tokens, ratio in ratios.items():
            print(
                f"{model:14} {particles:3} particles, {tokens:3} tokens: genlm-control takes "
                f"{ratio:.1f} times as long"
            )
            if ratio < PEER_BAR:
                missed.append(f"genlm-control over ours, {tokens} tokens: {ratio:.1f} < {PEER_BAR}")
    return results, missed


def tiny(label: str, particles: int = 8, tokens: int = 520) -> dict[int, float]:
    """Milliseconds a step around the 64th and the 512th token, medians; of CPU time."""
    import architectures
    from architecture_configs import CAUSAL, config_of

    kind, extra = CAUSAL[label]
    config = config_of(kind, {**extra, "max_position_embeddings": 2048})
    lm = LM(architectures.model_of(config), tokenizer=architectures.tokenizer())
    Lasting.under(lm)
    clocks: list[float] = []

    def seen(contexts: Sequence[Any], answered: bool) -> None:
        if answered:
            clocks.append(time.process_time())

    run(lm, "mask", particles, tokens, 0, seen)
    steps = [1000 * (b - a) for a, b in pairwise(clocks)]
    return {length: statistics.median(steps[length - 9 : length + 7]) for length in (64, 512)}


def _shown(row: dict[str, float]) -> str:
    return (
        f"{row['ours']:8.2f} ms a particle-token, floor {row['floor']:8.2f}, "
        f"ratio {row['ratio']:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repetition, fewer tokens")
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    parser.add_argument("--tiny", action="store_true", help="only the tiny models")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    missed: list[str] = []
    print(f"{overhead.PROMPT!r}, float32, {torch.get_num_threads()} threads")
    for label in TINY:
        steps = results[label] = tiny(label)
        ratio = steps[512] / steps[64]
        print(f"{label:14} {steps[64]:.2f} ms a step, {steps[512]:.2f} at 512: {ratio:.3f}")
        if ratio > TINY_BAR:
            missed.append(f"{label}, 512 tokens: {ratio:.3f} of a token at 64 > {TINY_BAR}")
    for model in [] if options.tiny else options.model or MODELS:
        results[model], short = measure(model, QUICK if options.quick else FULL)
        missed += short
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=2)
    for line in missed:
        print("missed:", line)
    raise SystemExit(1 if options.check and missed else 0)


if __name__ == "__main__":
    main()
