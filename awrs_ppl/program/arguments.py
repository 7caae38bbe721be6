"""What the statements of a model may be given.

A first reading can skip it: each function gives its argument as the statement uses it, and raises
a `ModelError` that says what to write where it is hardly what is meant.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from awrs_ppl._messages import quoted
from awrs_ppl.distributions import Distribution, as_number
from awrs_ppl.errors import ModelError
from awrs_ppl.foreign import adapted

__all__ = [
    "distribution_of",
    "function_of",
    "log_prob",
    "log_weight_of",
    "name_of",
    "truth_of",
    "unknown_option",
]


def name_of(kind: str, name: str | None) -> str | None:
    """The name of a statement, or None."""
    if name is not None and not isinstance(name, str):
        raise ModelError(f"ctx.{kind} got name={name!r}: a name is a str")
    return name


# Options of a prompt, which are looked for at the statement that draws from it.
_OF_PROMPTS = ("stop", "temperature")


def unknown_option(given: Iterable[str], method: Callable[..., Any]) -> TypeError:
    """The error for an option that a method of `ctx` does not have."""
    name, what = next(iter(given)), f"ctx.{method.__name__}"
    if name in _OF_PROMPTS:
        return TypeError(f"{what} got {name}=...: it belongs to the prompt, lm(..., {name}=...)")
    parameters = inspect.signature(method).parameters.values()
    options = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    near = difflib.get_close_matches(name, options, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return TypeError(f"{what} got {name}=...: {meant}its options are {', '.join(options)}")


def distribution_of(given: Any) -> Any:
    """What `ctx.sample` draws from."""
    found = adapted(given)
    if isinstance(found, type) or not isinstance(found, Distribution):
        raise ModelError(
            f"ctx.sample got {quoted(given)}: it needs an object with sample(rng), rng a numpy "
            "Generator, and log_prob(x), such as Categorical(['a', 'b']), or a distribution of "
            "torch or scipy, such as scipy.stats.norm(0, 1)"
        )
    return found


def log_prob(distribution: Distribution, value: Any) -> float:
    """What a distribution says of a value: a number or -inf."""
    found = distribution.log_prob(value)
    number = as_number(found)
    if math.isnan(number) or number == math.inf:
        raise ModelError(
            f"{distribution!r}.log_prob({value!r}) is {quoted(found)}: it must be a number or -inf"
        )
    return number


def log_weight_of(given: Any) -> float:
    """The log-weight of a factor: a number or -inf."""
    number = as_number(given)
    if isinstance(given, bool | np.bool_) or math.isnan(number) or number == math.inf:
        raise ModelError(
            f"ctx.factor got {quoted(given)}: a log-weight is a number or -inf; "
            + (_slip(given) or "for a probability p write ctx.factor(math.log(p))")
        )
    return number


def function_of(given: Any) -> Callable[..., Any]:
    """What `ctx.call` calls."""
    if not callable(given):
        raise ModelError(f"ctx.call got {given!r}: write ctx.call(function, *args)")
    return given


def truth_of(ok: Any) -> bool:
    """What a condition says."""
    slip = _slip(ok)
    if slip is None and isinstance(ok, str | bytes):
        slip = "a text is true unless it is empty: compare it, as in text == 'yes'"
    if slip is None and isinstance(ok, list | tuple | set | frozenset | dict) and _is_several(ok):
        slip = "it is true unless it is empty: put all(...) or any(...) around it"
    if slip is None and not (hasattr(type(ok), "__bool__") or hasattr(type(ok), "__len__")):
        slip = "it is always true: write a comparison, such as ... is not None"
    if slip is not None:
        raise ModelError(f"ctx.condition got {quoted(ok)}; {slip}")
    try:
        if ok != ok:
            raise ModelError(
                f"ctx.condition got {quoted(ok)}, which is neither true nor false: compare what "
                "it was computed from"
            )
        return bool(ok)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        # Of torch, numpy, pandas and decimal.
        raise ModelError(
            f"ctx.condition got {quoted(ok)}, which is neither true nor false: {error}"
        ) from error


def _is_several(values: Any) -> bool:
    return len(values) > 0 and all(isinstance(value, bool | np.bool_) for value in values)


def _slip(value: Any) -> str | None:
    """The mistake that most often brings such a value, and what to write instead."""
    if value is None:
        return "a function that ends without `return` gives None: does one lack it?"
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()  # or Python warns that it was never awaited
        return "it is always true: await it first"
    if inspect.isasyncgen(value) or isinstance(value, Iterator):
        return "it is always true: put all(...) or any(...) around it"
    if callable(value):
        shown = getattr(value, "__name__", "f").replace("<lambda>", "f")
        return f"a function is always true: call it, as in {shown}(...)"
    return None
