"""Keyword arguments: which are the model's, and what is said of the others."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

from awrs_ppl import (
    Bernoulli,
    Categorical,
    Context,
    ModelError,
    ReplayError,
    ToyLM,
    check_replay,
    infer,
    run,
)
from awrs_ppl.potentials import predicate
from awrs_ppl.testing import enumerate_posterior

OPTIONS = [
    name
    for name, parameter in inspect.signature(infer).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
]


async def model(ctx: Context, topic: str, *, times: int = 1) -> str:
    return topic * times


async def anything(ctx: Context, /, *words: str, **more: Any) -> tuple[Any, ...]:
    return (*words, *sorted(more.items()))


class Object:
    async def __call__(self, ctx: Context, topic: str, times: int = 1) -> str:
        return topic * times

    async def method(self, ctx: Context, topic: str, times: int = 1) -> str:
        return topic * times

    @staticmethod
    async def static(ctx: Context, topic: str, times: int = 1) -> str:
        return topic * times


@functools.wraps(model)
def wrapper(*args: Any, **kwargs: Any) -> Any:
    return model(*args, **kwargs)


CALLABLES: list[Callable[..., Any]] = [
    model,
    wrapper,
    Object(),
    Object().method,
    Object.static,
    functools.partial(model, times=1),
    functools.partial(functools.partial(Object().method, times=3), times=1),
    anything,
]


def value(*args: Any, **options: Any) -> Any:
    (found,) = run(*args, n_particles=2, seed=0, progress=False, **options).probabilities
    return found


@pytest.mark.parametrize("called", CALLABLES)
def test_keywords_go_to_the_model_by_name(called: Any) -> None:
    if called is anything:
        assert value(called, "a", topic="b", times=2) == ("a", ("times", 2), ("topic", "b"))
        return
    assert value(called, topic="ab") == "ab"
    assert value(called, "ab", times=2) == "abab"
    assert value(called, times=2, topic="ab") == "abab"
    asyncio.run(check_replay(called, "ab", times=2))


@pytest.mark.parametrize("called", CALLABLES[:-1])
def test_keyword_of_neither_names_what_is_nearest(called: Any) -> None:
    with pytest.raises(TypeError) as raised:
        run(called, "ab", n_partciles=4)
    said = str(raised.value)
    assert said.startswith("infer got an unexpected keyword argument 'n_partciles': did you mean ")
    assert "did you mean n_particles? The model " in said
    assert "takes topic and times" in said
    assert all(option in said for option in OPTIONS)
    with pytest.raises(TypeError, match=r"'tims': did you mean times\?"):
        run(called, "ab", tims=4)
    with pytest.raises(TypeError, match=r"'qqqqqq': The model"):
        run(called, "ab", qqqqqq=4)


async def test_keyword_errors_come_before_the_model_runs() -> None:
    async def runs(ctx: Context) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="takes no arguments but its context"):
        await infer(runs, topic="a")
    with pytest.raises(TypeError, match="check_replay got an unexpected keyword argument 'runs'"):
        await check_replay(runs, runs=3)
    with pytest.raises(TypeError, match=r"got ctx=\.\.\.: it gives the model its ctx itself"):
        await infer(model, "a", ctx=1)
    with pytest.raises(TypeError, match=r"'topic' of the model model twice, by position and as"):
        await infer(model, "a", topic="b")
    with pytest.raises(ModelError, match="is no function"):
        await infer(3, topic="b")  # pyright: ignore[reportArgumentType]


async def test_positional_parameter_is_not_given_by_keyword() -> None:
    async def placed(ctx: Context, topic: str, /) -> str:
        return topic

    with pytest.raises(TypeError, match="unexpected keyword argument 'topic'"):
        await infer(placed, topic="a")


@pytest.mark.parametrize("option", OPTIONS)
def test_parameter_named_like_an_option_is_refused_with_the_remedy(option: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"async def named(ctx, {option}='x'):\n    return {option}", scope)
    named = scope["named"]
    remedy = f"functools.partial(named, {option}=...)"
    keywords: list[dict[str, Any]] = [{}, {option: 3}]
    for given in keywords:
        with pytest.raises(TypeError, match=re.escape(remedy)):
            run(named, **given)
    # The remedy is right, and so is a place of its own.
    assert value(functools.partial(named, **{option: "own"})) == "own"
    assert value(named, "own") == "own"
    if option == "seed":
        with pytest.raises(TypeError, match="an option of check_replay"):
            asyncio.run(check_replay(named))
    else:
        own: dict[str, Any] = {option: "own"}
        asyncio.run(check_replay(named, **own))


async def test_replay_sees_the_same_keywords() -> None:
    """Copies of particles make their statements again; the posterior is that of enumeration."""
    lm = ToyLM(["a", "b"], seed=2)
    given: list[Any] = []

    async def program(ctx: Context, words: list[str], *, most: int) -> str:
        given.append((words, most))
        word = await ctx.sample(Categorical(words))
        text = await ctx.generate(lm(word), max_tokens=most)
        await ctx.factor(-0.7 * len(text))
        return word + text

    words = ["a", "b"]
    exact = await enumerate_posterior(functools.partial(program, words=words, most=3))
    given.clear()
    options = {"n_particles": 400, "seed": 0, "progress": False, "resampling": "multinomial"}
    posterior = await infer(program, most=3, words=words, ess_threshold=0.99, **options)
    assert len(given) > 400  # some were replayed
    assert all(one[0] is words and one[1] == 3 for one in given)
    assert abs(posterior.log_ml - exact.log_ml) < 0.1
    for text, share in exact.probabilities.items():
        assert posterior.probabilities.get(text, 0.0) == pytest.approx(share, abs=0.08)
    by_place = await infer(
        functools.partial(program, words=words, most=3), ess_threshold=0.99, **options
    )
    assert by_place.values == posterior.values
    assert pickle.loads(pickle.dumps(posterior)).values == posterior.values


async def test_model_that_changes_its_keywords_fails_the_check_of_replay() -> None:
    async def grows(ctx: Context, *, words: list[str]) -> bool:
        words.append("x")
        return await ctx.sample(Bernoulli(0.5), name=f"word {len(words)}")

    with pytest.raises(ReplayError, match="word 2"):
        await check_replay(grows, words=["a"])


async def test_remember_keeps_what_keywords_have_learned() -> None:
    @predicate
    def short(text: str) -> bool:
        return len(text) < 3

    lm = ToyLM(["a", "b"], seed=2)

    async def program(ctx: Context, *, rule: Any) -> str:
        return await ctx.generate(lm("a") * rule, max_tokens=5)

    counts = []
    for _ in range(2):
        posterior = await infer(program, rule=short, remember=True, progress=False)
        counts.append(sum(posterior.stats.checks.values()))
    assert counts[0] > counts[1]


async def test_exception_of_a_model_names_the_model_and_not_its_binding() -> None:
    def plain(ctx: Context, *, topic: str) -> str:
        return topic

    with pytest.raises(ModelError, match=r"the model .*plain gave 'a', not a coroutine"):
        await infer(plain, topic="a", progress=False)
