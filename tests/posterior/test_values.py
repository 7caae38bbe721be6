"""What a posterior says of its values, against enumeration."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest

from awrs_ppl import Categorical, Context, NoSurvivors, Posterior, run


@dataclass(frozen=True)
class Pair:
    first: str
    second: int


class Model(pydantic.BaseModel):
    first: str
    second: int


# Of one die, where 1 and 2 are likelier; the second choice is made for even numbers alone.
DIE = Categorical({1: 0.3, 2: 0.3, 3: 0.1, 4: 0.1, 5: 0.1, 6: 0.1})
COIN = Categorical({"heads": 0.75, "tails": 0.25})


def thrown(make: Any = None, **options: Any) -> Posterior:
    async def model(ctx: Context) -> Any:
        number = await ctx.sample(DIE, name="die")
        side = await ctx.sample(COIN, name="coin") if number % 2 == 0 else "edge"
        await ctx.condition(number < 6)
        return make(side, number) if make else (side, number)

    return run(model, **{"n_particles": 4000, "seed": 0, "progress": False, **options})


EXACT = {1: 1 / 3, 2: 1 / 3, 3: 1 / 9, 4: 1 / 9, 5: 1 / 9}
KINDS = [
    (lambda first, second: {"first": first, "second": second}, "first", "second"),
    (Pair, "first", "second"),
    (lambda first, second: Model(first=first, second=second), "first", "second"),
    (None, 0, 1),
    (lambda first, second: [first, second], -2, -1),
]


@pytest.mark.parametrize("options", [{}, {"n_particles": 1000, "runs": 4}])
@pytest.mark.parametrize(("make", "first", "second"), KINDS)
def test_marginal_is_that_of_the_program(make: Any, first: Any, second: Any, options: Any):
    posterior = thrown(make, **options)
    found = posterior.marginal(field=second)
    assert found == pytest.approx(EXACT, abs=0.03)
    assert [*found.values()] == sorted(found.values(), reverse=True)
    assert posterior.marginal("die") == found
    sides = posterior.marginal(field=first)
    assert sides == pytest.approx({"edge": 5 / 9, "heads": 1 / 3, "tails": 1 / 9}, abs=0.03)
    # A choice that not every particle made: the rest is the probability that it was not.
    coin = posterior.marginal("coin")
    assert coin == {side: sides[side] for side in ("heads", "tails")}


@pytest.mark.parametrize("options", [{}, {"n_particles": 1000, "runs": 4}])
def test_map_keeps_weights_and_changes_values(options: Any):
    posterior = thrown(**options)
    mapped = posterior.map(lambda value: value[1] > 2)
    assert mapped.probabilities == pytest.approx({False: 2 / 3, True: 1 / 3}, abs=0.03)
    assert mapped.log_ml == posterior.log_ml
    assert mapped.stats is posterior.stats
    assert [trace.value for trace in mapped if trace.log_weight > -float("inf")] == mapped.values
    assert isinstance(posterior.values[0], tuple)
    assert len(mapped.parts) == len(posterior.parts)
    assert all({*part.values} == {False, True} for part in mapped.parts)
    assert mapped.diagnose().runs is None or {False, True} >= {*mapped.parts[0].probabilities}
    assert "False" in str(mapped)
    again = pickle.loads(pickle.dumps(mapped))
    assert again.probabilities == mapped.probabilities


def test_map_calls_the_function_for_values_alone():
    posterior = thrown(n_particles=50, resampling="multinomial", ess_threshold=0.0)
    assert posterior.dead
    seen: list[Any] = []
    posterior.map(seen.append)
    assert seen == posterior.values
    with pytest.raises(ZeroDivisionError):
        posterior.map(lambda value: 1 // 0)


def test_top_is_the_likeliest_values():
    posterior = thrown(lambda side, number: [number])  # a list: no key of a dict
    (first, a), (second, b) = posterior.top(2)
    assert sorted([first, second]) == [[1], [2]]
    assert a >= b == sorted(posterior.probabilities.values())[-2]
    assert len(posterior.top(100)) == 5


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "2", None])
def test_top_of_no_number_is_an_error(k: Any):
    with pytest.raises(ValueError, match="must be an int of at least 1"):
        thrown(n_particles=5).top(k)


def test_marginal_says_what_there_is():
    posterior = thrown(Pair, n_particles=10)
    with pytest.raises(KeyError, match=r"no choice is named 'dice': there are 'die', .*'coin'"):
        posterior.marginal("dice")
    with pytest.raises(KeyError, match=r"no value has the field 'third': the first is .*Pair"):
        posterior.marginal(field="third")
    for arguments in ({}, {"name": "die", "field": "first"}):
        with pytest.raises(TypeError, match=r"the name of a choice, or field="):
            posterior.marginal(**arguments)
    with pytest.raises(TypeError, match="give a function of a value"):
        posterior.map("first")  # pyright: ignore[reportArgumentType]


def test_nothing_is_said_of_no_values():
    async def model(ctx: Context) -> int:
        await ctx.condition(await ctx.sample(DIE) > 6)
        return 0

    posterior = run(model, n_particles=3, seed=0, progress=False)
    for ask in (lambda: posterior.top(1), lambda: posterior.marginal("sample 1")):
        with pytest.raises(NoSurvivors):
            ask()
    assert posterior.map(str).values == []
