"""A whole inference over its floor, and over genlm-control's.

The floor of a run is the fewest forward passes its trace allows: the prompt once, then one
pass a step over the distinct contexts, fed token by token in a bare loop with a transformers
`DynamicCache` whose rows are reordered where particles were resampled. Inference and floor
run in turn in one process, and the ratio is the median over repetitions.

    python tests/benchmarks/overhead.py [--quick] [--check] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from transformers import DynamicCache

from awrs_ppl import LM, Context, infer
from awrs_ppl.lm.layers import cache_argument
from awrs_ppl.potentials import Regex, predicate

PROMPT = "Once upon a time, in a small village by the sea,"
PARTICLES, TOKENS = 16, 64

# The bars: inference over floor; the proposal alone, where there is nothing to learn; and
# genlm-control over ours (8 particles, 128 tokens).
BARS = {"smollm2-135m": 1.15, "gemma3-270m": 1.2}
PROPOSAL_BAR = 0.08
PEER_BAR = 10.0
# A control token that stories do not have.
NEVER = "<repo_name>"


@predicate
def no_z_no_newline(text: str) -> bool:
    return "z" not in text and "\n" not in text


@predicate(state=lambda text: 0)
def forgetful(text: str) -> bool:
    """The same, and what may follow does not depend on the text: soon all verdicts are known."""
    return "z" not in text and "\n" not in text


CONSTRAINTS: dict[str, Callable[[], Any]] = {
    "mask": lambda: Regex(r"[^\n]*"),
    "predicate": lambda: no_z_no_newline,
    "known": lambda: forgetful,
}
# Where every verdict is known, by the mask or from runs before, but for a few new tokens.
NOTHING_TO_LEARN = ("mask", "known")


def run(lm: LM, constraint: Any, particles: int, tokens: int, seed: int) -> Any:
    """One inference from an empty cache."""

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm(PROMPT) * constraint, max_tokens=tokens)

    engine: Any = lm.engine
    engine.clear_cache()
    options = {"n_particles": particles, "seed": seed, "progress": False}
    return asyncio.run(infer(model, **options, remember=constraint is forgetful))


def traced(
    lm: LM, constraint: Any, particles: int, tokens: int, seed: int
) -> tuple[Any, float, list[list[Any]]]:
    """A run: its posterior, its seconds, and the distinct contexts of each step."""
    steps: list[list[Any]] = []
    engine: Any = lm.engine
    right = engine.next_logits

    async def record(contexts: Any) -> Any:
        steps.append(list(dict.fromkeys(contexts)))
        return await right(contexts)

    engine.next_logits = record
    try:
        started = time.perf_counter()
        posterior = run(lm, constraint, particles, tokens, seed)
        return posterior, time.perf_counter() - started, steps
    finally:
        del engine.next_logits


@torch.inference_mode()
def floor(model: Any, steps: list[list[Any]]) -> float:
    """Seconds for the bare forward passes of a trace."""
    started = time.perf_counter()
    cache, device = DynamicCache(config=model.config), model.device
    rows: dict[Any, int] = {}
    for contexts in steps:
        if not rows:
            (prompt,) = contexts
            fed = torch.tensor([prompt], device=device)
        else:
            parents = [rows[context[:-1]] for context in contexts]
            if parents != list(range(len(rows))):
                cache.batch_select_indices(torch.tensor(parents, device=device))
            fed = torch.tensor([[context[-1]] for context in contexts], device=device)
        model(fed, logits_to_keep=1, **{cache_argument(model): cache})
        rows = {context: i for i, context in enumerate(contexts)}
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(
    lm: LM, name: str, repetitions: int, tokens: int, particles: int = PARTICLES
) -> dict[str, Any]:
    """The ratio of inference to floor, with the seconds of its parts."""
    engine: Any = lm.engine
    constraint = CONSTRAINTS[name]()
    ratios, floors, parts = [], [], []
    for seed in range(repetitions + 1):
        posterior, whole, steps = traced(lm, constraint, particles, tokens, seed)
        bare = floor(engine.model, steps)
        if seed:  # the first repetition warms up
            ratios.append(whole / bare)
            floors.append(bare)
            parts.append(posterior.stats.seconds)
    median = statistics.median(ratios)
    chosen = parts[min(range(len(ratios)), key=lambda i: abs(ratios[i] - median))]
    return {
        "ratio": median,
        "ratios": ratios,
        "floor seconds": statistics.median(floors),
        "seconds by part": chosen,
    }


def peer(lm: LM, tokens: int, particles: int) -> float:
    """Seconds of genlm-control over ours: same model, prompt, predicate and particles.

    The end is a token that the model never writes, so that both write all their tokens. Ours,
    the shorter, is the median of three runs, before and after theirs.
    """
    from genlm.backend.llm import AsyncTransformer
    from genlm.control import AWRS, SMC, PromptedLLM

    engine: Any = lm.engine
    model, tokenizer = engine.model, copy.deepcopy(engine.tokenizer)
    tokenizer.eos_token, end = NEVER, tokenizer.convert_tokens_to_ids(NEVER)
    model.generation_config.eos_token_id = end
    endless = LM(model, tokenizer=tokenizer)
    llm = PromptedLLM(
        AsyncTransformer(model, tokenizer),
        prompt_ids=list(endless.prompt_ids(PROMPT)),
        eos_byte_strings=[bytes(endless.vocabulary.tokens[end])],
    )
    sampler = SMC(AWRS(llm, no_z_no_newline.coerce(llm, f=b"".join), seed=0))

    def ours(seed: int) -> float:
        started = time.perf_counter()
        posterior = run(endless, no_z_no_newline, particles, tokens, seed)
        assert posterior.stats.tokens == particles * tokens
        return time.perf_counter() - started

    run(endless, no_z_no_newline, particles, 4, 0)
    seconds = [ours(0)]
    started = time.perf_counter()
    sequences = asyncio.run(sampler(n_particles=particles, ess_threshold=0.5, max_tokens=tokens))
    theirs = time.perf_counter() - started
    assert all(len(context) == tokens for context in sequences.contexts)
    return theirs / statistics.median([*seconds, ours(1), ours(2)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 repetitions, 32 tokens, no peer")
    parser.add_argument("--model", choices=list(BARS), action="append")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args()
    repetitions, tokens = (3, 32) if options.quick else (5, TOKENS)
    results: dict[str, Any] = {}
    missed = []
    print(f"{PROMPT!r}, {PARTICLES} particles, {tokens} tokens, float32, median of {repetitions}")
    for model in options.model or BARS:
        lm = LM.embedded(cast(Any, model), dtype="float32")
        for name in CONSTRAINTS:
            row = results[f"{model}, {name}"] = measure(lm, name, repetitions, tokens)
            parts = ", ".join(
                f"{part} {seconds / row['floor seconds']:.3f}"
                for part, seconds in row["seconds by part"].items()
                if seconds > 0.001 * row["floor seconds"]
            )
            print(f"{model:14} {name:10} {row['ratio']:.3f} of the floor ({parts})", flush=True)
            if row["ratio"] > BARS[model]:
                missed.append(f"{model}, {name}: {row['ratio']:.3f} > {BARS[model]}")
            share = row["seconds by part"]["proposal"] / row["floor seconds"]
            if name in NOTHING_TO_LEARN and share > PROPOSAL_BAR:
                missed.append(f"{model}, {name}: proposal {share:.3f} > {PROPOSAL_BAR}")
        if model == "smollm2-135m" and not options.quick:
            ratio = results["genlm-control over ours"] = peer(lm, 128, 8)
            print(f"genlm-control takes {ratio:.1f} times as long (8 particles, 128 tokens)")
            if ratio < PEER_BAR:
                missed.append(f"genlm-control over ours: {ratio:.1f} < {PEER_BAR}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=2)
    for line in missed:
        print("missed:", line)
    raise SystemExit(1 if options.check and missed else 0)


if __name__ == "__main__":
    main()
