"""What stands between two texts: written forward, and weighed by what follows."""

from awrs_ppl import LM, Context, run
from awrs_ppl.potentials import Regex


async def infilling(ctx: Context, lm: LM, left: str, right: str) -> str:
    """Some words between `left` and `right`, from the model's law of all three."""
    middle = await ctx.generate(lm(left) * Regex(r"( [a-z']+){1,8}"), max_tokens=16)
    await ctx.observe(lm(left + middle), right)
    return middle


def main() -> None:
    """Run the program on the embedded model and print its posterior."""
    left, right = "She opened the door, and", ", so she closed it again."
    print(run(infilling, LM.embedded(), left, right, n_particles=32, seed=0))


if __name__ == "__main__":
    main()
