"""The slots that one pass needs, and whether the store has so many."""

from __future__ import annotations

from collections.abc import Iterator

from awrs_ppl.lm.cache import Node, Store
from awrs_ppl.lm.jobs import Job

__all__ = ["Slots"]


class Slots:
    """The slots of the store that a pass over some jobs needs, shared prefixes once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs: list[Job] = []
        self._most = 0  # if nothing were shared
        self._nodes: set[int] | None = None
        self._new = 0

    def fit(self, job: Job) -> bool:
        """Whether one more job fits the store."""
        limit = self._store.limit
        if self._most + len(job.fed) <= limit:
            return True
        if self._nodes is None:  # counting costs a walk: only where it matters
            self._nodes = set()
            for one in self._jobs:
                self._count(one)
        base = self._store.base(job)
        unseen = sum(1 for _ in self._unseen(base))
        return len(self._nodes) + self._new + unseen + len(job.fed) - base.depth <= limit

    def add(self, job: Job) -> None:
        """Take a job into the pass."""
        self._jobs.append(job)
        self._most += len(job.fed)
        if self._nodes is not None:
            self._count(job)

    def _count(self, job: Job) -> None:
        assert self._nodes is not None
        base = self._store.base(job)
        self._nodes.update([id(node) for node in self._unseen(base)])
        self._new += len(job.fed) - base.depth

    def _unseen(self, node: Node) -> Iterator[Node]:
        assert self._nodes is not None
        while node.parent is not None and id(node) not in self._nodes:
            yield node
            node = node.parent
