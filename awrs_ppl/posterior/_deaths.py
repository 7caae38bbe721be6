"""What kills particles, in words: sentences, and what to do about it.

A killer is the name of a potential or statement; or several that "allow nothing together"; with
where it was in parentheses, if that says why: "(at the empty text)", "(no text that ends within
20 tokens)".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from awrs_ppl.posterior._style import safe

__all__ = ["advice", "most", "remedy", "shown", "subject"]

_TOGETHER = " allow nothing together"
_KILLER = re.compile(
    rf"(?P<who>.*?)(?P<together>{_TOGETHER})?"
    r"(?P<where> \(at the empty text\)| \(at a first token that holds the stop\)"
    r"| \(at an accepted text that is not over\)"
    r"| \(no text that (?:ends|is over) within [\d,]+ tokens?\))?",
    re.DOTALL,
)


def subject(killer: str, width: int) -> str:
    """A killer as the subject of "killed", its names in `width` cells."""
    return shown(killer, width) + (" and" if _parts(killer)[1] else "")


def shown(killer: str, width: int) -> str:
    """A killer, its names in `width` cells."""
    who, together, where = _parts(killer)
    return safe(who, width) + together + where


def most(kills: Mapping[str, int]) -> str | None:
    """What killed the most."""
    return max(kills, key=kills.__getitem__, default=None)


def remedy(killer: str) -> str:
    """What to write where a killer lets no text begin; else empty."""
    who, _, where = _parts(killer)
    if where.endswith("that holds the stop)"):
        return (
            "the model would begin with the stop, and the text would be empty: let the prompt end "
            "where the text begins, or give a stop that comes behind it"
        )
    if where.endswith("not over)"):
        return (
            "nothing may follow this text, and with ends=False a factor must say that it is over: "
            "give your potential is_over, or your predicate complete=, or write a stop or ends=True"
        )
    if not where.endswith("(at the empty text)"):
        return ""
    if who.startswith("predicate("):
        return (
            "@predicate asks whether a text with this prefix may still become allowed, and every "
            "text begins with the empty one: give a rule for whole texts as complete=, as in "
            "predicate(lambda text: True, complete=rule). Or what it knows beside the text allows "
            "nothing any more"
        )
    return "every text begins with the empty one, so this allows none"


def advice(kills: Mapping[str, int]) -> str:
    """What to try where all particles died: one or two sentences."""
    killer = most(kills) or ""
    _, together, where = _parts(killer)
    if found := remedy(killer):
        return f"{found[0].upper() if found[0] != '@' else '@'}{found[1:]}."
    if where:
        return (
            "Try a larger max_tokens, a constraint that lets texts end sooner, or more particles "
            "(n_particles)."
        )
    if together:
        return "Loosen one of them, or try more particles (n_particles)."
    return "Try more particles (n_particles), a looser constraint or a larger max_tokens."


def _parts(killer: str) -> tuple[str, str, str]:
    found = _KILLER.fullmatch(killer)
    assert found is not None
    return found["who"], found["together"] or "", found["where"] or ""
