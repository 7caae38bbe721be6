"""Write an acrostic word by word: the first letters of the words spell HEART.

A good answer: five words, one for each letter, none twice, that make some sense together. Each word
is drawn by itself, and weighs nothing for ending; particles live to the end.
"""

import argparse

from awrs_ppl import LM, Context, Posterior, run
from awrs_ppl.potentials import Regex

LETTERS = "HEART"


async def acrostic(ctx: Context, lm: LM, letters: str) -> str:
    text = "An acrostic of SEA:\nShining\nEndless\nAlive\n\nAn acrostic of HEART:\n"
    words: list[str] = []
    for letter in letters:
        # With the line break in the pattern, or "Res" would be a word: a text that need not end is
        # over as soon as it matches.
        line = await ctx.generate(
            lm(text) * Regex(rf"{letter}[a-z]{{2,10}}\n"),
            ends=False,
            max_tokens=8,
            name=f"word with {letter}",
        )
        word = line.removesuffix("\n")
        await ctx.condition(word not in words, name="no word twice")
        words.append(word)
        text += line
    return " ".join(words)


def main(lm: LM) -> Posterior:
    posterior = run(acrostic, lm, LETTERS, n_particles=16, seed=0)
    print(posterior)
    return posterior


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
