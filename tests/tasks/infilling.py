"""Fill the gap in a text: words between what stands on the left and on the right.

A good answer: words that the right side follows from. So they are weighed by the probability of
the right side after them; without that they only continue the left side.
"""

import argparse

from awrs_ppl import LM, Context, Posterior, run
from awrs_ppl.potentials import Regex

LEFT = "It had rained all night, so in the morning"
RIGHT = " and the children splashed in the puddles."


async def fill(ctx: Context, lm: LM, left: str, right: str, *, looks_ahead: bool) -> str:
    # Up to the comma: with ends=False no end of the text is weighed, for it continues.
    middle = await ctx.generate(
        lm(left) * Regex(r"( [a-z]+){2,8},"), ends=False, max_tokens=16, name="middle"
    )
    if looks_ahead:
        await ctx.observe(lm(left + middle), right, name="right side")
    return middle


def main(lm: LM) -> dict[str, Posterior]:
    async def both(ctx: Context) -> str:
        return await fill(ctx, lm, LEFT, RIGHT, looks_ahead=True)

    async def left_alone(ctx: Context) -> str:
        return await fill(ctx, lm, LEFT, RIGHT, looks_ahead=False)

    found = {}
    for name, program in {"both sides": both, "left side alone": left_alone}.items():
        found[name] = run(program, n_particles=16, seed=0)
        print(f"By {name}:")
        for middle, probability in found[name].top(3):
            print(f"  {probability:6.1%}  {LEFT}[{middle}]{RIGHT}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
