"""Edge cases: each was wrong once."""

from __future__ import annotations

import asyncio
import contextvars
import math
from typing import Any

import numpy as np
import pytest
import torch

from awrs_ppl import (
    AWRS,
    LM,
    Bernoulli,
    BooleanPotential,
    Categorical,
    Context,
    ModelError,
    PaperAWRS,
    PotentialError,
    ReplayError,
    ToyLM,
    Uniform,
    VocabularyError,
    check_replay,
    infer,
    predicate,
)
from awrs_ppl.potentials import Soft
from awrs_ppl.testing import (
    assert_prefix_closed,
    assert_properly_weighted,
    assert_unbiased,
    enumerate_posterior,
)

TOY = ToyLM(["a", "b", "c", ".", "a."], seed=6)
ABC = Categorical(["a", "b", "c"])


async def _infer(model: Any, **options: Any) -> Any:
    return await infer(model, **{"seed": 0, "progress": False, **options})


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("value", ["a", "ab", "", "a.b", ".", "az"])  # z is no token
async def test_observe_of_a_text_weighs_what_enumeration_gives(ends: bool, value: str) -> None:
    """With stops, on one LM and on a product of two, a check and a weight."""

    async def one(ctx: Context) -> None:
        await ctx.observe(TOY("x", stop="."), value, ends=ends)

    async def two(ctx: Context) -> None:
        product = TOY("x", stop=".") * TOY("y", temperature=2.0) * Soft(len, prefix=len)
        await ctx.observe(product * predicate(lambda text: "c" not in text), value, ends=ends)

    for model in (one, two):
        exact = await enumerate_posterior(model)
        found = await _infer(model, n_particles=2)
        assert found.log_ml == pytest.approx(exact.log_ml, abs=1e-9)
        assert ("." in value or "z" in value) == (found.log_ml == -math.inf)


async def test_observe_of_a_whole_text_weighs_as_generating_it() -> None:
    lm = ToyLM(["a", "."], seed=3)

    async def observed(ctx: Context) -> None:
        await ctx.observe(lm("x", stop=".") * lm("y"), "a", ends=True)

    async def generated(ctx: Context) -> None:
        text = await ctx.generate(lm("x", stop=".") * lm("y"), max_tokens=3)
        await ctx.condition(text == "a")

    one, two = await enumerate_posterior(observed), await enumerate_posterior(generated)
    assert one.log_ml == pytest.approx(two.log_ml)


async def test_drawn_value_changed_by_a_model_is_its_own_copy() -> None:
    shared = Categorical([[0], [1]])

    async def model(ctx: Context) -> int:
        x = await ctx.sample(shared)
        x[0] += 1
        await ctx.condition(x[0] == 1)
        return x[0]

    posterior = await _infer(model, n_particles=200)
    assert math.exp(posterior.log_ml) == pytest.approx(0.5, abs=0.12)
    assert shared.values == ([0], [1])


async def test_models_and_potentials_are_not_copied() -> None:
    other = ToyLM(["a"], seed=1)
    potential = predicate(lambda text: True)

    async def model(ctx: Context) -> bool:
        lm = await ctx.sample(Categorical([TOY, other]))
        check = await ctx.call(lambda: potential)
        await ctx.factor(1.0 if lm is TOY else 0.0)
        await ctx.factor(0.0)
        return any(lm is known for known in (TOY, other)) and check is potential

    assert set((await _infer(model, n_particles=20, ess_threshold=1.0)).values) == {True}


@pytest.mark.slow
async def test_prompt_with_a_broken_character_is_encoded() -> None:
    lm = LM.embedded("smollm2-135m", dtype="float32")
    broken = "a\udcf0\udc9fb"
    ids = lm.encode(broken)
    assert lm.decode(ids) == broken
    assert lm.prompt_ids(broken) == ids

    async def model(ctx: Context) -> None:
        await ctx.observe(lm(broken), "x\udcf0")

    assert math.isfinite((await _infer(model, n_particles=1)).log_ml)
    with pytest.raises(VocabularyError, match="lone surrogate"):
        lm("\ud800")


