"""The parameter `lm` of a model, by which a worker gives it its language model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from awrs_ppl.errors import ModelError
from awrs_ppl.program.execution import Model, name_of_model

__all__ = ["require_lm", "signature", "with_lm"]

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def signature(model: Model) -> str:
    """How a model is to begin."""
    return f"async def {name_of_model(model).rpartition('.')[2]}(ctx, lm, ...)"


def require_lm(model: Model) -> None:
    """Raises `ModelError` for a model that takes no `lm`."""
    parameters = _parameters(model)
    if any(p.name == "lm" or p.kind is p.VAR_KEYWORD for p in parameters):
        return
    name = name_of_model(model)
    raise ModelError(
        f"the model {name} has no parameter lm: write `{signature(model)}`, and it is given the "
        "language model of its worker"
    )


def with_lm(model: Model, lm: Any, args: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments and keywords of a model with `lm`, which stands where the model has it."""
    names = [p.name for p in _parameters(model) if p.kind in _BY_PLACE]
    place = names.index("lm") - 1 if "lm" in names else -1  # behind the context
    if 0 <= place <= len(args):
        return [*args[:place], lm, *args[place:]], {}
    return list(args), {"lm": lm}


def _parameters(model: Model) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(model).parameters.values())
    except (TypeError, ValueError):
        return []
