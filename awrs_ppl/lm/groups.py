"""Which jobs share a pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from awrs_ppl.lm.cache import Store
from awrs_ppl.lm.forward import Forward
from awrs_ppl.lm.jobs import Job
from awrs_ppl.lm.slots import Slots

__all__ = ["PASS_BYTES", "Groups"]

PASS_BYTES = 2**29  # logits of one pass
_PASS_TOKENS = 4096  # new tokens of one pass, padding included


class _Need(NamedTuple):
    """What a job asks of a pass: `tokens` to feed, at most `rows` like it beside it, and `alike`,
    in which all rows of a pass must be equal."""

    tokens: int
    alike: tuple[int, ...]
    rows: int


@dataclass(slots=True)
class Groups:
    """Splits jobs into passes. `pass_cost` is what a pass costs, in tokens."""

    forward: Forward
    pass_cost: int
    vocab_size: int
    most_rows: int = _PASS_TOKENS
    scarce: bool = False  # whether a step's contexts were ever more than the store has slots for

    def of(self, jobs: list[Job], store: Store) -> Iterator[list[Job]]:
        """As few passes as possible, but not at the price of much padding.

        What is cached when a pass ends may change what later groups need: see `are_alike`.
        """
        group: list[Job] = []
        needed = waste = keep = 0
        slots = Slots(store)
        plain = not store.keeps
        alike: tuple[int, ...] = ()
        needs = [(self._need(job, store), job) for job in jobs]
        for need, job in sorted(needs, key=lambda it: (-it[0].tokens, it[0].alike)):
            rows = len(group) + 1
            kept = job.keep
            if plain:
                kept = self.forward.kept(needed - need.tokens + job.keep, needed)
            if group and (
                need.alike != alike
                or rows > need.rows
                or waste + needed - need.tokens > self.pass_cost
                or rows * needed > _PASS_TOKENS
                or rows * max(keep, kept) * self.vocab_size * 4 > PASS_BYTES
                or self._lacks(slots, job)
            ):
                yield group
                group, waste, keep = [], 0, 0
                slots = Slots(store)
            if not group:
                needed, alike = need.tokens, need.alike
                kept = self.forward.kept(job.keep, needed) if plain else job.keep
            waste += needed - need.tokens
            slots.add(job)
            keep = max(keep, kept)
            group.append(job)
        if group:
            yield group

    def _lacks(self, slots: Slots, job: Job) -> bool:
        lacks = not slots.fit(job)
        self.scarce |= lacks
        return lacks

    def are_alike(self, jobs: list[Job], store: Store) -> bool:
        """Whether the jobs may share a pass as things are now."""
        if store.snapshots is None and not store.layout.even:
            return True
        return len({self._need(job, store).alike for job in jobs}) == 1

    def _need(self, job: Job, store: Store) -> _Need:
        base = store.base(job)
        tokens, rows = len(job.fed) - base.depth, self.most_rows
        if store.snapshots is not None:  # there must be no padding, and a state for all or none
            rows = min(rows, store.snapshots.rows_at_work(base))
        elif not store.layout.even:
            return _Need(tokens, (), rows)
        depth = base.depth if store.layout.even else min(base.depth, 1)
        return _Need(tokens, (tokens, depth), rows)