async def test_critic_with_other_tokens_is_rejected() -> None:
    swapped = ToyLM(["b", "a", "c", ".", "a."], seed=6)

    async def model(ctx: Context) -> str:
        return await ctx.generate(TOY("x"), max_tokens=3, critic=swapped("y"))

    with pytest.raises(VocabularyError, match="means others by the same ids"):
        await _infer(model)


@pytest.mark.slow
async def test_critic_that_is_a_language_model_is_unbiased() -> None:
    async def model(ctx: Context) -> str:
        return await ctx.generate(TOY("x"), max_tokens=3, critic=TOY("y"))

    await assert_unbiased(model, runs=80, n_particles=20, ess_threshold=0.9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
async def test_log_prob_that_is_no_weight_is_named(bad: float) -> None:
    class Odd:
        def sample(self, rng: Any) -> str:
            return "a"

        def log_prob(self, x: Any) -> float:
            return bad

    async def target(ctx: Context) -> None:
        await ctx.sample(Odd(), proposal=ABC)

    async def proposal(ctx: Context) -> None:
        await ctx.sample(ABC, proposal=Odd())

    async def observed(ctx: Context) -> None:
        await ctx.observe(Odd(), 1)

    for model in (target, proposal, observed):
        with pytest.raises(ModelError, match="log_prob"):
            await _infer(model)


@pytest.mark.usefixtures("idle_clock")
async def test_finished_particle_ahead_counts_after_a_timeout() -> None:
    endless = ToyLM(["a"], weights=lambda context: [1.0, 0.0])

    @predicate
    async def slow(text: str) -> bool:
        await asyncio.sleep(0.01)
        return True

    async def model(ctx: Context) -> str:
        if await ctx.sample(Bernoulli(0.5)):
            await ctx.factor(0.0)
            return "done"
        return await ctx.generate(endless("a") * slow, max_tokens=5000)

    posterior = await _infer(model, n_particles=16, timeout=1.0, ess_threshold=0)
    assert set(posterior.values) == {"done"}
    assert 0 < posterior.unfinished < 1


@pytest.mark.usefixtures("idle_clock")
async def test_slow_unwinding_is_done_at_once_and_leaves_nothing() -> None:
    entered: list[int] = []
    left: list[int] = []
    leaving: list[int] = []

    async def model(ctx: Context) -> None:
        entered.append(1)
        try:
            ok = await ctx.sample(Bernoulli(0.2))
            await ctx.factor(0.0 if ok else -50.0)
            await ctx.factor(0.0)
            await asyncio.sleep(60)
        finally:
            leaving.append(len(entered) - len(left))
            await asyncio.sleep(0.1)
            left.append(1)

    before = len(asyncio.all_tasks())
    posterior = await _infer(model, n_particles=40, resampling="stratified", timeout=0.5)
    assert posterior.stopped == "timed out"
    assert len(left) == len(entered) > 40
    assert len(asyncio.all_tasks()) == before
    # The first to be unwound had not ended when the last one began.
    assert leaving[-1] > 1


async def test_timeout_is_seen_where_nothing_suspends() -> None:
    lm = ToyLM(["a"], weights=lambda context: [1.0, 0.0])

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a"), max_tokens=100_000)

    posterior = await _infer(model, timeout=0.2, n_particles=2)
    assert posterior.stopped == "timed out"


@pytest.mark.usefixtures("idle_clock")
async def test_timeout_leaves_whole_steps() -> None:
    @predicate
    async def slow(text: str) -> bool:
        await asyncio.sleep(0.3 if len(text) > 2 else 0.0)
        return True

    async def model(ctx: Context) -> None:
        if await ctx.sample(Bernoulli(0.5)):
            await ctx.observe(TOY("x") * slow, "abcab")
        else:
            await ctx.generate(TOY("x"), max_tokens=3)

    posterior = await _infer(model, n_particles=8, timeout=0.15, ess_threshold=0)
    assert {trace.log_weight for trace in posterior} == {0.0}


async def test_exception_ahead_of_the_others_is_raised() -> None:
    async def model(ctx: Context) -> str:
        if await ctx.sample(Bernoulli(0.5)):
            await ctx.factor(-9.0)
            raise ValueError("seen")
        text = await ctx.generate(TOY("x"), max_tokens=4)
        await ctx.factor(0.0)
        return text

    for seed in range(10):
        with pytest.raises(ValueError, match="seen"):
            await _infer(model, n_particles=20, seed=seed)


async def test_statement_used_instead_of_its_value_is_named() -> None:
    async def model(ctx: Context) -> str:
        word = ctx.generate(TOY("x"), max_tokens=3)
        return word.strip()  # pyright: ignore

    with pytest.raises(ModelError, match=r"write `await ctx\.generate"):
        await _infer(model)


async def test_exception_of_a_distribution_is_caught_by_its_model() -> None:
    class Broken:
        def sample(self, rng: Any) -> None:
            raise KeyError("sampling")

        def log_prob(self, x: Any) -> float:
            raise KeyError("scoring")

    async def model(ctx: Context) -> list[str]:
        caught = []
        for statement in (
            lambda: ctx.sample(Broken()),
            lambda: ctx.sample(ABC, proposal=Broken()),
            lambda: ctx.observe(Broken(), 1),
        ):
            try:
                await statement()
            except KeyError as error:
                caught.append(error.args[0])
        return caught

    assert (await _infer(model, n_particles=1)).values == [["sampling", "sampling", "scoring"]]


async def test_errors_of_soft_and_of_accepts_name_the_text() -> None:
    class Fails(BooleanPotential):
        def start(self) -> int:
            return 0

        def advance(self, state: Any, data: bytes) -> int:
            return 0

        def accepts(self, state: Any) -> bool:
            raise OSError("disk")

    async def observed(ctx: Context) -> None:
        await ctx.observe(TOY("x") * Fails(), "ab", ends=True)

    async def weighed(ctx: Context) -> str:
        return await ctx.generate(TOY("x"), max_tokens=2, critic=Soft(lambda text: 1 / 0))

    async def nothing(ctx: Context) -> str:
        return await ctx.generate(TOY("x"), max_tokens=2, critic=Soft(lambda text: None))  # pyright: ignore

    with pytest.raises(PotentialError, match=r"Fails.* raised OSError: disk on the text 'ab'"):
        await _infer(observed)
    with pytest.raises(PotentialError, match="raised ZeroDivisionError"):
        await _infer(weighed)
    with pytest.raises(PotentialError, match="gave the log-weight None"):
        await _infer(nothing)


async def test_cancellation_inside_a_call_is_caught_by_its_model() -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(asyncio.sleep(9))
        task.cancel()
        await task

    async def model(ctx: Context) -> str:
        try:
            await ctx.call(cancelled)
        except asyncio.CancelledError:
            return "caught"
        return "not"

    assert set((await _infer(model)).values) == {"caught"}


async def test_context_variables_are_seen_in_calls() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="unset")

    async def later() -> str:
        await asyncio.sleep(0)
        return variable.get()

    async def model(ctx: Context) -> tuple[str, str]:
        variable.set("set")
        return await ctx.call(variable.get), await ctx.call(later)

    assert set((await _infer(model)).values) == {("set", "set")}


