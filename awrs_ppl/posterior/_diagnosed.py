"""What a diagnosis warns of, and a diagnosis as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

import math
import textwrap
from html import escape as html_escape
from typing import TYPE_CHECKING

from awrs_ppl.posterior import _certain, _deaths
from awrs_ppl.posterior._style import page, percent, plural, safe
from awrs_ppl.posterior._texts import texts, wrapped

if TYPE_CHECKING:
    from awrs_ppl.posterior.diagnosis import Diagnosis, Runs
    from awrs_ppl.posterior.posterior import Posterior

__all__ = ["ess", "html", "runs", "survived", "text", "warnings"]

# Chosen on random toy programs with exact posteriors (`tests/benchmarks/warnings_of_runs.py
# --tuning`, and six more draws of its kinds: 813 pooled results of 4 runs, 3,223 single runs, of 8
# and 32 particles by copies and by children; garden paths apart). A result is bad with a total
# variation from the truth above 0.3, good below 0.05. A lower threshold misses fewer bad results
# and rejects more good ones.
#
# Runs: above 0.15 or a standard deviation of 1, 0.80 of the bad ones warn and 0.09 of the good
# ones (above 0.1: 0.84 and 0.15; above 0.2: 0.76 and 0.07). What is missed are runs that all
# lack the same texts. One run: the weight that survived says little by itself, as long and weakly
# constrained texts always lose much of it and nothing by that. It warns where values, or children,
# are worth less than 2.5 equally likely ones: below 0.8 at 0.09 of the good ones and 0.18 of the
# bad (0.85: 0.10 and 0.28; on the problems held out 0.14 and 0.20, 0.16 and 0.29). Lineages below
# 1.5: 0.16 and 0.38, of copies of 32 particles.
RUNS_DIFFER, EVIDENCES_DIFFER = 0.15, 1.0
FEW_SURVIVED, PEAKED, FEW_LINEAGES = 0.8, 2.5, 1.5

_NOTE = '<p class="awrs-note">{}</p>'
_WIDTH, _ROWS, _NAME, _VALUE, _LINES = 100, 8, 60, 70, 24


def warnings(found: Diagnosis, posterior: Posterior) -> list[str]:
    """Why not to rely on a posterior, each with a remedy, the gravest first."""
    if not _certain.is_sampled(posterior):
        return _certain.warnings(posterior)
    if not posterior.values:
        return [_no_values(posterior)]
    lines = []
    if posterior.stopped:
        why = posterior.stopped.capitalize()
        lines.append(
            f"{why}: the results are those of the particles that had finished; allow a longer "
            "timeout, or fewer particles."
        )
    if found.runs is not None:
        return lines + _of_runs(found, found.runs)
    n, lost = found.n_particles, found.survived
    # Values may be coarse: of children, who differ, it is the texts that count.
    few = found.ess if found.is_chosen else found.equal_values
    if lost is not None and lost < FEW_SURVIVED and few < PEAKED:
        lines.append(
            f"Few values are left, and {percent(lost)} of the weight survived resampling"
            f"{_where(found)}: try {_more(found)}, and runs=4 to see whether runs agree."
        )
    if n > 2 and not found.is_chosen and found.ess < max(2.0, 0.1 * n):
        lines.append(
            "Nearly all of the weight lies on few particles, so the probabilities are rough: "
            "try more particles."
        )
    if found.lineages is not None and found.lineages < FEW_LINEAGES:
        lines.append(
            f"The weight lies on as much as {found.lineages:.1f} equal lineages of the first "
            f"{n:,} particles, so what was drawn early stands for as few draws: try more "
            "particles, runs=4, or weigh earlier."
        )
    return lines


def _of_runs(found: Diagnosis, runs: Runs) -> list[str]:
    count, lines = len(runs.log_mls), []
    if runs.dead:
        lines.append(
            f"{runs.dead:,} of {count:,} runs ended without survivors: try more particles, or a "
            "looser constraint."
        )
    if runs.disagreement is not None and runs.disagreement > RUNS_DIFFER:
        lines.append(
            f"The runs differ by {runs.disagreement:.2f} in total variation, so the probabilities "
            f"are rough: try {_more(found)}{_where(found)}."
        )
    if EVIDENCES_DIFFER < runs.spread < math.inf:
        lines.append(
            f"The log evidence of the runs varies by {runs.spread:.1f} (standard deviation), so "
            f"few of them decide the result: try {_more(found)}{_where(found)}."
        )
    return lines


def _more(found: Diagnosis) -> str:
    """What finds more of the mass; children do not help where they compete already."""
    return "more particles" if found.is_chosen else 'resampling="auto" or more particles'


def _where(found: Diagnosis) -> str:
    if not found.lost_by or found.survived is None or found.survived > 0.999:
        return ""
    return f" (most was lost in {safe(found.lost_by, _NAME)})"


def _no_values(posterior: Posterior) -> str:
    if posterior.alive:
        return (
            f"{(posterior.stopped or 'stopped').capitalize()} before a particle had finished: "
            "allow a longer timeout, fewer particles or a smaller max_tokens."
        )
    kills = posterior.kills
    killer = _deaths.most(kills)
    line = "Every weight is zero"
    if killer is not None:
        count, every = kills[killer], sum(kills.values())
        line += f"; {_deaths.subject(killer, _NAME)} killed the most ({count:,} of {every:,})"
    return f"{line}. {_deaths.advice(kills)}"


# --- facts, also of the header of a posterior -------------------------------------------------


def survived(found: Diagnosis) -> str:
    """What was left by resampling; empty where there was none."""
    if found.survived is None:
        return ""
    return f"{percent(found.survived)} of the weight survived"


def runs(found: Diagnosis) -> str:
    """What runs disagree about, in short; empty for a single run."""
    if found.runs is None:
        return ""
    facts = []
    if found.runs.dead:
        facts.append(f"{found.runs.dead:,} of {len(found.runs.log_mls):,} have no survivors")
    if found.runs.disagreement is not None:
        facts.append(f"differ by {found.runs.disagreement:.2f} in total variation")
    if found.runs.log_ml_error < math.inf:
        facts.append(f"log evidence ±{found.runs.log_ml_error:.2f}")
    return "; ".join(facts)


def ess(found: Diagnosis) -> str:
    """The effective sample size. After a choice among children weights are unequal on different
    particles: they are small where the posterior is peaked, and no sign of failure."""
    if found.is_chosen and found.alive:
        many = f"{found.alive:,} different particle{plural(found.alive)}"
        return f"{many}, as much as {found.ess:,.1f} equally likely"
    return f"{found.ess:,.1f} of {found.n_particles:,}"


def _facts(found: Diagnosis) -> list[tuple[str, str]]:
    values = f"{found.distinct:,} distinct"
    if found.distinct > 1:
        values += f", as much as {found.equal_values:.1f} equally likely"
    if found.certain:
        return [*found.certain, ("values", values)]
    several = found.runs
    evidence = "none (a proposal whose weights are not proper)"
    if not math.isnan(found.log_ml):
        evidence = f"{found.log_ml:.2f}"
    if several is not None:
        known = several.log_ml_error < math.inf
        evidence += f" ±{several.log_ml_error:.2f}" if known else ""
        each = ", ".join(f"{log_ml:.2f}" for log_ml in several.log_mls[:_ROWS])
        evidence += f"; of the runs {each}{', ...' if len(several.log_mls) > _ROWS else ''}"
    facts = [("log evidence", evidence)]
    if several is not None:
        told = "no two have values to compare"
        if several.disagreement is not None:
            told = (
                f"each differs from the others together by {several.disagreement:.2f} in total "
                "variation, the mean by evidence"
            )
        facts.append(("runs", told))
    left = survived(found) or "never resampled: all of the weight is there"
    facts.append(("resampling", left + _where(found)))
    if found.lineages is not None:
        facts.append(("lineages", f"as much as {found.lineages:.1f} equal ones"))
    facts.append(("ESS", ess(found)))
    facts.append(("values", values))
    return facts


def _values(found: Diagnosis) -> list[tuple[str, str, str]]:
    """Probability, standard error and text of the likeliest values; none for a single run."""
    if found.runs is None:
        return []
    rows = []
    likeliest = list(found.probabilities.items())[:_ROWS]
    values = texts([value for value, _ in likeliest], _VALUE, _LINES)
    for (value, share), text in zip(likeliest, values, strict=True):
        error = found.runs.errors[value]
        shown = percent(error) if error < math.inf else "unknown"
        rows.append((percent(share), shown, text.text))
    return rows


def _title(found: Diagnosis) -> str:
    n, several = found.n_particles, found.runs
    if found.certain:
        return f"Diagnosis of {n:,} execution{plural(n)}"
    of = f"{n:,} particle{plural(n)}" + (f" in {len(several.log_mls):,} runs" if several else "")
    return f"Diagnosis of {of}"


def _end(found: Diagnosis) -> list[str]:
    """The warnings, and what the figures cannot say."""
    lines = list(found.warnings)
    if found.certain:
        return lines
    if not lines:
        lines.append(
            "Nothing warns, which does not say that the result is right: what no particle has "
            "met leaves no trace."
        )
    if found.runs is None and found.distinct:
        lines.append("One run gives no standard errors: runs=4 does.")
    return lines


def text(found: Diagnosis) -> str:
    """Facts, probabilities with their errors, and warnings, in 100 columns."""
    lines = [_title(found), ""]
    for label, fact in _facts(found):
        lines += _wrapped(fact, f"  {label:<14}", " " * 16)
    if rows := _values(found):
        lines += ["", f"  {'probability':>11}  {'error':>8}  value"]
        for share, error, value in rows:
            first, *others = wrapped(value, _VALUE)
            lines.append(f"  {share:>11}  {error:>8}  {first}")
            lines += [25 * " " + line for line in others]
    lines.append("")
    for line in _end(found):
        lines += _wrapped(line, "  - ", "    ")
    return "\n".join(lines)


def _wrapped(line: str, first: str, then: str) -> list[str]:
    return textwrap.wrap(
        line, _WIDTH, initial_indent=first, subsequent_indent=then, break_on_hyphens=False
    )


def html(found: Diagnosis) -> str:
    """The same, static and escaped."""
    e = html_escape
    facts = "".join(f"<dt>{e(label)}</dt><dd>{e(fact)}</dd>" for label, fact in _facts(found))
    rows = "".join(
        f'<tr><td class="awrs-number">{e(share)}</td><td class="awrs-number">{e(error)}</td>'
        f'<td class="awrs-value"><code>{e(value)}</code></td></tr>'
        for share, error, value in _values(found)
    )
    head = '<th scope="col" class="awrs-number">probability</th>'
    head += '<th scope="col" class="awrs-number">error</th><th scope="col">value</th>'
    lines = [
        _NOTE.format(e(line)) if line in found.warnings else f"<p>{e(line)}</p>"
        for line in _end(found)
    ]
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    return page(f"<p>{e(_title(found))}</p><dl>{facts}</dl>{table}{''.join(lines)}")
