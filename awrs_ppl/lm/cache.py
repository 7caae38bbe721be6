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
import inspect
import math
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import (
    DummyLayer,
    DynamicIndexedLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from awrs_ppl.errors import AwrsError
from awrs_ppl.lm.reach import Reach

__all__ = ["Layer", "Node", "Store", "cache_argument", "layers_of"]


# How long windows and chunks are, by the names of configurations.
_LENGTHS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}

_KEPT = (DynamicLayer, DynamicSlidingWindowLayer, DynamicIndexedLayer)


class Layer(NamedTuple):
    """One attention layer.

    `shapes` are (heads, dim) of what it keeps of each token: its keys, its values, and where it
    has an indexer, that chooses what to attend to, the keys of that. None are of a layer that
    attends to the keys of an earlier one: the model hands them on within a pass.
    """

    shapes: tuple[tuple[int, int], ...]
    reach: Reach


def cache_argument(model: Any) -> str:
    """The name under which a model takes its cache; transformers 5.24 began to change it."""
    takes = inspect.signature(model.forward).parameters
    return "cache" if "cache" in takes and "past_key_values" not in takes else "past_key_values"


def layers_of(model: Any) -> list[Layer]:
    """The attention layers of a model. Raises `ValueError` where one cannot be cached by token."""
    config = model.config.get_text_config(decoder=True)
    if config._attn_implementation not in ("eager", "sdpa"):
        raise ValueError(f"{config._attn_implementation!r} attention does not take our masks")
    cache: Any = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(
            input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device),
            use_cache=True,
            logits_to_keep=1,
            **{cache_argument(model): cache},
        )
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        named = [kind for kind, name in _LENGTHS.items() if getattr(config, name, None)]
        kinds = [*named, "full_attention"][:1] * len(cache.layers)
    known = {"full_attention", "indexed_attention", *_LENGTHS}
    if len(kinds) != len(cache.layers) or {*kinds} - known:
        raise ValueError(f"layers of other kinds: {sorted({*kinds})}")
    return [_layer(config, kind, kept) for kind, kept in zip(kinds, cache.layers, strict=True)]


def _layer(config: Any, kind: str, kept: Any) -> Layer:
    """A layer by its kind and by what `transformers` keeps for it."""
    length = getattr(config, _LENGTHS[kind], None) if kind in _LENGTHS else 0
    # A window of none is how some configurations say that a layer sees everything.
    reach = Reach(kind, length) if length is not None else Reach()
    if type(kept) is DummyLayer:
        return Layer((), reach)
    tensors = [kept.keys, kept.values]
    if type(kept) is DynamicIndexedLayer and kept.indexer_keys is not None:
        tensors.append(kept.indexer_keys[:, None])
    if type(kept) not in _KEPT or any(tensor is None for tensor in tensors):
        raise ValueError(f"a layer that keeps something else: {type(kept).__name__}")
    return Layer(tuple((tensor.shape[1], tensor.shape[3]) for tensor in tensors), reach)


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

    Two thirds of the memory go to the store, one to the workspace.
    """

    def __init__(
        self, layers: list[Layer], dtype: torch.dtype, device: torch.device, memory: int
    ) -> None:
        self.layers, self.dtype, self.device, self.memory = layers, dtype, device, memory
        size = sum(heads * dim for layer in layers for heads, dim in layer.shapes) * dtype.itemsize
        self.limit: float = memory * 2 // (3 * size) if layers else math.inf  # slots
        self.room = memory // (3 * size) if layers else 0  # cells of the workspace
        if self.limit < 8:
            raise AwrsError(
                f"memory={memory} bytes hold the keys and values of {self.limit} tokens only; "
                f"one token takes {size}, and a third of the memory is for the rows at work"
            )
        self.clear()

    def with_room_for(self, tokens: int) -> Store:
        """An empty store of the same layers with room for so many tokens at least."""
        memory = max(self.memory, int(tokens / self.limit * self.memory) + 1)
        return Store(self.layers, self.dtype, self.device, memory)

    @property
    def nbytes(self) -> int:
        """The bytes that keys and values take, the workspace included."""
        tensors = [tensor for layer in (*self.slots, *self.cells) for tensor in layer]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def clear(self) -> None:
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
        """The end of the longest prefix of the context that is cached."""
        node = self.recent.get(context)
        if node is not None and node.slot >= 0:
            return node
        node = self.root
        for token in context:
            child = node.children.get(token)
            if child is None:
                break
            node = child
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
