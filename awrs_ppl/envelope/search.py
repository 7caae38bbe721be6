"""Best-first search: a trie that grows heaviest first."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from itertools import count

from awrs_ppl._concurrency import together
from awrs_ppl.envelope.bounds import settle
from awrs_ppl.envelope.node import Node
from awrs_ppl.envelope.trie import Trie
from awrs_ppl.errors import ModelError

__all__ = ["Search"]

# Contexts a forward pass, and how many of them are the heaviest; the others are the heaviest when
# each character gives back a share of what texts have lost a character. That trades bounds for
# ends: on a pattern of 27 sentences (SmolLM2, evidence exp(-41.6)) some 215 rows found .87, .97 and
# .97 of the evidence with 32, 24 and 16 of the heaviest, and the upper bound was exp(-33.9),
# exp(-34.0) and exp(-33.4). Of the shares .25, .5 and .75 with no heaviest at all, .5 found most;
# the larger the share, the slower fell the bound.
_BATCH, _HEAVY, _GIVEN_BACK = 32, 24, 0.5

# What weighs less than a thousandth of the first in a pass waits for a later one: else a pass could
# check thousands of unlikely tokens to find 32 that are allowed.
_REACH = math.log(1000)

# What waits: minus the priority, the order of arrival, the node, and the place of an outcome in its
# table, or the end of the table, where the node needs its row.
_Entry = tuple[float, int, Node, int]


class Search:
    """Executions of a trie's program, the heaviest first.

    1. Take the heaviest outcomes that wait, and see where they lead: some are rejected, others end
       a text, and their programs run on.
    2. Contexts get their rows, `_BATCH` in one forward pass. Most are the heaviest, which lowers
       the upper bound of the evidence fastest. Where a text loses weight with every word, short
       prefixes are all heavier than whole texts, so that these would come last: the other contexts
       are the heaviest when each character that is written gives back half of what texts have lost
       a character.
    3. Bring the bounds up to the root.

    Raises `ModelError` at a draw that cannot be enumerated; if `opaque`, it is left alone.
    """

    def __init__(self, trie: Trie, *, opaque: bool = False) -> None:
        self.trie, self._opaque = trie, opaque
        self._heavy: list[_Entry] = []
        self._near: list[_Entry] = []
        self._order = count()
        self._places: dict[Node, int] = {}  # which of a node's outcomes waits
        self._longest = 1

    async def begin(self) -> None:
        """Come to the program's first draw."""
        root = await self.trie.begin()
        if root is not None:
            self._push(root, 0)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to look at."""
        return not self._places

    async def grow(self) -> None:
        """One forward pass, and what comes before it."""
        touched: dict[Node, None] = {}
        try:
            await self._grow(touched)
        finally:
            settle(touched)

    async def _grow(self, touched: dict[Node, None]) -> None:
        rows: dict[Node, int] = {}
        ends: dict[Node, list[int]] = {}
        await self._descend(self._heavy, _HEAVY, rows, ends, touched)
        await self._descend(self._near, _BATCH, rows, ends, touched)
        touched.update(dict.fromkeys([*rows, *ends]))
        followed = (self._follow(node, places) for node, places in ends.items())
        await together([self.trie.tabulate(list(rows)), *followed])
        free = {
            node: [place for place in node.table.ends() if not self.trie.takes_row(node, place)]
            for node in rows
            if node.table is not None
        }
        await together(self._follow(node, places) for node, places in free.items())
        for node, place in rows.items():
            self._push(node, place)
            self._reach(child for child, _ in node.children.values() if place == 0)

    async def _descend(
        self,
        waiting: list[_Entry],
        most: int,
        rows: dict[Node, int],
        ends: dict[Node, list[int]],
        touched: dict[Node, None],
    ) -> None:
        """Find what needs a row, until there is so much of it: contexts, with the ends of their
        tables, and outcomes behind which a language model weighs. All other outcomes that come
        before these are followed."""
        count = len(rows) + sum(map(len, ends.values()))
        limit = waiting[0][0] + _REACH if waiting else 0.0
        while count < most:
            followed: dict[Node, list[int]] = {}
            left = most - count
            while left and waiting and waiting[0][0] <= limit:
                entry = self._pop(waiting)
                if entry is None:
                    continue
                node, place = entry
                left -= 1
                if node.table is None or place == len(node.table.outcomes):
                    rows[node] = place
                    count += 1
                    continue
                self._push(node, place + 1)
                if self.trie.takes_row(node, place):
                    ends.setdefault(node, []).append(place)
                    count += 1
                else:
                    followed.setdefault(node, []).append(place)
            if not followed:
                break
            touched.update(dict.fromkeys(followed))
            await together(self._follow(node, places) for node, places in followed.items())

    def _pop(self, waiting: list[_Entry]) -> tuple[Node, int] | None:
        """What comes first; None if it was taken from the other heap."""
        _, _, node, place = heapq.heappop(waiting)
        if self._places.get(node) != place:
            return None
        del self._places[node]
        return node, place

    async def _follow(self, node: Node, places: list[int]) -> None:
        self._reach(filter(None, await self.trie.follow(node, places)))

    def _reach(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if len(node.edges) == 1:  # else it waits already, or was looked at
                self._push(node, 0)

    def _push(self, node: Node, place: int) -> None:
        """Let the outcome at a place wait, and with it all that are lighter."""
        if node.opaque and not self._opaque:
            assert node.statement is not None
            raise ModelError(
                f"{node.statement.shows()} draws what cannot be enumerated: exact results need "
                "Categorical or Bernoulli; or use infer"
            )
        if node.is_end or node.opaque:
            return
        log_weight, table = node.path, node.table
        while table is not None and place in table.high:
            place += 1
        if table is not None and place < len(table.outcomes):
            log_weight += float(table.weights[place])
        elif table is not None:
            if table.rest == -math.inf:
                return
            # None of the rest is heavier than the last of the table.
            log_weight += min(table.rest, float(table.weights[-1]))
        length = node.length + (table is not None)
        self._longest = max(self._longest, length)
        near = log_weight - _GIVEN_BACK * self.trie.log_high / self._longest * length
        order = next(self._order)
        self._places[node] = place
        heapq.heappush(self._heavy, (-log_weight, order, node, place))
        heapq.heappush(self._near, (-near, order, node, place))
