"""Errors say what is wrong and what to write instead."""

from __future__ import annotations

import asyncio
import math
import random
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from genlm.control import BoolFSA

from awrs_ppl import (
    Categorical,
    Context,
    ModelError,
    NoSurvivors,
    PotentialError,
    ReplayError,
    ToyLM,
    VocabularyError,
    check_replay,
    infer,
    predicate,
    run,
)
from awrs_ppl.potentials import Regex, Soft

LM = ToyLM(["a", "b", "."], seed=2)
COIN = Categorical(["a", "b"])


async def _infer(model: Any, **options: Any) -> Any:
    return await infer(model, seed=0, progress=False, **options)


def _here(text: str) -> str:
    """The line of this file that contains a text, as errors name it."""
    source = Path(__file__).read_text().splitlines()
    (number,) = [i for i, line in enumerate(source, 1) if text in line and "_here" not in line]
    return f"{__file__}:{number}"


async def test_statement_not_awaited_is_named_with_its_line() -> None:
    async def model(ctx: Context) -> None:
        ctx.sample(COIN)  # forgotten in the middle
        await ctx.sample(COIN)

    with pytest.raises(ModelError, match=r"write `await ctx\.sample") as error:
        await _infer(model)
    assert _here("# forgotten in the " + "middle") in str(error.value)

    async def ending(ctx: Context) -> None:
        ctx.condition(False)  # forgotten at the end

    with pytest.raises(ModelError, match="not awaited") as error:
        await _infer(ending)
    assert _here("# forgotten at the " + "end") in str(error.value)


async def test_two_statements_at_once_are_rejected() -> None:
    async def model(ctx: Context) -> Any:
        return await asyncio.gather(ctx.sample(COIN), ctx.sample(COIN))

    with pytest.raises(ModelError, match=r"await each in turn.*asyncio\.gather"):
        await _infer(model)

    async def part(ctx: Context) -> str:
        return await ctx.sample(COIN)

    async def submodels(ctx: Context) -> Any:
        return await asyncio.gather(part(ctx), part(ctx))

    with pytest.raises(ModelError, match="another task"):
        await _infer(submodels)


async def test_misuse_is_reported_even_if_the_model_catches_it() -> None:
    async def model(ctx: Context) -> str:
        try:
            ctx.sample(COIN)
            await ctx.sample(COIN)
        except Exception:
            return "swallowed"
        return "fine"

    with pytest.raises(ModelError, match="not awaited"):
        await _infer(model)


@pytest.mark.usefixtures("idle_clock")
async def test_timeout_that_spans_a_statement_is_rejected() -> None:
    class SlowLM(ToyLM):
        async def logits(self, contexts: Any, temperatures: Any) -> Any:
            await asyncio.sleep(0.2)
            return await super().logits(contexts, temperatures)

    lm = SlowLM(["a", "b"])

    async def model(ctx: Context) -> str:
        async with asyncio.timeout(0.05):
            return await ctx.generate(lm("a"), max_tokens=3)

    with pytest.raises(ModelError, match="must not span a statement"):
        await _infer(model, n_particles=2)


async def test_randomness_outside_the_library_is_found_by_replays() -> None:
    async def model(ctx: Context) -> str:
        text = await ctx.generate(LM("go"), max_tokens=3)
        await ctx.factor(float(len(text)))
        if random.random() < 0.5:
            await ctx.sample(COIN, name="coin")
        else:
            await ctx.generate(LM("b"), max_tokens=2, name="more")
        await ctx.factor(-float(len(text)))
        await ctx.sample(COIN)
        return text

    async def often(check: Any) -> None:
        for _ in range(20):
            await check()

    with pytest.raises(ReplayError) as error:
        await often(lambda: _infer(model, n_particles=30, ess_threshold=1.0))
    message = str(error.value)
    assert "first:" in message
    assert "now:" in message
    assert "'coin'" in message
    assert "'more'" in message
    assert "`random`" in message
    with pytest.raises(ReplayError):
        await often(lambda: check_replay(model))


async def test_check_replay_finds_a_weight_that_changes() -> None:
    async def model(ctx: Context) -> None:
        await ctx.factor(random.random())

    with pytest.raises(ReplayError, match="factor"):
        await check_replay(model)

    async def fine(ctx: Context) -> str:
        await ctx.factor(0.1)
        await ctx.condition(True)
        return await ctx.generate(LM("a"), max_tokens=3)

    await check_replay(fine)


