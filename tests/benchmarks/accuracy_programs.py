"""The programs of the problems of `accuracy.py`: of each, `program(lm)` gives the model."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from accuracy_lms import closed_by_newlines, of_length

from awrs_ppl import LM, Context, ToyLM
from awrs_ppl.models import json_schema, pattern_matching
from awrs_ppl.potentials import OneOf, Regex, predicate

__all__ = [
    "LANGUAGES",
    "PALINDROME",
    "PARIS",
    "QUARTZ",
    "STORY",
    "Model",
    "couplet",
    "haiku",
    "hard_pattern",
    "infilling",
    "late_condition",
    "long_text",
    "one_text",
    "palindromes",
    "schema_document",
    "toy_garden",
]

Model = Callable[[Context], Any]
STORY = "Once upon a time,"


# --- exact: finite languages ------------------------------------------------------------------


def one_text(prompt: str, constraint: Any, max_tokens: int = 32) -> Callable[[LM], Model]:
    """A single text after a prompt."""

    def program(lm: LM) -> Model:
        async def model(ctx: Context) -> str:
            return await ctx.generate(lm(prompt) * constraint, max_tokens=max_tokens)

        return model

    return program


# By name: a prompt, and a pattern of 18 to 144 texts.
LANGUAGES = {
    "knight": (
        STORY,
        r"a (dragon|knight|wizard) (discovered|protected|enchanted) the (castle|forest|treasure)\.",
    ),
    "dinner": (
        "My favourite dinner is",
        r" (roast|fried|cold|spicy) (chicken|beef|rice|fish) with (garlic|butter|lemon) sauce\.",
    ),
    "journey": (
        "Last summer we travelled",
        r" (to|across) (Italy|Norway|Peru|Japan) by (train|car|boat) for (two|ten) (days|weeks)\.",
    ),
    "treaty": (
        "The treaty was signed on",
        r" (3|14|27) (March|June|October) (1648|1783|1815|1919)\.",
    ),
    "area": (
        "def area(width, height):\n    return",
        r" (width|height|2) (\*|\+|-|/) (width|height|area|1)( \* 2| - 1|\n)",
    ),
}

# --- exact: programs --------------------------------------------------------------------------

ANIMALS = [
    *("bear", "cat", "elephant", "fox", "goat", "iguana"),
    *("kangaroo", "lion", "monkey", "panda", "penguin", "tiger"),
]
COUNTRIES = [
    *("Brazil", "Canada", "Egypt", "France", "Greece", "Italy"),
    *("Kenya", "Laos", "Mexico", "Peru", "Poland", "Turkey"),
]


def late_condition(lm: LM) -> Model:
    """An animal, then a country; only then they must have the same first letter."""

    async def model(ctx: Context) -> tuple[str, str]:
        asked = "My favourite animal is the"
        animal = await ctx.generate(lm(asked) * OneOf(f" {name}" for name in ANIMALS))
        home = await ctx.generate(
            lm(f"{asked}{animal}. It lives in") * OneOf(f" {name}" for name in COUNTRIES)
        )
        await ctx.condition(animal[1] == home[1].lower())
        return animal, home

    return model


MIDDLES = """
 it was raining hard| the wind was cold| nobody was there| a dog ran in| she saw a stranger
 the room was empty| the smell was awful| it was too dark| a cat looked up| the light was off
 he was asleep| they were all dancing| snow blew in| a bat flew out| she heard a scream
 the floor was wet| it would not open| someone shouted| the music was loud| she smiled
 it was the wrong room| smoke came out| there was a bear| the sun was shining
