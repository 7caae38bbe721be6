"""States after contexts, for layers whose state is no list of tokens.

*Snapshot.* A layer of a state space, a convolution or linear attention carries a state from token
to token. It cannot be cut back to an earlier one, and padding would enter it. So the state of a
row is kept whole, where a pass ended: at the ends of rows and of prompts. A row is copied out of
the pass that made it and into each pass that continues it, so that forks share nothing; one whose
snapshot is gone starts at the nearest before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from awrs_ppl.errors import AwrsError
from awrs_ppl.lm.states import State, joined

__all__ = ["Snapshots"]


@dataclass(slots=True, eq=False)
class _Snapshot:
    """The state after a context, which `fed` tokens led to from an earlier one.

    `after` says after which nodes the rows ended that went on from it.
    """

    state: State
    fed: int
    size: int
    after: set[Any] = field(default_factory=set)

    @property
    def worth(self) -> int:
        """Least is a step of a row that has gone on, where a fork may be the end of others; what
        no row has gone on from, and what it took more than a token to come to, is most."""
        return min(len(self.after), 2) if self.fed == 1 and self.after else 3


class Snapshots:
    """Snapshots by node of the tree of contexts, within two thirds of `memory` bytes.

    One third is for the rows at work. `size` is what a state takes after one token.
    """

    def __init__(self, memory: int, size: int) -> None:
        self.memory, self.size = memory, max(1, size)
        self.limit = memory * 2 // 3
        if self.limit < 2 * size:
            raise AwrsError(
                f"{memory} bytes of memory=... are left for the states of layers without keys, "
                f"{size} bytes each: give more than {6 * size} bytes"
            )
        self.clear()

    def clear(self) -> None:
        self.nbytes = 0
        self._kept: dict[Any, _Snapshot] = {}  # least recently used first

    def __contains__(self, node: object) -> bool:
        return node in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def at(self, node: Any) -> State | None:
        """The state after a node, as it is kept."""
        found = self._kept.get(node)
        return None if found is None else found.state

    def rows_at_work(self, node: Any) -> int:
        """How many rows like the one that goes on from `node` a pass may have."""
        kept = self._kept.get(node)
        size = max(self.size, kept.size if kept else 0)
        return max(1, self.memory // (3 * size))

    def batch(self, nodes: Sequence[Any]) -> Any:
        """A copy of the layers after some nodes as one batch; None: they are all at the root."""
        for node in nodes:
            if node in self._kept:
                self._kept[node] = self._kept.pop(node)
        if nodes[0] not in self._kept:
            return None
        return joined([self._kept[node].state for node in nodes])

    def keep(self, node: Any, base: Any, fed: int, state: State) -> None:
        """Keep the state after a node, which `fed` tokens led to from `base`."""
        if base in self._kept:
            self._kept[base].after.add(node)
        if node in self._kept or node is base:
            return
        size = state.nbytes
        self._make_room(size)
        if self.nbytes + size <= self.limit:
            self._kept[node] = _Snapshot(state, fed, size)
            self.nbytes += size

    def drop(self, node: Any) -> None:
        found = self._kept.pop(node, None)
        if found is not None:
            self.nbytes -= found.size

    def _make_room(self, size: int) -> None:
        if self.nbytes + size <= self.limit or size > self.limit:
            return
        for node in sorted(self._kept, key=lambda node: self._kept[node].worth):
            if self.nbytes + size <= self.limit:
                return
            self.drop(node)