async def test_observed_value_of_another_type_in_a_replay_is_an_error() -> None:
    class Anything:
        def sample(self, rng: Any) -> Any:
            return ()

        def log_prob(self, value: Any) -> float:
            return -1.0

    anything: Any = Anything()
    runs: list[int] = []

    async def model(ctx: Context) -> str:
        runs.append(1)
        await ctx.observe(anything, (1, 2) if len(runs) <= 8 else [1, 2])
        coin = await ctx.sample(COIN)
        await ctx.factor(5.0 if coin else 0.0)
        return await ctx.generate(LM("a"), max_tokens=2)

    with pytest.raises(ReplayError, match="tuple") as error:
        await _infer(model, n_particles=8, ess_threshold=1.0)
    assert "list" in str(error.value)


async def test_check_replay_finds_a_model_that_ends_early() -> None:
    seen: list[int] = []

    async def model(ctx: Context) -> None:
        seen.append(1)
        await ctx.sample(COIN)
        if len(seen) == 1:
            await ctx.sample(COIN)

    with pytest.raises(ReplayError, match="ended where it had made sample"):
        await check_replay(model)


async def test_exception_in_a_model_comes_out_with_one_note() -> None:
    async def model(ctx: Context) -> None:
        text = await ctx.generate(LM("go"), max_tokens=3, name="text")
        raise KeyError(f"no {text!r} here")

    with pytest.raises(KeyError) as error:
        await _infer(model, n_particles=4, ess_threshold=0)
    (note,) = error.value.__notes__
    assert "in particle 0, after 'text'" in note
    assert "text = " in note
    assert "3 other particles failed alike" in note
    frames = [frame.filename for frame in traceback.extract_tb(error.value.__traceback__)]
    assert not any(name.endswith(("execution.py", "context.py")) for name in frames)


async def test_exception_of_a_call_is_caught_by_its_model() -> None:
    async def broken() -> None:
        raise OSError("no network")

    async def model(ctx: Context) -> str:
        try:
            await ctx.call(broken)
        except OSError as error:
            await ctx.factor(0.0)
            return str(error)
        return "worked"

    assert set((await _infer(model)).values) == {"no network"}


async def test_predicate_that_raises_is_named_with_the_text() -> None:
    @predicate
    def fragile(text: str) -> bool:
        return 1 / (len(text) - 1) != 7

    async def model(ctx: Context) -> str:
        return await ctx.generate(LM("go") * fragile, max_tokens=4)

    with pytest.raises(PotentialError, match=r"predicate\(fragile\) raised ZeroDivisionError") as e:
        await _infer(model)
    assert any(text in str(e.value) for text in ("'a'", "'b'", "'.'"))
    assert isinstance(e.value.__cause__, ZeroDivisionError)

    tolerant = predicate(on_error="reject")(fragile)

    async def rejecting(ctx: Context) -> str:
        return await ctx.generate(LM("go") * tolerant, max_tokens=4)

    posterior = await _infer(rejecting)
    assert set(posterior.values) <= {""}


async def test_predicate_that_returns_no_bool_is_rejected() -> None:
    no_bool = predicate(lambda text: None)  # pyright: ignore

    async def model(ctx: Context) -> str:
        return await ctx.generate(LM("go") * no_bool, max_tokens=4)

    with pytest.raises(PotentialError, match=r"returned None .* True or False"):
        await _infer(model)


def test_regex_that_does_not_parse_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"\(unclosed"):
        Regex("(unclosed")


