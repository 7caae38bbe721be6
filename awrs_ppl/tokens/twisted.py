"""Outcomes that are drawn by their weights times twists.

A refinement: see `proposals/pressure.py`. Outcomes are changed here before anything is drawn.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from awrs_ppl.tokens.next_token import Outcomes
from awrs_ppl.tokens.urn import likeliest

__all__ = ["heaviest", "keep", "twist", "weights_of"]


def weights_of(outcomes: Outcomes, ids: np.ndarray) -> np.ndarray:
    """What some outcomes weigh, those known to be allowed too."""
    row = outcomes.batch.weights[outcomes.row]
    weights = row[torch.from_numpy(ids).to(row.device)].double().cpu().numpy()
    if len(outcomes.accepted) and len(ids):
        known, at = _places(ids, outcomes.accepted)
        weights[known] += outcomes.accepted_weights[at]
    return weights


def heaviest(outcomes: Outcomes, most: int) -> np.ndarray:
    """The outcomes that weigh most, those known to be allowed too, the heaviest first."""
    ids = np.array(likeliest(outcomes.batch.weights[outcomes.row][None], most)[0], np.int64)
    if len(outcomes.accepted):
        known = outcomes.accepted[np.argsort(-outcomes.accepted_weights)[:most]]
        ids = np.union1d(ids, known.astype(np.int64))
    return ids[np.argsort(-weights_of(outcomes, ids), kind="stable")[:most]]


def twist(outcomes: Outcomes, ids: np.ndarray, logs: np.ndarray, log_rest: float) -> None:
    """Multiply the weights of all outcomes by `exp(log_rest)`, and of these, each there once, by
    `exp(logs)` beside that."""
    outcomes.untwisted = outcomes.plain
    factors = np.exp(logs)
    outcomes.mass += float(weights_of(outcomes, ids) @ (factors - 1.0))
    row = outcomes.batch.weights[outcomes.row]
    index = torch.from_numpy(ids).to(row.device)
    row[index] *= torch.from_numpy(factors).to(row.device, row.dtype)
    if len(outcomes.accepted) and len(ids):
        known, at = _places(ids, outcomes.accepted)
        outcomes.accepted_weights = outcomes.accepted_weights.copy()
        outcomes.accepted_weights[at] *= factors[known]
    outcomes.log_scale += log_rest
    outcomes.restriction = replace(outcomes.restriction, twists=(ids, logs), log_rest=log_rest)
    outcomes.batch.refresh(outcomes.row)


def keep(outcomes: Outcomes, tokens: np.ndarray) -> None:
    """Leave only these tokens, bool of shape `[size]`, and the ways to end."""
    restriction, size = outcomes.restriction, len(tokens)
    allowed = tokens if restriction.allowed is None else restriction.allowed & tokens
    row = outcomes.batch.weights[outcomes.row, :size]
    row.mul_(torch.from_numpy(tokens).to(row.device))
    kept = np.array([i >= size or bool(tokens[i]) for i in outcomes.accepted.tolist()], bool)
    outcomes.accepted = outcomes.accepted[kept]
    outcomes.accepted_weights = outcomes.accepted_weights[kept]
    outcomes.restriction = replace(restriction, allowed=allowed, accepted=outcomes.accepted)
    outcomes.batch.refresh(outcomes.row)
    outcomes.mass = float(outcomes.urn().mass + outcomes.accepted_weights.sum())


def _places(outcomes: np.ndarray, accepted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the outcomes are among those accepted, each of which is there once, and where."""
    order = np.argsort(accepted, kind="stable")
    at = np.minimum(np.searchsorted(accepted[order], outcomes), len(accepted) - 1)
    known = np.flatnonzero(accepted[order][at] == outcomes)
    return known, order[at[known]]
