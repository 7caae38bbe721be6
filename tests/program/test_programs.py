"""Whole programs against enumeration: the posterior and the evidence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from arsenal.maths import logmeanexp

from awrs_ppl import (
    Bernoulli,
    Categorical,
    Context,
    LocalAWRS,
    PaperAWRS,
    Prior,
    ToyLM,
    infer,
)
from awrs_ppl import predicate as predicate_of
from awrs_ppl.inference.population import Particle
from awrs_ppl.inference.resampling import SCHEMES
from awrs_ppl.potentials import Soft
from awrs_ppl.proposals.token_step import Progress, TokenStep
from awrs_ppl.testing import assert_unbiased, enumerate_posterior

TOKENS = ["a", "b", "ab", "."]
LM = ToyLM(TOKENS, seed=5)


@predicate_of
def no_bb(text: str) -> bool:
    return "bb" not in text


async def two_texts(ctx: Context) -> tuple[str, str]:
    """The second prompt depends on the first text; lengths differ before the observe."""
    first = await ctx.generate(LM("go", stop=".") * no_bb, max_tokens=3)
    second = await ctx.generate(LM("then" + first) * no_bb, max_tokens=3)
    await ctx.observe(LM(first + "?"), second[:1] or "b")
    return first, second


async def choices(ctx: Context) -> tuple[str, bool, str]:
    """Choices, an early condition, submodels, a factor and a late observe."""

    async def letter(ctx: Context) -> str:
        return await ctx.sample(Categorical(["a", "b"], weights=[3, 1]), name="letter")

    x = await letter(ctx)
    heads = await ctx.sample(Bernoulli(0.3))
    await ctx.condition(x == "a" or heads)
    y = await ctx.sample(
        Categorical(["a", "b", "ab"]), proposal=Categorical(["a", "b", "ab"], weights=[1, 5, 1])
    )
    await ctx.factor(0.5 * len(y) - heads)
    text = await ctx.generate(LM(x + y, temperature=0.7) * no_bb, max_tokens=2)
    await ctx.observe(LM("z" + text), x, ends=True)
    await ctx.observe(Bernoulli(0.8 if text else 0.2), heads)
    return x, heads, text


def length(text: str) -> float:
    return -0.6 * len(text)


def misleading(text: str) -> float:
    """Likes what `length` dislikes: it must be undone."""
    return 0.4 * len(text) - (1.0 if text.startswith("b") else 0.0)


async def twisted(ctx: Context) -> str:
    return await ctx.generate(
        LM("go", stop=".") * no_bb, max_tokens=4, critic=Soft(length, prefix=misleading)
    )


def without_a(text: str) -> float:
    return -math.inf if "a" in text else 0.5


async def stop_the_critic_rejects(ctx: Context) -> str:
    """No text with an "a", and yet "ba" may continue: the stop takes it away."""
    critic = Soft(without_a, prefix=without_a)
    return await ctx.generate(LM("go", stop="aa"), max_tokens=3, critic=critic)


async def soft_product(ctx: Context) -> str:
    weigh = Soft(length, prefix=lambda text: 0.3 * text.count("a"))
    return await ctx.generate(weigh * LM("go") * no_bb, max_tokens=3)


async def longer_and_shorter(ctx: Context) -> str:
    """Texts of very different lengths before an observe that favours the long ones."""
    text = await ctx.generate(LM("go"), max_tokens=5)
    await ctx.observe(Bernoulli(0.9 if len(text) > 3 else 0.05), True)
    return text[:2] + await ctx.generate(LM("then"), max_tokens=2)


PROGRAMS = [
    two_texts,
    choices,
    twisted,
    stop_the_critic_rejects,
    soft_product,
    longer_and_shorter,
]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", PROGRAMS)
async def test_every_scheme_is_unbiased(model: Any, scheme: str) -> None:
    await assert_unbiased(model, runs=80, n_particles=20, ess_threshold=0.9, resampling=scheme)


@pytest.mark.slow
@pytest.mark.parametrize("model", PROGRAMS)
async def test_importance_sampling_is_unbiased(model: Any) -> None:
    await assert_unbiased(model, runs=200, n_particles=20, ess_threshold=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "proposal",
    [PaperAWRS("two-loop"), PaperAWRS("recursive"), PaperAWRS("geometric"), Prior()],
    ids=str,
)
async def test_every_proposal_gives_the_same_posterior(proposal: Any) -> None:
    async def model(ctx: Context) -> str:
        text = await ctx.generate(
            LM("go", stop=".") * no_bb, max_tokens=3, proposal=proposal, critic=Soft(length)
        )
        return text + await ctx.generate(LM("z" + text) * no_bb, max_tokens=2, proposal=proposal)

    await assert_unbiased(model, runs=150, n_particles=12)


async def test_one_particle_and_one_token_give_the_exact_evidence() -> None:
    async def model(ctx: Context) -> str:
        return await ctx.generate(LM("go"), max_tokens=1)

    posterior = await infer(model, n_particles=1, seed=0, progress=False)
    exact = await enumerate_posterior(model)
    assert posterior.values == [""]
    assert posterior.log_ml == pytest.approx(exact.log_ml, abs=1e-12)


async def test_particles_that_wait_do_not_compete() -> None:
    """A short text that is weighed already must not lose against long ones that are not.

    Unbiased in both cases; but with few particles the posterior would be far off.
    """
    lm = ToyLM(["a"], weights=lambda context: [0.5, 0.5])

    async def model(ctx: Context) -> bool:
        text = await ctx.generate(lm("a"), max_tokens=12)
        is_short = text == ""
        await ctx.observe(Bernoulli(0.02), True)
        return is_short

    found = [
        (
            await infer(model, n_particles=64, seed=seed, ess_threshold=0.9, progress=False)
        ).probability(bool)
        for seed in range(10)
    ]
    exact = (await enumerate_posterior(model)).probabilities[True]
    assert np.mean(found) == pytest.approx(exact, abs=0.06)


TWO_WAYS = ToyLM(["a", "b"], weights=lambda context: [10, 10, 1])


async def one_way_dies(ctx: Context) -> str:
    """After "a" the text can only end, which is unlikely; "bbb" weighs more, and never ends."""
    allowed = predicate_of(
        lambda text: text in ("", "a", "b", "bb", "bbb"), complete=lambda text: text == "a"
    )
    return await ctx.generate(TWO_WAYS("go") * allowed, max_tokens=6)


async def test_text_that_has_ended_keeps_its_slot_while_others_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"ess_threshold": 0.7, "resampling": "stratified"}

    async def runs() -> list[float]:
        found = []
        for seed in range(20):
            posterior = await infer(
                one_way_dies, n_particles=4, seed=seed, progress=False, **options
            )
            found.append(posterior.log_ml)
        return found

    exact = await enumerate_posterior(one_way_dies)
    assert logmeanexp(await runs()) == pytest.approx(exact.log_ml, abs=0.1)
    # If they compete, those that die mostly win.
    monkeypatch.setattr(Particle, "is_ahead", False)
    assert (await runs()).count(-math.inf) > 10


async def test_local_decoding_has_no_evidence() -> None:
    async def model(ctx: Context) -> str:
        return await ctx.generate(LM("go") * no_bb, max_tokens=3, proposal=LocalAWRS())

    posterior = await infer(model, seed=0, progress=False)
    assert math.isnan(posterior.log_ml)
    assert all("bb" not in value for value in posterior.values)


async def test_resampling_happens_in_mid_sentence() -> None:
    posterior = await infer(two_texts, n_particles=16, ess_threshold=0.9, seed=1, progress=False)
    resampled = [sync.ancestors for sync in posterior.history if sync.ancestors is not None]
    assert resampled, "nothing was resampled, so the tests above would show little"
    assert any(len(set(ancestors)) < 16 for ancestors in resampled)


async def test_enumeration_leaves_out_what_has_no_weight() -> None:
    async def impossible(ctx: Context) -> bool:
        heads = await ctx.sample(Bernoulli(0.5))
        await ctx.condition(False)
        return heads

    exact = await enumerate_posterior(impossible)
    assert (exact.probabilities, exact.log_ml) == ({}, -math.inf)

    async def never_a(ctx: Context) -> str:
        # "a" loses its weight when it ends.
        end = Soft(lambda text: -math.inf if text == "a" else 0.0, prefix=lambda text: 0.0)
        return await ctx.generate(
            ToyLM(["a", "b"], weights=lambda _: [1, 1, 2])("a") * end, max_tokens=2
        )

    exact = await enumerate_posterior(never_a)
    # The end is one of the two tokens: "b" has 1/4 for itself and 1/2 for the end.
    assert exact.probabilities == pytest.approx({"": 4 / 5, "b": 1 / 5})
    assert exact.log_ml == pytest.approx(math.log(1 / 2 + 1 / 8))


# --- broken twins ---------------------------------------------------------------------------


async def _is_caught(model: Any, resampling: str = "stratified") -> None:
    options = {"runs": 150, "n_particles": 12, "ess_threshold": 0.9, "resampling": resampling}
    with pytest.raises(AssertionError, match="the mass of"):
        await assert_unbiased(model, **options)


@pytest.mark.slow
async def test_twist_that_is_not_undone_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Particle.weigh

    def weigh(
        self: Particle, log_weight: float, twist: float, killer: str | None, chosen: float = 0.0
    ) -> None:
        right(self, log_weight + twist, 0.0, killer)

    monkeypatch.setattr(Particle, "weigh", weigh)
    await _is_caught(twisted)


async def test_mean_over_survivors_only_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from awrs_ppl.inference import population
    from awrs_ppl.log_weights import log_mean

    def survivors(log_weights: list[float]) -> float:
        return log_mean([w for w in log_weights if w > -math.inf])

    monkeypatch.setattr(population, "log_mean", survivors)

    async def model(ctx: Context) -> bool:
        x = await ctx.sample(Bernoulli(0.5))
        await ctx.condition(x)
        await ctx.factor(0.0)
        return x

    await _is_caught(model)


@pytest.mark.slow
async def test_weights_kept_after_resampling_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from awrs_ppl.inference import inference

    right = inference.continued

    def keep(particles: list[Particle], ancestors: np.ndarray, slots: set[int]) -> Any:
        children, dropped = right(particles, ancestors, slots)
        for child, ancestor in zip(children, ancestors, strict=True):
            child.log_weight = particles[ancestor].log_weight
        return children, dropped

    monkeypatch.setattr(inference, "continued", keep)
    await _is_caught(longer_and_shorter)


@pytest.mark.slow
async def test_scheme_that_rounds_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounding(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        counts = np.floor(weights * len(weights)).astype(int)
        counts[weights.argmax()] += len(weights) - counts.sum()
        return np.repeat(np.arange(len(weights)), counts)

    monkeypatch.setitem(SCHEMES, "rounding", rounding)
    await _is_caught(longer_and_shorter, resampling="rounding")


@pytest.mark.slow
async def test_forced_end_that_is_not_weighed_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = TokenStep.draw

    async def free(self: TokenStep, rngs: Any) -> Any:
        draws = await right(self, rngs)
        return [draw._replace(log_weight=0.0) for draw in draws] if self.forced else draws

    monkeypatch.setattr(TokenStep, "draw", free)
    await _is_caught(two_texts)


@pytest.mark.slow
async def test_stops_kept_in_the_text_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from awrs_ppl.tokens.vocabulary import Closing

    monkeypatch.setattr(Closing, "apply", lambda self, text: text + self.keep + b".")
    await _is_caught(twisted)


async def test_critic_evaluated_on_the_prefix_of_a_stop_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Progress, "lasting", lambda self, stops: self.text)
    await _is_caught(stop_the_critic_rejects)