async def test_names_never_collide() -> None:
    async def model(ctx: Context) -> None:
        for name in ("a", "a", "a 2", "a", "a 2"):
            await ctx.sample(ABC, name=name)

    trace = (await _infer(model, n_particles=1))[0]
    assert len(trace) == 5


async def test_proposal_without_a_repr_raises_no_replay_error() -> None:
    class Mine:
        uses_masks = uses_verdicts = is_proper = True

        async def draw(self, outcomes: Any, verdicts: Any, rngs: Any) -> Any:
            return await AWRS().draw(outcomes, verdicts, rngs)

    async def model(ctx: Context) -> str:
        text = await ctx.generate(TOY("x"), max_tokens=3, proposal=Mine())  # pyright: ignore
        await ctx.factor(float(len(text)))
        await ctx.factor(-float(len(text)))
        return text

    posterior = await _infer(model, n_particles=20, ess_threshold=1.0)
    assert any(sync.ancestors for sync in posterior.history)


@pytest.mark.parametrize("random", [np.random.default_rng().random])
async def test_check_replay_compares_what_is_drawn_from_and_returned(random: Any) -> None:
    async def returned(ctx: Context) -> float:
        await ctx.sample(ABC)
        return random()

    async def observed(ctx: Context) -> None:
        await ctx.observe(Uniform(0, 2), random())

    async def drawn(ctx: Context) -> None:
        await ctx.sample(Bernoulli(random()))

    for model in (returned, observed, drawn):
        with pytest.raises(ReplayError, match="run again"):
            await check_replay(model)


