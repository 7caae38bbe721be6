"""What an engine has done."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Stats"]


@dataclass(slots=True)
class Stats:
    """What an engine has done so far; the numbers only grow.

    `rows`: contexts requested, repeats counted. `tokens`: tokens fed to the model. `passes`:
    forward passes. `seconds`: time spent on them.
    """

    rows: int = 0
    tokens: int = 0
    passes: int = 0
    seconds: float = 0.0
