"""Two prompts at once: what could continue both of them."""

from awrs_ppl import LM, Context, run
from awrs_ppl.potentials import Regex


async def two_prompts(ctx: Context, lm: LM, one: str, other: str) -> str:
    """A word that continues both lists: from a product of two language models."""
    both = lm(one, stop=",") * lm(other, stop=",")
    word = await ctx.generate(both * Regex(r" [a-z]{3,12}"), max_tokens=8)
    return word.strip()


def main() -> None:
    """Run the program on the embedded model and print its posterior."""
    one, other = "Animals: dog, horse, lion,", "What lives in the sea: coral, shark, crab,"
    print(run(two_prompts, LM.embedded(), one, other, n_particles=32, seed=0))


if __name__ == "__main__":
    main()
