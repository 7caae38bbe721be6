"""Ten questions, one after the other and side by side.

A good answer: the same answers both ways, in the order of the questions, and side by side in
fewer passes of the model, since all inferences share them.
"""

import argparse
import asyncio
import time

from awrs_ppl import LM, Context, Posterior, infer
from awrs_ppl.potentials import OneOf

CAPITALS = {
    **{"France": " Paris", "Italy": " Rome", "Spain": " Madrid", "Germany": " Berlin"},
    **{"Japan": " Tokyo", "Russia": " Moscow", "Egypt": " Cairo", "Greece": " Athens"},
    **{"Austria": " Vienna", "Norway": " Oslo"},
}


async def capital(ctx: Context, lm: LM, country: str) -> tuple[str, str]:
    prompt = lm(f"The capital of Portugal is Lisbon. The capital of {country} is")
    city = await ctx.generate(prompt * OneOf(CAPITALS.values()), ends=False)
    return country, city


async def ask(lm: LM) -> tuple[list[Posterior], list[Posterior]]:
    def inference(country: str):
        return infer(capital, lm, country, n_particles=16, seed=0, progress=False)

    started = time.perf_counter()
    one_by_one = [await inference(country) for country in CAPITALS]
    between = time.perf_counter()
    together = await asyncio.gather(*map(inference, CAPITALS))
    print(f"one by one {between - started:.1f} s, together {time.perf_counter() - between:.1f} s")
    return one_by_one, together


def main(lm: LM) -> tuple[list[Posterior], list[Posterior]]:
    one_by_one, together = asyncio.run(ask(lm))
    for alone, shared in zip(one_by_one, together, strict=True):
        country, city = alone.mode()
        print(f"{country}:{city} {alone.top(1)[0][1]:.1%}, together {shared.top(1)[0]}")
    return one_by_one, together


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
