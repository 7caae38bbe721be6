"""A posterior as JSON, as a table, and as a pickle."""

from __future__ import annotations

import json
import math
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awrs_ppl import _messages, _values
from awrs_ppl._extras import install
from awrs_ppl.posterior._certain import is_sampled

if TYPE_CHECKING:
    import pandas as pd

    from awrs_ppl.posterior.posterior import Posterior
    from awrs_ppl.program.trace import Trace

__all__ = ["data_frame", "everything", "name_unpicklable", "require_picklable", "written"]

_COLUMNS = ("value", "log_weight", "probability", "finished")


def everything(posterior: Posterior) -> Any:
    """What `Posterior.to_json` writes, as plain data."""
    stats = posterior.stats
    return _values.plain(
        {
            "n_particles": len(posterior),
            "seed": posterior.seed,
            "stopped": posterior.stopped,
            "log_ml": posterior.log_ml,
            "ess": posterior.ess,
            "alive": posterior.alive,
            "dead": posterior.dead,
            "unfinished": posterior.unfinished,
            "probabilities": [
                {"value": value, "probability": share} for _, value, share in posterior._results
            ],
            "particles": _rows(posterior),
            "kills": posterior.kills,
            "stats": asdict(stats) | {"checks_per_token": stats.checks_per_token},
            "history": [
                {"ess": sync.ess, "alive": sync.alive, "ancestors": sync.ancestors}
                for sync in posterior.history
            ],
            "statements": [
                asdict(cost)
                for cost in (posterior.explain().statements if is_sampled(posterior) else ())
            ],
            "method": posterior.method,
            "log_ml_bounds": posterior.log_ml_bounds,
            "deaths": [asdict(death) for death in posterior.deaths],
        }
    )


def data_frame(posterior: Posterior) -> pd.DataFrame:
    """What `Posterior.to_dataframe` gives."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            f"to_dataframe needs pandas: {install('display')}; to_json needs nothing more"
        ) from error

    rows = _rows(posterior)
    columns = {name: [row[name] for row in rows] for name in _COLUMNS}
    for name in dict.fromkeys(name for row in rows for name in row["choices"]):
        title = f"{name} (choice)" if name in _COLUMNS else name
        columns[title] = [row["choices"].get(name) for row in rows]
    return pd.DataFrame({name: _values.series(column) for name, column in columns.items()})


def written(content: Any, path: str | os.PathLike[str] | None) -> str:
    """Content as strict JSON in ASCII, also written to the file `path` if given."""
    text = json.dumps(content, allow_nan=False)
    if path is not None:
        Path(path).write_text(text + "\n", encoding="ascii")
    return text


def require_picklable(posterior: Posterior) -> None:
    """Raises `pickle.PicklingError` that names the first value that cannot be pickled."""
    try:
        pickle.dumps([value for _, value in _named_values(posterior)])
    except Exception:
        # What pickles us may do more than `pickle`, with functions for instance.
        if not _pickled_by("cloudpickle", "dill"):
            name_unpicklable(posterior, pickle.dumps)


def name_unpicklable(posterior: Posterior, dumps: Callable[[Any], Any]) -> None:
    """Raises `pickle.PicklingError` that names the first value on which `dumps` raises."""
    for what, value in _named_values(posterior):
        try:
            dumps(value)
        except Exception as error:
            raise pickle.PicklingError(
                f"the posterior cannot be pickled: {what} is {_messages.quoted(value)}, which "
                f"cannot ({error}); have the model return data, such as text, numbers, tuples, "
                "or an object of a class at the top of a module"
            ) from error


def _named_values(posterior: Posterior) -> Iterator[tuple[str, Any]]:
    for i, trace in enumerate(posterior):
        yield f"the value of particle {i}", trace.value
        for name, value in trace.items():
            yield f"{name!r} of particle {i}", value


def _pickled_by(*names: str) -> bool:
    """Whether a module of such a name is on the call stack."""
    frame = sys._getframe(1)
    while frame is not None:
        if not set(names).isdisjoint(frame.f_globals.get("__name__", "").split(".")):
            return True
        frame = frame.f_back
    return False


def _rows(posterior: Posterior) -> list[dict[str, Any]]:
    shares = iter(posterior._shares.tolist())
    return [
        {
            "value": trace.value,
            "log_weight": trace.log_weight,
            "probability": next(shares) if trace.finished and trace.log_weight > -math.inf else 0.0,
            "finished": trace.finished,
            "choices": _choices(trace),
        }
        for trace in posterior
    ]


def _choices(trace: Trace) -> dict[str, Any]:
    """The named values of a trace; `observe`, `factor` and `condition` give none."""
    weighted = trace.log_weights
    return {
        name: value for name, value in trace.items() if not (name in weighted and value is None)
    }