""".strip("\n").replace("\n", "|")


def infilling(lm: LM) -> Model:
    """`awrs_ppl.models.infilling` with a closed list of middles."""
    left, rest = "She opened the door, and", " so she closed it again."

    async def model(ctx: Context) -> str:
        middle = await ctx.generate(lm(left, stop=",") * OneOf(MIDDLES.split("|")))
        await ctx.observe(lm(left + middle + ","), rest)
        return middle

    return model


LETTERS = "abcdefghijklmnopqrstuvwxyz"
PALINDROME = "A word of five letters that reads the same backwards:"


@cache
def palindromes() -> OneOf:
    """All of them, as a list: a mask that `Regex` does not have for references back."""
    return OneOf(f" {a}{b}{c}{b}{a}" for a in LETTERS for b in LETTERS for c in LETTERS)


# --- exact: garden paths ----------------------------------------------------------------------


def toy_garden() -> LM:
    """Texts of 8 letters; 4 of 100 begin with b, and an e is rare everywhere."""

    def weights(context: tuple[int, ...]) -> list[float]:
        if len(context) >= 9:  # the prompt is a letter too
            return [0, 0, 0, 0, 0, 1]
        if len(context) == 1:
            return [0.4, 0.04, 0.3, 0.259, 0.001, 0]
        shares = np.random.default_rng((7, *context)).dirichlet([1.0] * 4)
        return [*(0.999 * shares), 0.001, 0]

    return ToyLM(["a", "b", "c", "d", "e"], weights=weights)


# Stories that begin as stories do and must end as none does, and a rarer way to begin.
QUARTZ = (
    r" there (was|lived) an? (little|young|old|poor) (girl|boy|man|woman|king) "
    r"(named|called|with) (quartz|argon)\.| as the (sun|moon|river) was (setting|rising|frozen)\."
)
# Paris is likely, and what follows it here is not.
PARIS = (
    r" Paris(,| and|;) (the|a) (most|old|big|great|small|new) (city|town|place) (of|in) "
    r"(quoins|plinths)\.| located (in|on) the (north|banks|river)( of the Seine| of France)?\."
)

# --- hard -------------------------------------------------------------------------------------


def hard_pattern(pattern: str, lm: LM) -> Model:
    """As in `checks.py`, so that its table of evidences holds: tokens that begin with a newline
    are ends, at most 32 tokens."""
    closed = closed_by_newlines(lm)

    async def model(ctx: Context) -> str:
        messages = [{"role": "system", "content": pattern_matching.INSTRUCTION}]
        for shot, answer in pattern_matching.EXAMPLES.items():
            messages.append({"role": "user", "content": shot})
            messages.append({"role": "assistant", "content": answer})
        chat = closed.chat([*messages, {"role": "user", "content": pattern}])
        return await ctx.generate(chat * Regex(pattern), max_tokens=32)

    return model


def syllables(word: str) -> int:
    """Groups of vowels, but for an e at the end; never less than for a part of the word."""
    groups = len(re.findall("[aeiouy]+", word))
    return max(groups - bool(re.search("[^aeiouy]e$", word)), bool(word))


@cache
def line_of(count: int) -> Any:
    """A line of a poem with so many syllables."""

    def so_many(text: str) -> int:
        return sum(map(syllables, re.findall("[a-z]+", text.lower())))

    @predicate(complete=lambda text: so_many(text) == count)
    def is_line(text: str) -> bool:
        return re.fullmatch("[A-Za-z][A-Za-z ,.'-]*|", text) is not None and so_many(text) <= count

    return is_line


def haiku(lm: LM) -> Model:
    """Three lines of 5, 7 and 5 syllables."""

    async def model(ctx: Context) -> str:
        text = "Here is a haiku about the sea in winter.\n\n"
        lines = []
        for count in (5, 7, 5):
            asked = lm(text + "".join(f"{line}\n" for line in lines), stop="\n")
            lines.append(await ctx.generate(asked * line_of(count), max_tokens=20))
        return "\n".join(lines)

    return model


def rhyme(line: str) -> tuple[str, str]:
    """The last word of a line, and what rhymes of it: all from the last vowels on."""
    word = (re.findall("[a-z]+", line.lower()) or [""])[-1]
    found = re.search("[aeiouy]+[^aeiouy]*e?$", word)
    return word, found[0] if found else word


def couplet(lm: LM) -> Model:
    """Two lines of 5 to 8 words; the last words rhyme, and are not the same."""
    asked = "A rhyme about the moon and the night:\n\n"

    async def model(ctx: Context) -> str:
        words = r"[A-Z][a-z]+( [a-z]+){4,7}"
        first = await ctx.generate(lm(asked, stop="\n") * Regex(words + ","), max_tokens=24)
        word, sound = rhyme(first)

        @predicate
        def rhymes(text: str) -> bool:
            last, its = rhyme(text)
            return "." not in text or (its == sound and last != word)

        second = await ctx.generate(
            lm(f"{asked}{first}\n", stop="\n") * Regex(words + r"\.") * rhymes, max_tokens=24
        )
        return f"{first}\n{second}"

    return model


def long_text(allowed: str | None, lm: LM) -> Model:
    """60 tokens of a story, all that `allowed` matches."""
    endless = of_length(lm, STORY, 60)

    async def model(ctx: Context) -> str:
        prompted = endless(STORY)
        wanted: Any = prompted if allowed is None else prompted * Regex(allowed)
        return await ctx.generate(wanted, max_tokens=61)

    return model


def schema_document(schema: Any, lm: LM) -> Model:
    """A document of a JSON schema in 200 tokens."""

    async def model(ctx: Context) -> str:
        return await json_schema.json_schema(ctx, lm, schema, max_tokens=200)

    return model
