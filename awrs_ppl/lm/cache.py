"""Keys and values of past tokens, by context.

*Store.* Keys and values of every token that was fed lie in a store, one slot a token; a tree over
contexts knows the slots. A prefix shared by many contexts is stored once, forks cost nothing, and
the leaf that was not used for the longest time goes first.

*Workspace.* Attention wants the keys of a row in one piece, so the rows of the last pass are also
laid out in a workspace, where column = position. A row that only grew is extended in place, others
are copied from the store; a batch too big for the workspace is gathered layer by layer.
"""

from __future__ import annotations

import heapq
import math
from typing import Self

import torch

from awrs_ppl.errors import AwrsError
from awrs_ppl.lm.jobs import Job
from awrs_ppl.lm.layers import Layer, Layout
from awrs_ppl.lm.snapshots import Snapshots

__all__ = ["Node", "Store"]

_NODE = 512  # bytes that a token takes in the tree: what counts where it has no keys
_ROW = 512  # how many tokens a row is taken to have where memory is divided


class Node:
    """A token after its context, which is the path from the root."""

    __slots__ = ("children", "depth", "parent", "slot", "token", "used")

    def __init__(self, parent: Node | None, token: int, slot: int) -> None:
        self.parent, self.token, self.slot = parent, token, slot
        self.depth: int = parent.depth + 1 if parent else 0
        self.children: dict[int, Node] = {}
        self.used = 0

    def path(self) -> list[int]:
        """The slots of the context, first token first."""
        slots, node = [], self
        while node.parent is not None:
            slots.append(node.slot)
            node = node.parent
        return slots[::-1]


