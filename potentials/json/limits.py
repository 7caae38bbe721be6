"""Checks that can be stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from threading import local
from typing import Any

import regex

from awrs_ppl._deadline import Deadline
from awrs_ppl.potentials.json.patterns import source

__all__ = ["TIME_LIMIT", "compiled", "search", "start_clock", "timed", "unrolled"]

# Seconds for one check of one value.
TIME_LIMIT = 5.0

_clock = local()


def start_clock() -> None:
    """From now on the checks of this thread have their time; then they raise `TimeoutError`."""
    _clock.deadline = Deadline(TIME_LIMIT)


def timed(check: Callable[..., Iterable[Any] | None]) -> Callable[..., Any]:
    """The check, with an end to it."""

    @wraps(check)
    def limited(*arguments: Any) -> Iterable[Any] | None:
        if _clock.deadline.passed:
            raise TimeoutError
        return check(*arguments)

    return limited


def search(pattern: str, text: str) -> bool:
    """Whether a pattern is found in a text."""
    left = _clock.deadline.left
    if left <= 0:
        raise TimeoutError
    return compiled(pattern).search(text, timeout=left) is not None


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> regex.Pattern[str]:
    """A pattern of ECMA 262, compiled once."""
    return regex.compile(source(pattern))


def unrolled(pattern: str) -> int:
    """About how long the pattern is with every counted repetition written out."""
    totals, last = [0], 0
    for item in regex.findall(r"\\.|\[(?:\\.|[^\]\\])+\]|\{\d*,?\d*\}|.", pattern, regex.DOTALL):
        counts = regex.findall(r"\d+", item) if item[0] == "{" else []
        if counts:
            totals[-1] += last * (max(map(int, counts)) - 1)
            last *= max(map(int, counts))
        elif item == "(":
            totals.append(0)
        elif item == ")" and len(totals) > 1:
            last = totals.pop() + 1
            totals[-1] += last
        elif item not in "*+?":
            last = 1
            totals[-1] += 1
    return sum(totals)
