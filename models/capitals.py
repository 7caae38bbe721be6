"""Countries and their capitals: generated forward, checked backward."""

from awrs_ppl import LM, Context, run
from awrs_ppl.potentials import Regex, predicate


@predicate
def no_letter_twice(text: str) -> bool:
    """Whether a text with this prefix can still have no letter twice."""
    return len(set(text.lower())) == len(text)


async def capitals(ctx: Context, lm: LM) -> tuple[str, str]:
    """A country of Europe with no letter twice, and its capital."""
    country = await ctx.generate(
        lm("Some countries of Europe: Italy, Germany,", stop=[",", "."])
        * Regex(r" [A-Z][a-z]{3,11}")
        * no_letter_twice
    )
    city = await ctx.generate(
        lm(f"The capital of Italy is Rome. The capital of{country} is", stop=".")
        * Regex(r" [A-Z][a-z]{2,11}")
    )
    await ctx.condition(city != country)
    await ctx.observe(lm(f"Rome is the capital of Italy.{city} is the capital of"), country)
    return country.strip(), city.strip()


def main() -> None:
    """Run the program on the embedded model and print its posterior."""
    print(run(capitals, LM.embedded(), n_particles=16, seed=0))


if __name__ == "__main__":
    main()
