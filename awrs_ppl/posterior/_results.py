"""The results of a posterior as rows of a table: probability, bar, and the value as text."""

from __future__ import annotations

import math
from html import escape as html_escape
from typing import TYPE_CHECKING, NamedTuple

from awrs_ppl.log_weights import normalize
from awrs_ppl.posterior._style import percent, plural
from awrs_ppl.posterior._texts import Text, cut, partial_text, texts, wrapped

if TYPE_CHECKING:
    from awrs_ppl.posterior.posterior import Posterior

__all__ = ["html", "text"]

_BAR = 20
_BEFORE = 13 + _BAR  # cells of a terminal before a value
_TEXT_ROWS, _HTML_ROWS = 12, 20
# All values together have about so many lines, if not in full; in HTML one has about 70 cells.
_TEXT_LINES, _HTML_LINES, _HTML_WIDTH = 50, 60, 70
_PARTIAL_ROWS = 4


class _Row(NamedTuple):
    """A share of the weight, or none; what has it, as text, or in words of ours; and a bar."""

    share: float | None
    text: Text
    is_value: bool = False
    has_bar: bool = False

    @property
    def percent(self) -> str:
        return "" if self.share is None else percent(self.share)


def text(posterior: Posterior, width: int, is_full: bool) -> list[str]:
    """The rows in lines of `width` cells."""
    width -= _BEFORE
    lines = []
    for row in _rows(posterior, width, _TEXT_ROWS, _TEXT_LINES, is_full):
        bar = _bar(row.share or 0.0) if row.has_bar else ""
        quoted = row.is_value and row.text.is_quoted
        first, *others = wrapped(row.text.text, width - quoted)
        lines.append(f"  {row.percent:>7}  {bar:<{_BAR}}  {first}")
        lines += [(_BEFORE + quoted) * " " + line for line in others]
    return [line.rstrip() for line in lines]


def html(posterior: Posterior, is_full: bool) -> str:
    """The rows of an HTML table, escaped."""
    rows = []
    for row in _rows(posterior, _HTML_WIDTH, _HTML_ROWS, _HTML_LINES, is_full):
        bar, content = "", html_escape(row.text.text)
        if row.has_bar:
            width = 100 * (row.share or 0.0)
            bar = f'<div><div class="awrs-bar" style="width:{width:.1f}%"></div></div>'
        if row.is_value:
            kind = ' class="awrs-quoted"' if row.text.is_quoted else ""
            content = f"<code{kind}>{content}</code>"
        rows.append(
            f'<tr><td class="awrs-number">{html_escape(row.percent)}</td>'
            f'<td class="awrs-track">{bar}</td><td class="awrs-value">{content}</td></tr>'
        )
    return "".join(rows)


def _rows(posterior: Posterior, width: int, most: int, lines: int, is_full: bool) -> list[_Row]:
    """The most probable values, what the others have together, and unfinished particles."""
    results = posterior._results
    count = len(results) if is_full else most
    found = texts([value for _, value, _ in results[:count]], width, None if is_full else lines)
    rows = [
        _Row(share, text, is_value=True, has_bar=True)
        for text, (*_, share) in zip(found, results[:count], strict=True)
    ]
    if not rows:
        rows.append(_said(None, _nothing(posterior)))
    if rest := results[count:]:
        mass = math.fsum(share for *_, share in rest)
        rows.append(_said(mass, f"{len(rest):,} more value{plural(len(rest))}"))
    partial = _partial(posterior, width, None if is_full else lines // 4)
    shown = partial if is_full else partial[:_PARTIAL_ROWS]
    if partial:
        rows.append(_said(posterior.unfinished, "of the weight is unfinished; so far:"))
        rows += shown
    if others := partial[len(shown) :]:
        mass = math.fsum(row.share or 0.0 for row in others)
        rows.append(_said(mass, f"{len(others):,} more unfinished"))
    cuts = sum(row.text.is_cut for row in rows)
    if cuts or rest or others:
        what = f"{cuts:,} cut short (…): " if cuts else ""
        rows.append(_said(None, f"{what}posterior.full() shows everything"))
    return rows


def _partial(posterior: Posterior, width: int, lines: int | None) -> list[_Row]:
    """What unfinished particles have so far, the heaviest first, equal ones as one."""
    traces = [t for t in posterior if not t.finished and t.log_weight > -math.inf]
    shares: dict[str, float] = {}
    weights = normalize([trace.log_weight for trace in traces]) * posterior.unfinished
    for trace, share in zip(traces, weights.tolist(), strict=True):
        raw = partial_text(trace, width) or "nothing"
        shares[raw] = shares.get(raw, 0.0) + share
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    found = cut([raw for raw, _ in ranked], width, lines)
    return [_Row(s, text, is_value=True) for (_, s), text in zip(ranked, found, strict=True)]


def _said(share: float | None, words: str) -> _Row:
    return _Row(share, Text(words, False, False))


def _nothing(posterior: Posterior) -> str:
    return "no particle has finished" if posterior.alive else "no survivors: every weight is zero"


def _bar(share: float) -> str:
    full, eighths = divmod(round(share * _BAR * 8), 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[eighths : eighths + 1].strip()
