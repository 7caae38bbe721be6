"""Whether a model that is run again does the same again.

A first reading can skip it: what is compared here leaves a replay as it is, or ends it by an error.
"""

from __future__ import annotations

import math
from typing import Any

from awrs_ppl.distributions import Bernoulli, Categorical, Uniform
from awrs_ppl.errors import ReplayError
from awrs_ppl.program.statements import Statement

__all__ = ["alike", "difference", "ended_early"]

_USUAL_CAUSES = (
    "a model must do the same again with the same values. The usual causes: `random` or the time "
    "outside ctx.sample or ctx.call, the order of a set, a global that changed"
)


def difference(recorded: Statement, made: Statement, strict: bool) -> ReplayError | None:
    """The error where a model made another statement than it had; a `strict` comparison is also
    of what is weighed and drawn from."""
    if (
        recorded.name == made.name
        and type(recorded) is type(made)
        and recorded.fingerprint == made.fingerprint
        and (not strict or alike(recorded.compared, made.compared))
    ):
        return None
    return ReplayError(
        "run again, the model made another request.\n"
        f"  first: {recorded.shows(strict)}\n  now:   {made.shows(strict)}\n{_USUAL_CAUSES}"
    )


def ended_early(missing: Statement) -> ReplayError:
    """The error where a model ended and had made a statement there."""
    return ReplayError(
        f"run again, the model ended where it had made {missing.shows()}: {_USUAL_CAUSES}"
    )


def alike(first: Any, second: Any) -> bool:
    """Whether two values are the same, as far as they can be compared."""
    if isinstance(first, float) and isinstance(second, float):
        return first == second or math.isclose(first, second, rel_tol=1e-6)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(alike, first, second))
    if isinstance(first, Bernoulli | Categorical | Uniform):
        return repr(first) == repr(second)
    # Of distributions of torch and scipy: their parameters.
    if (compared := getattr(first, "compared", None)) is not None:
        return alike(compared, getattr(second, "compared", None))
    plain = str | bytes | int | float | bool | list | dict | set | frozenset
    return first == second if isinstance(first, plain) else True