class Store:
    """Keys and values by context, within `memory` bytes; without layers it keeps nothing.

    Two thirds of the memory go to the store, one to the workspace. Of a layout with states a part
    goes to their snapshots: what two of them take, beside the keys of a row of `_ROW` tokens.
    """

    def __init__(
        self, layout: Layout, dtype: torch.dtype, device: torch.device, memory: int
    ) -> None:
        self.layout, self.dtype, self.device, self.memory = layout, dtype, device, memory
        self.layers: list[Layer] = layout.layers
        self.number = {layer.at: number for number, layer in enumerate(self.layers)}
        size = dtype.itemsize * sum(
            heads * dim for layer in self.layers for heads, dim in layer.shapes
        )
        self.snapshots = None
        if layout.states:
            size += _NODE
            part = 2 * layout.state_size / (2 * layout.state_size + _ROW * size)
            self.snapshots = Snapshots(int(memory * part), layout.state_size)
            memory -= self.snapshots.memory
        self.limit: float = memory * 2 // (3 * size) if size else math.inf  # slots
        self.room = memory // (3 * size) if self.layers else 0  # cells of the workspace
        if self.limit < 8:
            raise AwrsError(
                f"memory={memory} bytes hold the keys and values of {self.limit} tokens only; "
                f"one token takes {size}, and a third of the memory is for the rows at work"
            )
        self.clear()

    def within(self, memory: int) -> Self:
        """An empty store of the same layout with other memory."""
        return type(self)(self.layout, self.dtype, self.device, memory)

    def with_room_for(self, tokens: int) -> Self:
        """An empty store of the same layout with room for so many tokens at least."""
        return self.within(max(self.memory, int(tokens / self.limit * self.memory) + 1))

    @property
    def keeps(self) -> bool:
        """Whether anything is kept."""
        return bool(self.layers) or self.snapshots is not None

    @property
    def nbytes(self) -> int:
        """The bytes that keys, values and states take, the workspace included."""
        tensors = [tensor for layer in (*self.slots, *self.cells) for tensor in layer]
        held = sum(tensor.nbytes for tensor in tensors)
        return held + (self.snapshots.nbytes if self.snapshots is not None else 0)

    def clear(self) -> None:
        if self.snapshots is not None:
            self.snapshots.clear()
        self.root = Node(None, -1, -1)
        self.clock = 0
        self.recent: dict[tuple[int, ...], Node] = {}  # the ends of recent rows
        self.size, self.free = 0, list[int]()
        # Zeros and not whatever the memory holds: what is masked must still be finite.
        self.slots = [self._tensors(layer, 0) for layer in self.layers]
        self.rows = self.columns = 0
        self.ends: list[Node] = []  # by row of the workspace: what it holds
        self.cells = [self._tensors(layer, 0, 0) for layer in self.layers]

    def _tensors(self, layer: Layer, *size: int) -> list[torch.Tensor]:
        return [
            torch.zeros(*size, *shape, dtype=self.dtype, device=self.device)
            for shape in layer.shapes
        ]

    def find(self, context: tuple[int, ...]) -> Node:
        """The end of the longest prefix of the context that is cached, with states if any are."""
        node = self.recent.get(context)
        if node is None or node.slot < 0:
            node = self.root
            for token in context:
                child = node.children.get(token)
                if child is None:
                    break
                node = child
        if self.snapshots is not None:
            while node.parent is not None and node not in self.snapshots:
                node = node.parent
        return node

    def base(self, job: Job) -> Node:
        """Where the pass for a job begins."""
        node = self.find(job.past)
        if self.layout.steps and len(job.fed) - node.depth > 1:
            return self.root
        return node

    def learn(self, context: tuple[int, ...], node: Node, slots: list[int]) -> Node:
        """The end of the context, given the end of a cached prefix and the slots of the rest."""
        for token, slot in zip(context[node.depth :], slots, strict=True):
            child = node.children.get(token)
            if child is None:
                child = node.children[token] = Node(node, token, slot)
            else:  # fed again for its logits, or by another row of this pass
                self.free.append(slot)
            child.used = self.clock
            node = child
        self.recent[context] = node
        return node

    def claim(self, bases: list[Node], count: int) -> list[int]:
        """`count` free slots, for a pass that builds on `bases`; makes room where there are few."""
        self.clock += 1
        for base in bases:
            base.used = self.clock
        if len(self.recent) > 4096:
            self.recent.clear()
        missing = count - len(self.free)
        if missing > 0 and self.size < self.limit:
            self._grow(int(min(self.limit, max(self.size + missing, 2 * self.size, 1024))))
        if count > len(self.free):
            self._evict(count + self.size // 16)  # some more: finding leaves costs a walk
        slots = self.free[len(self.free) - count :]
        del self.free[len(self.free) - count :]
        return slots

    def _grow(self, size: int) -> None:
        for layer, tensors in zip(self.layers, self.slots, strict=True):
            for i, larger in enumerate(self._tensors(layer, size)):
                larger[: self.size] = tensors[i]
                tensors[i] = larger
        self.free = [*range(size - 1, self.size - 1, -1), *self.free]
        self.size = size

    def _evict(self, count: int) -> None:
        """Evict leaves, least recently used first, until `count` slots are free."""
        leaves, todo = [], [self.root]
        while todo:
            node = todo.pop()
            todo += node.children.values()
            if not node.children and node is not self.root:
                leaves.append((node.used, len(leaves), node))
        heapq.heapify(leaves)
        number = len(leaves)
        while leaves and len(self.free) < count:
            used, _, node = heapq.heappop(leaves)
            parent = node.parent
            if used >= self.clock or parent is None:
                break  # what this pass builds on
            del parent.children[node.token]
            self.free.append(node.slot)
            node.slot = -1
            if self.snapshots is not None:
                self.snapshots.drop(node)
            parent.used = max(parent.used, used)
            if not parent.children and parent is not self.root:
                number += 1
                heapq.heappush(leaves, (parent.used, number, parent))

    def place(self, bases: list[Node], columns: int) -> list[int] | None:
        """Lay `bases` out in the first rows of the workspace; None if they do not fit.

        The answer says for each row which of `bases` it holds.
        """
        count = len(bases)
        if count * columns > self.room:
            return None
        if count > self.rows or columns > self.columns:
            rows, wide = max(count, self.rows), max(self.columns, columns + columns // 2 + 32)
            if rows * wide > self.room:
                rows, wide = count, columns
            self.rows, self.columns = rows, wide
            self.cells = []  # freed before the new ones are made
            self.cells = [self._tensors(layer, rows, wide) for layer in self.layers]
            self.ends = [self.root] * rows
        # A row also holds the parent of what it holds: fed again for its logits.
        holds = {id(end.parent): row for row, end in enumerate(self.ends[:count])}
        holds |= {id(end): row for row, end in enumerate(self.ends[:count])}
        taken: dict[int, int] = {}
        for i, base in enumerate(bases):
            if id(base) in holds:
                taken.setdefault(holds[id(base)], i)
        left = iter(sorted({*range(count)} - {*taken.values()}))
        copied = {row: next(left) for row in range(count) if row not in taken}
        wide = max((bases[i].depth for i in copied.values()), default=0)
        if wide:
            paths = [bases[i].path() for i in copied.values()]
            index = torch.tensor([p + [0] * (wide - len(p)) for p in paths], device=self.device)
            rows_at = torch.tensor([*copied], device=self.device)
            for tensors, cells in zip(self.slots, self.cells, strict=True):
                for tensor, cell in zip(tensors, cells, strict=True):
                    cell[rows_at, :wide] = tensor[index]
        held = taken | copied
        return [held[row] for row in range(count)]
