"""Let the model use a calculator: it writes what to calculate, Python does it, it continues.

A good answer: the right operation, its exact result, and a sentence with this result in it.
"""

import argparse
import operator

from awrs_ppl import LM, Context, run
from awrs_ppl.potentials import Contains, Regex

QUESTION = "A box holds 144 eggs. How many eggs are there in 37 boxes?"
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
EXAMPLE = (
    "Question: A train has 23 wagons with 51 seats each. How many seats are there?\n"
    "Calculator: 23 * 51 = 1173\nAnswer: There are 1173 seats.\n\n"
    "Question: Tom had 812 marbles and lost 95. How many has he left?\n"
    "Calculator: 812 - 95 = 717\nAnswer: Tom has 717 marbles left.\n\n"
)


def calculate(expression: str) -> int:
    first, sign, second = expression.split()
    return OPERATIONS[sign](int(first), int(second))


async def answer(ctx: Context, lm: LM, question: str) -> tuple[str, int, str]:
    prompt = f"{EXAMPLE}Question: {question}\nCalculator:"
    expression = await ctx.generate(
        lm(prompt) * Regex(r" \d{1,4} [-+*] \d{1,4} ="), ends=False, name="expression"
    )
    result = await ctx.call(calculate, expression.removesuffix("="), name="calculator")
    prompt += f"{expression} {result}\nAnswer:"
    sentence = await ctx.generate(
        lm(prompt, stop="\n") * Contains(f" {result} ") * Regex(r"( [A-Za-z0-9]+)+\."),
        max_tokens=20,
        name="sentence",
    )
    return expression.removesuffix("=").strip(), result, sentence.strip()


def main(lm: LM) -> tuple[str, int, str]:
    posterior = run(answer, lm, QUESTION, n_particles=8, seed=0)
    print(posterior)
    print(QUESTION, *posterior.mode(), sep="\n")
    return posterior.mode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
