"""What a posterior shows of one execution: its choices, by the names of its statements."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from awrs_ppl._messages import escape, safe_repr, shorten
from awrs_ppl.program.log import Record

__all__ = ["Choice", "Partial", "Trace"]

_SHOWN = 6  # at most this many choices are in the repr of a trace


@dataclass(frozen=True, slots=True)
class Choice:
    """What a trace keeps of a record: data, and nothing that the statement was about."""

    value: Any
    log_weight: float
    is_weighted: bool
    is_given: bool


class Partial(NamedTuple):
    """The `generate` in which a program was stopped, its text, and whether that was at its end."""

    name: str
    text: str
    is_over: bool


class Trace(Mapping[str, Any]):
    """One particle's choices by the names of its statements, with `value` and weights.

    A mapping from names to values. `log_weight` is the particle's weight, `log_weights` what
    each statement did to the weight of this lineage (resampling evens weights out, so they
    need not add up); `finished` is false if the model was stopped before its end; `partial` is then
    the `generate` in progress, if there was one: its name, the text so far, and whether that had
    ended and waited for others.

    >>> from awrs_ppl import Categorical
    >>> from awrs_ppl.program.log import Record
    >>> from awrs_ppl.program.statements import Sample
    >>> record = Record(Sample("coin", Categorical(["heads", "tails"])), "heads", 0.0)
    >>> Trace("heads", 0.0, [record])["coin"]
    'heads'
    """

    partial: Partial | None = None  # of those pickled before there was one

    def __init__(
        self,
        value: Any,
        log_weight: float,
        records: Sequence[Record],
        *,
        finished: bool = True,
        partial: Partial | None = None,
    ) -> None:
        self.value = value
        self.log_weight = log_weight
        self.finished = finished
        self.partial = partial
        self._choices = {
            record.statement.name: Choice(
                record.value,
                record.log_weight,
                record.statement.is_weighted,
                record.statement.gives,
            )
            for record in records
        }

    @classmethod
    def of(
        cls,
        value: Any,
        log_weight: float,
        choices: Mapping[str, Choice],
        *,
        finished: bool,
        partial: Partial | None = None,
    ) -> Trace:
        """A trace of `choices` by name, as another has them."""
        trace = cls(value, log_weight, (), finished=finished, partial=partial)
        trace._choices = dict(choices)
        return trace

    @property
    def choices(self) -> Mapping[str, Choice]:
        """The choices by name, each with its value and what it did to the weight."""
        return self._choices

    def weighed(self, shift: float) -> Trace:
        """The same choices with another log-weight."""
        if shift == 0.0:
            return self
        trace = copy.copy(self)
        trace.log_weight = self.log_weight + shift
        return trace

    @property
    def log_weights(self) -> dict[str, float]:
        """What each weighted statement did to the weight."""
        choices = self._choices.items()
        return {name: choice.log_weight for name, choice in choices if choice.is_weighted}

    @property
    def drawn(self) -> list[tuple[str, Any]]:
        """What it has drawn or called for, by name: no observations, and no factors."""
        return [(name, self[name]) for name, choice in self._choices.items() if choice.is_given]

    def __getitem__(self, name: str) -> Any:
        return self._choices[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def __repr__(self) -> str:
        chosen = self.drawn if self.partial is None else [*self.drawn, self.partial[:2]]
        shown = [f"{name}={_short(value)}" for name, value in chosen[:_SHOWN]]
        if len(chosen) > _SHOWN:
            shown.append(f"… {len(chosen) - _SHOWN} more")
        value = _short(self.value) if self.finished else "unfinished"
        return f"<Trace: {', '.join([value, f'log_weight={self.log_weight:.4g}', *shown])}>"


def _short(value: Any) -> str:
    return shorten(escape(safe_repr(value)), 60)
