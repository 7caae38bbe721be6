"""Read five invoices into objects of a Pydantic class whose lines add up to the total.

A good answer: an `Invoice` for each text, as it stands there. That the lines add up is certain,
since the class checks it; 8 particles are 8 readings that compete, and the likeliest is taken.
"""

import argparse
import asyncio

from pydantic import BaseModel, Field, model_validator

from awrs_ppl import LM, Context, Posterior, infer
from awrs_ppl.potentials import JsonSchema

TEXTS = [
    "Invoice for Ada Lovelace: 3 notebooks at 4.50 each, 1 pen at 2.00. Total due: 15.50.",
    "Bill to Hotel Adler. 10 towels at 7.00 each. Total 70.00.",
    "Customer: Jo Park. 2 lamps, 30.00 each; 4 bulbs, 2.50 each. Please pay 70.00.",
    "To Mill Bakery: 5 bags of flour at 12.00 each. Amount due 60.00.",
    "Sold to Ken Ito: 1 bike at 250.00, 2 locks at 15.00 each. The total is 280.00.",
]


class Line(BaseModel):
    item: str = Field(max_length=20)
    quantity: int = Field(ge=1, le=99)
    price: float = Field(ge=0, le=999)


class Invoice(BaseModel):
    customer: str = Field(max_length=20)
    lines: list[Line] = Field(min_length=1, max_length=2)
    total: float = Field(ge=0, le=9999)

    @model_validator(mode="after")
    def adds_up(self) -> "Invoice":
        total = sum(line.quantity * line.price for line in self.lines)
        if abs(total - self.total) > 0.005:
            raise ValueError(f"the lines add up to {total}, not to {self.total}")
        return self


SHOT = "Invoice for Bob Ray: 2 cups at 3.00 each. Total: 6.00."
ANSWER = '{"customer":"Bob Ray","lines":[{"item":"cup","quantity":2,"price":3.00}],"total":6.00}'


async def read(ctx: Context, lm: LM, text: str) -> Invoice:
    if lm.tokenizer.chat_template:
        messages = [
            {"role": "user", "content": f"Write this invoice as JSON. {SHOT}"},
            {"role": "assistant", "content": ANSWER},
            {"role": "user", "content": f"Write this invoice as JSON. {text}"},
        ]
        answers = lm.chat(messages, stop="\n")
    else:
        answers = lm(f"{SHOT}\nJSON:\n{ANSWER}\n\n{text}\nJSON:\n", stop="\n")
    document = await ctx.generate(answers * JsonSchema(Invoice), max_tokens=100)
    return JsonSchema(Invoice).parse(document)


async def read_all(lm: LM) -> list[Posterior]:
    # Side by side they share the passes of the model.
    return await asyncio.gather(*(infer(read, lm, text, n_particles=8, seed=0) for text in TEXTS))


def main(lm: LM) -> list[Invoice | None]:
    found: list[Invoice | None] = []
    for text, posterior in zip(TEXTS, asyncio.run(read_all(lm)), strict=True):
        found.append(posterior.mode() if posterior.values else None)
        print(text, found[-1], sep="\n  ")
    print(f"{sum(one is not None for one in found)} of {len(TEXTS)} add up")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
