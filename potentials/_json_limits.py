"""A validator of `jsonschema` whose checks can be stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, wraps
from threading import local
from typing import Any

import regex

__all__ = ["TIME_LIMIT", "compiled", "limited", "search", "start_clock", "unrolled"]

# Seconds for one check of one value.
TIME_LIMIT = 5.0

_clock = local()


def start_clock() -> None:
    """From now on the checks of this thread have their time; then they raise `TimeoutError`."""
    _clock.deadline = time.monotonic() + TIME_LIMIT


def limited(validator: Any) -> Any:
    """The validator, with a limit on its time, and patterns that can be stopped."""
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def pattern(check: Any, expression: str, value: Any, _: Any) -> Iterator[Any]:
        if check.is_type(value, "string") and not search(expression, value):
            yield ValidationError(f"{value!r} does not match {expression!r}")

    def pattern_properties(check: Any, patterns: Any, value: Any, _: Any) -> Iterator[Any]:
        if not check.is_type(value, "object"):
            return
        for expression, schema in patterns.items():
            for key, item in value.items():
                if search(expression, key):
                    yield from check.descend(item, schema, path=key, schema_path=expression)

    def additional_properties(check: Any, rest: Any, value: Any, schema: Any) -> Iterator[Any]:
        if not check.is_type(value, "object"):
            return
        named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for key, item in value.items():
            if key not in named and not any(search(p, key) for p in patterns):
                yield from check.descend(item, rest, path=key)

    def format_(check: Any, *arguments: Any) -> Iterator[Any]:
        try:
            yield from ask_format(check, *arguments) or ()
        except Exception as error:
            # Some formats are tried by parsers that raise more than they tell.
            yield ValidationError(f"no value of this format: {error}")

    ask_format = validator.VALIDATORS["format"]
    own = {
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional_properties,
        "format": format_,
    }
    keywords = {**validator.VALIDATORS, **own}
    return extend(validator, {key: _timed(check) for key, check in keywords.items()})


def _timed(check: Callable[..., Iterable[Any] | None]) -> Callable[..., Any]:
    @wraps(check)
    def timed(*arguments: Any) -> Iterable[Any] | None:
        if time.monotonic() > _clock.deadline:
            raise TimeoutError
        return check(*arguments)

    return timed


def search(pattern: str, text: str) -> bool:
    """Whether a pattern is found in a text."""
    left = _clock.deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return compiled(pattern).search(text, timeout=left) is not None


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> regex.Pattern[str]:
    """The pattern, compiled once."""
    return regex.compile(pattern)


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
