"""A posterior as draws for ArviZ."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from awrs_ppl import __version__
from awrs_ppl._extras import install
from awrs_ppl._messages import quoted
from awrs_ppl._values import count_of, is_number

if TYPE_CHECKING:
    from awrs_ppl.posterior.posterior import Posterior

__all__ = ["arviz_of"]

_VALUE, _CHOICE = "value", " (choice)"
_MOST = 8  # names in a warning


def arviz_of(posterior: Posterior, draws: int, seed: int | None) -> Any:
    """What `Posterior.to_arviz` gives."""
    count = count_of(draws, least=1)
    if count is None:
        raise ValueError(f"draws={quoted(draws)}: it must be an int of at least 1")
    if seed is not None and count_of(seed, least=0) is None:
        raise ValueError(f"seed={quoted(seed)}: it must be an int of at least 0, or None")
    posterior._require()
    arviz = _arviz()
    places = _drawn(posterior._shares, count, np.random.default_rng(seed))
    columns, left_out = _columns(posterior)
    groups: dict[str, dict[str, np.ndarray]] = {"posterior": {}, "texts": {}}
    for name, column in columns.items():
        groups["texts" if column.dtype == object else "posterior"][name] = column[places][None]
    if not columns:
        raise ValueError(
            f"nothing in {posterior!r} is a number or a text for every particle: give some by "
            "posterior.map(f), and then to_arviz()"
        )
    if left_out:
        some = "; ".join(left_out[:_MOST]) + ("; …" if len(left_out) > _MOST else "")
        warnings.warn(
            f"to_arviz leaves out {some}: posterior.map(f) can make a number or a text of values",
            stacklevel=3,  # in what called `Posterior.to_arviz`
        )
    slots = np.array(
        [i for i, t in enumerate(posterior) if t.finished and t.log_weight > -math.inf]
    )
    groups["sample_stats"] = {
        "particle": slots[places][None],
        "log_weight": posterior.log_weights[places][None],
    }
    groups = {name: group for name, group in groups.items() if group}
    made = _grouped(arviz, groups)
    facts = {
        "inference_library": "awrs_ppl",
        "inference_library_version": __version__,
        "log_ml": posterior.log_ml,
        "ess": posterior.ess,
        "particles": len(posterior),
    }
    for name in groups:
        made[name].attrs.update(facts)
    return made


def _arviz() -> Any:
    try:
        with warnings.catch_warnings():
            # It warns of its next version when it is imported.
            warnings.simplefilter("ignore")
            import arviz
    except ImportError as error:
        raise ImportError(f"to_arviz needs arviz: {install('arviz')}") from error
    return arviz


def _grouped(arviz: Any, groups: dict[str, dict[str, np.ndarray]]) -> Any:
    if int(arviz.__version__.split(".")[0]) >= 1:  # from Python 3.12 on
        return arviz.from_dict(groups)
    texts = groups.get("texts")
    made = arviz.from_dict(**{name: group for name, group in groups.items() if name != "texts"})
    if texts:
        made.add_groups({"texts": arviz.dict_to_dataset(texts)})
    return made


def _drawn(shares: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places by their shares, stratified: each is drawn as often as it should be, within 2."""
    ends = np.cumsum(shares)
    points = (np.arange(count) + rng.random(count)) / count
    return rng.permutation(np.searchsorted(ends / ends[-1], points, side="right"))


def _columns(posterior: Posterior) -> tuple[dict[str, np.ndarray], list[str]]:
    """What can be an array over the particles that have a value, by name; what cannot, and why."""
    traces = [t for t in posterior if t.finished and t.log_weight > -math.inf]
    columns: dict[str, np.ndarray] = {}
    left_out: list[str] = []
    values = [trace.value for trace in traces]
    if any(value is not None for value in values):
        _add(columns, left_out, _VALUE, values, "the value")
    taken = {_VALUE, "chain", "draw"}
    given = (n for trace in traces for n, choice in trace.choices.items() if choice.is_given)
    for name in dict.fromkeys(given):
        title = name.replace("/", "_")  # it would be a path in a tree
        while title in taken:
            title += _CHOICE
        taken.add(title)
        shown = f"the choice {quoted(name)}"
        if all(name in trace for trace in traces):
            _add(columns, left_out, title, [trace[name] for trace in traces], shown)
        else:
            left_out.append(f"{shown} (not every particle made it)")
    return columns, left_out


def _add(
    columns: dict[str, np.ndarray], left_out: list[str], title: str, values: list[Any], shown: str
) -> None:
    column = _column(values)
    if column is not None:
        columns[title] = column
        return
    odd = next((value for value in values if not isinstance(value, str)), values[0])
    left_out.append(f"{shown} (neither numbers nor texts alone: {quoted(odd)})")


def _column(values: list[Any]) -> np.ndarray | None:
    """Booleans, int64 or float64, or objects that are texts; None where it is something else."""
    if all(isinstance(value, str) for value in values):
        column = np.empty(len(values), dtype=object)
        column[:] = [str(value) for value in values]
        return column
    if all(isinstance(value, bool | np.bool_) for value in values):
        return np.array(values, dtype=np.bool_)
    if not all(is_number(value) or isinstance(value, bool | np.bool_) for value in values):
        return None
    whole = all(isinstance(value, int | np.integer | np.bool_) for value in values)
    try:
        return np.array(
            [int(v) if whole else float(v) for v in values], dtype="i8" if whole else "f8"
        )
    except OverflowError:
        return None
