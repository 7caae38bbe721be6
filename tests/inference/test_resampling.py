"""The schemes are unbiased, and a broken one would be noticed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awrs_ppl.inference.resampling import SCHEMES

WEIGHTS = np.array([0.37, 0.0, 0.05, 0.33, 0.25])


def _z(scheme: object, draws: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(7)
    counts = np.array([np.bincount(scheme(WEIGHTS, rng), minlength=5) for _ in range(draws)])  # pyright: ignore
    error = counts.std(axis=0) / np.sqrt(draws) + 1e-12
    return np.abs(counts.mean(axis=0) - 5 * WEIGHTS) / np.maximum(error, 1e-3)


@pytest.mark.parametrize("name", SCHEMES)
def test_counts_of_children_are_unbiased(name: str) -> None:
    assert _z(SCHEMES[name]).max() < 4.5


def test_biased_scheme_is_caught() -> None:
    def rounded(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.sort(rng.choice(5, size=5, p=np.round(weights, 1) / np.round(weights, 1).sum()))

    assert _z(rounded).max() > 4.5


@pytest.mark.parametrize("name", SCHEMES)
@given(
    raw=st.lists(st.floats(0, 1e6), min_size=1, max_size=40).filter(lambda w: sum(w) > 0),
    seed=st.integers(0, 2**32 - 1),
)
def test_ancestors_have_weight(name: str, raw: list[float], seed: int) -> None:
    weights = np.array(raw) / np.sum(raw)
    ancestors = SCHEMES[name](weights, np.random.default_rng(seed))
    assert ancestors.shape == weights.shape
    assert (weights[ancestors] > 0).all()
    if name in ("systematic", "residual"):
        # These guarantee the whole part of the expected count, up to rounding.
        counts = np.bincount(ancestors, minlength=len(weights))
        assert (counts >= np.floor(len(weights) * weights - 1e-6) - (name == "systematic")).all()


def test_equal_weights_stay_as_they_are() -> None:
    for name in ("stratified", "systematic", "residual"):
        for n in (1, 3, 7, 10, 33, 1024):
            ancestors = SCHEMES[name](np.full(n, 1 / n), np.random.default_rng(n))
            assert sorted(ancestors.tolist()) == pytest.approx(list(range(n)), abs=1)
