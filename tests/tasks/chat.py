"""Continue a conversation of three messages, with rules for the answer.

A good answer: one sentence of 4 to 12 words about tea that does not say "tea" or "coffee".
"""

import argparse

from awrs_ppl import LM, Context, run
from awrs_ppl.potentials import Regex, predicate

MESSAGES = [
    {"role": "user", "content": "What do you like to drink?"},
    {"role": "assistant", "content": "I like tea."},
    {"role": "user", "content": "Why do you like it? Answer in one short sentence."},
]
FORBIDDEN = ("tea", "coffee")


@predicate
def keeps_it_secret(text: str) -> bool:
    return not any(word in text.lower() for word in FORBIDDEN)


async def answer(ctx: Context, lm: LM) -> str:
    if lm.tokenizer.chat_template:
        answers = lm.chat(MESSAGES)
    else:
        said = "\n".join(f"{message['role']}: {message['content']}" for message in MESSAGES)
        answers = lm(f"{said}\nassistant:", stop="\n")
    sentence = Regex(r" ?[A-Z][a-z']*(,? [a-z']+){3,11}\.")
    return (await ctx.generate(answers * sentence * keeps_it_secret, max_tokens=24)).strip()


def main(lm: LM) -> str:
    posterior = run(answer, lm, n_particles=8, seed=0)
    print(posterior)
    print(posterior.mode())
    return posterior.mode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
