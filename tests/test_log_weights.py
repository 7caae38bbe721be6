"""Sums and means of log-weights, compared with arsenal's and exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from arsenal.maths import logmeanexp, logsumexp, softmax

from awrs_ppl.log_weights import ess, log_mean, log_sum, normalize

ZERO = -math.inf


def weights_of(rng: Any) -> list[float]:
    """Log-weights with at least one that is not zero, far from 0 or near it."""
    middle, spread = rng.choice([0.0, -700.0, 5000.0]), rng.choice([1e-9, 1.0, 50.0])
    weights = [rng.gauss(middle, spread) for _ in range(rng.randint(1, 40))]
    return [w if not i or rng.random() < 0.8 else ZERO for i, w in enumerate(weights)]


def test_sum_mean_and_shares_agree_with_arsenal(fuzz: Any) -> None:
    for rng in fuzz.rngs(500):
        weights = weights_of(rng)
        for given in (weights, np.array(weights, dtype=rng.choice([np.float32, np.float64]))):
            assert log_sum(given) == pytest.approx(logsumexp(given), rel=1e-14, abs=1e-14)
            assert log_mean(given) == pytest.approx(logmeanexp(given), rel=1e-14, abs=1e-14)
            assert normalize(given) == pytest.approx(softmax(given), rel=1e-12, abs=1e-300)


def test_ess_of_random_weights_equals_the_exact_fraction(fuzz: Any) -> None:
    for rng in fuzz.rngs(200):
        weights = [rng.choice([0, 1, 2, rng.randint(1, 10**6)]) for _ in range(rng.randint(1, 20))]
        squares = sum(w * w for w in weights)
        exact = float(Fraction(sum(weights) ** 2, squares)) if squares else 0.0
        found = ess([math.log(w) if w else ZERO for w in weights])
        assert found == pytest.approx(exact, rel=1e-9)


def test_weights_of_nothing_and_of_infinities_give_no_nan() -> None:
    assert log_sum([]) == ZERO
    assert log_sum([ZERO, ZERO]) == ZERO
    assert log_mean([ZERO, ZERO]) == ZERO
    assert log_mean([ZERO, 0.0]) == pytest.approx(np.log(0.5))
    assert ess([ZERO, ZERO]) == 0.0
    assert ess([1000.0, 1000.0]) == pytest.approx(2.0)
    assert normalize([ZERO, ZERO]).tolist() == [0.0, 0.0]
    assert normalize([-1e9, -1e9 + np.log(3)]).tolist() == pytest.approx([0.25, 0.75])
