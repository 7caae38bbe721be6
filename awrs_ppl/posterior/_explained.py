"""An explanation as text for a terminal, and as HTML for a notebook."""

from __future__ import annotations

import math
import textwrap
from html import escape as html_escape
from typing import TYPE_CHECKING

from awrs_ppl._messages import cells_of, shorten
from awrs_ppl.posterior import _deaths
from awrs_ppl.posterior._style import page, percent, plural, safe

if TYPE_CHECKING:
    from awrs_ppl.posterior.explanation import Deaths, Explanation, StatementCost

__all__ = ["html", "text"]

_WIDTH = 100
_NAME, _HTML_NAME = 44, 140
_ROWS, _LINES = 12, 8
_DIGITS = 0.005  # log evidences are shown with two digits
_TEXT = 40


def text(explanation: Explanation) -> str:
    """A table of statements, and sentences, in 100 columns."""
    titles = ("log evidence", "factor", "deaths", "tokens", "checks", "seconds")
    widths = (12, 8, 7, 8, 8, 8)
    lines = [_title(explanation), ""]
    numbers = "".join(f"{title:>{w}}" for title, w in zip(titles, widths, strict=True))
    lines.append(f"  {'statement':<{_NAME}}{numbers}")
    for name, row in _rows(explanation, _NAME - 1):
        numbers = "".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True))
        pad = _NAME - sum(map(cells_of, name))
        lines.append(f"  {name}{' ' * pad}{numbers}".rstrip())
    for title, sentences in _sections(explanation):
        lines += ["", f"{title}:"]
        for sentence in sentences:
            lines += textwrap.wrap(
                sentence,
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="    ",
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def html(explanation: Explanation) -> str:
    """The same, static and escaped."""
    return page(f"<p>{html_escape(_title(explanation))}</p>{body(explanation)}")


def body(explanation: Explanation) -> str:
    """The content of the page, also a part of a posterior's HTML."""
    e = html_escape
    titles = ("log evidence", "deaths", "checks", "seconds")
    head = "".join(f'<th scope="col" class="awrs-number">{title}</th>' for title in titles)
    rows = []
    for name, (evidence, _, deaths, _, checks, seconds) in _rows(explanation, _HTML_NAME):
        numbers = "".join(
            f'<td class="awrs-number">{e(cell)}</td>'
            for cell in (evidence, deaths, checks, seconds)
        )
        kind = "awrs-part" if name.startswith(" ") else "awrs-value"
        rows.append(f'<tr><td class="{kind}"><code>{e(name.strip())}</code></td>{numbers}</tr>')
    sections = "".join(
        f"<p><b>{title}</b></p><ul>{''.join(f'<li>{e(sentence)}</li>' for sentence in sentences)}"
        "</ul>"
        for title, sentences in _sections(explanation)
    )
    return (
        f'<table><thead><tr><th scope="col" class="awrs-value">statement</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>{sections}"
    )


def _title(explanation: Explanation) -> str:
    n = explanation.n_particles
    evidence = "no evidence (a proposal whose weights are not proper)"
    if not math.isnan(explanation.log_ml):
        evidence = f"log evidence {_number(explanation.log_ml)}"
    return f"Where the weight of {n:,} particle{plural(n)} went: {evidence}"


Row = tuple[str, tuple[str, str, str, str, str, str]]


def _rows(explanation: Explanation, width: int) -> list[Row]:
    """The costliest statements in the order of the program, each with its parts."""
    costs = explanation.statements
    kept = sorted(costs, key=_weight)[:_ROWS]
    rows: list[Row] = []
    for cost in costs:
        if cost not in kept:
            continue
        rows.append((safe(cost.name, width), _figures(cost)))
        if len(cost.parts) > 1 or (cost.parts and cost.name not in cost.parts):
            for part, loss in cost.parts.items():
                evidence = (_number(loss), _factor(loss), "", "", "", "")
                rows.append((f"  {safe(part, width - 2)}", evidence))
    if others := [cost for cost in costs if cost not in kept]:
        loss = sum(cost.log_evidence for cost in others)
        deaths = sum(cost.deaths for cost in others)
        rest = (_number(loss), _factor(loss), f"{deaths:,}", "", "", "")
        rows.append((f"{len(others):,} more statement{plural(len(others))}", rest))
    if explanation.unfinished:
        loss = explanation.unfinished
        left = (_number(loss), _factor(loss), "", "", "", "")
        rows.append(("left unfinished at the stop", left))
    if abs(explanation.chance) >= _DIGITS:
        loss = explanation.chance
        rows.append(("which children were chosen", (_number(loss), _factor(loss), "", "", "", "")))
    if not rows:
        rows.append(("no statement has changed the weight", ("", "", "", "", "", "")))
    return rows


def _weight(cost: StatementCost) -> tuple[float, int]:
    return -abs(cost.log_evidence), -cost.deaths


def _figures(cost: StatementCost) -> tuple[str, str, str, str, str, str]:
    loss = cost.log_evidence
    counts = (f"{cost.deaths:,}", f"{cost.tokens:,}", f"{cost.checks:,}")
    return _number(loss), _factor(loss), *counts, f"{cost.seconds:.2f}"


def _sections(explanation: Explanation) -> list[tuple[str, list[str]]]:
    found = []
    if explanation.deaths:
        n = explanation.n_particles
        sentences = [_death(deaths, n - explanation.free) for deaths in explanation.deaths[:_LINES]]
        if rest := explanation.deaths[_LINES:]:
            count = sum(deaths.count for deaths in rest)
            sentences.append(f"{count:,} more in {len(rest):,} other place{plural(len(rest))}")
        found.append(("What killed particles", sentences))
    if forced := [cost for cost in explanation.statements if cost.forced]:
        sentences = [_forced(cost) for cost in forced[:_LINES]]
        if rest := forced[_LINES:]:
            count = sum(cost.forced for cost in rest)
            sentences.append(f"{count:,} more in {len(rest):,} other statement{plural(len(rest))}")
        found.append(("What max_tokens ended", sentences))
    if explanation.checks:
        checks, rejections = list(explanation.checks.items()), explanation.rejections
        sentences = [
            f"{safe(name, 60)} was evaluated {count:,} time{plural(count)} and rejected "
            f"{rejections.get(name, 0):,}, in {explanation.seconds.get(name, 0.0):.2f} s"
            for name, count in checks[:_LINES]
        ]
        if rest := checks[_LINES:]:
            total = sum(count for _, count in rest)
            sentences.append(f"{len(rest):,} others were evaluated {total:,} times")
        found.append(("Checks", sentences))
    found.append(("Particles", _comparisons(explanation)))
    return found


def _death(deaths: Deaths, n: int) -> str:
    statement = safe(deaths.statement, 40)
    number = f"{deaths.count:,} of {n:,} particle{plural(n)}"
    if deaths.killer in (f"condition {statement!r}", f"factor {statement!r}"):
        return f"{statement} killed {number}"
    where = f"at token {deaths.token:,} of {statement}" if deaths.token else f"in {statement}"
    sentence = f"{_deaths.subject(deaths.killer, 60)} killed {number} {where}"
    if not deaths.text:
        remedy = _deaths.remedy(deaths.killer)
        return f"{sentence}: {remedy}" if remedy else sentence
    shown = shorten(deaths.text, _TEXT, tail=_TEXT - 1)
    return f"{sentence}, after {safe(repr(shown), 60)}"


def _forced(cost: StatementCost) -> str:
    share = "none of them with weight at the end"
    if cost.forced_share:
        share = f"with {percent(cost.forced_share)} of the weight at the end"
    return f"{cost.forced:,} text{plural(cost.forced)} of {safe(cost.name, 40)}, {share}"


def _comparisons(explanation: Explanation) -> list[str]:
    n, count = explanation.n_particles, explanation.resamplings
    importance, accepted = explanation.importance, explanation.accepted
    sentences = []
    if count and explanation.lineages:
        sentences.append(
            f"resampled {count:,} time{plural(count)}; those with weight at the end descend from "
            f"{explanation.lineages:,} of the first {n:,}"
        )
    if importance is not None:
        low, high = importance.interval
        sentences.append(
            f"importance sampling with {n:,} particles (the same proposals, never resampled) would "
            f"have an ESS of about {importance.ess:,.1f} ({low:,.1f} to {high:,.1f})"
        )
    elif count:
        sentences.append(f"importance sampling: not compared, {explanation.why_not}")
    else:
        sentences.append("never resampled: this run is importance sampling itself")
    if accepted:
        often = percent(accepted) if accepted > 0.01 else f"1 in {1 / accepted:,.0f}"
        sentences.append(
            "the language model alone, drawing without guidance, would keep to all of this in "
            f"{often} of its runs"
        )
    return sentences


def _number(log_weight: float) -> str:
    return f"{log_weight + 0.0:.2f}"


def _factor(log_weight: float) -> str:
    if log_weight > 700:
        return ">1e300"
    factor = math.exp(log_weight)
    return f"{factor:.3g}" if factor == 0 or factor >= 0.001 else f"{factor:.0e}"