@pytest.mark.parametrize(
    "statement",
    [
        lambda ctx: ctx.factor("0.5"),
        lambda ctx: ctx.factor(True),
        lambda ctx: ctx.condition(asyncio.sleep(0)),
        lambda ctx: ctx.sample(Categorical),
        lambda ctx: ctx.generate(TOY("x"), proposal=AWRS),
        lambda ctx: ctx.generate(TOY("x"), max_tokens=True),
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_argument_that_is_nearly_right_is_rejected(statement: Any) -> None:
    async def model(ctx: Context) -> None:
        await statement(ctx)

    with pytest.raises(ModelError, match="got"):
        await _infer(model)


async def test_numbers_of_numpy_and_torch_are_accepted() -> None:
    async def model(ctx: Context) -> None:
        await ctx.factor(np.float32(0.5))  # pyright: ignore
        await ctx.factor(torch.tensor(0.25))  # pyright: ignore
        await ctx.condition(np.True_)

    posterior = await infer(model, n_particles=np.int64(3), seed=np.int64(1), progress=False)  # pyright: ignore
    assert posterior.log_ml == pytest.approx(0.75)
    for options in (
        {"n_particles": True},
        {"seed": True},
        {"timeout": "1"},
        {"ess_threshold": "a"},
        {"resampling": ["a"]},
        {"ess_threshold": math.nan},
    ):
        with pytest.raises(ModelError, match=next(iter(options))):
            await _infer(model, **options)


def test_prompts_of_a_wrong_type_are_rejected() -> None:
    for wrong in (["1", "2"], [1.7], 5):
        with pytest.raises(TypeError, match="neither a str nor a sequence of token ids"):
            TOY(wrong)  # pyright: ignore
    assert TOY(np.array([0, 1])).prompt == (0, 1)  # pyright: ignore
    for temperature in (math.nan, 1e-320, "1"):
        with pytest.raises(ValueError, match="temperature="):
            TOY("a", temperature=temperature)  # pyright: ignore


async def test_assert_prefix_closed_reads_the_symbols_of_the_potential() -> None:
    from genlm.control import Potential

    class Characters(Potential):
        async def prefix(self, context: Any) -> float:
            return -math.inf if len(context) == 1 else 0.0

        async def complete(self, context: Any) -> float:
            return await self.prefix(context)

    with pytest.raises(AssertionError, match="allows the longer"):
        await assert_prefix_closed(Characters(["a", "b"]), ["ab"])
    with pytest.raises(AssertionError, match="nothing to test"):
        await assert_prefix_closed(predicate(lambda text: False), ["ab"])


async def test_killer_at_the_empty_text_is_named() -> None:
    @predicate
    def never(text: str) -> bool:
        return False

    async def model(ctx: Context) -> str:
        return await ctx.generate(TOY("x") * never, max_tokens=3)

    posterior = await _infer(model)
    assert posterior.kills == {"predicate(never) (at the empty text)": 1}  # equal ones are one


async def test_large_weights_do_not_overflow() -> None:
    async def model(ctx: Context) -> str:
        await ctx.factor(2000.0)
        return await ctx.sample(ABC)

    posterior = await _infer(model)
    assert posterior.log_ml == pytest.approx(2000.0)
    assert "2000" in repr(posterior[0])
    assert (await enumerate_posterior(model)).log_ml == pytest.approx(2000.0)


@pytest.mark.slow
async def test_allowed_mass_of_a_millionth_is_properly_weighted() -> None:
    """No cut-off: the paper's estimators are proper at any mass."""
    lm = ToyLM(["a", "b"], weights=lambda context: [1.0, 1e-6, 1e-6])
    # So is Definition 2, but its weight is 1/2 once in a million draws.
    for estimator in ("head-tail", "recursive", "geometric"):
        await assert_properly_weighted(
            AWRS() if estimator == "head-tail" else PaperAWRS(estimator),  # pyright: ignore
            lm("a") * predicate(lambda text: "a" not in text),
            "",
            draws=4000,
        )
