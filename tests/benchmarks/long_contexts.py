"""Steps of an inference behind a long prompt: time beside the floor, and memory beside its bound.

Particles with one prompt each have texts of their own, at the beginning, in the middle and at the
end of what they will have. A step of the engine, one token of each, is timed in turn with its
floor: the model's own pass over as many rows and columns, whose keys lie ready, each row's in one
piece, no mask. (What the floor holds is no bound: it is so many rows of prompt and text, where the
engine has the prompt once.) The ratio is the median over steps; the model has random weights.

The engine has four bounds of memory: the default; *roomy*, where the rows of a pass are laid out in
one piece; *tight*, where prompt and texts just fit; and *small*, where half of the texts do.

    python tests/benchmarks/long_contexts.py [--quick] [--check] [--json FILE] [--shape SHAPE]
        [--prompt 8000] [--particles 16] [--tokens 500] [--steps 6] [--bound NAME ...]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers.cache_utils import Cache

from awrs_ppl.lm.layers import cache_argument
from awrs_ppl.lm.transformers import TransformersEngine

sys.path.insert(0, str(Path(__file__).parent))
from random_models import SHAPES, random_lm

# The bars: time a token over the floor where memory suffices, and where it does not.
FLOOR_BAR = 1.2
SMALL_BAR = 40.0
BOUNDS = ("default", "roomy", "tight", "small")


class Ready(Cache):
    """Keys and values of some rows, a row in one piece; the last column is written."""

    def __init__(self, config: Any, rows: int, columns: int) -> None:
        super().__init__(layers=[])
        dim = config.hidden_size // config.num_attention_heads
        shape = rows, config.num_key_value_heads, columns, dim
        # Not zeros: pages that were never written are read faster than memory is.
        self._kept = [
            (torch.full(shape, 0.1), torch.full(shape, 0.1))
            for _ in range(config.num_hidden_layers)
        ]
        self.columns = columns

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *_: Any, **__: Any) -> Any:
        for kept, fresh in zip(self._kept[layer_idx], (key_states, value_states), strict=True):
            kept[:, :, self.columns - 1 : self.columns] = fresh
        return tuple(kept[:, :, : self.columns] for kept in self._kept[layer_idx])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.columns - 1

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.columns - 1

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.columns, 0


@torch.inference_mode()
def floor_step(model: Any, ready: Ready, rows: int, columns: int) -> float:
    """Seconds of a bare pass of one token a row."""
    ready.columns = columns
    fed = torch.full((rows, 1), 7)
    started = time.perf_counter()
    model(fed, logits_to_keep=1, **{cache_argument(model): ready})
    return time.perf_counter() - started


def bound_of(name: str, engine: Any, prompt: int, particles: int, tokens: int) -> int:
    """Bytes for the engine; its slots take two thirds, the rows at work one."""
    layers = engine._runner.store.layers
    size = sum(4 * heads * dim for layer in layers for heads, dim in layer.shapes)
    texts = particles * tokens
    return {
        "default": 2 * 2**30,
        "roomy": 3 * size * (particles * (prompt + tokens) * 8 // 5 + 64 * particles),
        "tight": 3 * size * (prompt + texts + 4 * particles) // 2,
        "small": 3 * size * (prompt + texts // 2) // 2,
    }[name]


def steps(engine: Any, given: Any, ready: Ready) -> dict[str, Any]:
    """Milliseconds and ratios of steps at three lengths of text."""
    rng = random.Random(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 40_000) for _ in range(count))

    def call(texts: list[tuple[int, ...]]) -> float:
        started = time.perf_counter()
        asyncio.run(engine.next_logits(texts))
        return time.perf_counter() - started

    prompt = draw(given.prompt)
    texts, most, ratios, engines, fed = [prompt] * given.particles, 0, [], [], 0
    first = call([prompt])
    # The last steps end at all the tokens of a text.
    for length in (0, given.tokens // 2, given.tokens - given.steps):
        grown = max(0, length - (len(texts[0]) - given.prompt))
        texts = [(*text, *draw(grown)) for text in texts]
        call(texts)
        for _ in range(given.steps):
            texts = [(*text, *draw(1)) for text in texts]
            before = engine.stats.tokens
            engines.append(call(texts))
            fed += engine.stats.tokens - before
            bare = floor_step(engine.model, ready, given.particles, len(texts[0]))
            ratios.append(engines[-1] / bare)
            most = max(most, engine._runner.store.nbytes)
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "milliseconds a step": 1000 * statistics.median(engines),
        "seconds of the prompt": first,
        "bytes": most,
        "fed": fed / (len(engines) * given.particles),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a prompt of 500, 8 texts of 60")
    parser.add_argument("--shape", choices=list(SHAPES), default="smollm2-135m")
    parser.add_argument("--prompt", type=int, default=8000)
    parser.add_argument("--particles", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--bound", choices=BOUNDS, action="append")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    given = parser.parse_args()
    if given.quick:
        given.prompt, given.particles, given.tokens, given.steps = 500, 8, 60, 4
    lm: Any = random_lm(given.shape)
    model, tokenizer = lm.engine.model, lm.engine.tokenizer
    ready = Ready(model.config, given.particles, given.prompt + given.tokens)
    floor_step(model, ready, given.particles, given.prompt)
    results, missed = {}, []
    print(f"{given.shape}, float32, prompt of {given.prompt}, {given.particles} of {given.tokens}")
    print("| bound | MiB | held | ms a step | over the floor | tokens fed a token | said |")
    print("|" + " --- |" * 7)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("awrs_ppl").addHandler(handler)
    for name in given.bound or BOUNDS:
        memory = bound_of(name, lm.engine, given.prompt, given.particles, given.tokens)
        said.clear()
        engine = TransformersEngine(model, tokenizer, memory=memory)
        row = results[name] = steps(engine, given, ready)
        held = row["bytes"] / memory
        print(
            f"| {name} | {memory / 2**20:.0f} | {held:.2f} | {row['milliseconds a step']:.0f} "
            f"| {row['ratio']:.2f} | {row['fed']:.1f} | {'; '.join(said) or '-'} |",
            flush=True,
        )
        bar = SMALL_BAR if name == "small" else FLOOR_BAR
        if row["ratio"] > bar:
            missed.append(f"{name}: {row['ratio']:.2f} of the floor > {bar}")
        if held > 1:
            missed.append(f"{name}: holds {held:.2f} of its bound")
        if name == "small" and not said:
            missed.append("small: nothing is said")
        del engine
        gc.collect()
    if given.json:
        with open(given.json, "w") as file:
            json.dump(results, file, indent=2)
    for line in missed:
        print("missed:", line)
    raise SystemExit(1 if given.check and missed else 0)


if __name__ == "__main__":
    main()
