"""Find the date in a sentence, and write it as YYYY-MM-DD.

A good answer: a day that the calendar has, and the one that the sentence means.
"""

import argparse
import datetime

from awrs_ppl import LM, Context, run
from awrs_ppl.potentials import Regex, predicate

SENTENCES = {
    "The contract was signed on 3 March 2021.": "2021-03-03",
    "She was born on July 14, 1989, in Lyon.": "1989-07-14",
    "On the 29th of February 2020 the shop closed.": "2020-02-29",
    "The next meeting is on 31 October 2025.": "2025-10-31",
    "He arrived on May 5, 1999.": "1999-05-05",
}
EXAMPLES = (
    "Sentence: They met on 12 June 2003.\nDate: 2003-06-12\n\n"
    "Sentence: The letter is of September 30, 1975.\nDate: 1975-09-30\n\n"
)


def is_in_calendar(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text.strip())
    except ValueError:
        return False
    return True


@predicate(complete=is_in_calendar)
def calendar(text: str) -> bool:
    return len(text) < 11 or is_in_calendar(text)


async def date(ctx: Context, lm: LM, sentence: str) -> str:
    prompt = lm(f"{EXAMPLES}Sentence: {sentence}\nDate:")
    pattern = Regex(r" \d{4}-\d{2}-\d{2}")
    return (await ctx.generate(prompt * pattern * calendar, ends=False)).strip()


def main(lm: LM) -> dict[str, str]:
    found = {}
    for sentence in SENTENCES:
        posterior = run(date, lm, sentence, n_particles=8, seed=0, progress=False)
        found[sentence], probability = posterior.top(1)[0]
        print(f"{found[sentence]}  {probability:4.0%}  {sentence}")
    right = sum(SENTENCES[sentence] == day for sentence, day in found.items())
    print(f"{right} of {len(found)} are right")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
