"""Probabilities by values of any kind, which are found by their equality."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import pytest
import torch

from awrs_ppl import Categorical, Context, Posterior, run
from awrs_ppl.posterior.by_value import ByValue, entry, merged
from awrs_ppl.testing import assert_unbiased, enumerate_posterior


@dataclass
class Mutable:
    x: Any
    note: Any = field(default="", compare=False)


@dataclass(frozen=True)
class Fixed:
    x: Any


class Model(pydantic.BaseModel):
    x: Any


class FrozenModel(pydantic.BaseModel, frozen=True):
    x: Any


class Secretive(Model):
    _secret: int = pydantic.PrivateAttr(0)


class Named:
    """Equal by name, without a hash or a repr that tells."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and other.name == self.name


def secretive(secret: int) -> Secretive:
    made = Secretive(x=1)
    made._secret = secret
    return made


# Each makes a value that is equal to no other's, and anew at each call.
MAKERS: list[Callable[[], Any]] = [
    lambda: {"a": 1},
    lambda: {"a": 1, "b": [2]},
    lambda: {1: {2: 3}},
    lambda: {},
    lambda: [1, 2],
    lambda: (1, 2),
    lambda: [],
    lambda: (),
    lambda: [[1, 2]],
    lambda: ([1], "a"),
    lambda: (("a", 1),),
    lambda: {1, 2},
    lambda: frozenset({3}),
    lambda: [{1, 2}],
    lambda: Mutable([1]),
    lambda: Mutable(Mutable(1), note=object()),
    lambda: Fixed([1]),
    lambda: Fixed(1),
    lambda: ("Fixed", ("x", 1)),
    lambda: Model(x=1),
    lambda: Model(x=[1]),
    lambda: Model(x=Named("in")),
    lambda: FrozenModel(x=3),
    lambda: FrozenModel(x=[3]),
    lambda: secretive(1),
    lambda: secretive(2),
    lambda: Named("a"),
    lambda: [Named("a")],
    lambda: "Named('a')",
    lambda: np.array([1.0, 5.0]),
    lambda: np.array([[1.0, 5.0]]),
    lambda: np.array([1.0, math.nan]),
    lambda: torch.tensor([7, 8]),
    lambda: {"a": np.array([1, 2])},
    lambda: Mutable(np.array([1, 2])),
    lambda: Model(x=np.array([1, 2])),
    lambda: Model(x=float("nan")),
    lambda: FrozenModel(x=float("nan")),
    lambda: float("nan"),
    lambda: (float("nan"), 1),
    lambda: [float("nan")],
    lambda: pd.DataFrame({"a": [1.0, 2.0]}),
    lambda: "a\udc80",
    lambda: b"a",
    lambda: None,
    lambda: 10**30,
]


def test_values_are_found_by_equal_ones_and_by_no_others() -> None:
    found = ByValue((make(), i) for i, make in enumerate(MAKERS))
    assert len(found) == len(MAKERS)
    assert [found[make()] for make in MAKERS] == list(range(len(MAKERS)))
    assert all(make() in found for make in MAKERS)
    assert list(found.values()) == list(range(len(MAKERS)))
    shares = [1.0] * (2 * len(MAKERS))
    together = merged([make() for make in MAKERS * 2], shares)
    assert [share for *_, share in together] == [2.0] * len(MAKERS)


def test_entries_of_other_values_differ() -> None:
    for first, second in combinations(MAKERS, 2):
        assert entry(first()) != entry(second())
        assert entry(first()) == entry(first())
        assert hash(entry(second())) == hash(entry(second()))


EQUAL: list[tuple[Any, Any]] = [
    (1, True),
    ([1, 2], [True, 2.0]),
    ({1, 2}, frozenset({2, 1})),
    ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}),
    (np.array([1, 2]), [1.0, 2.0]),
    (np.array([1, 2]), torch.tensor([1, 2])),
    (math.nan, np.float32("nan")),
    (Decimal("nan"), float("nan")),
    (Model(x=1), Model(x=1.0)),
    (Mutable(1, note=1), Mutable(1, note=2)),
    (np.float64(1.5), 1.5),
]


@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_values_of_other_types_are_found_where_they_are_equal(first: Any, second: Any) -> None:
    for one, other in ((first, second), (second, first)):
        assert ByValue([(one, 0.5)])[other] == 0.5
        assert len(merged([one, other], [0.5, 0.5])) == 1


