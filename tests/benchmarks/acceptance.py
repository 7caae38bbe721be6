"""How often attempts of `rejection` come out, while it learns what is rejected.

    python tests/benchmarks/acceptance.py [--draws 200] [--prime-rows 0]

Two tasks on SmolLM2: sums under a grammar, and small molecules as SMILES, which RDKit judges. The
probability that an attempt comes out is the evidence over its upper bound at that time; it is
printed for the attempts between draws, with the rows of the language model and the attempts in all.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

from awrs_ppl import LM, Context, run
from awrs_ppl.potentials import Grammar, Smiles

SUMS = Grammar(r"""
start: " " term (" + " term)* " = " /[0-9]+/
term: /[0-9]+/ | "(" term " + " term ")"
""")
KNOWN = "\n".join(["CCO", "CC(=O)O", "c1ccccc1", "CCN", "CC(C)O", "COC", "CC(=O)N"])


async def sums(ctx: Context, lm: LM) -> str:
    return await ctx.generate(lm("Sums: 1 + 2 = 3; 4 + 5 = 9;", stop=";") * SUMS, max_tokens=12)


async def molecules(ctx: Context, lm: LM) -> str:
    prompt = lm(f"Small molecules as SMILES:\n{KNOWN}\n", stop="\n")
    return await ctx.generate(prompt * Smiles(), max_tokens=12)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--prime-rows", type=int, default=0)
    given = parser.parse_args()
    lm = LM.embedded("smollm2-135m", dtype="float32")
    for model in (sums, molecules):
        highs: list[float] = []

        def note(info: Any, highs: list[float] = highs) -> None:
            highs.append(info.log_ml_bounds[1])

        options = {"n": given.draws, "prime_rows": given.prime_rows, "seed": 0, "progress": note}
        found = run(model, lm, algorithm="rejection", **options)
        at = [0, *(len(highs) * k // 4 - 1 for k in (1, 2, 3, 4))]
        chances = ", ".join(f"{math.exp(found.log_ml - highs[i]):.2f}" for i in at)
        rows = found.stats.lm_rows
        print(
            f"{model.__name__}: {len(found)} draws, {rows} rows; an attempt came out with "
            f"probability {chances} (at the first pass, and after each quarter of the passes)"
        )


if __name__ == "__main__":
    main()
