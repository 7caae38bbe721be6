"""A posterior as plain data and back: what a saved file has in it.

What runs share with the posterior that pools them stands once, in tables: `choices` by particle,
`syncs` and `deaths`; the rest names them by their index. Fields go by name, so that of a file
without a newer field its default is read.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from awrs_ppl._messages import quoted, safe_repr, shorten
from awrs_ppl.posterior._plain_values import NotPlain, decoded, encoded, type_name
from awrs_ppl.posterior.records import Death, Effort, Loss, Sync
from awrs_ppl.program.trace import Choice, Partial, Trace
from awrs_ppl.stats import Stats

if TYPE_CHECKING:
    from awrs_ppl.posterior.posterior import Posterior

__all__ = ["content_of", "posterior_of"]

_MOST_OF_A_REPR = 1000
# Of the attributes of a posterior: what has its own place in a file, and what follows from that.
_PLACED = {"_traces", "parts", "history", "deaths", "stats", "efforts"}
_PLAIN = ("kills", "seed", "stopped", "is_proper", "free")
_COMPUTED = {"alive", "dead", "values", "log_weights", "unfinished"}


class _Table:
    """Objects, each once."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._places: dict[int, int] = {}

    def place(self, item: Any) -> int:
        """The index of an object; it stays in the table, so that its id is its own."""
        place = self._places.setdefault(id(item), len(self.items))
        if place == len(self.items):
            self.items.append(item)
        return place


def content_of(posterior: Posterior) -> dict[str, Any]:
    """What a file has of a posterior, as `json` writes it.

    Raises `TypeError` naming a value of a type that cannot be saved; warns of such a choice.
    """
    choices, syncs, deaths = _Table(), _Table(), _Table()
    whole = _written(posterior, choices, syncs, deaths)
    return {
        "choices": _written_choices(choices.items),
        "syncs": _columns(Sync, syncs.items),
        "deaths": _columns(Death, deaths.items),
        "posterior": whole,
    }


def posterior_of(content: dict[str, Any], kind: type[Posterior]) -> Posterior:
    """The posterior of such data; raises various errors for any other."""
    choices = [
        {name: Choice(*rest) for name, *rest in decoded(rows)} for rows in content["choices"]
    ]
    syncs = []
    for row in _rows(content["syncs"]):
        losses = tuple(_record(Loss, loss) for loss in row.pop("losses", ()))
        syncs.append(Sync(**row, losses=losses))
    deaths = [Death(**row) for row in _rows(content["deaths"])]
    return _read(content["posterior"], kind, choices, syncs, deaths)


def _written(
    posterior: Posterior, choices: _Table, syncs: _Table, deaths: _Table
) -> dict[str, Any]:
    state = posterior._state()
    more = {k: v for k, v in state.items() if k not in {*_PLACED, *_PLAIN, *_COMPUTED}}
    return {
        "traces": {
            "value": [_written_value(trace, i) for i, trace in enumerate(posterior)],
            "log_weight": [encoded(trace.log_weight) for trace in posterior],
            "finished": [bool(trace.finished) for trace in posterior],
            "partial": [trace.partial and encoded(tuple(trace.partial)) for trace in posterior],
            "choices": [choices.place(trace.choices) for trace in posterior],
        },
        **{name: encoded(state[name]) for name in _PLAIN},
        "stats": encoded(posterior.stats),
        "efforts": encoded(posterior.efforts),
        "history": [syncs.place(sync) for sync in posterior.history],
        "deaths": [deaths.place(death) for death in posterior.deaths],
        "more": encoded(more),
        "parts": [_written(part, choices, syncs, deaths) for part in posterior.parts],
    }


def _read(
    data: dict[str, Any],
    kind: type[Posterior],
    choices: Sequence[dict[str, Choice]],
    syncs: Sequence[Sync],
    deaths: Sequence[Death],
) -> Posterior:
    traces = [
        Trace.of(
            row["value"],
            row["log_weight"],
            choices[row["choices"]],
            finished=row["finished"],
            partial=row["partial"] and Partial(*row["partial"]),
        )
        for row in _rows(data["traces"])
    ]
    made = kind(
        traces,
        **{name: decoded(data[name]) for name in _PLAIN},
        stats=_record(Stats, decoded(data["stats"])),
        efforts={name: _record(Effort, e) for name, e in decoded(data["efforts"]).items()},
        history=[syncs[place] for place in data["history"]],
        deaths=[deaths[place] for place in data["deaths"]],
        parts=[_read(part, kind, choices, syncs, deaths) for part in data["parts"]],
    )
    vars(made).update(decoded(data["more"]))
    return made


def _written_value(trace: Trace, place: int) -> Any:
    try:
        return encoded(trace.value)
    except NotPlain as error:
        if trace.log_weight == -math.inf:  # no value of the posterior, and `map` leaves it
            return encoded(_as_text(trace.value))
        raise TypeError(
            f"the value of particle {place} cannot be saved: {quoted(trace.value)} ({error}); save "
            "posterior.map(f) with an f that gives plain data, such as text, numbers, lists or "
            "dicts"
        ) from error


def _written_choices(tables: Iterable[dict[str, Choice]]) -> list[Any]:
    """Rows of name, value, log-weight, whether weighted and whether given, for each particle."""
    written, odd = [], []
    for table in tables:
        rows = []
        for name, choice in table.items():
            try:
                value = encoded(choice.value)
            except NotPlain:
                value = encoded(_as_text(choice.value))
                odd.append(f"{quoted(name)} that is {quoted(choice.value)}")
            rest = encoded([choice.log_weight, choice.is_weighted, choice.is_given])
            rows.append([encoded(name), value, *rest])
        written.append(rows)
    if odd:
        warnings.warn(
            f"choices that are no plain data are saved as text, {len(odd):,} of them: the first is "
            f"{odd[0]}",
            stacklevel=5,  # in whatever called `Posterior.save`
        )
    return written


def _as_text(value: Any) -> dict[str, str]:
    return {"__type__": type_name(value), "repr": shorten(safe_repr(value), _MOST_OF_A_REPR)}


def _columns(kind: Any, records: Sequence[Any]) -> dict[str, list[Any]]:
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: [encoded(getattr(record, name)) for record in records] for name in names}


def _rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    rows = zip(*map(decoded, columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _record(kind: Any, fields: dict[str, Any]) -> Any:
    return kind(**{name: value for name, value in fields.items() if name != "__type__"})
