"""A riddle: the next prompt depends on what was drawn before."""

from awrs_ppl import LM, Bernoulli, Context, run
from awrs_ppl.potentials import OneOf, Regex

HINTS = {
    " animal": [" It lives in", " It eats", " It can"],
    " food": [" It is made of", " It tastes"],
    " city": [" It lies in", " Many people go there for"],
}


async def riddle(ctx: Context, lm: LM) -> str:
    """A riddle and its solution, whose name does not occur in it."""
    # The sentence continues behind it: its end is not weighed.
    kind = await ctx.generate(lm("Let me describe a well-known") * OneOf(HINTS), ends=False)
    text = f"Let me describe a well-known{kind}."
    for hint in HINTS[kind]:
        if await ctx.sample(Bernoulli(0.7)):
            text += hint
            text += await ctx.generate(lm(text, stop=".") * Regex(r"( [A-Za-z]+){1,6}")) + "."
    name = await ctx.generate(lm(f"{text} It is called", stop=".") * Regex(r"( [A-Za-z]+){1,3}"))
    await ctx.condition(name.strip().lower() not in text.lower())
    return f"{text} —{name}"


def main() -> None:
    """Run the program on the embedded model and print its posterior."""
    print(run(riddle, LM.embedded(), n_particles=16, seed=0))


if __name__ == "__main__":
    main()
