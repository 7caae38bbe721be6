"""A posterior as one line, as a table for a terminal, and as HTML for a notebook.

What is shown comes from a language model, so all of it is escaped, shortened and bounded.
The HTML has no script and loads nothing; its colours are mixed from the text's own, so that
it reads on light and on dark pages.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from html import escape as html_escape
from typing import TYPE_CHECKING

from awrs_ppl._plots import ess_svg, genealogy_svg
from awrs_ppl._values import escape, safe_repr, shorten

if TYPE_CHECKING:
    from awrs_ppl.posterior import Posterior

__all__ = ["html", "line", "table"]

_WIDTH = 100
_BAR = 20
_TEXT_ROWS, _HTML_ROWS = 12, 20
_VALUE_CELLS = 280
_NAMES = 6
_NAME_CELLS = 60


def line(posterior: Posterior) -> str:
    """The `repr` of a posterior."""
    n, found = len(posterior), len(posterior.values)
    facts = [f"{n} particle{_s(n)}"]
    if posterior.alive == 0:
        facts.append("no survivors")
    else:
        facts += [f"{found} value{_s(found)}", f"ESS {posterior.ess:.1f}"]
    if posterior.is_proper:
        facts.append(f"log_ml {posterior.log_ml:.2f}")
    if posterior.timed_out:
        facts.append("timed out")
    return f"<Posterior: {', '.join(facts)}>"


def table(posterior: Posterior) -> str:
    """Results with probabilities and bars, then the facts, in 100 columns."""
    shown, rest = _results(posterior, _TEXT_ROWS, _WIDTH - 13 - _BAR)
    lines = [f"Posterior {_of(posterior)}, seed {posterior.seed}", ""]
    lines += [f"  {_percent(share):>7}  {_bar(share):<{_BAR}}  {text}" for text, share in shown]
    lines += [f"  {_percent(share):>7}  {'':<{_BAR}}  {text}" for text, share in rest]
    if not shown:
        lines.append(f"  {_nothing(posterior)}")
    lines.append("")
    for label, fact in _facts(posterior):
        lines += textwrap.wrap(
            fact,
            _WIDTH,
            initial_indent=f"  {label:<14}",
            subsequent_indent=" " * 16,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def html(posterior: Posterior) -> str:
    """A header, the results, the ESS over the steps, and, folded away, genealogy and costs."""
    n, e = len(posterior), html_escape
    shown, rest = _results(posterior, _HTML_ROWS, _VALUE_CELLS)
    rows = [
        f'<tr><td class="awrs-share">{e(_percent(share))}</td><td class="awrs-track">'
        f'<div class="awrs-bar" style="width:{100 * share:.1f}%"></div></td>'
        f'<td class="awrs-value"><code>{e(text)}</code></td></tr>'
        for text, share in shown
    ]
    rows += [
        f'<tr><td class="awrs-share">{e(_percent(share))}</td><td></td>'
        f'<td class="awrs-value awrs-muted">{e(text)}</td></tr>'
        for text, share in rest
    ]
    if not shown:
        rows.append(f'<tr><td class="awrs-value" colspan="3">{e(_nothing(posterior))}</td></tr>')
    facts = _facts(posterior)
    head = " · ".join(f"{label} <b>{e(fact)}</b>" for label, fact in _headline(posterior))
    parts = [
        f'<p class="awrs-head"><b>Posterior</b> {_of(posterior)}<br>{head}</p>',
        '<table><thead><tr><th scope="col" class="awrs-share">probability</th><th></th>'
        '<th scope="col" class="awrs-value">value</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>",
        ess_svg(posterior.history, n),
        _folded(
            "Genealogy",
            genealogy_svg(posterior.history, [t.log_weight > -math.inf for t in posterior]),
        ),
        _folded(
            "Details",
            "<dl>"
            + "".join(f"<dt>{e(label)}</dt><dd>{e(fact)}</dd>" for label, fact in facts)
            + f"<dt>seed</dt><dd>{posterior.seed}</dd></dl>",
        ),
    ]
    return f'<div class="awrs-posterior"><style>{_CSS}</style>{"".join(parts)}</div>'


def _of(posterior: Posterior) -> str:
    n = len(posterior)
    return f"of {n:,} particle{_s(n)}{', timed out' if posterior.timed_out else ''}"


def _headline(posterior: Posterior) -> list[tuple[str, str]]:
    n = len(posterior)
    facts = [
        ("log evidence", f"{posterior.log_ml:.2f}" if posterior.is_proper else "none"),
        ("ESS", f"{posterior.ess:,.1f} of {n:,}"),
        ("alive", f"{posterior.alive:,} of {n:,}"),
    ]
    if posterior.unfinished:
        facts.append(("unfinished", f"{_percent(posterior.unfinished)} of the weight"))
    return facts


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>" if content else ""


def _results(
    posterior: Posterior, most: int, width: int
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The most probable values as text, and in one row what the others have together."""
    results = posterior._results
    shown = [(_text(safe_repr(value), width), share) for _, value, share in results[:most]]
    rest = results[most:]
    if not rest:
        return shown, []
    mass = math.fsum(share for *_, share in rest)
    return shown, [(f"{len(rest):,} more value{_s(len(rest))}", mass)]


