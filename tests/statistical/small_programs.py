"""What tests on toys have in common: a predicate, a soft factor, a program of one statement."""

from __future__ import annotations

from typing import Any

from awrs_ppl import AWRS, predicate
from awrs_ppl.potentials import Soft

__all__ = ["SURE", "generating", "no_bb", "soft"]

SURE = AWRS(effort=1e6, _negligible=0.0)  # every verdict is learned before a draw


@predicate
def no_bb(text: str) -> bool:
    """No b behind another."""
    return "bb" not in text


def soft(size: float) -> Soft:
    """More for each a, and on the way for each character."""
    return Soft(lambda text: size * text.count("a"), prefix=lambda text: size * len(text) / 3)


def generating(potential: Any, **options: Any) -> Any:
    """A program that generates one text."""

    async def model(ctx: Any) -> Any:
        return await ctx.generate(potential, **options)

    return model
