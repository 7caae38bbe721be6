"""What an inference costs: checks by potential, rows of language models, seconds by part."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.stats import Stats

__all__ = ["Costs"]


class Costs:
    """The costs of one inference so far; `tokens` counts those of all texts."""

    def __init__(self) -> None:
        self.tokens = 0
        self._checks: Counter[str] = Counter()
        self._rejections: Counter[str] = Counter()
        self._check_seconds: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._lms: dict[Any, dict[str, float]] = {}
        self._started = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charge the time inside to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self._seconds[name] = self._seconds.get(name, 0.0) + spent

    def count(self, steps: Iterable[NextVerdicts]) -> None:
        """Charge the checks of some contexts to the potentials, which are named once: names may
        be long."""
        names: dict[int, str] = {}
        for verdicts in steps:
            # Each factor that was evaluated has taken time.
            for i, seconds in verdicts.seconds.items():
                potential = verdicts.target.boolean[i].potential
                name = names.get(id(potential))
                if name is None:
                    name = names[id(potential)] = repr(potential)
                self._check_seconds[name] = self._check_seconds.get(name, 0.0) + seconds
                for counts, total in (
                    (verdicts.checks, self._checks),
                    (verdicts.rejections, self._rejections),
                ):
                    if i in counts:
                        total[name] += counts[i]

    def take(self, steps: Iterable[NextVerdicts]) -> None:
        """`count` for contexts that are looked at again: what was counted is no more with them."""
        for verdicts in steps:
            self.count([verdicts])
            for counts in (verdicts.checks, verdicts.rejections, verdicts.seconds):
                counts.clear()

    def stats(self) -> Stats:
        """All costs up to now."""
        seconds = dict(self._seconds)
        total = time.perf_counter() - self._started
        seconds["model and engine"] = max(0.0, total - sum(seconds.values()))
        return Stats(
            tokens=self.tokens,
            lm_rows=self._used("rows"),
            lm_passes=self._used("passes"),
            checks=dict(self._checks),
            seconds=seconds,
            rejections=dict(self._rejections),
            check_seconds=dict(self._check_seconds),
        )

    def use(self, lms: Iterable[Any]) -> None:
        """Count the rows of these language models from now on."""
        for lm in lms:
            self._lms.setdefault(lm, _counts(lm))

    @property
    def lm_rows(self) -> int:
        """The rows of language models."""
        return self._used("rows")

    def _used(self, what: str) -> int:
        return int(sum(_counts(lm)[what] - before[what] for lm, before in self._lms.items()))


def _counts(lm: Any) -> dict[str, float]:
    stats = lm.engine.stats
    return {"rows": stats.rows, "passes": stats.passes}
