"""Random small programs on toy language models, whose posteriors can be enumerated.

Each function draws one of its kind. `TUNING` are the kinds that the thresholds of
`Posterior.diagnose()` were chosen on, `HELD_OUT` those that they are judged by.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from awrs_ppl import Bernoulli, Categorical, Context, ToyLM, predicate
from awrs_ppl.potentials import OneOf, Regex, Soft

Model = Callable[[Context], Any]
Rng = np.random.Generator
Kind = Callable[[Rng], Model]


def toy(rng: Rng, letters: str | list[str], least: float = 1.0, most: float = 4.0) -> ToyLM:
    return ToyLM(list(letters), seed=int(rng.integers(1 << 30)), scale=rng.uniform(least, most))


def generating(target: Any, max_tokens: int) -> Model:
    async def model(ctx: Context) -> str:
        return await ctx.generate(target, max_tokens=max_tokens)

    return model


def texts_of(rng: Rng, letters: str, length: int, count: int) -> list[str]:
    drawn = rng.choice(list(letters), (4 * count, length))
    return list(dict.fromkeys("".join(text) for text in drawn))[:count]


def tree(rng: Rng) -> Model:
    """A few of all texts of one length: a branch does not show what it will weigh."""
    letters, length = "abcdef"[: int(rng.integers(3, 7))], int(rng.integers(5, 9))
    allowed = texts_of(rng, letters, length, int(rng.integers(10, 200)))
    return generating(toy(rng, letters, 1.5)("a") * OneOf(allowed), length + 1)


def sentences(rng: Rng) -> Model:
    """Words in a row, each of a list."""
    words = [texts_of(rng, "abcd", 3, int(rng.integers(2, 4))) for _ in range(4)]
    allowed = ["".join(parts) for parts in itertools.product(*words)]
    return generating(toy(rng, "abcd", 1.5)("b") * OneOf(allowed), 13)


def weak(rng: Rng) -> Model:
    """Nearly everything is allowed."""
    banned = "".join(rng.choice(list("abc"), 2))

    @predicate
    def without(text: str) -> bool:
        return banned not in text

    return generating(toy(rng, "abc", 0.3, 1.5)("c") * without, 6)


def long(rng: Rng) -> Model:
    """Longer texts, of which one feature is returned."""
    target, feature = toy(rng, "ab", 0.5, 3.0)("a") * Regex("[ab]{6,9}"), int(rng.integers(2))

    async def model(ctx: Context) -> Any:
        text = await ctx.generate(target, max_tokens=10)
        return text.count("a") if feature else text[:4]

    return model


def late(rng: Rng) -> Model:
    """A condition on a text after its end."""
    lm, wanted = toy(rng, "abc", 0.5, 2.0), int(rng.integers(2, 5))

    async def model(ctx: Context) -> str:
        text = await ctx.generate(lm("a"), max_tokens=6)
        await ctx.condition(text.count("b") == wanted or text[:1] == "c")
        return text

    return model


def topics(rng: Rng) -> Model:
    """A choice before the text, which the text speaks for or against."""
    lm, chances = toy(rng, "abcd"), rng.dirichlet(np.ones(4))
    allowed = {topic: OneOf(texts_of(rng, "abcd", 6, 5)) for topic in "abcd"}

    async def model(ctx: Context) -> str:
        topic = await ctx.sample(Categorical(list("abcd"), chances.tolist()))
        text = await ctx.generate(lm(topic) * allowed[topic], max_tokens=7)
        await ctx.observe(Bernoulli(0.9 if "a" in text else 0.2), True)
        return f"{topic}: {text}"

    return model


def garden(rng: Rng) -> Model:
    """What begins with b is unlikely, and nearly all of what is allowed at the end."""
    rare, end, length = rng.uniform(0.01, 0.1), 10 ** -rng.uniform(2, 5), int(rng.integers(3, 6))

    def weights(context: tuple[int, ...]) -> list[float]:
        text = context[1:]
        if not text:
            return [1 - rare, rare, 0]
        if len(text) < length:
            return [1, 1, 0]
        return [end, 1 - end, 0] if text[0] == 0 and len(text) == length else [0, 0, 1]

    lm = ToyLM(["a", "b"], weights=weights)
    return generating(lm("a") * Regex("a[ab]*a|b[ab]*"), length + 2)


def words(rng: Rng) -> Model:
    """Words of several lengths, in tokens of several letters."""
    allowed = [
        text for n in (4, 6, 8) for text in texts_of(rng, "abcd", n, int(rng.integers(4, 40)))
    ]
    return generating(toy(rng, ["a", "b", "c", "d", "ab", "ca"], 1.5)("b") * OneOf(allowed), 9)


def palindromes(rng: Rng) -> Model:
    allowed = [text for n in (5, 6, 7) for t in itertools.product("abc", repeat=n)
               if (text := "".join(t)) == text[::-1]]  # fmt: skip
    return generating(toy(rng, "abc")("a") * OneOf(allowed), 8)


def soft(rng: Rng) -> Model:
    """Everything is allowed, some of it preferred."""
    liked = texts_of(rng, "abc", 3, 2)
    likes = Soft(lambda text: sum(3.0 * text.count(part) for part in liked))
    return generating(toy(rng, "abc", 0.5, 1.5)("a") * likes, 6)


def rhymes(rng: Rng) -> Model:
    """Two texts that must end alike."""
    lm, line = toy(rng, "abc"), Regex("[abc]{2,3}")

    async def model(ctx: Context) -> str:
        first = await ctx.generate(lm("a") * line, max_tokens=4)
        second = await ctx.generate(lm("b") * line, max_tokens=4)
        await ctx.condition(first[-2:] == second[-2:])
        return f"{first} {second}"

    return model


def brackets(rng: Rng) -> Model:
    @predicate(complete=lambda text: text.count("(") == text.count(")"))
    def balanced(text: str) -> bool:
        return all(text[:i].count("(") >= text[:i].count(")") for i in range(len(text) + 1))

    return generating(toy(rng, "()a", 0.5, 2.0)("a") * balanced, 7)


TUNING = (tree, sentences, weak, long, late, topics, garden)
HELD_OUT = (words, palindromes, soft, rhymes, brackets, tree, long, garden)
