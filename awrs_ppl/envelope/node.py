"""Nodes of the envelope trie: executions up to a draw, and bounds of all that can follow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from awrs_ppl.log_weights import log_sum

if TYPE_CHECKING:
    from awrs_ppl.program.log import Log
    from awrs_ppl.program.statements import Statement
    from awrs_ppl.proposals.token_step import Progress, TokenStep

__all__ = ["Edge", "Node", "Table"]


@dataclass(slots=True)
class Table:
    """The outcomes of a draw: `outcomes`, the heaviest first, with the logarithms of their
    `weights`, and of what all others weigh, the `rest`.

    `low` and `high` bound the logarithm of what follows an outcome, by its place in the table;
    where nothing is known yet there is no entry, and it is between 0 and 1. `step` is the text's
    context, without its mask.
    """

    outcomes: list[Any]
    weights: np.ndarray
    rest: float = -math.inf
    step: TokenStep | None = None
    low: dict[int, float] = field(default_factory=dict)
    high: dict[int, float] = field(default_factory=dict)

    def bounds(self) -> tuple[float, float]:
        """The logarithms of the bounds of all that can follow here."""
        low = [self.weights[i] + bound for i, bound in self.low.items()]
        return log_sum(low), log_sum(np.append(self.highs(), self.rest))

    def is_last(self, place: int) -> bool:
        """Whether an outcome ends the draw: it is no token that continues a text."""
        return self.step is None or self.outcomes[place] >= self.step.verdicts.vocabulary.size

    def ends(self) -> list[int]:
        """The places of the outcomes that end the draw and of which nothing is known yet."""
        places = range(len(self.outcomes))
        return [i for i in places if self.is_last(i) and i not in self.high]

    def highs(self) -> np.ndarray:
        """The log-weight of each outcome times what can follow it at most."""
        highs = self.weights.copy()
        if self.high:
            known = np.fromiter(self.high, np.int64, len(self.high))
            highs[known] += np.fromiter(self.high.values(), np.float64, len(self.high))
        return highs


@dataclass(slots=True, eq=False)
class Edge:
    """How a node is reached: from `parent` by the outcome at `place` of its table, and what the
    statements between have done to the weight, as a logarithm."""

    parent: Node
    place: int
    log_weight: float


@dataclass(slots=True, eq=False)
class Node:
    """An execution that has come to a draw, or to its end.

    Before it are the records of `log`; `statement` is the `generate` or `sample` that comes next,
    None at the end, where the program returned `value`; `progress` is the text drawn so far.
    `factor` is the log-weight that counts at the end, where nothing that comes later can take it
    back.

    `low` and `high` are the logarithms of the bounds of what can follow; without a `table` nothing
    is known of that, and in a node that is `opaque` nothing can be: it draws from a density.
    `written` counts the characters of the texts before.

    Several edges lead to one node where texts that are spelled by different tokens are equal;
    `path` is the log-weight of all ways to it, as it was when the last of them was found.
    """

    log: Log | None
    statement: Statement | None
    factor: float = 0.0
    progress: Progress | None = None
    value: Any = None
    opaque: bool = False
    written: int = 0
    table: Table | None = None
    low: float = -math.inf
    high: float = 0.0
    path: float = -math.inf
    edges: list[Edge] = field(default_factory=list)
    children: dict[int, tuple[Node, float]] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[int, int]:
        """Larger than that of all nodes before it: the records, and the tokens of its text."""
        records = self.log.length if self.log else 0
        return records, len(self.progress.text.tokens) if self.progress else 0

    @property
    def length(self) -> int:
        """How much text there is, in all statements."""
        return self.written + (len(self.progress.text.data) if self.progress else 0)

    @property
    def is_end(self) -> bool:
        """Whether the program has returned."""
        return self.statement is None

    def link(self, place: int, child: Node, log_weight: float) -> None:
        """An outcome leads to a child."""
        assert self.table is not None
        self.children[place] = child, log_weight
        child.edges.append(Edge(self, place, log_weight))
        way = self.path + float(self.table.weights[place]) + log_weight
        child.path = log_sum([child.path, way])
        self.note(place, child.low + log_weight, child.high + log_weight)

    def note(self, place: int, low: float, high: float) -> None:
        """What is known of all that can follow an outcome; -inf for one that is rejected."""
        assert self.table is not None
        self.table.high[place] = high
        if low > -math.inf:
            self.table.low[place] = low
        else:
            self.table.low.pop(place, None)
