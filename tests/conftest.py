"""How much the tests with random input try: an option, counted in inputs and never in seconds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fuzz")
    group.addoption(
        "--fuzz-times",
        type=int,
        default=1,
        help="how many times as many random inputs the fuzz tests try (once takes seconds; "
        "for long runs add --timeout=0)",
    )
    group.addoption("--fuzz-seed", type=int, default=0, help="the seed of their random inputs")


@dataclass(frozen=True)
class Fuzz:
    """The random inputs of one test: the same for the same options, whatever the machine."""

    times: int
    seed: int

    def rngs(self, count: int) -> Iterator[random.Random]:
        """`count` generators (times the option), each with a seed of its own."""
        for i in range(count * self.times):
            yield random.Random(f"{self.seed}/{i}")


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    return Fuzz(request.config.getoption("--fuzz-times"), request.config.getoption("--fuzz-seed"))
