"""What tests measure is work and not time, so that none fails because the machine is busy.

How much the tests with random input try is an option, counted in inputs and never in seconds; and
`idle_clock` has no seconds pass while anything is computed.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fuzz")
    group.addoption(
        "--fuzz-times",
        type=int,
        default=1,
        help="how many times as many random inputs the fuzz tests try (once takes seconds; "
        "for long runs add --timeout=0)",
    )
    group.addoption(
        "--fuzz-seed",
        type=int,
        default=0,
        help="the seed of their random inputs; with another one than 0, Hypothesis tries others in "
        "each run",
    )

    parser.addoption(
        "--model",
        action="append",
        default=[],
        help="an embedded model that is here, for the tests of the engine, beside the small ones; "
        "those of Qwen have tests of their own",
    )


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile(
        "reproducible on a busy machine",
        deadline=None,
        derandomize=not config.option.fuzz_seed,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("reproducible on a busy machine")


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
    options = request.config.option
    return Fuzz(options.fuzz_times, options.fuzz_seed)


@pytest.fixture
def idle_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event loops whose time stands still while there is anything to do.

    Where all tasks sleep, it is at once as late as the first of them waits for. A time limit then
    always comes after what needs no waiting, however slow the machine. Not for tests with threads,
    whose work no loop sees.
    """
    now = time.monotonic()
    select = selectors.DefaultSelector.select

    def wait(self: Any, timeout: float | None = None) -> Any:
        nonlocal now
        found = select(self, timeout if timeout is None else 0)
        if timeout is not None and not found:
            now += max(timeout, 0.0)
        return found

    monkeypatch.setattr(selectors.DefaultSelector, "select", wait)
    monkeypatch.setattr(asyncio.BaseEventLoop, "time", lambda loop: now)
