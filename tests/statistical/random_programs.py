"""Random programs over random toy language models, small enough to enumerate.

Written as Hypothesis strategies are: each method of `Maker` draws one kind of thing, from the
simpler kinds. A program is a few steps, each a statement or a branch on what was drawn so far.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from awrs_ppl import (
    AWRS,
    Bernoulli,
    Categorical,
    Context,
    PaperAWRS,
    Prior,
    ToyLM,
    predicate,
    product,
)
from awrs_ppl.inference.resampling import SCHEMES
from awrs_ppl.potentials import Contains, OneOf, Regex, Soft

__all__ = ["Program", "random_program"]

DING, SMILE = "丁".encode(), "🙂".encode()
# Single and longer tokens, parts of characters, and characters that share their first bytes.
POOLS: list[list[str | bytes]] = [
    ["a", "b", "ab", "c", "bc", "."],
    ["a", "丁", "七", "丁a", DING[:2], DING[2:], "七".encode()[2:]],
    ["b", "🙂", "🙃", SMILE[:3], SMILE[3:], "e", "\u0301"],
]
SEQUENCES = 300  # of tokens, about, in all `generate` statements together

Step = Callable[[Context, list[Any]], Awaitable[None]]


@dataclass(frozen=True)
class Own:
    """The options of a particle in a `generate`; None where they are those of all."""

    length: int | None = None
    temperature: float | None = None
    stop: Any = None
    soft: Soft | None = None
    critic: Soft | None = None


NOTHING_OWN = Own()


@dataclass(frozen=True)
class Program:
    """A model, the options of its inferences, and what it is made of, as text.

    `again`: each inference is made twice with one seed, and the second is used.
    `jointly`: the value is that of all particles together; they must be independent, and
    none of them weighted.
    """

    model: Callable[[Context], Awaitable[Any]]
    options: dict[str, Any] = field(default_factory=dict)
    shows: str = ""
    again: bool = False
    jointly: bool = False


def random_program(rng: np.random.Generator) -> Program:
    """A program of one to three steps, one of them a `generate`, and options for `infer`."""
    maker = Maker(rng)
    count = int(rng.integers(1, 4))
    first = int(rng.integers(count))
    steps = [maker.generate() if i == first else maker.step() for i in range(count)]

    async def model(ctx: Context) -> tuple[Any, ...]:
        seen: list[Any] = []
        for step in steps:
            await step(ctx, seen)
        return tuple(seen)

    options: dict[str, Any] = {
        "n_particles": int(rng.choice([1, 2, 3, 4, 6, 8])),
        "ess_threshold": float(rng.choice([0.0, 0.5, 0.9, 1.0])),
        "resampling": str(rng.choice([*SCHEMES, *["auto"] * len(SCHEMES)])),
        "remember": bool(rng.random() < 0.25),
    }
    shown = ", ".join(f"{name}={value}" for name, value in options.items())
    return Program(model, options, "; ".join([*maker.notes, shown]))


def noise(salt: int, text: str) -> float:
    """A number in [0, 1) that depends only on the salt and the text."""
    data = f"{salt} {text}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "big") / 2**32


class Maker:
    """Draws statements for one program; `notes` say which."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.notes: list[str] = []
        pool = POOLS[rng.integers(len(POOLS))]
        size = int(rng.integers(3, len(pool) + 1))
        tokens = [pool[i] for i in sorted(rng.choice(len(pool), size, replace=False))]
        special = ["<pad>"] if self.coin(0.3) else []
        self.lms = [
            ToyLM(
                tokens, seed=self.salt(), scale=float(rng.choice([0.5, 1.0, 2.0])), special=special
            )
            for _ in range(2)
        ]
        self.words = [t for t in tokens if isinstance(t, str)] or ["a"]
        self.letters = sorted(set("".join(self.words)))
        self.depth = int(math.log(SEQUENCES) / math.log(size))

    def coin(self, p: float = 0.5) -> bool:
        return bool(self.rng.random() < p)

    def one(self, things: list[Any]) -> Any:
        return things[self.rng.integers(len(things))]

    def salt(self) -> int:
        return int(self.rng.integers(2**31))

    def word(self) -> str:
        return "".join(self.one(self.words) for _ in range(self.rng.integers(1, 3)))

    # --- statements -----------------------------------------------------------------------

    def step(self) -> Step:
        """A statement, or a branch on all that was drawn so far."""
        if not self.coin(0.25):
            return self.statement()
        self.notes.append("if")
        yes = self.statement()
        self.notes.append("else")
        no, salt = self.statement(), self.salt()

        async def branch(ctx: Context, seen: list[Any]) -> None:
            await (yes if noise(salt, repr(seen)) < 0.5 else no)(ctx, seen)

        return branch

    def statement(self) -> Step:
        kinds = [self.sample, self.observe, self.factor, self.condition]
        return self.one([*kinds, self.generate, self.generate, self.generate])()

    def sample(self) -> Step:
        values = self.one([[True, False], ["a", "b", "ab"], [0, 1, 1, 2]])
        weights = self.rng.dirichlet(np.ones(len(values))).tolist()
        distribution: Any = Categorical(values, weights)
        if len(values) == 2 and self.coin():
            distribution = Bernoulli(weights[0])
        proposal = Categorical(values) if self.coin(0.3) else None
        self.notes.append("sample" if proposal is None else "sample by a proposal")

        async def step(ctx: Context, seen: list[Any]) -> None:
            seen.append(await ctx.sample(distribution, proposal=proposal))

        return step

    def observe(self) -> Step:
        kind, salt, text = self.one(["lm", "lm", "coin", "check"]), self.salt(), self.word()
        lm, rule, ends, follows = self.lm(), self.rule(), self.coin(), self.coin()
        self.notes.append(f"observe {kind}")

        async def step(ctx: Context, seen: list[Any]) -> None:
            if kind == "coin":
                p = 0.2 + 0.6 * noise(salt, repr(seen))
                await ctx.observe(Bernoulli(p), await ctx.call(len, seen) % 2 == 0)
                return
            value = seen[-1] if follows and seen and isinstance(seen[-1], str) else text
            await ctx.observe(
                lm(repr(seen)) * rule if kind == "check" else lm(""), value, ends=ends
            )

        return step

    def factor(self) -> Step:
        salt = self.salt()
        self.notes.append("factor")

        async def step(ctx: Context, seen: list[Any]) -> None:
            await ctx.factor(2 * noise(salt, repr(seen)) - 1)

        return step

    def condition(self) -> Step:
        salt = self.salt()
        self.notes.append("condition")

        async def step(ctx: Context, seen: list[Any]) -> None:
            await ctx.condition(noise(salt, repr(seen)) < 0.7)

        return step

    def generate(self) -> Step:
        """The end alone, or a few tokens, from a product in any order."""
        length = 0 if self.coin(0.1) else min(int(self.rng.integers(1, 4)), self.depth)
        self.depth -= length
        ends = length == 0 or self.coin(0.7)
        lms = [self.lm() for _ in range(2 if self.coin(0.25) else 1)]
        parts = [self.factor_of_a_product() for _ in range(self.one([0, 1, 1, 1, 2]))]
        critic = self.soft() if self.coin(0.25) else None
        proposal, follows = self.proposal(), self.coin()
        forbids = self.coin(0.2)
        varied = self.varied(length) if self.coin(0.4) else None
        order = self.rng.permutation(len(lms) + len(parts))
        names = [str(part) for part in parts] + ["critic"] * (critic is not None)
        self.notes.append(
            f"generate {length + ends} by {proposal} from {len(lms)} LM {names}"
            + ("" if ends else " without an end")
        )

        async def step(ctx: Context, seen: list[Any]) -> None:
            last = seen[-1] if forbids and seen and isinstance(seen[-1], str) else ""
            prompt = repr(seen) if follows else ""
            # Drawn, and not in `seen`: particles at one prompt that differ in nothing else.
            own = (
                varied[await ctx.sample(Categorical(range(len(varied))))] if varied else NOTHING_OWN
            )
            factors = [*(lm(prompt, own) for lm in lms), *parts]
            # Made again in each particle: equal where the last text is equal.
            rule = predicate(lambda text: not last or not text.startswith(last))
            more = [*([rule] if forbids else []), *([own.soft] if own.soft is not None else [])]
            most = (length if own.length is None else own.length) + ends
            text = await ctx.generate(
                product(*(factors[i] for i in order), *more),
                max_tokens=max(most, 1),
                ends=ends,
                proposal=proposal,
                critic=critic if own.critic is None else own.critic,
            )
            seen.append(text)

        return step

    def varied(self, length: int) -> list[Own]:
        """Options that differ between particles, in one respect or in all."""
        kinds = ["length", "temperature", "stop", "soft", "critic"]
        kinds = kinds if self.coin(0.3) else [self.one(kinds)]
        self.notes.append(f"by particle: {', '.join(kinds)}")
        return [
            Own(
                length=int(self.rng.integers(length + 1)) if "length" in kinds else None,
                temperature=self.one([0.5, 1.0, 2.0]) if "temperature" in kinds else None,
                stop=self.stop() if "stop" in kinds else None,
                soft=self.soft() if "soft" in kinds else None,
                critic=self.soft() if "critic" in kinds else None,
            )
            for _ in range(2)
        ]

    # --- their parts ----------------------------------------------------------------------

    def lm(self) -> Callable[..., Any]:
        """A language model, still without the rest of its prompt."""
        start, lm = self.word(), self.one(self.lms)
        temperature = self.one([1.0, 1.0, 0.6, 1.5])
        stop = self.stop()

        def prompted(prompt: str, own: Own = NOTHING_OWN) -> Any:
            warm = temperature if own.temperature is None else own.temperature
            return lm(start + prompt, stop=own.stop or stop, temperature=warm)

        return prompted

    def stop(self) -> Any:
        """None, a stop or several; some begin inside others."""
        word = self.word()
        return self.one(
            [None, None, word, self.letters[0], [self.word(), word], [word, word[:1] + word]]
        )

    def factor_of_a_product(self) -> Any:
        return self.one([self.rule, self.rule, self.rule, self.mask, self.soft])()

    def rule(self) -> Any:
        """A predicate: its verdicts by chance, by words, or by what a state keeps."""
        kind, salt, share = (
            self.one(["chance", "words", "state"]),
            self.salt(),
            self.one([0.5, 0.8]),
        )
        complete = self.one([None, None, partial(chance_at_end, salt), bool])
        if kind == "chance":
            return predicate(partial(chance, salt, share), complete=complete)
        if kind == "words":
            banned = frozenset([self.word(), self.word()])
            return predicate(lambda text: not any(w in text for w in banned), complete=complete)
        if self.coin():
            # The empty text has a state of its own, so that `bool` depends on the state alone.
            return predicate(no_pairs, complete=self.one([None, bool]), state=last_letter)
        return predicate(partial(short, self.one([1, 2, 3])), complete=even, state=len)

    def mask(self) -> Any:
        """A potential with a mask."""
        kind = self.one(["regex", "one of", "contains"])
        if kind == "contains":
            return Contains(self.one(self.letters))
        if kind == "one of":
            return OneOf([self.word() for _ in range(self.rng.integers(2, 6))])
        count = min(len(self.letters), 3)
        letters = "".join(self.rng.choice(self.letters, count, replace=False).tolist())
        return Regex(f"[{letters}]{{{self.one(['0,3', '0,2', '1,4'])}}}")

    def soft(self) -> Soft:
        """Weights for whole texts, and for prefixes; some texts are rejected."""
        salt, size = self.salt(), self.one([0.5, 1.0])
        banned = self.word() if self.coin(0.2) else None
        steers = partial(weight, salt + 1, size, banned) if banned or self.coin(0.7) else None
        return Soft(partial(weight, salt, size, banned), prefix=steers)

    def proposal(self) -> Any:
        """Any that is proper."""
        kind = self.one(["head-tail"] * 6 + ["two-loop", "recursive", "geometric", "prior"])
        if kind == "prior":
            return Prior()
        if kind != "head-tail":
            return PaperAWRS(kind)
        return AWRS(
            effort=self.one([0.1, 0.5, 4.0, 100.0]),
            _negligible=self.one([1e-4, 0.0, 0.1]),
            _max_checks=self.one([1, 2, 4, 512]),
        )


def chance(salt: int, share: float, text: str) -> bool:
    """Each prefix is allowed by chance."""
    return all(noise(salt, text[:i]) < share for i in range(1, len(text) + 1))


def chance_at_end(salt: int, text: str) -> bool:
    return noise(salt + 1, text) < 0.7


def no_pairs(text: str) -> bool:
    return all(a != b for a, b in pairwise(text))


def last_letter(text: str) -> str:
    return text[-1:]


def even(text: str) -> bool:
    return len(text) % 2 == 0


def short(limit: int, text: str) -> bool:
    return len(text) <= limit


def weight(salt: int, size: float, banned: str | None, text: str) -> float:
    """Between -size and size; -inf for a text with the banned word in it."""
    if banned is not None and banned in text:
        return -math.inf
    return size * (2 * noise(salt, text) - 1)