def test_where_values_can_be_hashed_it_is_as_a_dict() -> None:
    plain = {"a": 0.5, (1, None): 0.25, 3: 0.25}
    found = ByValue(plain.items())
    assert isinstance(found, dict)
    assert found == plain == found
    assert plain == found
    assert found != {"a": 0.5}
    assert found != {**plain, 3: 0.5}
    assert (found == 3) is False
    assert repr(found) == repr(plain)
    assert list(found) == list(plain) == list(found.keys()) == [*reversed([*reversed(found)])]
    assert list(found.items()) == list(plain.items())
    assert {**found} == dict(found) == plain
    assert type({**found}) is dict
    assert max(found, key=lambda value: found[value]) == "a"
    assert json.loads(json.dumps(ByValue([("a", 0.5)]))) == {"a": 0.5}
    assert json.loads(json.dumps(ByValue([("a", 0.5)]), indent=1)) == {"a": 0.5}
    assert found == pytest.approx(plain)
    assert plain == pytest.approx(found)
    assert pd.Series(found).tolist() == [0.5, 0.25, 0.25]


def test_values_that_cannot_be_hashed_are_shown_and_copied() -> None:
    found = ByValue([({"a": 1}, 0.5), ([1, {2}], 0.5)])
    assert repr(found) == "{{'a': 1}: 0.5, [1, {2}]: 0.5}"
    assert list(found) == [{"a": 1}, [1, {2}]]
    for again in (
        copy.copy(found),
        copy.deepcopy(found),
        pickle.loads(pickle.dumps(found)),
        found.copy(),
    ):
        assert type(again) is ByValue
        assert again == found
        assert again[[1, {2}]] == 0.5
    assert found == ByValue(reversed(list(found.items())))
    assert found != ByValue([({"a": 1}, 0.5), ([1], 0.5)])
    assert found.get([3]) is None
    assert found.get([3], 1.0) == 1.0
    with pytest.raises(KeyError, match=r"\[3\]"):
        found[[3]]
    with pytest.raises(TypeError):
        hash(found)


def thrown(make: Callable[[int], Any], **options: Any) -> Posterior:
    async def model(ctx: Context) -> Any:
        return make(await ctx.sample(Categorical({1: 3, 2: 1})))

    return run(model, **{"n_particles": 400, "seed": 0, "progress": False, **options})


KINDS: list[Callable[[int], Any]] = [
    lambda n: {"a": n},
    lambda n: [1, n],
    lambda n: {n, "a"},
    lambda n: Mutable(n),
    lambda n: Model(x=n),
    lambda n: np.array([[n, 0]]),
    lambda n: torch.tensor([n, 0]),
    lambda n: math.nan if n == 1 else n,
    lambda n: (n, [n, math.nan]),
]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("options", [{}, {"n_particles": 100, "runs": 4}])
def test_posterior_of_such_values_is_that_of_numbers(make: Any, options: Any) -> None:
    posterior, numbers = thrown(make, **options), thrown(lambda n: n, **options)
    probabilities = posterior.probabilities
    assert len(probabilities) == 2
    for n in (1, 2):
        assert probabilities[make(n)] == pytest.approx(numbers.probabilities[n])
        assert make(n) in probabilities
        assert make(n + 2) not in probabilities
    marginal = thrown(lambda n: {"field": make(n)}, **options).marginal(field="field")
    assert marginal[make(1)] == pytest.approx(numbers.probabilities[1])
    runs, of_numbers = posterior.diagnose().runs, numbers.diagnose().runs
    assert (runs is None) == (of_numbers is None)
    if runs is not None and of_numbers is not None:
        assert runs.errors[make(2)] == pytest.approx(of_numbers.errors[2])
        assert runs.disagreement == pytest.approx(of_numbers.disagreement)
        assert len(str(posterior.diagnose()).splitlines()) > 8


@pytest.mark.parametrize("make", KINDS)
async def test_enumeration_and_its_check_know_such_values(make: Any) -> None:
    async def model(ctx: Context) -> Any:
        return make(await ctx.sample(Categorical({1: 3, 2: 1})))

    exact = await enumerate_posterior(model)
    assert [exact.probabilities[make(n)] for n in (1, 2)] == pytest.approx([0.75, 0.25])
    await assert_unbiased(model, n_particles=4, runs=50)