def _facts(posterior: Posterior) -> list[tuple[str, str]]:
    """Label and text of everything but the values."""
    n, stats = len(posterior), posterior.stats
    evidence = f"{posterior.log_ml:.2f}"
    if not posterior.is_proper:
        evidence = "none (a proposal whose weights are not proper)"
    elif posterior.timed_out:
        evidence += " (too low in expectation: timed out)"
    particles = f"{posterior.alive:,} alive, {posterior.dead:,} dead"
    if unfinished := posterior.alive - len(posterior.values):
        share = _percent(posterior.unfinished)
        particles += f", {unfinished:,} unfinished with {share} of the weight"
    resamplings = sum(sync.ancestors is not None for sync in posterior.history)
    facts = [
        ("log evidence", evidence),
        ("ESS", f"{posterior.ess:,.1f} of {n:,}"),
        ("particles", particles),
    ]
    if posterior.kills:
        facts.append(("deaths", _counts(posterior.kills)))
    facts.append(("steps", f"{len(posterior.history):,}, resampled {resamplings:,} times"))
    if stats.tokens:
        facts.append(
            ("tokens", f"{stats.tokens:,}, with {stats.checks_per_token:.1f} checks per token")
        )
    if stats.lm_rows:
        passes = f"{stats.lm_passes:,} pass{'' if stats.lm_passes == 1 else 'es'}"
        facts.append(("LM", f"{stats.lm_rows:,} row{_s(stats.lm_rows)} in {passes}"))
    if stats.checks:
        facts.append(("checks", _counts(stats.checks)))
    if stats.seconds:
        parts = sorted(stats.seconds.items(), key=lambda part: -part[1])
        facts.append(
            (
                "seconds",
                f"{sum(stats.seconds.values()):.2f}: "
                + ", ".join(f"{_text(name, _NAME_CELLS)} {s:.2f}" for name, s in parts[:_NAMES]),
            )
        )
    return facts


def _counts(counts: Mapping[str, int]) -> str:
    """The sum of the counts and the largest of them by name."""
    largest = sorted(counts.items(), key=lambda count: -count[1])
    named = [f"{count:,} by {_text(name, _NAME_CELLS)}" for name, count in largest[:_NAMES]]
    if others := largest[_NAMES:]:
        named.append(f"{sum(count for _, count in others):,} by {len(others)} others")
    return f"{sum(counts.values()):,}: {', '.join(named)}"


def _nothing(posterior: Posterior) -> str:
    return "no particle has finished" if posterior.alive else "no survivors: every weight is zero"


def _text(text: str, width: int) -> str:
    # Shortened twice: escapes make it longer, and a text of megabytes need not be escaped.
    return shorten(escape(shorten(text, 4 * width)), width)


def _percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def _bar(share: float) -> str:
    full, eighths = divmod(round(share * _BAR * 8), 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[eighths : eighths + 1].strip()


def _s(count: int) -> str:
    return "" if count == 1 else "s"


_CSS = """
.awrs-posterior { max-width: 60em; line-height: 1.4; text-align: left; }
.awrs-posterior .awrs-head { margin: 0 0 .6em; }
.awrs-posterior table { border-collapse: collapse; table-layout: auto; width: 100%;
  margin: 0 0 .8em; }
.awrs-posterior th, .awrs-posterior td {
  padding: .2em .5em .2em 0; text-align: left; vertical-align: top; border: none; }
.awrs-posterior .awrs-share { width: 6em; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.awrs-posterior .awrs-track { width: 22%; min-width: 3.5em; }
.awrs-posterior .awrs-bar { height: .7em; margin-top: .35em; min-width: 1px; border-radius: 2px;
  background: #3b7ddd; background: color-mix(in srgb, currentColor 25%, #3b7ddd); }
.awrs-posterior .awrs-value, .awrs-posterior dd { overflow-wrap: anywhere; }
.awrs-posterior .awrs-value code {
  white-space: pre-wrap; color: inherit; background: none; padding: 0; }
.awrs-posterior .awrs-muted, .awrs-posterior figcaption { opacity: .8; }
.awrs-posterior figure { margin: 0 0 .8em; }
.awrs-posterior figcaption { font-size: .9em; }
.awrs-posterior svg { display: block; width: 100%; margin: .3em 0;
  border-left: 1px solid; border-bottom: 1px solid; }
.awrs-posterior path { fill: none; stroke: currentColor; vector-effect: non-scaling-stroke; }
.awrs-posterior .awrs-line { stroke-width: 1.8; }
.awrs-posterior .awrs-mark { stroke: #3b7ddd; stroke-width: 1.5; }
.awrs-posterior .awrs-lost { stroke: #8a8a8a; }
.awrs-posterior summary { cursor: pointer; }
.awrs-posterior dl { display: grid; grid-template-columns: 7em 1fr; margin: .4em 0; }
.awrs-posterior dt { opacity: .8; font-weight: normal; }
.awrs-posterior dd { margin: 0; }
"""
