"""Options that differ between particles at one prompt: no particle may get another's.

Each program draws an option before its `generate`. The judge is plain arithmetic on the model's
weights: with every verdict known the weight of a particle is the product of the allowed shares
that its text met, times what the weighing factors give to the whole text.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from awrs_ppl import AWRS, BooleanPotential, Categorical, Context, PaperAWRS, Prior, ToyLM, infer
from awrs_ppl.potentials import Regex, Soft, predicate
from awrs_ppl.testing import assert_unbiased

LETTERS = ["a", "b", "c"]


def weights(context: tuple[int, ...]) -> list[float]:
    """Next-token weights that depend on the whole context; the end's is the last."""
    rng = random.Random(repr(context))
    return [0.2 + rng.random() for _ in range(4)]


lm = ToyLM(LETTERS, weights=weights)


@dataclass(frozen=True)
class Options:
    """The options of one `generate`, and the same in plain functions."""

    most: int = 4
    temperature: float = 1.0
    stop: str | None = None
    letters: str = "abc"
    soft: Callable[[str], float] | None = None
    critic: Callable[[str], float] | None = None

    def potential(self, masked: bool) -> Any:
        """The product; one prompt for all."""
        letters = self.letters
        rule = (
            Regex(f"[{letters}]*") if masked else predicate(lambda text: set(text) <= set(letters))
        )
        found = lm("ab", stop=self.stop, temperature=self.temperature) * rule
        return found if self.soft is None else found * Soft(self.soft, prefix=misleading)

    def log_weight(self, text: str) -> float:
        """Of a particle whose draws knew all verdicts."""
        total, context = 0.0, (0, 1)
        for step in range(self.most):
            row = [w ** (1 / self.temperature) for w in weights(context)]
            written = text[:step]
            allowed = [
                i
                for i, letter in enumerate(LETTERS)
                # A letter that completes the stop ends the text before it.
                if letter in self.letters or letter == self.stop
            ]
            if step == self.most - 1:
                allowed = [i for i in allowed if LETTERS[i] == self.stop]
            total += math.log((sum(row[i] for i in allowed) + row[3]) / sum(row))
            if written == text:
                break
            context += (LETTERS.index(text[step]),)
        for weighs in (self.soft, self.critic):
            total += weighs(text) if weighs is not None else 0.0
        return total


def misleading(text: str) -> float:
    return -0.7 * len(text) + 0.4 * text.startswith("b")


def longer(text: str) -> float:
    return 0.8 * len(text)


def shorter(text: str) -> float:
    return -0.5 * len(text)


def with_b(text: str) -> float:
    return 1.1 * text.count("b") - 0.2


PLAIN = Options()
VARIED: dict[str, list[Options]] = {
    "max_tokens": [replace(PLAIN, most=n) for n in (1, 2, 4)],
    "temperature": [replace(PLAIN, temperature=t) for t in (0.4, 1.0, 2.5)],
    "stop": [replace(PLAIN, stop=s) for s in (None, "b", "c")],
    "mask": [replace(PLAIN, letters=letters) for letters in ("a", "ab", "bc")],
    "weighing factor": [replace(PLAIN, soft=f) for f in (None, longer, shorter, with_b)],
    "critic": [replace(PLAIN, critic=f) for f in (None, longer, shorter, with_b)],
    "everything": [
        Options(2, 0.4, "b", "ac", longer, shorter),
        Options(4, 0.4, "c", "ab", with_b, None),
        Options(4, 2.5, None, "abc", None, with_b),
        Options(1, 1.0, None, "b", shorter, longer),
        Options(4, 2.5, None, "abc", shorter, longer),
    ],
}
# All is learned before anything is drawn: then W is the allowed share, without noise.
ALL_LEARNED = AWRS(effort=1e9)


def program(options: list[Options], masked: bool, proposal: Any) -> Any:
    async def model(ctx: Any) -> tuple[int, str]:
        which = await ctx.sample(Categorical(range(len(options))))
        mine = options[which]
        critic = None if mine.critic is None else Soft(mine.critic, prefix=misleading)
        text = await ctx.generate(
            mine.potential(masked), max_tokens=mine.most, proposal=proposal, critic=critic
        )
        return which, text

    return model


@pytest.mark.parametrize("masked", [True, False], ids=["mask", "predicate"])
@pytest.mark.parametrize("name", VARIED)
async def test_weight_of_each_particle_is_that_of_its_own_options(name, masked):
    options = VARIED[name]
    model = program(options, masked, ALL_LEARNED)
    posterior = await infer(model, n_particles=60, ess_threshold=0, seed=1, progress=False)
    seen = set()
    for (which, text), log_weight in zip(posterior.values, posterior.log_weights, strict=True):
        assert log_weight == pytest.approx(options[which].log_weight(text), abs=1e-9), (which, text)
        seen.add(which)
    assert len(seen) == len(options)
    assert len(set(posterior.values)) > len(options)


def cases() -> list[Any]:
    by_awrs = [(name, AWRS()) for name in VARIED]
    others = [("everything", PaperAWRS("two-loop")), ("everything", Prior())]
    return [pytest.param(name, kind, id=f"{name}, {kind}") for name, kind in by_awrs + others]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "proposal"), cases())
async def test_infer_with_options_by_particle_is_unbiased(name, proposal):
    model = program([replace(one, most=min(one.most, 3)) for one in VARIED[name]], False, proposal)
    await assert_unbiased(model, runs=60, n_particles=6, ess_threshold=0.9)


class Budget(BooleanPotential):
    """Texts of at most so many bytes: its start is not that of another."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def start(self) -> int:
        return self.left

    def advance(self, state: int, data: bytes) -> int | None:
        return state - len(data) if state >= len(data) else None

    def accepts(self, state: int) -> bool:
        return state >= 0


async def test_constraint_by_particle_starts_where_its_own_starts() -> None:
    lm = ToyLM(LETTERS, weights=weights)

    async def model(ctx: Context) -> tuple[int, str]:
        left = await ctx.sample(Categorical([0, 1, 3]))
        return left, await ctx.generate(lm("a") * Budget(left), max_tokens=4)

    await assert_unbiased(model, n_particles=9, runs=80)
