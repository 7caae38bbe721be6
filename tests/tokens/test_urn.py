"""Urn and pick, against plain sums over all weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awrs_ppl.tokens.urn import BLOCK, Urn, block_sums, pick, strata

# Lengths over several blocks, with weights of any size and many zeros.
SEEDS = st.integers(0, 2**32 - 1)
LENGTHS = st.sampled_from([1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, 6 * BLOCK])


def weights_of(seed: int, length: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.normal(0.0, 3.0, length)) * (rng.random(length) < rng.uniform(0.02, 1.0))
    return weights.astype(np.float32)


def place(weights: np.ndarray, position: float) -> int:
    """Where a position falls by plain cumulative sums."""
    cumulative = np.cumsum(weights.astype(np.float64))
    return int(np.searchsorted(cumulative, position * cumulative[-1], side="right"))


@given(SEEDS, LENGTHS)
@settings(max_examples=150)
def test_urn_after_removals_from_many_blocks_holds_the_rest(seed: int, length: int) -> None:
    weights, rng = weights_of(seed, length), np.random.default_rng(seed + 1)
    urn = Urn.of(weights)
    for _ in range(4):
        removed = rng.choice(length, size=rng.integers(1, min(length, 40) + 1), replace=False)
        if rng.random() < 0.5:
            for outcome in removed.tolist():
                assert urn.remove(outcome) == weights[outcome]
                weights[outcome] = 0.0
        else:
            urn.remove_all(removed)
            weights[removed] = 0.0
        assert urn.mass == pytest.approx(weights.astype(np.float64).sum(), rel=1e-6)
        assert (urn.mass == 0.0) == (not weights.any())
        some = rng.choice(length, size=min(length, 9), replace=False)
        assert urn.mass_of(some) == pytest.approx(weights[some].astype(np.float64).sum(), rel=1e-6)
        assert [urn.weight(outcome) for outcome in some.tolist()] == weights[some].tolist()


@given(SEEDS, LENGTHS)
@settings(max_examples=150)
def test_urn_at_a_position_gives_what_plain_sums_give(seed: int, length: int) -> None:
    weights = weights_of(seed, length)
    if not weights.any():
        weights[length // 2] = 1.0
    urn = Urn.of(weights)
    for position in (0.0, *np.random.default_rng(seed).random(20), np.nextafter(1.0, 0.0)):
        found = urn.at(float(position))
        assert weights[found] > 0.0
        # Beside the border of two outcomes rounding decides.
        expected = {place(weights, max(position - 1e-6, 0.0)), place(weights, position + 1e-6)}
        heavy = np.flatnonzero(weights)
        low, high = min(expected), min(max(expected), int(heavy[-1]))
        assert low <= found <= high


@given(SEEDS, LENGTHS, st.booleans())
@settings(max_examples=100)
def test_urn_ranked_gives_all_with_mass_heaviest_first(
    seed: int, length: int, has_top: bool
) -> None:
    weights, rng = weights_of(seed, length), np.random.default_rng(seed + 1)
    urn = Urn.of(weights)
    if has_top:
        row = torch.zeros(-(-length // BLOCK) * BLOCK)
        row[:length] = torch.from_numpy(weights)
        top = np.argsort(-row.numpy(), kind="stable")[:16].tolist()
        urn = Urn(row, block_sums(row), lambda: top)
    given_out: list[int] = []
    for outcome in urn.ranked():
        assert urn.weight(outcome) > 0.0
        given_out.append(outcome)
        if rng.random() < 0.3:  # others are taken out meanwhile
            other = int(rng.integers(length))
            urn.remove(other)
            if other not in given_out:
                weights[other] = 0.0
    assert len(set(given_out)) == len(given_out)
    assert set(given_out) >= set(np.flatnonzero(weights).tolist())
    seen = weights[given_out]
    assert (np.diff(seen[seen > 0.0]) <= 0.0).all()


def test_urn_drawn_many_times_gives_outcomes_by_their_weights() -> None:
    weights = np.zeros(2 * BLOCK + 3, dtype=np.float32)
    weights[[0, 7, BLOCK, 2 * BLOCK + 2]] = [0.4, 0.1, 0.2, 0.3]
    urn, rng = Urn.of(weights), np.random.default_rng(0)
    counts = np.bincount([urn.draw(rng) for _ in range(20_000)], minlength=len(weights))
    error = np.sqrt(weights * (1 - weights) / 20_000)
    assert (np.abs(counts / 20_000 - weights) <= 5 * error).all()


@pytest.mark.parametrize(
    ("cumulative", "at", "index"),
    [
        ([0.1, 0.3, 0.3], 0.0, 0),
        ([0.0, 0.3, 0.3], 0.0, 1),
        ([0.1, 0.3, 0.3], 0.1, 1),
        ([0.1, 0.3, 0.3, 0.3], 0.3, 1),  # rounded up to the total
        ([0.1, 0.3, 0.3, 0.6, 0.6], 0.7, 3),
    ],
)
def test_pick_gives_the_first_above_and_never_one_without_weight(
    cumulative: Any, at: float, index: int
) -> None:
    assert pick(np.array(cumulative), at) == index


@given(SEEDS, st.integers(1, 30))
def test_strata_lie_one_in_each_part(seed: int, members: int) -> None:
    found = strata(members, np.random.default_rng(seed))
    assert sorted((found * members).astype(int).tolist()) == list(range(members))
