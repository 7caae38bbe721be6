"""Weights from which outcomes are drawn and removed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

__all__ = ["BLOCK", "Urn", "block_sums", "likeliest", "pick", "strata"]

BLOCK = 512
_TOP = 16


def block_sums(weights: torch.Tensor) -> np.ndarray:
    """The sums of the blocks of each row, float64, shape `[..., blocks]`.

    Within a block float32 is exact enough (1e-6), between blocks it would not be.
    """
    blocks = weights.unflatten(-1, (-1, BLOCK)).sum(-1)
    return blocks.cpu().numpy().astype(np.float64)


def likeliest(weights: torch.Tensor, most: int = _TOP) -> list[list[int]]:
    """The heaviest outcomes of each row, `[n, width]`, heaviest first, `most` of them at most.

    They are in the blocks with the heaviest maxima, and the rest need not be ranked.
    """
    blocks = weights.unflatten(-1, (-1, BLOCK))
    count = min(most, blocks.shape[1])
    first = blocks.amax(-1).topk(count).indices
    rows = torch.arange(len(blocks), device=weights.device)[:, None]
    within = blocks[rows, first].flatten(1).topk(min(most, count * BLOCK)).indices
    return (first.gather(1, within // BLOCK) * BLOCK + within % BLOCK).tolist()


class Urn:
    """Weights from which outcomes are drawn, with or without putting them back.

    `weights` is a row on any device, its length a multiple of `BLOCK`; it is changed. Sums are
    kept by blocks, so that a draw or a removal costs a pass over the block sums and one block,
    not over the vocabulary, and only that block leaves the device.

    >>> urn = Urn.of(np.array([0.25, 0.0, 0.75]))
    >>> urn.remove(2)
    0.75
    >>> urn.mass, urn.draw(np.random.default_rng(0))
    (0.25, 0)
    """

    def __init__(
        self,
        weights: torch.Tensor,
        sums: np.ndarray | None = None,
        top: Callable[[], list[int]] | None = None,
    ) -> None:
        self._row = weights
        self._sums = block_sums(weights) if sums is None else sums
        self._mass: float | None = None
        self._top = top
        self._on_host = weights.device.type == "cpu"
        self._host = weights.numpy() if self._on_host else np.empty(0)
        self._fetched: dict[int, np.ndarray] = {}
        self._stale: set[int] = set()  # blocks whose sums are to be computed again

    @classmethod
    def of(cls, weights: np.ndarray) -> Urn:
        """An urn of an array of any length; the array is copied."""
        row = np.zeros(-(-len(weights) // BLOCK) * BLOCK, dtype=weights.dtype)
        row[: len(weights)] = weights
        return cls(torch.from_numpy(row))

    @property
    def mass(self) -> float:
        """The sum of the weights left; exactly 0 if none is."""
        if self._mass is None:
            self._refresh()
            self._mass = float(self._sums.sum())
        return self._mass

    def weight(self, outcome: int) -> float:
        """The weight of an outcome; 0 once it is removed."""
        return float(self._block(outcome // BLOCK)[outcome % BLOCK])

    def mass_of(self, outcomes: np.ndarray) -> float:
        """The sum of the weights of several outcomes."""
        if self._on_host:
            return float(self._host[outcomes].sum(dtype=np.float64))
        return float(self._row[self._index(outcomes)].double().sum())

    def count(self) -> int:
        """How many outcomes have weight."""
        return int((self._row > 0).sum())

    def remove(self, outcome: int) -> float:
        """Take an outcome out; returns what it weighed."""
        number = outcome // BLOCK
        block = self._block(number)
        weight = float(block[outcome % BLOCK])
        if weight:
            block[outcome % BLOCK] = 0.0
            if not self._on_host:
                self._row[outcome] = 0.0
            self._stale.add(number)
            self._mass = None
        return weight

    def remove_all(self, outcomes: np.ndarray) -> None:
        """Take many outcomes out."""
        if self._on_host:
            self._host[outcomes] = 0.0
        else:
            self._row[self._index(outcomes)] = 0.0
            self._fetched.clear()
        self._sums = block_sums(self._row)
        self._stale.clear()
        self._mass = None

    def take(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Take out the heaviest outcomes, `most` of them at most; these, and their weights."""
        if self._on_host:  # without torch's threads, which a few small passes do not pay for
            blocks = self._host.reshape(-1, BLOCK)
            numbers = _heaviest(blocks.max(axis=1), most)
            within = _heaviest(blocks[numbers].ravel(), most)
            outcomes = numbers[within // BLOCK] * BLOCK + within % BLOCK
        else:
            outcomes = np.array(likeliest(self._row[None], most)[0], dtype=np.int64)
        weights = np.array([self.remove(outcome) for outcome in outcomes.tolist()])
        return outcomes[weights > 0.0], weights[weights > 0.0]

    def draw(self, rng: np.random.Generator) -> int:
        """Draw an outcome by its weight, and leave it in. There must be mass."""
        return self.at(rng.random())

    def at(self, position: float) -> int:
        """The outcome at a position in [0, 1): uniform ones give outcomes by their weights."""
        self._refresh()
        cumulative = np.cumsum(self._sums)
        reach = position * cumulative[-1]
        number = pick(cumulative, reach)
        within = np.cumsum(self._block(number), dtype=np.float64)
        rest = reach - (cumulative[number - 1] if number else 0.0)
        # The two sums of a block differ by rounding.
        share = rest / self._sums[number] if self._sums[number] > 0 else 0.0
        return number * BLOCK + pick(within, min(max(share, 0.0), 1.0) * within[-1])

    def ranked(self) -> Iterator[int]:
        """The outcomes with mass, heaviest first; what was removed meanwhile is left out."""
        given: set[int] = set()
        count = 0
        while self.mass > 0.0 and count < len(self._row):
            if count:
                count = min(32 * count, len(self._row))
                top = torch.topk(self._row, count).indices.tolist()
            else:
                count = min(_TOP, len(self._row))
                top = self._top() if self._top is not None else likeliest(self._row[None])[0]
            for outcome in top:
                if outcome not in given and self.weight(outcome) > 0.0:
                    given.add(outcome)
                    yield outcome

    def copy(self) -> Urn:
        """Another urn with the same weights."""
        self._refresh()
        return Urn(self._row.clone(), self._sums.copy(), self._top)

    def _refresh(self) -> None:
        # Summed again, not subtracted: no rounding error is left where mass was.
        if len(self._stale) > 2 and self._on_host:
            numbers = list(self._stale)
            blocks = self._host.reshape(-1, BLOCK)[numbers]
            self._sums[numbers] = blocks.sum(axis=1, dtype=np.float64)
        else:
            for number in self._stale:
                self._sums[number] = self._block(number).sum(dtype=np.float64)
        self._stale.clear()

    def _block(self, number: int) -> np.ndarray:
        if self._on_host:
            return self._host[number * BLOCK : (number + 1) * BLOCK]
        block = self._fetched.get(number)
        if block is None:
            block = self._row[number * BLOCK : (number + 1) * BLOCK].cpu().numpy()
            self._fetched[number] = block
        return block

    def _index(self, outcomes: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(outcomes.astype(np.int64)).to(self._row.device)


def _heaviest(weights: np.ndarray, most: int) -> np.ndarray:
    """Where the heaviest are of those that weigh anything, in no order."""
    # Under a mask nearly all are 0, and a partition of equal values is slow.
    found = np.flatnonzero(weights)
    if len(found) <= most:
        return found
    return found[np.argpartition(weights[found], -most)[-most:]]


def pick(cumulative: np.ndarray, at: float) -> int:
    """The first index whose cumulative weight exceeds `at`; never one of weight zero."""
    index = int(np.searchsorted(cumulative, at, side="right"))
    if index == len(cumulative):
        # `at` was rounded up to the total: the last index that has weight.
        index = int(np.searchsorted(cumulative, cumulative[-1], side="left"))
    return index


def strata(members: int, rng: np.random.Generator) -> np.ndarray:
    """Positions in [0, 1), one in each of `members` equal parts, in random order.

    Each alone is uniform; together they spread the outcomes as evenly as their weights.
    """
    if members == 1:
        return rng.random(1)
    positions = (rng.permutation(members) + rng.random(members)) / members
    return np.minimum(positions, math.nextafter(1.0, 0.0))  # the last may be rounded up to 1
