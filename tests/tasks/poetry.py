"""Write a haiku: three lines of five, seven and five syllables.

A good answer: lines that have so many syllables, as far as vowels tell, and make some sense.
"""

import argparse
import re

from awrs_ppl import LM, Context, run
from awrs_ppl.potentials import Predicate, Regex, predicate


def syllables(text: str) -> int:
    """Groups of vowels, without an e at the end of a word that has another."""
    words = re.findall(r"[a-z]+", text.lower())
    return sum(
        max(1, len(re.findall(r"[aeiouy]+", re.sub(r"(?<=[^aeiouy])e$", "", word))))
        for word in words
    )


def line_of(count: int) -> Predicate:
    @predicate(complete=lambda text: syllables(text) == count)
    def has_room(text: str) -> bool:
        return syllables(text) <= count

    return has_room


async def haiku(ctx: Context, lm: LM, subject: str) -> str:
    poem = ""
    example = "An old silent pond\nA frog jumps into the pond\nSplash! Silence again\n"
    for count in (5, 7, 5):
        prompt = f"A poem about a frog:\n{example}\nA poem about {subject}:\n{poem}"
        words = Regex(r"[A-Z][a-z]*([,]? [a-z]{2,12})*[,.!]?")
        poem += await ctx.generate(
            lm(prompt, stop="\n") * words * line_of(count), max_tokens=16, name=f"line of {count}"
        )
        poem += "\n"
    return poem


def main(lm: LM) -> str:
    posterior = run(haiku, lm, "the sea", n_particles=16, seed=0)
    print(posterior)
    poem = posterior.mode()
    print(poem)
    return poem


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
