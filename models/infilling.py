"""What stands between two texts: written forward, and weighed by what follows."""

import re

from awrs_ppl import LM, Context, run
from awrs_ppl.potentials import Regex


async def infilling(ctx: Context, lm: LM, left: str, right: str) -> str:
    """Some words between `left` and `right`, from the model's distribution of all three.

    They end where `right` may begin: before its first word or sign.
    """
    found = re.match(r"\s*(\w+|\S)", right)
    first = found[0] if found else right
    words = Regex(r"( [a-z']+){1,8}")
    middle = await ctx.generate(lm(left, stop=first) * words, max_tokens=16)
    if rest := right[len(first) :]:
        await ctx.observe(lm(left + middle + first), rest)
    return middle


def main() -> None:
    """Run the program on the embedded model and print its posterior."""
    left, right = "She opened the door, and", ", so she closed it again."
    print(run(infilling, LM.embedded(), left, right, n_particles=32, seed=0))


if __name__ == "__main__":
    main()
