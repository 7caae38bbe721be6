"""Which keyword arguments are the model's, and which are options."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from awrs_ppl._messages import joined
from awrs_ppl.program.execution import Model, name_of_model, require_model

__all__ = ["with_keywords"]

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def with_keywords(
    function: Callable[..., Any], model: Model, args: Sequence[Any], keywords: Mapping[str, Any]
) -> Model:
    """The model with the keyword arguments that are no options of `function`.

    Raises `TypeError` for one that the model does not take either; and where a parameter of the
    model has the name of an option, so that a keyword could be meant for both: unless it is given
    by position, or bound by `functools.partial`.
    """
    require_model(model)
    caller, called = function.__name__, name_of_model(model)
    options = [p.name for p in _parameters(function) or () if p.kind is p.KEYWORD_ONLY]
    parameters = _parameters(model)
    if parameters is not None:
        if not any(p.kind in (*_PLACED, p.VAR_POSITIONAL) for p in parameters):
            raise TypeError(
                f"the model {called} takes no context: its first parameter is ctx, as in "
                f"async def {called}(ctx)"
            )
        first, *rest = [p.name for p in parameters if p.kind in _PLACED] or [""]
        placed = rest[: len(args)]
        names = [p.name for p in parameters if p.kind in _NAMED and p.name != first]
        both = [n for n in names if n in options and n not in (*placed, *_bound(model))]
        if both:
            raise TypeError(
                f"the model {called} has the parameter{'s' * (len(both) > 1)} "
                f"{joined(both)}, which {'are options' if len(both) > 1 else 'is an option'} of "
                f"{caller}: bind it by functools.partial({called}, {both[0]}=...), give it "
                "by position, or name it otherwise"
            )
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        for name in keywords:
            if name == first:
                raise TypeError(f"{caller} got {name}=...: it gives the model its {name} itself")
            if name in placed:
                raise TypeError(
                    f"{caller} got {name!r} of the model {called} twice, by position and as "
                    f"{name}=...: leave one out"
                )
            if name not in names and not takes_any:
                raise _unknown(name, caller, options, model, names)
    if not keywords:
        return model
    return functools.update_wrapper(functools.partial(model, **keywords), model, updated=())


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """None where Python cannot say, as of some functions in C."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def _bound(model: Any) -> set[str]:
    """The parameters that `functools.partial` has bound by name."""
    found = set[str]()
    while isinstance(model, functools.partial):
        found |= model.keywords.keys()
        model = model.func
    return found


def _unknown(
    name: str, caller: str, options: Sequence[str], model: Model, names: Sequence[str]
) -> TypeError:
    called = name_of_model(model)
    alike = difflib.get_close_matches(name, [*names, *options], n=1)
    guess = f": did you mean {alike[0]}?" if alike else ":"
    takes = f"takes {joined(names)}" if names else "takes no arguments but its context"
    return TypeError(
        f"{caller} got an unexpected keyword argument {name!r}{guess} The model {called} "
        f"{takes}; the options of {caller} are {joined(options)}"
    )
