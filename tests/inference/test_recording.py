"""With the same seed programs give what they gave before."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from recording import EMBEDDED, TOYS, Recorded, embedded, toy

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "recording.json").read_text())


def assert_same(found: Recorded, name: str, error: float) -> None:
    before = RECORDED[name]
    assert found["values"] == before["values"]
    pairs = zip(
        [*found["log_weights"], found["log_ml"]],
        [*before["log_weights"], before["log_ml"]],
        strict=True,
    )
    for now, then in pairs:
        assert math.isclose(float.fromhex(now), float.fromhex(then), rel_tol=0.0, abs_tol=error)


@pytest.mark.parametrize("number", range(TOYS))
async def test_random_program_on_a_toy_gives_the_same_posterior(number: int) -> None:
    assert_same(await toy(number), f"toy {number}", 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
async def test_program_on_an_embedded_model_gives_the_same_posterior(name: str) -> None:
    assert_same(await embedded(name), name, 1e-3)


def test_everything_recorded_is_compared() -> None:
    assert [*RECORDED] == [*(f"toy {number}" for number in range(TOYS)), *EMBEDDED]
    assert all(entry["values"] for entry in RECORDED.values())
