"""Weights of any size, values of any kind, and distributions of torch and scipy."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as scipy_stats

from awrs_ppl import (
    Bernoulli,
    Categorical,
    Context,
    ModelError,
    ReplayError,
    Uniform,
    check_replay,
    infer,
)
from awrs_ppl._values import key, same
from awrs_ppl.foreign import adapted
from awrs_ppl.testing import enumerate_posterior

LEAST = 5e-324
td: Any = torch.distributions
stats: Any = scipy_stats


async def _infer(model: Any, n: int = 20, seed: int = 0) -> Any:
    return await infer(model, n_particles=n, seed=seed, progress=False)


# --- weights --------------------------------------------------------------------------------


def test_categorical_of_a_dict_has_its_values_and_weights() -> None:
    for given in ({"yes": 0.9, "no": 0.1}, Counter(yes=9, no=1)):
        answer = Categorical(given)
        assert answer.values == ("yes", "no")
        assert answer.probabilities.tolist() == pytest.approx([0.9, 0.1])
        assert math.exp(answer.log_prob("no")) == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"{'a': 1} and weights=\[2\].*leave weights= out"):
        Categorical({"a": 1}, weights=[2])
    with pytest.raises(ValueError, match="at least one value"):
        Categorical({})


def weight_of(rng: random.Random) -> Any:
    """A weight as people bring them, from nothing to beyond all floats."""
    mantissa, exponent = rng.uniform(0.1, 10), rng.choice([0, 0, rng.randint(-323, 307)])
    number = float(f"{mantissa}e{exponent}")
    return rng.choice(
        [
            lambda: number,
            lambda: 0,
            lambda: LEAST * rng.randint(1, 5),
            lambda: rng.randint(0, 10),
            lambda: rng.randint(1, 9) * 10 ** rng.randint(300, 400),
            lambda: Fraction(rng.randint(0, 9), rng.randint(1, 9)),
            lambda: Decimal(f"{mantissa:.5f}e{rng.randint(-400, 400)}"),
            lambda: np.float64(number),
            lambda: np.float32(min(max(number, 1e-45), 3e38)),
            lambda: np.int64(rng.randint(0, 2**62)),
            lambda: torch.tensor(mantissa),
            lambda: rng.random() < 0.5,
        ]
    )()


def exactly(weight: Any) -> Fraction:
    plain = weight.item() if hasattr(weight, "item") else weight
    return Fraction(plain)


def log_of(share: Fraction) -> float:
    """By decimals, for fractions beyond all floats."""
    with localcontext() as context:
        context.prec = 60
        return float((Decimal(share.numerator) / Decimal(share.denominator)).ln())


def test_weights_are_shares_whatever_their_size(fuzz: Any) -> None:
    for rng in fuzz.rngs(1500):
        weights = [weight_of(rng) for _ in range(rng.randint(1, 5))]
        exact = [exactly(weight) for weight in weights]
        total = sum(exact)
        values = [rng.randint(0, 2) for _ in weights]
        if not total:
            with pytest.raises(ValueError, match="not all zero"):
                Categorical(values, weights)
            continue
        drawn = Categorical(values, weights)
        wanted = [float(weight / total) for weight in exact]
        assert drawn.probabilities.tolist() == pytest.approx(wanted, rel=1e-14, abs=LEAST)
        for value in (*values, 7):
            share = sum((w for v, w in zip(values, exact, strict=True) if v == value), Fraction())
            found = drawn.log_prob(value)
            assert found == (
                pytest.approx(log_of(share / total), rel=1e-13) if share else -math.inf
            )
        assert drawn.sample(np.random.default_rng(0)) in values


@pytest.mark.parametrize(
    ("weights", "quoted"),
    [
        ([-1, 2], "-1 for 'a'"),
        ([1, -0.5], "-0.5 for 'b'"),
        ([math.nan, 1], "nan for 'a'"),
        ([1, Decimal("NaN")], "nan for 'b'"),
        ([math.inf, 1], "inf for 'a'"),
        (np.array([1, np.inf], dtype=np.float32), "inf for 'b'"),
        (torch.tensor([math.nan, 1.0]), "nan for 'a'"),
        ([0, 0], r"\[0, 0\].*not all zero"),
        ([1], r"2 values and weights \[1\]"),
        (["1", "2"], r"\['1', '2'\]"),
        ([None, 1], r"\[None, 1\]"),
        ([1j, 1], r"\[1j, 1\]"),
        ({"a": 1, "b": 2}, "{'a': 1, 'b': 2}"),
        ([[1], [2]], r"\[\[1\], \[2\]\]"),
        (3, "weights 3"),
    ],
)
def test_wrong_weights_are_quoted(weights: Any, quoted: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"Categorical got .*{quoted}"):
        Categorical(["a", "b"], weights)


def test_weights_come_in_any_list() -> None:
    lists: list[Any] = [
        (w for w in (1, 3)),
        {"a": 1, "b": 3}.values(),
        np.array([1, 3], dtype=np.uint8),
        torch.tensor([1.0, 3.0], requires_grad=True),
        torch.tensor([1, 3], dtype=torch.bfloat16),
        pd.Series([1, 3], index=[5, 6]),
    ]
    for weights in lists:
        assert Categorical("ab", weights).probabilities.tolist() == [0.25, 0.75]


def test_uniform_has_a_density_where_it_draws() -> None:
    with pytest.raises(ValueError, match="further apart"):
        Uniform(-1e308, 1e308)
    narrow, rng = Uniform(1.0, math.nextafter(1.0, 2.0)), np.random.default_rng(0)
    for _ in range(50):
        assert narrow.log_prob(narrow.sample(rng)) > 0


def test_bernoulli_of_a_small_probability_keeps_its_digits() -> None:
    assert Bernoulli(1e-20).log_prob(False) == -1e-20
    assert Bernoulli(1.0).log_prob(0) == -math.inf


# --- values ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    x: Any


@dataclass
class Mutable:
    x: Any


def value_of(rng: random.Random, depth: int = 2) -> tuple[Any, str]:
    """A value, and a text that is the same for equal values: computed from the parts."""
    kind = rng.choice(
        ["number", "text", "nan", "array", "tensor", "array"]
        + (["tuple", "dict", "list", "point", "mutable"] * (depth > 0))
    )
    numbers = [rng.choice([0, 1, 1.5, math.nan]) for _ in range(rng.randint(1, 2))]
    if kind == "number":
        number = rng.choice([0, 1])
        return rng.choice([number, float(number), np.float32(number)]), f"n{float(number)}"
    if kind == "text":
        return (text := rng.choice(["a", "b"])), f"t{text}"
    if kind == "nan":
        return rng.choice([math.nan, float("nan"), np.float32("nan")]), "nnan"
    if kind in ("array", "tensor"):
        array: Any = np.array(numbers) if kind == "array" else torch.tensor(numbers)
        return array, f"[{[f'n{float(number)}' for number in numbers]}]"
    inner = [value_of(rng, depth - 1) for _ in range(rng.randint(1, 2))]
    values, shown = [value for value, _ in inner], [text for _, text in inner]
    if kind == "tuple":
        return tuple(values), f"({shown})"
    if kind == "list":
        return values, f"[{shown}]"
    if kind == "dict":
        return {str(i): value for i, value in enumerate(values)}, f"{{{shown}}}"
    return (Point if kind == "point" else Mutable)(values[0]), f"{kind}{shown[0]}"


def test_values_that_hold_arrays_are_equal_by_their_elements(fuzz: Any) -> None:
    for rng in fuzz.rngs(250):
        values = [value_of(rng) for _ in range(12)]
        for first, shown in values:
            for second, other in values:
                equal = json.dumps(shown) == json.dumps(other)
                assert same(first, second) == equal, (first, second)
                if equal:
                    # A dict sees NaNs as it does: by identity first.
                    assert {key(first): 1} == {key(second): 1}, (first, second)
        weights = [rng.randint(1, 5) for _ in values]
        drawn = Categorical([value for value, _ in values], weights)
        for value, shown in values:
            mass = sum(w for w, (_, text) in zip(weights, values, strict=True) if text == shown)
            assert drawn.log_prob(value) == pytest.approx(math.log(mass / sum(weights)))


def test_tables_and_long_arrays_are_equal_by_their_elements() -> None:
    table = pd.DataFrame({"a": [1.0, math.nan]})
    assert same(table, table.copy())
    assert not same(table, pd.DataFrame({"a": [1.0, 2.0]}))
    long = np.arange(3000.0)
    other = long.copy()
    other[1500] += 1e-9
    for wrapped in (lambda x: x, Point, Mutable, lambda x: {"x": (x,)}):
        assert key(wrapped(long)) == key(wrapped(long.copy()))
        assert key(wrapped(long)) != key(wrapped(other))
        assert not same(wrapped(long), wrapped(other))


ARRAYS: tuple[Any, ...] = (np.array([1, 2]), np.array([3, 4]))
TENSORS: tuple[Any, ...] = tuple(map(torch.from_numpy, ARRAYS))


@pytest.mark.parametrize("values", [ARRAYS, TENSORS, tuple({"x": (a,)} for a in ARRAYS)])
async def test_arrays_are_drawn_proposed_observed_and_grouped(values: Any) -> None:
    async def model(ctx: Context) -> Any:
        uneven = Categorical(values, weights=[3, 1])
        first = await ctx.sample(Categorical(values), proposal=uneven)
        await ctx.observe(uneven, first)
        return first

    posterior = await _infer(model, n=1000)
    exact = await enumerate_posterior(model)
    assert [exact.probabilities[value] for value in values] == pytest.approx([0.75, 0.25])
    assert len(posterior.probabilities) == len(exact.probabilities) == 2
    assert posterior.probabilities[values[0]] == pytest.approx(0.75, abs=0.06)
    assert posterior.log_ml == pytest.approx(math.log(1 / 2), abs=0.06)
    assert same(posterior.mode(), values[0])
    json.loads(posterior.to_json())


# --- torch and scipy ------------------------------------------------------------------------


def pair_of(rng: random.Random) -> tuple[Any, Any, list[Any]]:
    """A distribution of torch in float64, the same of scipy, and some values."""
    a, b = (torch.tensor(rng.uniform(0.2, 5.0), dtype=torch.float64) for _ in range(2))
    x, y, n, p = a.item(), b.item(), rng.randint(1, 20), rng.random()
    numbers = [rng.uniform(-3, 8) for _ in range(3)] + [0, 1, 2, -1, 1.5]
    both: list[Callable[[], tuple[Any, Any]]] = [
        lambda: (td.Normal(a, b), stats.norm(x, y)),
        lambda: (td.Normal(a, b), stats.Normal(mu=x, sigma=y)),
        lambda: (td.Uniform(a, a + b), stats.uniform(loc=x, scale=y)),
        lambda: (td.Gamma(a, b), stats.gamma(x, scale=1 / y)),
        lambda: (td.Beta(a, b), stats.beta(x, y)),
        lambda: (td.Exponential(b), stats.expon(scale=1 / y)),
        lambda: (td.Laplace(a, b), stats.laplace(x, y)),
        lambda: (td.Cauchy(a, b), stats.cauchy(x, y)),
        lambda: (td.StudentT(a, torch.tensor(0.0).double(), b), stats.t(x, 0, y)),
        lambda: (td.LogNormal(a, b), stats.lognorm(y, scale=math.exp(x))),
        lambda: (td.Gumbel(a, b), stats.gumbel_r(x, y)),
        lambda: (td.HalfNormal(b), stats.halfnorm(scale=y)),
        lambda: (td.Weibull(a, b), stats.weibull_min(y, scale=x)),
        lambda: (td.Poisson(a), stats.poisson(x)),
        lambda: (
            td.Bernoulli(torch.tensor(p).double()),
            stats.bernoulli(torch.tensor(p).double().item()),
        ),
        lambda: (
            td.Binomial(n, torch.tensor(p).double()),
            stats.binom(n, torch.tensor(p).double().item()),
        ),
    ]
    torchs, scipys = rng.choice(both)()
    return torchs, scipys, numbers


def test_log_probabilities_of_torch_and_scipy_agree(fuzz: Any) -> None:
    for rng in fuzz.rngs(250):
        torchs, scipys, numbers = pair_of(rng)
        judge = getattr(scipys, "logpmf", None)
        if isinstance(scipys, stats.Normal) or judge is None:
            judge = scipys.logpdf
        continuous = not hasattr(scipys, "logpmf") or isinstance(scipys, stats.Normal)
        for number in numbers:
            if continuous and number == 0:
                continue  # on the edge of a support each has its own convention
            with np.errstate(all="ignore"):
                wanted = float(judge(number))
            for ours in (adapted(torchs), adapted(scipys)):
                found = ours.log_prob(number)
                assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6), (ours, number)
                assert type(found) is float


@pytest.mark.slow
@pytest.mark.parametrize(
    ("distribution", "cdf"),
    [
        (td.Normal(1.0, 2.0), stats.norm(1, 2).cdf),
        (td.Beta(2.0, 3.0), stats.beta(2, 3).cdf),
        (stats.norm(1, 2), stats.norm(1, 2).cdf),
        (stats.gamma(2.0, scale=3.0), stats.gamma(2.0, scale=3.0).cdf),
        (stats.norm, stats.norm(0, 1).cdf),
        (stats.Normal(mu=1.0, sigma=2.0), stats.norm(1, 2).cdf),
        (
            td.MixtureSameFamily(
                td.Categorical(torch.tensor([0.5, 0.5])), td.Normal(torch.tensor([0.0, 9.0]), 1.0)
            ),
            lambda x: (stats.norm(0, 1).cdf(x) + stats.norm(9, 1).cdf(x)) / 2,
        ),
    ],
)
async def test_draws_of_torch_and_scipy_follow_their_distribution(
    distribution: Any, cdf: Callable[[Any], Any]
) -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002  # pyright: ignore

    async def model(ctx: Context) -> Any:
        return await ctx.sample(distribution)

    posterior = await _infer(model, n=400)
    assert {type(value) for value in posterior.values} == {float}
    assert stats.kstest(posterior.values, cdf).pvalue > 1e-3
    assert posterior.values == (await _infer(model, n=400)).values
    assert posterior.values != (await _infer(model, n=400, seed=1)).values
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002  # pyright: ignore
    assert before == after


@pytest.mark.parametrize(
    ("distribution", "value", "log_p"),
    [
        (td.Normal(0.0, 1.0), 0.5, stats.norm(0, 1).logpdf(0.5)),
        (td.Categorical(torch.tensor([0.25, 0.75])), 1, math.log(0.75)),
        (td.Bernoulli(0.25), True, math.log(0.25)),
        (td.MultivariateNormal(torch.zeros(2), torch.eye(2)), [0.0, 0.0], -math.log(2 * math.pi)),
        (td.Independent(td.Normal(torch.zeros(2), 1.0), 1), np.zeros(2), -math.log(2 * math.pi)),
        (td.Normal(torch.tensor(0.0, requires_grad=True), 1.0), torch.tensor(0.5), -1.0439385),
        (stats.multivariate_normal([0, 0]), (0, 0), -math.log(2 * math.pi)),
        (stats.multinomial(2, [0.5, 0.5]), [1, 1], math.log(0.5)),
        (stats.dirichlet([1, 1]), [0.5, 0.5], 0.0),
        (stats.bernoulli(0.25), True, math.log(0.25)),
        (stats.Binomial(n=1, p=0.25), 1, math.log(0.25)),
        (stats.rv_discrete(values=([3, 5], [0.25, 0.75])), 5, math.log(0.75)),
    ],
)
async def test_observe_and_proposal_of_torch_and_scipy_weigh_exactly(
    distribution: Any, value: Any, log_p: float
) -> None:
    async def observed(ctx: Context) -> None:
        await ctx.observe(distribution, value)

    async def imported(ctx: Context) -> Any:
        return await ctx.sample(distribution, proposal=distribution)

    assert (await _infer(observed)).log_ml == pytest.approx(log_p, abs=1e-6)
    posterior = await _infer(imported)
    assert posterior.log_ml == pytest.approx(0, abs=1e-6)
    json.loads(posterior.to_json())


async def test_events_are_arrays_of_their_own() -> None:
    base = torch.tensor([0.5, 0.5])

    async def model(ctx: Context) -> Any:
        return await ctx.sample(td.Dirichlet(base))

    for value in (await _infer(model)).values:
        assert type(value) is np.ndarray
        assert value.flags.owndata
        assert value.sum() == pytest.approx(1)


@pytest.mark.parametrize("make", [td.Normal, stats.norm], ids=["torch", "scipy"])
async def test_check_replay_compares_the_parameters(make: Any) -> None:
    runs = 0

    async def model(ctx: Context, step: float) -> None:
        nonlocal runs
        runs += 1
        await ctx.sample(make(runs * step, 1.0))

    await check_replay(model, 0.0)
    with pytest.raises(ReplayError, match="made another request"):
        await check_replay(model, 0.1)


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (td.Normal(torch.zeros(2), 1.0), "a batch of 2 distributions.*Independent"),
        (td.Normal(torch.zeros(1), 1.0), "a batch of 1 distributions"),
        (td.Normal, "torch.distributions.normal.Normal"),
        (stats.norm([0, 1], 1), r"norm\(\[0, 1\], 1\) of scipy is a batch of 2"),
        (stats.Normal(mu=[0.0, 1.0], sigma=1.0), "a batch of 2"),
        (stats.gamma, r"write scipy.stats.gamma\(a\)"),
        (stats.multivariate_normal, r"write scipy.stats.multivariate_normal\(...\)"),
        (stats.gaussian_kde([1, 2, 3]), "or a distribution"),
        (stats.ortho_group(3), "or a distribution"),
        (stats.multinomial([2, 3], [0.5, 0.5]), "a batch of 2"),
        (stats.normal_inverse_gamma(0, 1, 2, 3), "draws 2 values at once"),
    ],
)
async def test_value_that_is_no_single_distribution_is_rejected(
    distribution: Any, message: str
) -> None:
    async def sampled(ctx: Context) -> None:
        await ctx.sample(distribution)

    async def proposed(ctx: Context) -> None:
        await ctx.sample(Uniform(0, 1), proposal=distribution)

    for model in (sampled, proposed):
        with pytest.raises(ModelError, match=message):
            await _infer(model, n=1)


@pytest.mark.parametrize("distribution", [td.Normal(0.0, 1.0), stats.norm(0, 1)])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a", "weighs numbers, and got 'a'"),
        (None, "weighs numbers, and got None"),
        ([1.0, 2.0], r"one number at a time, and got \[1.0, 2.0\] of shape \(2,\)"),
        (math.nan, r"log_prob\(nan\) is nan"),
    ],
)
async def test_value_that_a_distribution_cannot_weigh_is_quoted(
    distribution: Any, value: Any, message: str
) -> None:
    async def model(ctx: Context) -> None:
        await ctx.observe(distribution, value)

    with pytest.raises(ModelError, match=message):
        await _infer(model, n=1)


async def test_density_that_is_no_number_is_quoted() -> None:
    class Odd:
        def sample(self, rng: np.random.Generator) -> int:
            return 1

        def log_prob(self, x: Any) -> Any:
            return None

    async def model(ctx: Context) -> None:
        await ctx.observe(Odd(), 1)

    with pytest.raises(ModelError, match=r"log_prob\(1\) is None"):
        await _infer(model)


# --- conditions and factors -----------------------------------------------------------------


class Awaited:
    def __await__(self) -> Any:
        yield


async def _later() -> bool:
    return True


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "got None; a function that ends without `return`"),
        (lambda: math.nan, "got nan"),
        (lambda: np.float32("nan"), "neither true nor false"),
        (lambda: Decimal("nan"), "neither true nor false"),
        (lambda: torch.tensor(math.nan), "neither true nor false"),
        (lambda: len, r"call it, as in len\(...\)"),
        (lambda: lambda: True, r"call it, as in f\(...\)"),
        (lambda: "abc".isalpha, r"call it, as in isalpha\(...\)"),
        (lambda: bool, "call it"),
        (_later, "await it first"),
        (Awaited, "await it first"),
        (lambda: "yes", "got 'yes'; a text is true unless it is empty"),
        (lambda: b"", "compare it"),
        (lambda: (x > 1 for x in [1, 2]), "all"),
        (lambda: [True, False], "any"),
        (lambda: object(), "it is always true"),
        (lambda: np.array([1, 0]), "neither true nor false"),
        (lambda: torch.tensor([True, False]), "neither true nor false"),
        (lambda: pd.Series([True, True]), "neither true nor false"),
        (lambda: pd.NA, "neither true nor false"),
    ],
)
async def test_value_hardly_meant_as_a_condition_is_quoted(
    make: Callable[[], Any], message: str
) -> None:
    async def model(ctx: Context) -> None:
        await ctx.condition(make())

    with warnings.catch_warnings(), pytest.raises(ModelError, match=message):
        await _infer(model, n=1)


@pytest.mark.parametrize("number", [1, 0])
@pytest.mark.parametrize(
    "kind",
    [bool, np.bool_, int, float, np.int64, torch.tensor, np.array, Fraction, lambda n: [n] * n],
)
async def test_truth_values_are_conditions(number: int, kind: Callable[[int], Any]) -> None:
    async def model(ctx: Context) -> None:
        await ctx.condition(kind(number))

    assert (await _infer(model)).log_ml == pytest.approx(0.0 if number else -math.inf)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (None, "without `return`"),
        (math.nan, r"math.log\(p\)"),
        (math.inf, "inf"),
        (np.True_, "True"),
        (math.log, r"call it, as in log\(...\)"),
        ("1", "'1'"),
        (np.array([1.0, 2.0]), "a log-weight is a number"),
    ],
)
async def test_factor_of_what_is_no_log_weight_is_quoted(weight: Any, message: str) -> None:
    async def model(ctx: Context) -> None:
        await ctx.factor(weight)

    with pytest.raises(ModelError, match=message):
        await _infer(model)


async def test_log_weights_of_arrays_and_tensors_are_numbers() -> None:
    async def model(ctx: Context) -> None:
        await ctx.factor(np.array([-1.0]))  # pyright: ignore
        await ctx.factor(torch.tensor(-1.0, requires_grad=True))  # pyright: ignore

    assert (await _infer(model)).log_ml == pytest.approx(-2)