async def test_product_without_a_common_token_is_rejected() -> None:
    with pytest.raises(VocabularyError, match="no token in common"):
        _ = LM("go") * BoolFSA.from_regex("z+", charset={"z"})
    other = ToyLM(["x", "y"])
    with pytest.raises(VocabularyError, match="same tokenizer"):
        _ = LM("go") * other("x")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (lambda ctx: ctx.generate(LM("go"), max_tokens=0), "max_tokens=0"),
        (lambda ctx: ctx.generate("text"), "give it a potential"),
        (lambda ctx: ctx.generate(Regex("a")), "no language model in it"),
        (lambda ctx: ctx.generate(LM("go"), proposal=3), "proposal=3"),
        (lambda ctx: ctx.generate(LM("go"), critic=len), "critic="),
        (lambda ctx: ctx.sample([1, 2]), r"Categorical\(\['a', 'b'\]\)"),
        (lambda ctx: ctx.observe(LM("go"), 3), "weigh a text"),
        (lambda ctx: ctx.observe(3, 3), "give it a potential"),
        (lambda ctx: ctx.observe(COIN, "a", ends=True), "only texts have an end"),
        (lambda ctx: ctx.factor(math.nan), "nan"),
        (lambda ctx: ctx.factor(math.inf), "inf"),
        (lambda ctx: ctx.factor("much"), "'much'"),
        (lambda ctx: ctx.call(3), "ctx.call"),
    ],
)
async def test_wrong_arguments_are_quoted(statement: Any, message: str) -> None:
    async def model(ctx: Context) -> None:
        await statement(ctx)

    with pytest.raises(ModelError, match=message):
        await _infer(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_particles": 0}, "n_particles=0"),
        ({"ess_threshold": 2}, "ess_threshold=2"),
        ({"resampling": "magic"}, "'magic'.*multinomial"),
    ],
)
async def test_wrong_options_are_quoted(options: Any, message: str) -> None:
    async def model(ctx: Context) -> None: ...

    with pytest.raises(ModelError, match=message):
        await _infer(model, **options)
    with pytest.raises(ModelError, match="seed=-1"):
        await infer(model, seed=-1)


async def test_model_that_is_not_async_is_rejected() -> None:
    with pytest.raises(ModelError, match="async def"):
        await _infer(lambda ctx: 3)


async def test_run_inside_an_event_loop_is_rejected() -> None:
    async def model(ctx: Context) -> None: ...

    with pytest.raises(ModelError, match="await infer"):
        run(model)


def test_prompts_that_are_wrong_are_named() -> None:
    with pytest.raises(VocabularyError, match="has no tokens"):
        LM("")
    with pytest.raises(VocabularyError, match="token id 77"):
        LM([77])
    with pytest.raises(ValueError, match="temperature=0"):
        LM("go", temperature=0)
    with pytest.raises(ValueError, match="stop=''"):
        LM("go", stop="")
    with pytest.raises(ValueError, match="no chat template"):
        LM.chat("hello")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
async def test_potential_that_gives_nan_or_infinity_is_named(bad: float) -> None:
    async def weighing(ctx: Context) -> str:
        return await ctx.generate(LM("go") * Soft(lambda text: bad), max_tokens=3)

    async def critic(ctx: Context) -> str:
        return await ctx.generate(LM("go"), max_tokens=3, critic=Soft(lambda text: bad))

    for model in (weighing, critic):
        with pytest.raises(PotentialError, match=f"gave the log-weight {bad}"):
            await _infer(model)


async def test_language_model_that_gives_nan_is_named() -> None:
    class BrokenLM(ToyLM):
        def __init__(self) -> None:
            super().__init__(["a"])

            async def nan(contexts: Any) -> torch.Tensor:
                return torch.full((len(contexts), 2), math.nan)

            self.engine.next_logits = nan  # pyright: ignore

    lm = BrokenLM()

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a"), max_tokens=3)

    with pytest.raises(PotentialError, match="gave NaN after 'a'"):
        await _infer(model)


async def test_posterior_without_survivors_names_the_killer() -> None:
    nothing = predicate(lambda text: text == "")

    async def model(ctx: Context) -> str:
        text = await ctx.generate(LM("go") * nothing, max_tokens=3, name="text")
        await ctx.condition(text != "")
        return text

    posterior = await _infer(model)
    assert posterior.log_ml == -math.inf
    assert posterior.ess == 0
    with pytest.raises(NoSurvivors, match="condition 'condition 2'"):
        posterior.sample()


async def test_generate_that_allows_no_text_has_no_evidence() -> None:
    async def model(ctx: Context) -> str:
        return await ctx.generate(LM("go") * predicate(lambda text: False), max_tokens=3)

    posterior = await _infer(model, n_particles=10)
    assert posterior.log_ml == -math.inf
    assert len(posterior) == 10
