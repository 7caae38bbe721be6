"""Potentials travel to other processes, and say the same there."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from awrs_ppl import ToyLM, infer, predicate
from awrs_ppl.potentials import (
    Contains,
    Grammar,
    JsonSchema,
    OneOf,
    PddlGoal,
    PlanAchieves,
    Qed,
    Reachable,
    Regex,
    Smiles,
    Soft,
    Sql,
    boolean,
)

DATA = Path(__file__).parent.parent / "data"
DOMAIN = """(define (domain rooms) (:predicates (at ?x) (clean ?x))
  (:action go :parameters (?x ?y) :precondition (at ?x) :effect (and (at ?y) (not (at ?x)))))"""
PROBLEM = """(define (problem flat) (:domain rooms) (:objects hall bath)
  (:init (at hall)) (:goal (at bath)))"""


@predicate
def no_bb(text: str) -> bool:
    return "bb" not in text


POTENTIALS = [
    Regex("a|b+"),
    Regex(r"(a|b)\1"),
    OneOf(["a", "ab"]),
    Contains("a"),
    Grammar('start: "a" "b"+'),
    JsonSchema({"type": "integer"}),
    Smiles(),
    Qed(),
    Sql(DATA / "concert_singer.sqlite"),
    PddlGoal(DOMAIN, PROBLEM),
    PlanAchieves("(go hall bath)", DOMAIN, PROBLEM),
    Reachable(DOMAIN, PROBLEM),
    no_bb,
    Soft(lambda text: -1.0 * len(text)),
    boolean(Regex("b*")),
    Regex("[ab]+") * no_bb,
]


@pytest.mark.parametrize("potential", POTENTIALS, ids=lambda it: type(it).__name__)
def test_pickled_potential_is_equal_and_says_the_same(potential: Any) -> None:
    again = pickle.loads(cloudpickle.dumps(potential))
    assert again == potential
    assert repr(again) == repr(potential)


async def test_pickle_leaves_behind_what_was_learned_of_a_vocabulary() -> None:
    lm = ToyLM([chr(i) for i in range(97, 123)], seed=1)
    constraint = Regex("[a-e]{1,9}") * OneOf(["ab", "abc", "e"]) * Grammar('start: "a" "b" "c"?')
    size = len(pickle.dumps(constraint))

    async def model(ctx: Any, constraint: Any) -> str:
        return await ctx.generate(lm("a") * constraint, max_tokens=5)

    options = {"n_particles": 8, "seed": 2, "progress": False}
    before = await infer(model, constraint, **options)
    data = pickle.dumps(constraint)
    assert len(data) == size
    after = await infer(model, pickle.loads(data), **options)
    assert after.values == before.values
    assert np.array_equal(after.log_weights, before.log_weights)
