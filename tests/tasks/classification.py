"""Are reviews positive? By a word in mid-sentence, of which the model prefers one.

A good answer: the right label for most of six reviews, and one probability by two ways: `log_prob`
scores each word, and a program draws one of them. With `ends=False`, as the sentence continues.
"""

import argparse
import asyncio
import math

from awrs_ppl import LM, Context, infer
from awrs_ppl.potentials import OneOf

REVIEWS = {
    "I laughed, I cried, and I want to see it again.": " good",
    "Two hours of my life that I will never get back.": " bad",
    "The best film of the year, with a brilliant cast.": " good",
    "Boring, badly acted and far too long.": " bad",
    "A wonderful story, beautifully told.": " good",
    "I walked out after twenty minutes; terrible.": " bad",
}
EXAMPLES = (
    "Review: I fell asleep in the middle.\nThe reviewer thinks that the film is bad.\n\n"
    "Review: Go and see it!\nThe reviewer thinks that the film is good.\n\n"
    "Review: A waste of money.\nThe reviewer thinks that the film is bad.\n\n"
    "Review: Great fun for all of us.\nThe reviewer thinks that the film is good.\n\n"
)
WORDS = [" good", " bad"]


async def label(ctx: Context, lm: LM, prompt: str) -> str:
    return await ctx.generate(lm(prompt) * OneOf(WORDS), ends=False, name="label")


async def classify(lm: LM) -> list[tuple[str, str, float, float]]:
    found = []
    for review, right in REVIEWS.items():
        prompt = f"{EXAMPLES}Review: {review}\nThe reviewer thinks that the film is"
        scores = dict(zip(WORDS, await lm(prompt).log_prob(WORDS), strict=True))
        total = math.log(sum(map(math.exp, scores.values())))
        scored = math.exp(scores[" good"] - total)
        posterior = await infer(label, lm, prompt, n_particles=8, seed=0, progress=False)
        drawn = posterior.probabilities.get(" good", 0.0)
        print(f"{right:>5}  scored {scored:.4f}  drawn {drawn:.4f}  {review}")
        found.append((review, right, scored, drawn))
    return found


def main(lm: LM) -> list[tuple[str, str, float, float]]:
    found = asyncio.run(classify(lm))
    correct = sum((scored > 0.5) == (right == " good") for _, right, scored, _ in found)
    print(f"{correct} of {len(found)} are right")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
