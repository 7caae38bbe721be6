"""Strings that match a regular expression, after three examples."""

import csv
from os import PathLike
from pathlib import Path
from typing import Any

import regex

from awrs_ppl import LM, Context
from awrs_ppl.potentials import Regex

EXAMPLES = {"(ab)+": "ab", "(ab|cd)+": "cd", "[a-z]+": "hello"}
INSTRUCTION = (
    "You generate strings that match regular expressions. You are given a regular expression; "
    "only output the exact string, without quotes or explanations."
)


async def pattern_matching(
    ctx: Context,
    lm: LM,
    pattern: str,
    *,
    allowed: Any = None,
    max_tokens: int = 100,
    **options: Any,
) -> str:
    """A string that matches the whole of `pattern`, in the dialect of the package `regex`."""
    prompted = after_examples(lm, pattern)
    return await ctx.generate(
        prompted * (allowed or Regex(pattern)), max_tokens=max_tokens, **options
    )


def after_examples(lm: LM, pattern: str) -> Any:
    """The model after examples: as a chat if it was made for that, else as a list to continue."""
    if lm.tokenizer.chat_template is None:
        shots = [*EXAMPLES.items(), (pattern, "")]
        parts = [f"Regular expression:\n{p}\nMatching string:\n{s}" for p, s in shots]
        return lm("\n\n".join([INSTRUCTION, *parts]), stop="\n")
    messages = [{"role": "system", "content": INSTRUCTION}]
    for shot, answer in EXAMPLES.items():
        messages.append({"role": "user", "content": shot})
        messages.append({"role": "assistant", "content": answer})
    return lm.chat([*messages, {"role": "user", "content": pattern}], stop="\n")


def score(pattern: str, text: str) -> float:
    """1 for a match of the whole pattern, else 0."""
    return float(regex.fullmatch(pattern, text) is not None)


def load(path: str | PathLike[str]) -> list[str]:
    """The patterns of a CSV file, in its first column."""
    with Path(path).open(newline="") as file:
        return [row[0] for row in list(csv.reader(file))[1:]]
