"""What bfloat16 gains and costs on this machine, model by model.

Seconds of a step of 8 contexts and of a prompt of 64 tokens, and how far the distributions of the
next token after 400 tokens of text and code are from those in float32, in total variation; and
bfloat16 from itself, where the second half is fed behind a cache of the first.

    python tests/benchmarks/dtypes.py [--model NAME] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from awrs_ppl.lm.embedded import MODELS, embedded_path

ROOT = Path(__file__).resolve().parents[2]
QUERY = "SELECT name, count(*) FROM singer WHERE age > 20 GROUP BY country ORDER BY 2 DESC;\n"


def seconds(function: Callable[[], Any], times: int) -> float:
    """The median of some calls, after one."""
    function()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


@torch.inference_mode()
def measure(name: str, dtype: torch.dtype, times: int) -> tuple[dict[str, float], torch.Tensor]:
    """The figures of a model in a dtype, and its distributions."""
    folder = embedded_path(name, dtype)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = (ROOT / "README.md").read_text()[:1200] + QUERY
    text += (ROOT / "awrs_ppl" / "rng.py").read_text()
    ids = torch.tensor([tokenizer.encode(text)[:400]])
    batch = ids[:, :64].repeat(8, 1)
    past = model(batch, logits_to_keep=1).past_key_values

    def step() -> None:
        model(batch[:, :1], past_key_values=past, logits_to_keep=1)
        past.crop(-1)

    whole = model(ids).logits[0].float().softmax(-1)
    first = model(ids[:, :200])
    second = model(ids[:, 200:], past_key_values=first.past_key_values)
    halves = torch.cat([first.logits, second.logits], 1)[0].float().softmax(-1)
    found = {
        "step of 8": seconds(step, times),
        "prompt of 64": seconds(lambda: model(batch[:1], logits_to_keep=1), times),
        "TV behind a cache": float((whole - halves).abs().sum(-1).mean() / 2),
    }
    return found, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", action="append", choices=[*MODELS])
    parser.add_argument("--quick", action="store_true", help="SmolLM2 alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for name in options.model or (["smollm2-135m"] if options.quick else [*MODELS]):
        exact, reference = measure(name, torch.float32, 5)
        found, whole = measure(name, torch.bfloat16, 5)
        apart = (whole - reference).abs().sum(-1) / 2
        found |= {"TV, mean": float(apart.mean()), "TV, most": float(apart.max())}
        results[name] = {"float32": exact, "bfloat16": found}
        print(f"\n{name}{'float32':>{34 - len(name)}}{'bfloat16':>10}")
        for what, value in found.items():
            print(f"{what:24}{exact.get(what, 0):10.4f}{value:10.4f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
