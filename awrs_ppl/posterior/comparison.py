"""Programs compared by their evidences: a table with standard errors and Bayes factors."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape as html_escape
from typing import TYPE_CHECKING

import numpy as np

from awrs_ppl._extras import install
from awrs_ppl._messages import cells_of, quoted
from awrs_ppl.log_weights import log_mean
from awrs_ppl.posterior._style import page, safe
from awrs_ppl.posterior.posterior import Posterior

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "Evidence", "compare"]

_WIDTH, _NAME, _HTML_NAME = 100, 40, 140
_TITLES = ("log evidence", "error", "runs", "Bayes factor", "error")
_NONE = "—"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one program, and its Bayes factor against the program with the most.

    `log_ml` is the logarithm of the evidence and `error` its standard error over `runs`, None where
    one run or none has survivors. `log_bayes_factor` is `log_ml` less that of the best, at most 0,
    and NaN where no program has evidence; `log_bayes_factor_error` is its standard error, of
    programs that were run independently: 0 for the best, None where an error of the two is.

    >>> Evidence("a", -1.0, 0.1, 4, math.log(0.25), 0.2).bayes_factor_error
    0.05
    """

    name: str
    log_ml: float
    error: float | None
    runs: int
    log_bayes_factor: float
    log_bayes_factor_error: float | None

    @property
    def bayes_factor(self) -> float:
        """How many times the evidence of the best it has: at most 1."""
        return math.exp(self.log_bayes_factor)

    @property
    def bayes_factor_error(self) -> float | None:
        """The standard error of the Bayes factor, by the delta method."""
        error = self.log_bayes_factor_error
        return None if error is None else self.bayes_factor * error


