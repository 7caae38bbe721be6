"""A posterior as one line, as a table for a terminal, and as HTML for a notebook."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from html import escape as html_escape
from typing import TYPE_CHECKING

from awrs_ppl.posterior import _certain, _deaths, _diagnosed, _explained, _results
from awrs_ppl.posterior._style import fold, page, percent, plural, safe
from awrs_ppl.posterior._svg import ess_svg, genealogy_svg
from awrs_ppl.posterior.records import resamplings

if TYPE_CHECKING:
    from awrs_ppl.posterior.diagnosis import Diagnosis
    from awrs_ppl.posterior.posterior import Posterior
    from awrs_ppl.stats import Stats

__all__ = ["Full", "html", "line", "no_survivors", "table"]

_WIDTH = 100
_NAMES = 6
_NAME_CELLS = 60
_MOSTLY = 0.5  # of the weight: then what `max_tokens` ended is what the results are


def line(posterior: Posterior) -> str:
    """The `repr` of a posterior."""
    found = len(posterior._results)
    facts = [_particles(posterior)]
    if not _certain.is_sampled(posterior):
        facts += [f"{found} value{plural(found)}", f"log_ml {posterior.log_ml:.2f}"]
        facts += [posterior.stopped] if posterior.stopped else []
        return f"<Posterior: {', '.join(facts)}>"
    if posterior.alive == 0:
        facts.append("no survivors")
    else:
        facts += [f"{found} value{plural(found)}", f"ESS {posterior.ess:.1f}"]
    if posterior.is_proper:
        facts.append(f"log_ml {posterior.log_ml:.2f}")
    if posterior.stopped:
        facts.append(posterior.stopped)
    return f"<Posterior: {', '.join(facts)}>"


class Full:
    """A posterior with all its values in full: text if printed, a table in a notebook."""

    def __init__(self, posterior: Posterior) -> None:
        self._posterior = posterior

    def __repr__(self) -> str:
        return table(self._posterior, is_full=True)

    def _repr_html_(self) -> str:
        return html(self._posterior, is_full=True)


def table(posterior: Posterior, *, is_full: bool = False) -> str:
    """Results with probabilities and bars, then the facts, in 100 columns."""
    seed = f", seed {posterior.seed}" if posterior.method != "exact" else ""
    lines = [f"Posterior {_of(posterior)}{seed}", ""]
    lines += _results.text(posterior, _WIDTH, is_full)
    lines.append("")
    for label, fact in _facts(posterior, posterior.diagnose()):
        lines += textwrap.wrap(
            fact,
            _WIDTH,
            initial_indent=f"  {label:<14}",
            subsequent_indent=" " * 16,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def html(posterior: Posterior, *, is_full: bool = False) -> str:
    """A header, the results, the ESS over the steps, and, folded away, the rest."""
    of, e = posterior.heaviest, html_escape
    rows = _results.html(posterior, is_full)
    found = posterior.diagnose()
    head = " · ".join(f"{label} <b>{e(fact)}</b>" for label, fact in _headline(posterior, found))
    details = [fact for fact in _facts(posterior, found) if fact[0] != "warning"]
    facts = "".join(f"<dt>{e(label)}</dt><dd>{e(fact)}</dd>" for label, fact in details)
    is_sampled = _certain.is_sampled(posterior)
    explained = _explained.body(posterior.explain()) if posterior.efforts and is_sampled else ""
    parts = [
        f"<p><b>Posterior</b> {_of(posterior)}<br>{head}</p>",
        "".join(f'<p class="awrs-note">{e(warning)}</p>' for warning in found.warnings[:1]),
        '<table><thead><tr><th scope="col" class="awrs-number">probability</th><th></th>'
        f'<th scope="col" class="awrs-value">value</th></tr></thead><tbody>{rows}</tbody></table>',
        ess_svg(of.history, len(of)),
        fold("Genealogy", genealogy_svg(of.history, [t.log_weight > -math.inf for t in of])),
        fold("Where the weight went", explained),
        fold("Details", f"<dl>{facts}<dt>seed</dt><dd>{posterior.seed}</dd></dl>"),
    ]
    return page("".join(parts))


def no_survivors(posterior: Posterior) -> str:
    """Why there are no values, and what to do about it."""
    if not _certain.is_sampled(posterior):
        return _certain.nothing(posterior)
    n = f"{len(posterior)} particle{'s' if len(posterior) > 1 else ''}"
    if posterior.alive:
        return (
            f"none of {n} had finished when the inference stopped, {posterior.alive} were still "
            "alive: allow a longer timeout, fewer particles or a smaller max_tokens"
        )
    message, kills = f"no survivors among {n}: every weight is zero. ", posterior.kills
    if (killer := _deaths.most(kills)) is not None:
        count, every = kills[killer], sum(kills.values())
        message += f"{_deaths.subject(killer, 120)} killed the most ({count} of {every} deaths). "
    return message + _deaths.advice(kills).removesuffix(".")


def _of(posterior: Posterior) -> str:
    stopped = f", {posterior.stopped}" if posterior.stopped else ""
    return f"of {_particles(posterior)}{stopped}"


def _particles(posterior: Posterior) -> str:
    if not _certain.is_sampled(posterior):
        return _certain.of(posterior)
    n, runs = len(posterior), len(posterior.parts)
    return f"{n:,} particle{plural(n)}{f' in {runs} runs' if runs > 1 else ''}"


def _headline(posterior: Posterior, found: Diagnosis) -> list[tuple[str, str]]:
    if not _certain.is_sampled(posterior):
        return _certain.facts(posterior)
    n = len(posterior)
    facts = [
        ("log evidence", _evidence(posterior) if posterior.is_proper else "none"),
        ("ESS", _diagnosed.ess(found)),
        ("alive", f"{posterior.alive:,} of {n:,}{_free(posterior)}"),
    ]
    if posterior.unfinished:
        facts.append(("unfinished", f"{percent(posterior.unfinished)} of the weight"))
    return facts + _reliance(found) + _forced(posterior)


def _evidence(posterior: Posterior) -> str:
    return f"{posterior.log_ml:.2f}{_certain.between(posterior)}"


def _forced(posterior: Posterior) -> list[tuple[str, str]]:
    """What `max_tokens` ended, where that is most of the weight of a statement."""
    return [
        (
            "max_tokens",
            f"ended the texts of {safe(name, 40)} with {percent(effort.forced_share)} of the "
            "weight: they are those that end within it",
        )
        for name, effort in posterior.efforts.items()
        if effort.forced_share > _MOSTLY
    ]


def _free(posterior: Posterior) -> str:
    return f", {posterior.free:,} free (equal particles are one)" if posterior.free else ""


def _reliance(found: Diagnosis) -> list[tuple[str, str]]:
    """What resampling left, and what runs disagree about."""
    facts = [("resampling", _diagnosed.survived(found)), ("runs", _diagnosed.runs(found))]
    return [(label, fact) for label, fact in facts if fact]


def _facts(posterior: Posterior, found: Diagnosis) -> list[tuple[str, str]]:
    """Label and text of everything but the values."""
    costs = _costs(posterior.stats) + [("warning", warning) for warning in found.warnings[:1]]
    if not _certain.is_sampled(posterior):
        return _certain.facts(posterior) + costs
    evidence = _evidence(posterior)
    if not posterior.is_proper:
        evidence = "none (a proposal whose weights are not proper)"
    elif posterior.stopped:
        evidence += f" (too low in expectation: {posterior.stopped})"
    particles = f"{posterior.alive:,} alive, {posterior.dead:,} dead"
    particles += _free(posterior)
    if unfinished := posterior.alive - len(posterior.values):
        share = percent(posterior.unfinished)
        particles += f", {unfinished:,} unfinished with {share} of the weight"
    count = resamplings(posterior.history)
    facts = [
        ("log evidence", evidence),
        ("ESS", _diagnosed.ess(found)),
        ("particles", particles),
        *_reliance(found),
        *_forced(posterior),
    ]
    if posterior.kills:
        kills = {_deaths.shown(name, _NAME_CELLS): n for name, n in posterior.kills.items()}
        facts.append(("deaths", _counts(kills)))
    steps = f"{len(posterior.history):,}, resampled {count:,} time{plural(count)}"
    return [*facts, ("steps", steps), *costs]


def _costs(stats: Stats) -> list[tuple[str, str]]:
    facts = []
    if stats.tokens:
        facts.append(
            ("tokens", f"{stats.tokens:,}, with {stats.checks_per_token:.1f} checks per token")
        )
    if stats.lm_rows:
        passes = f"{stats.lm_passes:,} pass{'' if stats.lm_passes == 1 else 'es'}"
        facts.append(("LM", f"{stats.lm_rows:,} row{plural(stats.lm_rows)} in {passes}"))
    if stats.checks:
        checks = {safe(name, _NAME_CELLS): n for name, n in stats.checks.items()}
        facts.append(("checks", _counts(checks)))
    if stats.seconds:
        parts = sorted(stats.seconds.items(), key=lambda part: -part[1])
        facts.append(
            (
                "seconds",
                f"{sum(stats.seconds.values()):.2f}: "
                + ", ".join(f"{safe(name, _NAME_CELLS)} {s:.2f}" for name, s in parts[:_NAMES]),
            )
        )
    return facts


def _counts(counts: Mapping[str, int]) -> str:
    """The sum of the counts and the largest of them by name, which may be long."""
    largest = sorted(counts.items(), key=lambda count: -count[1])
    named = [f"{count:,} by {safe(name, 3 * _NAME_CELLS)}" for name, count in largest[:_NAMES]]
    if others := largest[_NAMES:]:
        named.append(f"{sum(count for _, count in others):,} by {len(others)} others")
    return f"{sum(counts.values()):,}: {', '.join(named)}"
