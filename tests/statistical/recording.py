"""What programs give for a seed, recorded, to check that a change of the code changes no result.

    python tests/statistical/recording.py FILE             write what they give now
    python tests/statistical/recording.py --compare FILE   exit 1 unless it is the same bit by bit

40 random programs on toy language models and three on the embedded ones: their values, the bits of
their log-weights and of the evidence. `test_recording.py` compares with the file in `data`, with
some tolerance for other machines. A change that must draw otherwise says so in its commit, and
writes that file again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from random_programs import random_program

from awrs_ppl import LM, Context, infer
from awrs_ppl.models.capitals import capitals
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.potentials import JsonSchema, Soft, predicate

__all__ = ["EMBEDDED", "TOYS", "Recorded", "embedded", "recorded", "toy"]

TOYS = 40
EMBEDDED = ("capitals", "person", "limerick")

# `values`, as text, `log_weights` and `log_ml`; floats in hexadecimal, so that no bit is lost.
Recorded = dict[str, Any]


def recorded(posterior: Posterior) -> Recorded:
    """What is kept of a posterior."""
    return {
        "values": [ascii(value) for value in posterior.values],
        "log_weights": [float(weight).hex() for weight in posterior.log_weights],
        "log_ml": float(posterior.log_ml).hex(),
    }


async def toy(number: int) -> Recorded:
    """A random program, as `tests/statistical/run.py` makes them, that has a result."""
    for attempt in range(100):
        program = random_program(np.random.default_rng([2026, number, attempt]))
        # With `remember` a seed does not fix the result.
        options = {**program.options, "remember": False, "n_particles": 12}
        posterior = await infer(program.model, seed=number, progress=False, **options)
        if posterior.values:
            return recorded(posterior)
    raise AssertionError(f"no particle survives in any of 100 programs of number {number}")


async def person(ctx: Context, lm: LM) -> Any:
    """A mask, and a critic."""
    fields = {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}}
    allowed = JsonSchema({"type": "object", "properties": fields, "required": [*fields]})
    short = Soft(lambda text: -0.1 * len(text))
    prompt = 'People: {"name": "Ann", "age": 31}, {"name": "Bob", "age": 4},'
    return await ctx.generate(lm(prompt) * allowed, critic=short, max_tokens=40)


@predicate
def no_e(text: str) -> bool:
    return "e" not in text


async def limerick(ctx: Context, lm: LM) -> tuple[str, str]:
    """A check alone, lengths that differ, and an observation."""
    first = await ctx.generate(lm("There was a", stop=[",", "."]) * no_e, max_tokens=12)
    second = await ctx.generate(lm(f"There was a{first}, who", stop=[",", "."]), max_tokens=12)
    await ctx.observe(lm(f"There was a{first}, who{second}, and it was"), " funny")
    return first, second


async def embedded(name: str) -> Recorded:
    """A program on an embedded model."""
    model, lm = {
        "capitals": (capitals, "gemma3-270m"),
        "person": (person, "smollm2-135m"),
        "limerick": (limerick, "smollm2-135m"),
    }[name]
    found = await infer(model, LM.embedded(lm), n_particles=6, seed=1, progress=False)
    return recorded(found)


async def everything() -> dict[str, Recorded]:
    """All programs, by name."""
    toys = {f"toy {number}": await toy(number) for number in range(TOYS)}
    return toys | {name: await embedded(name) for name in EMBEDDED}


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--compare", action="store_true")
    arguments = parser.parse_args()
    found = asyncio.run(everything())
    if not arguments.compare:
        arguments.file.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    before = json.loads(arguments.file.read_text())
    changed = [name for name in {**before, **found} if before.get(name) != found.get(name)]
    print(*(f"changed: {name}" for name in changed), f"{len(found)} programs", sep="\n")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())