@dataclass(frozen=True)
class Comparison(Mapping[str, Evidence]):
    """What `compare` gives: as text, as HTML in a notebook, and as data.

    A mapping from names to `Evidence`, the most evidence first. `notes` has sentences on what the
    numbers do not say.
    """

    evidences: tuple[Evidence, ...]
    notes: tuple[str, ...]

    @property
    def best(self) -> str:
        """The name of the program with the most evidence; of several the first."""
        return self.evidences[0].name

    def to_dataframe(self) -> pd.DataFrame:
        """One row for each program, by name: log_ml, error, runs, log_bayes_factor, its error,
        bayes_factor and its error. What is not known is NaN. Needs the extra `display`."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(f"to_dataframe needs pandas: {install('display')}") from error
        rows = [
            asdict(e) | {"bayes_factor": e.bayes_factor, "bayes_factor_error": e.bayes_factor_error}
            for e in self.evidences
        ]
        frame = pd.DataFrame(rows).set_index("name")
        return frame.astype({name: float for name in frame.columns if name != "runs"})

    def __getitem__(self, name: str) -> Evidence:
        for evidence in self.evidences:
            if evidence.name == name:
                return evidence
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter([evidence.name for evidence in self.evidences])

    def __len__(self) -> int:
        return len(self.evidences)

    def __str__(self) -> str:
        widths = (14, 9, 6, 14, 11)
        pad = max(7, *(sum(map(cells_of, safe(name, _NAME))) for name in self)) + 2
        titles = "".join(f"{title:>{w}}" for title, w in zip(_TITLES, widths, strict=True))
        lines = [f"  {'program':<{pad}}{titles}"]
        for evidence in self.evidences:
            name = safe(evidence.name, _NAME)
            cells = zip(_cells(evidence), widths, strict=True)
            blanks = " " * (pad - sum(map(cells_of, name)))
            lines.append(f"  {name}{blanks}{''.join(f'{cell:>{w}}' for cell, w in cells)}")
        lines += [""] if self.notes else []
        for note in self.notes:
            lines += textwrap.wrap(
                note,
                _WIDTH,
                initial_indent="  - ",
                subsequent_indent="    ",
                break_on_hyphens=False,
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Comparison of {len(self)}: {quoted(self.best)} has the most evidence; print it>"

    def _repr_html_(self) -> str:
        e = html_escape
        head = "".join(f'<th scope="col" class="awrs-number">{title}</th>' for title in _TITLES)
        rows = []
        for evidence in self.evidences:
            cells = "".join(f'<td class="awrs-number">{e(c)}</td>' for c in _cells(evidence))
            name = e(safe(evidence.name, _HTML_NAME))
            rows.append(f'<tr><td class="awrs-value"><code>{name}</code></td>{cells}</tr>')
        notes = "".join(f'<p class="awrs-note">{e(note)}</p>' for note in self.notes)
        return page(
            f'<table><thead><tr><th scope="col" class="awrs-value">program</th>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table>{notes}"
        )


def compare(posteriors: Mapping[str, Posterior]) -> Comparison:
    """The evidences of several programs on the same data, with Bayes factors against the best.

    Give posteriors by name, each of several runs (`infer(..., runs=k)` or `Posterior.pool`): the
    standard error of `log_ml` is that of the mean of the evidences of its runs over this mean (the
    delta method). One run has no error: a dash, and a note.

    What misleads: of few runs the error is itself rough, by about a quarter of it with 8. Where
    evidences have heavy tails, a few runs carry the mean: most lack them, and both `log_ml` and
    the error are too low. The error is then near its largest possible value, 1, and no longer
    grows; `diagnose()` shows the runs, and its jackknife error does grow. More particles help
    before more runs do. Errors of Bayes factors take the programs' runs as independent, so
    give each another `seed`.

    A program that kept no particle alive has `log_ml` -inf, and a Bayes factor of 0: no text that
    it allows was met, which a note says. Raises `ValueError` for no posteriors, and for one without
    evidence (NaN: a proposal's weights are not proper), and `TypeError` for anything else.

    >>> from awrs_ppl import Bernoulli, run
    >>> async def coin(ctx, heads, p):
    ...     for _ in range(heads):
    ...         await ctx.observe(Bernoulli(p), True)
    >>> fair = run(coin, 3, 0.5, runs=4, seed=0, progress=False)
    >>> loaded = run(coin, 3, 0.9, runs=4, seed=1, progress=False)
    >>> print(compare({"fair": fair, "loaded": loaded}))
      program    log evidence    error  runs  Bayes factor      error
      loaded            -0.32    ±0.00     4             1          —
      fair              -2.08    ±0.00     4         0.171          —
    """
    if not isinstance(posteriors, Mapping):
        raise TypeError(
            f"compare got {quoted(posteriors)}: give it posteriors by name, as in "
            'compare({"one": posterior, "other": another})'
        )
    if not posteriors:
        raise ValueError('compare got no posteriors: give it some, as in {"one": posterior}')
    for name, posterior in posteriors.items():
        _require(name, posterior)
    ordered = sorted(posteriors.items(), key=lambda item: -item[1].log_ml)
    _, best = ordered[0]
    evidences = [_evidence(name, posterior, best) for name, posterior in ordered]
    return Comparison(tuple(evidences), tuple(_notes(ordered)))


def _require(name: str, posterior: Posterior) -> None:
    if not isinstance(name, str):
        raise TypeError(f"compare got the name {quoted(name)}: names of posteriors are text")
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"compare got {quoted(posterior)} for {quoted(name)}: give it what infer or run returns"
        )
    if math.isnan(posterior.log_ml):
        raise ValueError(
            f"{quoted(name)} has no evidence to compare ({posterior!r}): its weights are not "
            "proper; infer it with proposals whose weights are, such as AWRS()"
        )


def _evidence(name: str, posterior: Posterior, best: Posterior) -> Evidence:
    error, factor_error = _error(posterior), None
    if posterior is best and posterior.log_ml > -math.inf:
        factor_error = 0.0
    elif error is not None and (of_best := _error(best)) is not None:
        factor_error = math.hypot(error, of_best)
    return Evidence(
        name=name,
        log_ml=posterior.log_ml,
        error=error,
        runs=len(posterior.parts) or 1,
        log_bayes_factor=posterior.log_ml - best.log_ml,
        log_bayes_factor_error=factor_error,
    )


def _error(posterior: Posterior) -> float | None:
    """The standard error of the mean evidence of the runs, over this mean."""
    log_mls = [part.log_ml for part in posterior.parts]
    if len(log_mls) < 2 or posterior.log_ml == -math.inf:
        return None
    relative = np.exp(np.array(log_mls) - log_mean(log_mls))
    return float(relative.std(ddof=1) / math.sqrt(len(log_mls)))


def _notes(posteriors: Sequence[tuple[str, Posterior]]) -> Iterator[str]:
    for name, posterior in posteriors:
        shown, runs = safe(quoted(name), _NAME), len(posterior.parts)
        dead = sum(part.log_ml == -math.inf for part in posterior.parts)
        if posterior.stopped:
            yield f"{shown} {posterior.stopped}, so its evidence is too low in expectation."
        if posterior.log_ml == -math.inf and not posterior.alive:
            yield (
                f"{shown} has no survivors: its evidence is estimated as 0, as no particle met a "
                "text that it allows, which is no proof that there is none; try more particles."
            )
        elif 0 < dead < runs:
            yield f"{dead:,} of {runs:,} runs of {shown} have no values, and count as 0."
    single = [safe(quoted(name), _NAME) for name, one in posteriors if len(one.parts) < 2]
    if single:
        some = ", ".join(single[:6]) + (", …" if len(single) > 6 else "")
        yield f"One run gives no standard error ({some}): infer with runs=8, or more."


def _cells(evidence: Evidence) -> tuple[str, str, str, str, str]:
    known = not math.isnan(evidence.log_bayes_factor)
    factor_error = evidence.bayes_factor_error
    return (
        f"{evidence.log_ml:.2f}",
        _NONE if evidence.error is None else _shown(evidence.error),
        f"{evidence.runs:,}",
        f"{evidence.bayes_factor:.3g}" if known else _NONE,
        f"±{factor_error:.2g}" if factor_error is not None and factor_error > 0 else _NONE,
    )


def _shown(error: float) -> str:
    """Exactly nothing only where runs cannot differ."""
    return "±<0.01" if 1e-9 < error < 0.005 else f"±{error:.2f}"
