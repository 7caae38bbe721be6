"""Underflow: weights in log space, where float32 has no digits left.

A refinement. Where a constraint leaves only tokens of probability 1e-40, their weights beside the
heaviest token's are 0 in float32. A proposal that finds so little raises `Underflow`; it then draws
again from what is left, on a scale of its own (`rescaled`). Without this file such a particle would
die.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from awrs_ppl.tokens.next_token import NOTHING, Batch, Outcomes, Restriction, blocks
from awrs_ppl.tokens.stops import stop_prefix
from awrs_ppl.tokens.urn import block_sums
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = [
    "LEAST",
    "Underflow",
    "end_log_weight",
    "outcome_log_weights",
    "require_digits",
    "rescaled",
    "underflows",
]

# Of a row's largest weight. float32 has all its digits down to 1e-38: here every weight that makes
# up 1e-8 of what is left still has them.
LEAST = 1e-30


class Underflow(Exception):
    """So little is left that its digits cannot be trusted."""


def underflows(mass: float) -> bool:
    """Whether the digits of a mass cannot be trusted, on the scale of a row's largest weight."""
    return mass < LEAST


def require_digits(mass: float) -> None:
    """Raise `Underflow` if the digits of a mass cannot be trusted."""
    if underflows(mass):
        raise Underflow


def rescaled(outcomes: Outcomes, rejected: np.ndarray) -> Outcomes | None:
    """What is left without `rejected` (all that is known to be), on a scale of its own.

    None if nothing is left, however small.
    """
    batch, row, restriction = outcomes.batch, outcomes.row, outcomes.restriction
    rows = [one[row] for one in batch.rows]
    logs = [torch.log_softmax(one.double(), -1).cpu().numpy() for one in rows]
    log_p = outcome_log_weights(logs, batch.vocabulary, restriction)
    log_p[rejected] = -math.inf
    peak = float(log_p.max())
    if peak == -math.inf:
        return None
    weights = np.zeros((1, blocks(len(log_p))))
    weights[0, : len(log_p)] = np.exp(log_p - peak)
    own = [one[None] for one in rows]
    alone = Batch(batch.vocabulary, torch.from_numpy(weights), own, own[0], np.zeros(1))
    mass = float(block_sums(alone.weights).sum())
    restriction = replace(restriction, accepted=NOTHING, rejected=NOTHING, version=())
    return Outcomes(peak, mass, NOTHING, np.empty(0), restriction, alone, 0)


def outcome_log_weights(
    rows: Sequence[np.ndarray], vocabulary: Vocabulary, restriction: Restriction
) -> np.ndarray:
    """The log-weights of all outcomes, `[size + ends]`, of log-probabilities `[size]`: slower,
    and without underflow."""
    closings, size = restriction.closings, vocabulary.size
    row = rows[0] if len(rows) == 1 else np.sum(rows, axis=0)
    closing = row[closings.tokens].astype(np.float64)
    if len(vocabulary.ends):
        closing[: len(vocabulary.ends)] = -math.inf
        closing[0] = sum(
            float(np.logaddexp.reduce(r[vocabulary.ends].astype(np.float64))) for r in rows
        )
    if not closings.by_end:
        closing[: len(vocabulary.ends)] = -math.inf
    log_p = np.full(size + len(closings.ends), -math.inf)
    if not restriction.forced:
        keep = (
            vocabulary.is_text
            if restriction.allowed is None
            else vocabulary.is_text & restriction.allowed
        )
        log_p[:size] = np.where(keep, row, -math.inf)
        log_p[closings.tokens] = -math.inf
    at = 0
    for j, ids in enumerate(closings.ids):
        if len(ids) and j not in closings.barred and not (restriction.forced and j):
            log_p[size + j] = np.logaddexp.reduce(closing[at : at + len(ids)])
        at += len(ids)
    return log_p


def end_log_weight(
    rows: Sequence[np.ndarray], vocabulary: Vocabulary, stops: tuple[bytes, ...], data: bytes
) -> float:
    """The log-weight with which the LMs of a product end the text `data` right there.

    By an end token, or by a token that begins with a stop; rows are log-probabilities `[size]`.
    """
    closings = vocabulary.closings(stops, stop_prefix(data, stops))
    return float(
        outcome_log_weights(rows, vocabulary, Restriction(closings, forced=True))[vocabulary.size]
    )
