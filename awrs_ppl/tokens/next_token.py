"""What can come next at a context, and how much each of it weighs.

An *outcome* is a token that continues the text (its id) or a way to end it (`size + j` for
`closings.ends[j]`). Outcomes are what proposals draw. Their weights are computed for all
contexts of a step at once and stay on the language model's device.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from awrs_ppl.tokens.urn import BLOCK, Urn, block_sums, likeliest
from awrs_ppl.tokens.vocabulary import Closings, Vocabulary

__all__ = ["NOTHING", "Batch", "Outcomes", "Restriction", "blocks", "weigh_outcomes"]

# Of a sum in float32: a difference that is less may be nothing.
_LOST = 1e-6

NOTHING = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Restriction:
    """What restricts the outcomes at one context.

    `allowed` (bool, shape `[size]`) is the mask; `forced` leaves the plain end alone;
    `accepted` and `rejected` are outcomes whose verdicts are known, at this `version` of the
    verdicts. `share` is the part of the population's weight that is here.
    """

    closings: Closings
    allowed: np.ndarray | None = None
    forced: bool = False
    accepted: np.ndarray = field(default_factory=NOTHING.copy)
    rejected: np.ndarray = field(default_factory=NOTHING.copy)
    share: float = 1.0
    version: tuple[int, ...] = ()


@dataclass(slots=True)
class Outcomes:
    """The outcomes at one context: outcome `i` weighs its weight times `exp(log_scale)`.

    `accepted` are those known to be allowed, with their `accepted_weights` (float64); what is
    known to be rejected is left out. The rest lies in `urn()`. `mass` is that of all three.
    """

    log_scale: float
    mass: float
    accepted: np.ndarray
    accepted_weights: np.ndarray
    restriction: Restriction
    batch: Batch
    row: int

    def urn(self) -> Urn:
        """The outcomes of unknown verdict. It holds the weights themselves: `copy()` it to draw
        from them again."""
        return self.batch.urn(self.row)

    def log_probability(self, outcome: int) -> float:
        """The log-weight of an outcome, whatever is known of it."""
        batch, row = self.batch, self.row
        size, closings = batch.vocabulary.size, self.restriction.closings
        shift = self.log_scale - float(batch.peaks[row])
        if outcome < size:
            return float(batch.logs[row, outcome]) + shift
        ids, log_end = closings.ids[outcome - size], -math.inf
        if outcome == size:
            # As in `_close`: the end tokens lead; of a product the end is the product of the ends.
            count = len(batch.vocabulary.ends)
            ends, ids = torch.from_numpy(ids[:count]), ids[count:]
            if closings.by_end and count:
                logs = [one[row].double().cpu().log_softmax(-1)[ends] for one in batch.rows]
                log_end = float(sum(one.logsumexp(-1) for one in logs))
        index = torch.from_numpy(ids).to(batch.logs.device)
        return float(np.logaddexp(log_end, _log_sum(batch.logs[row, index]) + shift))

    def heaviest(self, most: int) -> list[int]:
        """The outcomes that weigh most, those known to be allowed too: at most so many of each."""
        known = np.argsort(-self.accepted_weights, kind="stable")[:most]
        row = self.batch.weights[self.row]
        others = [one for one in likeliest(row[None], most)[0] if row[one] > 0]
        return [*self.accepted[known].tolist(), *others]

    def mass_without(self, rejected: np.ndarray) -> float:
        """The mass without outcomes that are known to be rejected by now, on the same scale."""
        restriction, size = self.restriction, self.batch.vocabulary.size
        fresh = np.setdiff1d(rejected, restriction.rejected)
        tokens = fresh[fresh < size]
        if restriction.forced:
            tokens = tokens[:0]
        elif restriction.allowed is not None:
            tokens = tokens[restriction.allowed[tokens]]
        tokens = np.setdiff1d(tokens, restriction.closings.tokens)
        index = torch.from_numpy(tokens).to(self.batch.logs.device)
        shift = float(self.batch.peaks[self.row])
        gone = float((self.batch.logs[self.row, index].double() - shift).exp().sum())
        for end in fresh[fresh >= size].tolist():
            if end - size not in restriction.closings.barred:
                gone += math.exp(self.log_probability(end) - self.log_scale)
        return max(self.mass - gone, _LOST * self.mass)

    def is_negligible(self, mass: float, limit: float) -> bool:
        """Whether so much weight is below `limit` beside that of the other particles."""
        share = self.restriction.share
        if share >= 1.0 or mass <= 0.0:
            return False
        here = math.log(mass) + self.log_scale + math.log(share) if share > 0.0 else -math.inf
        return limit > 0.0 and here < math.log(limit) + math.log1p(-share)


class Batch:
    """The weights of the outcomes at several contexts, `[n, width]`, and what they came from.

    `rows` are the language models' logits over temperature, `[n, size]` each; `logs` their sum, of
    several models of log-probabilities, and `peaks` `[n]` what was taken from it for the weights.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        weights: torch.Tensor,
        rows: list[torch.Tensor],
        logs: torch.Tensor,
        peaks: torch.Tensor | np.ndarray,
        sums: np.ndarray | None = None,
    ) -> None:
        self.vocabulary, self.weights, self.rows = vocabulary, weights, rows
        self.logs, self.peaks = logs, peaks
        self._sums = sums
        self._top: list[list[int]] | None = None

    def urn(self, row: int) -> Urn:
        if self._sums is None:
            self._sums = block_sums(self.weights)
        return Urn(self.weights[row], self._sums[row], lambda: self._likeliest(row))

    def _likeliest(self, row: int) -> list[int]:
        # For all rows at the first request: what is removed later the urns leave out.
        if self._top is None:
            self._top = likeliest(self.weights)
        return self._top[row]


