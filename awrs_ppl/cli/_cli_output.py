"""What the command line writes: results to stdout, facts and warnings to stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from awrs_ppl.cli._cli_input import report

if TYPE_CHECKING:
    from awrs_ppl.posterior.posterior import Posterior

__all__ = ["missing", "print_text", "report_facts", "table", "why_stopped"]


def table(posterior: Posterior) -> str:
    """All values, as Python writes them, each on one line, the most probable first."""
    from awrs_ppl._messages import escape, safe_repr

    rows = [f"{share:11.4f}  {escape(safe_repr(value))}" for _, value, share in posterior._results]
    return "\n".join(["probability  value", *rows])


def report_facts(posterior: Posterior) -> None:
    """The figures of a posterior, and what warns of it."""
    from awrs_ppl.posterior import _certain, _diagnosed

    found = posterior.diagnose()
    if found.certain:
        shown = [f"{label} {fact}" for label, fact in found.certain]
        rows = posterior.stats.lm_rows
        report(", ".join([_certain.of(posterior), *shown, f"{rows:,} rows of the language model"]))
        for warning in found.warnings[:1]:
            report(f"warning: {warning}")
        return
    facts = [f"{len(posterior)} particles"]
    if found.runs is not None:
        facts[0] += f" in {len(posterior.parts)} runs"
    ess = "equally likely" if found.is_chosen else "ESS"
    facts.append(f"{posterior.alive} alive")
    if posterior.free:
        facts.append(f"{posterior.free} free")
    facts.append(f"{ess} {posterior.ess:.1f}")
    facts.append(f"log evidence {posterior.log_ml:.2f}")
    if survived := _diagnosed.survived(found):
        facts.append(f"{survived} resampling")
    if differ := _diagnosed.runs(found):
        facts.append(f"runs {differ}")
    report(", ".join([*facts, f"seed {posterior.seed}"]))
    for warning in found.warnings[:1]:
        report(f"warning: {warning}")


def why_stopped(posterior: Posterior, timeout: float | None) -> str:
    """What ended a run early."""
    limit = f" after {timeout:g} s" if posterior.stopped == "timed out" else ""
    return f"stopped early, {posterior.stopped}{limit}"


def missing(posterior: Posterior) -> str:
    """What the results of a stopped run lack."""
    from awrs_ppl.posterior import _certain
    from awrs_ppl.posterior._style import percent

    if not _certain.is_sampled(posterior):
        return f"{_certain.of(posterior)}, and what was not found is missing"
    done, alive = len(posterior.values), posterior.alive
    advice = "; allow a longer --timeout, or fewer --particles"
    return (
        f"{done:,} of {alive:,} particles with weight had finished, and the results of the other "
        f"{alive - done:,} are missing, with {percent(posterior.unfinished)} of the weight as it "
        "was then; the evidence, without them, is too low"
        + (advice if posterior.stopped == "timed out" else "")
    )


def print_text(text: str) -> None:
    """Write results to stdout, whatever its encoding."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
