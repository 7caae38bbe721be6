"""Which of two programs explains a text better: is it of a recipe or of a report of a match?

A good answer: the evidence of each with its error over runs, and a difference far beyond it. Each
program draws what the text is about, which nobody knows, and weighs it by the text.
"""

import argparse
from typing import Any

from awrs_ppl import LM, Context, compare, run
from awrs_ppl.potentials import Regex

TEXT = " Cut the onions, fry them in butter, and add a little salt."
KINDS = {"recipe": "A recipe for", "report": "A report of the match of"}


async def explained(ctx: Context, lm: LM, kind: str, text: str) -> str:
    subject = await ctx.generate(
        lm(kind, stop=[":", ".", ",", "\n"]) * Regex(r"( [A-Za-z]+){1,3}"),
        max_tokens=8,
        name="subject",
    )
    await ctx.observe(lm(f"{kind}{subject}:"), text, name="text")
    return subject


def main(lm: LM) -> Any:
    posteriors = {
        name: run(explained, lm, kind, TEXT, n_particles=8, runs=4, seed=seed)
        for seed, (name, kind) in enumerate(KINDS.items())
    }
    for name, posterior in posteriors.items():
        print(f"A {name} of{posterior.mode()}")
    found = compare(posteriors)
    print(found)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
