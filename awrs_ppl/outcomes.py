"""What can come next at a context, and how much each of it weighs.

An *outcome* is a token that continues the text (its id) or a way to end it (`size + j` for
`closings.ends[j]`). Outcomes are what proposals draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from awrs_ppl.vocabulary import Closings, Vocabulary, stop_tail

__all__ = ["Outcomes", "Urn", "end_log_weight"]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The weights of all outcomes: outcome `i` weighs `p[i] * exp(log_scale)`.

    `p` has shape `[size + len(closings.ends)]`, the largest entry near 1, so that a narrow
    mask over unlikely tokens does not underflow; all zero if nothing has mass.
    """

    p: np.ndarray
    log_scale: float
    closings: Closings
    # The log-weights that `p` was made of, for what underflows in it.
    log_p: np.ndarray

    @classmethod
    def of(
        cls,
        rows: Sequence[np.ndarray],
        vocabulary: Vocabulary,
        closings: Closings,
        *,
        allowed: np.ndarray | None = None,
        forced: bool = False,
    ) -> Outcomes:
        """Combine the log-probability rows of a product's LMs, each of shape `[size]`.

        `allowed` (bool, shape `[size]`) removes tokens; `forced` leaves the plain end alone.
        """
        size = vocabulary.size
        row = rows[0] if len(rows) == 1 else np.sum(rows, axis=0)
        tokens = closings.tokens
        closing = row[tokens].astype(np.float64)
        # The end of a product is the product of the ends, however many tokens each model has
        # for it; it stands in the place of the first, which leads `tokens`.
        if len(vocabulary.ends):
            closing[: len(vocabulary.ends)] = -math.inf
            closing[0] = sum(
                float(np.logaddexp.reduce(r[vocabulary.ends].astype(np.float64))) for r in rows
            )
        if forced:
            closing[len(closings.ids[0]) :] = -math.inf
            text = np.full(size, -math.inf, dtype=row.dtype)
        else:
            keep = vocabulary.is_text if allowed is None else vocabulary.is_text & allowed
            text = np.where(keep, row, row.dtype.type(-math.inf))
            text[tokens] = -math.inf
        peak = max(float(text.max()), float(closing.max(initial=-math.inf)))
        log_p = np.full(size + len(closings.ends), -math.inf, dtype=row.dtype)
        log_p[:size] = text
        if len(tokens):
            starts = np.cumsum([0, *map(len, closings.ids[:-1])])
            # reduceat takes an empty group for its successor; only the first can be empty.
            sums = np.logaddexp.reduceat(closing, np.minimum(starts, len(tokens) - 1))
            log_p[size:] = np.where([len(ids) > 0 for ids in closings.ids], sums, -math.inf)
        if peak == -math.inf:
            return cls(np.zeros_like(log_p), 0.0, closings, log_p)
        return cls(np.exp(log_p - log_p.dtype.type(peak)), peak, closings, log_p)

    def underflowed(self) -> Outcomes | None:
        """What has a weight too small for `p`, on a scale of its own; None if nothing has.

        For use when every outcome with mass in `p` is known to be rejected.
        """
        lost = np.where(self.p == 0, self.log_p, -math.inf)
        peak = float(lost.max())
        if peak == -math.inf:
            return None
        return Outcomes(np.exp(lost - peak), peak, self.closings, lost)


def end_log_weight(
    rows: Sequence[np.ndarray], vocabulary: Vocabulary, stops: tuple[bytes, ...], data: bytes
) -> float:
    """The log-weight with which the LMs of a product end the text `data` right there.

    By an end token, or by a token that begins with a stop; rows are of shape `[size]`.
    """
    closings = vocabulary.closings(stops, stop_tail(data, stops))
    end = Outcomes.of(rows, vocabulary, closings, forced=True)
    mass = float(end.p[vocabulary.size])
    return end.log_scale + math.log(mass) if mass > 0 else -math.inf


class Urn:
    """Weights from which outcomes are drawn, with or without putting them back.

    Sums are float64 and kept by blocks, so that a draw or a removal costs a pass over the
    block sums and one block, not over the vocabulary.

    >>> urn = Urn(np.array([0.25, 0.0, 0.75]))
    >>> urn.remove(2)
    0.75
    >>> urn.mass, urn.draw(np.random.default_rng(0))
    (0.25, 0)
    """

    _BLOCK = 512

    def __init__(self, p: np.ndarray) -> None:
        blocks = -(-len(p) // self._BLOCK)
        self._p = np.zeros(blocks * self._BLOCK, dtype=p.dtype)
        self._p[: len(p)] = p
        self._blocks = self._p.reshape(blocks, self._BLOCK)
        self._sums = self._blocks.sum(axis=1, dtype=np.float64)

    @property
    def mass(self) -> float:
        """The sum of the weights left; exactly 0 if none is."""
        return float(self._sums.sum())

    def weight(self, outcome: int) -> float:
        """The weight of an outcome; 0 once it is removed."""
        return float(self._p[outcome])

    def remove(self, outcome: int) -> float:
        """Take an outcome out for good; returns what it weighed."""
        weight = float(self._p[outcome])
        self._p[outcome] = 0.0
        block = outcome // self._BLOCK
        # Summed anew, not subtracted: no rounding is left behind where mass was.
        self._sums[block] = self._blocks[block].sum(dtype=np.float64)
        return weight

    def draw(self, rng: np.random.Generator) -> int:
        """Draw an outcome by its weight, and leave it in. There must be mass."""
        cumulative = np.cumsum(self._sums)
        block = pick(cumulative, rng.random() * cumulative[-1])
        within = np.cumsum(self._blocks[block], dtype=np.float64)
        return block * self._BLOCK + pick(within, rng.random() * within[-1])

    def ranked(self) -> Iterator[int]:
        """The outcomes with mass, heaviest first. Removing the last one given is allowed."""
        given = 0
        # Outcomes are looked up in an order made before any was removed.
        snapshot = torch.from_numpy(self._p.copy())
        for count in (64, 2048, len(self._p)):
            count = min(count, len(self._p))
            order = torch.topk(snapshot, count).indices.tolist()
            for outcome in order[given:]:
                if snapshot[outcome] <= 0:
                    return
                yield outcome
            given = count
            if count == len(self._p):
                return


def pick(cumulative: np.ndarray, at: float) -> int:
    """The first index whose cumulative weight exceeds `at`; never one of weight zero."""
    index = int(np.searchsorted(cumulative, at, side="right"))
    if index == len(cumulative):
        # `at` was rounded up to the total: the last index that has weight.
        index = int(np.searchsorted(cumulative, cumulative[-1], side="left"))
    return index
