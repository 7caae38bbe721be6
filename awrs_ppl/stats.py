"""What an inference has cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from awrs_ppl._renamed import renamed

__all__ = ["Stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """What an inference has cost: `checks` and `rejections` by potential, `seconds` by part.

    `check_seconds` is how long Boolean potentials took, masks included: a part of the proposal's
    seconds, and with slow checks side by side more than has passed.
    `tokens` counts those of all particles, the ends of texts and dropped lineages included;
    `lm_rows` the contexts that went through the language model, in `lm_passes` forward passes.

    >>> Stats(tokens=4, lm_rows=5, lm_passes=2, checks={"sql": 6}, seconds={}).checks_per_token
    1.5
    """

    tokens: int
    lm_rows: int
    lm_passes: int
    checks: dict[str, int]
    seconds: dict[str, float]
    rejections: dict[str, int] = field(default_factory=dict)
    check_seconds: dict[str, float] = field(default_factory=dict)

    refusals = renamed("refusals", "rejections")

    @property
    def checks_per_token(self) -> float:
        """Checks of all potentials over tokens; 0 where there was no token."""
        return sum(self.checks.values()) / self.tokens if self.tokens else 0.0