def weigh_outcomes(
    rows: list[torch.Tensor], vocabulary: Vocabulary, restrictions: Sequence[Restriction]
) -> list[Outcomes]:
    """The outcomes at several contexts.

    `rows` are the logits over temperature of each of a product's language models, `[n, size]`
    with a row for each of `restrictions`.
    """
    size = vocabulary.size
    width = size + max(len(restriction.closings.ends) for restriction in restrictions)
    normal = [row.log_softmax(-1) for row in rows] if len(rows) > 1 else []
    logs = torch.stack(normal).sum(0) if normal else rows[0]
    peak = logs.amax(-1)
    peak = torch.where(peak.isfinite(), peak, 0.0)
    weights = torch.empty(len(restrictions), blocks(width), dtype=logs.dtype, device=logs.device)
    torch.sub(logs, peak[:, None], out=weights[:, :size]).exp_()
    weights[:, size:] = 0.0
    # Of one model the sum over the vocabulary is at hand; of several each has its own.
    log_scales = peak.double().cpu().numpy() if normal else -np.log(block_sums(weights).sum(-1))
    _close(weights, peak, normal, vocabulary, restrictions)
    for i, restriction in enumerate(restrictions):
        if restriction.forced:
            end = weights[i, size].clone()
            weights[i] = 0.0
            weights[i, size] = end
        elif restriction.allowed is not None:
            _mask(weights[i, :size], restriction.allowed)
    sums = block_sums(weights)
    masses = sums.sum(-1)
    known = _take(weights, [one.accepted for one in restrictions])
    _take(weights, [one.rejected for one in restrictions])
    untouched = not any(
        len(restriction.accepted) or len(restriction.rejected) for restriction in restrictions
    )
    batch = Batch(vocabulary, weights, rows, logs, peak, sums if untouched else None)
    return [
        Outcomes(float(log_scale), float(mass), restriction.accepted, taken, restriction, batch, i)
        for i, (log_scale, mass, taken, restriction) in enumerate(
            zip(log_scales, masses, known, restrictions, strict=True)
        )
    ]


def _log_sum(logs: torch.Tensor) -> float:
    return float(logs.double().logsumexp(-1)) if len(logs) else -math.inf


def _mask(row: torch.Tensor, allowed: np.ndarray) -> None:
    """Set the weights of what is not allowed to zero."""
    if row.device.type == "cpu":  # six times as fast as torch's masked_fill_
        host = row.numpy()
        np.multiply(host, allowed, out=host)
    else:
        row.mul_(torch.from_numpy(allowed).to(row.device))


def _close(
    weights: torch.Tensor,
    peak: torch.Tensor,
    normal: list[torch.Tensor],
    vocabulary: Vocabulary,
    restrictions: Sequence[Restriction],
) -> None:
    """Move the weights of the tokens that end texts to the outcomes that stand for them."""
    device = weights.device
    groups: dict[int, list[int]] = defaultdict(list)
    for i, restriction in enumerate(restrictions):
        groups[id(restriction.closings)].append(i)
    for members in groups.values():
        closings = restrictions[members[0]].closings
        rows = torch.tensor(members, device=device)[:, None]
        tokens = torch.from_numpy(closings.tokens).to(device)
        closing = weights[rows, tokens].double().cpu().numpy()
        if normal and len(vocabulary.ends):
            # The end of a product is the product of the ends, however many tokens each model has
            # for it; it takes the position of the first, which leads `tokens`.
            ends = torch.from_numpy(vocabulary.ends).to(device)
            log_end = sum(row[rows, ends].double().logsumexp(-1) for row in normal) - peak[members]
            closing[:, : len(vocabulary.ends)] = 0.0
            closing[:, 0] = torch.as_tensor(log_end).exp().cpu().numpy()
        if not closings.by_end:
            closing[:, : len(vocabulary.ends)] = 0.0
        sums = np.zeros((len(members), len(closings.ends)))
        at = 0
        for j, ids in enumerate(closings.ids):
            if j not in closings.barred:
                sums[:, j] = closing[:, at : at + len(ids)].sum(-1)
            at += len(ids)
        weights[rows, tokens] = 0.0
        columns = torch.arange(vocabulary.size, vocabulary.size + sums.shape[1], device=device)
        weights[rows, columns] = torch.from_numpy(sums).to(device, weights.dtype)
    weights[:, : vocabulary.size].index_fill_(1, vocabulary.hidden_on(device), 0.0)


def _take(weights: torch.Tensor, outcomes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Take some outcomes out of each row; what they weighed."""
    width, first = weights.shape[1], outcomes[0]
    if not any(map(len, outcomes)):
        return [np.empty(0)] * len(outcomes)
    if all(ids is first for ids in outcomes):  # all at one state
        columns = torch.from_numpy(first.astype(np.int64)).to(weights.device)
        found = weights.index_select(1, columns).double().cpu().numpy()
        weights.index_fill_(1, columns, 0.0)
        return list(found)
    flat = np.concatenate([ids.astype(np.int64) + i * width for i, ids in enumerate(outcomes)])
    index = torch.from_numpy(flat).to(weights.device)
    every = weights.view(-1)
    taken = every[index].double().cpu().numpy()
    every[index] = 0.0
    return np.split(taken, np.cumsum([len(ids) for ids in outcomes])[:-1])


def blocks(width: int) -> int:
    return -(-width // BLOCK) * BLOCK
