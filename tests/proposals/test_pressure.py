"""Pressure to end near `max_tokens`: whatever it guesses, results are those of enumeration.

Where as many children compete as there are texts, and every verdict is known, an inference has no
noise; elsewhere the mean of the evidence over seeds is compared, with broken twins.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from random_programs import random_program

from awrs_ppl import AWRS, Prior, ToyLM, infer, predicate, product, run
from awrs_ppl.constraints.completion import Completions, find_completions
from awrs_ppl.constraints.target import Target, start
from awrs_ppl.inference import text_step
from awrs_ppl.posterior.by_value import entry
from awrs_ppl.potentials import Grammar, JsonSchema, OneOf, Regex, Soft
from awrs_ppl.proposals import Draw, pressure
from awrs_ppl.proposals.pressure import Pressure
from awrs_ppl.proposals.token_step import Progress, TokenStep
from awrs_ppl.testing import enumerate_posterior
from awrs_ppl.tokens.text import Text

# To stay costs little, and to close much.
LM = ToyLM(["a", "b", "ab", ".", "b.", "\n"], seed=5, scale=1.5)
CJK = ToyLM(["a", "丁", "七", "丁".encode()[:2], "丁".encode()[2:], "。"], seed=2)
SURE = AWRS(effort=1e6, _negligible=0.0)  # every verdict is learned before a draw


@predicate
def no_bb(text: str) -> bool:
    return "bb" not in text


def soft(size: float) -> Soft:
    return Soft(lambda text: size * text.count("a"), prefix=lambda text: size * len(text) / 3)


def generating(potential: Any, **options: Any) -> Any:
    async def model(ctx):
        return await ctx.generate(potential, **options)

    return model


PROGRAMS = {
    "sentence": (LM("a") * Regex(r"[ab]*\."), {}),
    "must be long": (LM("a") * Regex(r"[ab]{3,}\."), {}),
    "finite": (LM("a") * OneOf(["a", "aab", "abab.", "b", "ba.", "b.b.b"]), {}),
    "nested": (LM("a") * Grammar('start: x+ "."\nx: "a" | "b" x "b"'), {}),
    "stop": (LM("a", stop="\n") * Regex(r"[ab]+\.[ab]*"), {}),
    "stop of two": (LM("a", stop=".b") * Regex(r"[ab.]+b"), {}),
    "predicate": (LM("a") * Regex(r"[ab]*\.") * no_bb, {}),
    "two masks": (LM("a") * Regex(r"[ab]*\.") * Regex(r"(a|b|ab\.|ba\.)*"), {}),
    "soft": (LM("a") * Regex(r"[ab]*\.") * soft(0.4), {}),
    "critic": (LM("a") * Regex(r"[ab]*\."), {"critic": soft(0.7)}),
    "two models": (product(LM("a"), LM("b", temperature=2.0), Regex(r"[ab]*\.")), {}),
    "characters": (CJK("a") * Regex("[丁七a]*。"), {}),
    "text that need not end": (LM("a") * Regex(r"[ab]*\."), {"ends": False}),
    "stop, and need not end": (LM("a", stop="\n") * Regex(r"[ab]{2,}\.?"), {"ends": False}),
    "finite, and need not end": (LM("a") * OneOf(["aab", "abab.", "ba."]), {"ends": False}),
}


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 4])
@pytest.mark.parametrize("name", PROGRAMS)
def test_posterior_near_the_limit_is_that_of_enumeration(name, max_tokens):
    potential, options = PROGRAMS[name]
    model = generating(potential, max_tokens=max_tokens, proposal=SURE, **options)
    exact = asyncio.run(enumerate_posterior(model))
    found = run(model, n_particles=512, ess_threshold=1.0, seed=0, progress=False)
    assert found.log_ml == pytest.approx(exact.log_ml, abs=1e-4)
    for value, p in exact.probabilities.items():
        assert found.probabilities.get(value, 0.0) == pytest.approx(p, abs=1e-4)
    if found.log_ml_bounds is not None:
        low, high = found.log_ml_bounds
        assert low - 1e-5 <= exact.log_ml <= high + 1e-5


async def evidences(model: Any, runs: int = 80, **options: Any) -> np.ndarray:
    """Of runs with few particles."""
    found = [await infer(model, seed=i, progress=False, **options) for i in range(runs)]
    return np.exp([one.log_ml for one in found])


def z_of(evidence: np.ndarray, exact: float) -> float:
    error = evidence.std() / math.sqrt(len(evidence)) + 1e-6 * exact  # some have no noise
    return (evidence.mean() - exact) / error


def two_statements(max_tokens: int) -> Any:
    async def model(ctx):
        first = await ctx.generate(LM("a") * Regex(r"[ab]*\."), max_tokens=max_tokens)
        await ctx.factor(-0.5 * first.count("b"))
        potential = LM("b" + first) * Regex(r"[ab]*\.") * no_bb
        second = await ctx.generate(potential, max_tokens=max_tokens)
        return first, second

    return model


NOISY = {
    "sentence": generating(LM("a") * Regex(r"[ab]*\."), max_tokens=4),
    "predicate": generating(LM("a") * Regex(r"[ab]*\.") * no_bb, max_tokens=4),
    "critic": generating(LM("a") * Regex(r"[ab]*\."), max_tokens=4, critic=soft(0.7)),
    "need not end": generating(LM("a") * Regex(r"[ab]*\."), max_tokens=4, ends=False),
    "finite": generating(PROGRAMS["finite"][0], max_tokens=3),
    "few checks": generating(
        LM("a") * Regex(r"[ab]*\.") * no_bb, max_tokens=4, proposal=AWRS(_max_checks=1)
    ),
    "two statements": two_statements(3),
    # Of several letters that end the text, the completion has one.
    "any letter": generating(LM("a") * Regex("[ab.]{1,4}"), max_tokens=2),
}
SCHEMES = {
    "children": {"n_particles": 3},
    "always": {"n_particles": 3, "ess_threshold": 1.0},
    "stratified": {"n_particles": 3, "resampling": "stratified", "ess_threshold": 0.9},
    "none": {"n_particles": 3, "ess_threshold": 0.0},
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NOISY)
async def test_evidence_near_the_limit_is_unbiased(name, scheme):
    exact = math.exp((await enumerate_posterior(NOISY[name])).log_ml)
    # A z of 4.5 comes once in 150,000 times.
    assert abs(z_of(await evidences(NOISY[name], **SCHEMES[scheme]), exact)) < 4.5


async def unseen(program: Any, runs: int = 150) -> float:
    """Which share of the posterior no run has met."""
    exact = await enumerate_posterior(program.model)
    met = set[Any]()
    for seed in range(runs):
        options = program.options | {"seed": seed, "progress": False}
        met |= {entry(value) for value in (await infer(program.model, **options)).values}
    return sum(p for value, p in exact.probabilities.items() if entry(value) not in met)


@pytest.mark.filterwarnings("ignore")  # what random programs warn of
async def test_no_text_is_drawn_too_seldom_to_be_seen(monkeypatch):
    """A twist that is nearly zero is unbiased on paper, and what it hits is missing in all that
    anybody runs: here texts that seem too late, with 5 % of the evidence."""
    program = random_program(np.random.default_rng([0, 136]))
    assert await unseen(program) < 0.01
    monkeypatch.setattr(pressure, "_LATE", 1e-130)
    assert await unseen(program) > 0.04


# --- what would break it must be caught -----------------------------------------------------


def left_at_the_end(monkeypatch):
    """A text that is over keeps in its weight what its last token was pressed by."""
    right = TokenStep.relieved

    def relieved(self, draw):
        found = right(self, draw)
        is_last = self.pressure.completion and draw.outcome < self.verdicts.vocabulary.size
        if is_last and not self.pressure.after(self.verdicts.vocabulary.tokens[draw.outcome]):
            return Draw(draw.outcome, draw.log_weight, found.twist)
        return found

    monkeypatch.setattr(TokenStep, "relieved", relieved)


def divided_twice(monkeypatch):
    right = TokenStep.relieved
    monkeypatch.setattr(TokenStep, "relieved", lambda self, draw: right(self, right(self, draw)))


def by_what_was_drawn(monkeypatch):
    """psi changes once the random numbers of the step are known: what was drawn likely had 1."""
    right = Pressure.log_twist

    def log_twist(self, outcome):
        return 0.5 * right(self, outcome) if outcome in self.logs else right(self, outcome)

    monkeypatch.setattr(Pressure, "log_twist", log_twist)


def guess_taken_for_a_fact(monkeypatch):
    async def find(target, states, text, guesses=()):
        found = await find_completions(target, states, text, guesses)
        return found and Completions(found.texts, is_all=True)

    monkeypatch.setattr(pressure, "find_completions", find)


FAULTS = {
    "left at the end": left_at_the_end,
    "divided out twice": divided_twice,
    "by what was drawn": by_what_was_drawn,
    "a guess for a fact": guess_taken_for_a_fact,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_pressure_is_caught(fault, monkeypatch):
    FAULTS[fault](monkeypatch)
    wrong = 0
    for name in ("sentence", "must be long", "text that need not end", "nested"):
        potential, options = PROGRAMS[name]
        model = generating(potential, max_tokens=4, proposal=SURE, **options)
        exact = asyncio.run(enumerate_posterior(model))
        found = run(model, n_particles=512, ess_threshold=1.0, seed=0, progress=False)
        wrong += abs(found.log_ml - exact.log_ml) > 1e-3
    assert wrong


# --- what it is for ---------------------------------------------------------------------------


def reluctant(context: Any) -> list[float]:
    """To close a text has one part in ten thousand."""
    return [0.7, 0.3, 1e-4, 1.0]


@pytest.mark.parametrize("resampling", ["children", "stratified"])
@pytest.mark.parametrize("max_tokens", [5, 20, 50])
def test_reluctant_texts_end_at_the_limit(resampling, max_tokens):
    lm = ToyLM(["a", "b", "."], weights=reluctant)
    model = generating(lm("a") * Regex(r"[ab]*\."), max_tokens=max_tokens)
    found = run(model, n_particles=8, seed=0, resampling=resampling, progress=False)
    assert sum(weight > -math.inf for weight in found.log_weights) == 8


def test_finite_texts_that_do_not_fit_are_left_out():
    """The long words would be begun nearly always, and never end."""
    lm = ToyLM(["a", "b"], weights=lambda context: [0.01, 0.99, 0.5])
    model = generating(lm("a") * OneOf(["aa", "bbbbb"]), max_tokens=3)
    exact = asyncio.run(enumerate_posterior(model))
    for seed in range(5):
        found = run(model, n_particles=1, seed=seed, ess_threshold=0.0, progress=False)
        assert found.log_ml == pytest.approx(exact.log_ml)


def test_death_where_nothing_fits_says_so():
    lm = ToyLM(["a", "b"], seed=1)
    found = run(generating(lm("a") * OneOf(["abab"]), max_tokens=3), progress=False)
    assert found.log_ml == -math.inf
    assert "no text that ends within 3 tokens" in str(found.kills)


def test_texts_far_from_the_limit_are_as_without_it(monkeypatch):
    model = generating(LM("a") * Regex(r"[ab]{,5}\."), max_tokens=200)
    found = run(model, n_particles=8, seed=3, progress=False)

    async def nothing(steps):
        pass

    monkeypatch.setattr(text_step, "press", nothing)
    again = run(model, n_particles=8, seed=3, progress=False)
    assert again.values == found.values
    assert again.log_weights.tolist() == found.log_weights.tolist()


def test_proposal_that_ignores_masks_is_not_pressed():
    model = generating(LM("a") * Regex(r"[ab]*\."), max_tokens=3, proposal=Prior())
    exact = asyncio.run(enumerate_posterior(model))
    found = run(model, n_particles=4000, seed=0, ess_threshold=0.0, progress=False)
    assert found.log_ml == pytest.approx(exact.log_ml, abs=0.2)


# --- completions ------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array"}, "n": {"type": "integer"}},
    "required": ["name", "tags", "n"],
}


@pytest.mark.parametrize(
    ("potential", "text"),
    [
        (JsonSchema(SCHEMA), b""),
        (JsonSchema(SCHEMA), b'{"name": "abc'),
        (JsonSchema(SCHEMA), b'{"name": "abc", "tags": [["x", {"a": [1'),
        (JsonSchema({"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{12}$"}), b'"12'),
        (Regex(r"[A-Z][a-z]+( [a-z]+)*[.!?]"), b"The c"),
        (Regex(r"\d{4}-\d\d-\d\d"), b"20"),
        (Regex(r"[a-z]{10,}\."), b"ab"),
        (Regex("[丁七]{3}。"), "丁".encode()[:2]),
    ],
)
async def test_completions_complete(potential, text):
    target = (LM("a") * potential).target
    states = await start(target, Text(text))
    assert not isinstance(states, str)
    found = await find_completions(target, states, text)
    assert found is not None
    for data in found.texts:
        for factor in target.boolean:
            assert await factor.accepts(await factor.begin(Text(text + data)))


async def test_all_completions_of_few_texts_are_found():
    target = Target.of([LM("a"), OneOf(["yes", "no", "not now", "never"])])
    states = await start(target, Text(b"n"))
    assert not isinstance(states, str)
    found = await find_completions(target, states, b"n")
    assert found == Completions((b"o", b"ever", b"ot now"), is_all=True)


async def test_text_without_completion_has_none():
    target = Target.of([LM("a"), Regex("a*"), Regex("a*b")])
    states = await start(target, Text(b"a"))
    assert not isinstance(states, str)
    assert await find_completions(target, states, b"a") is None


def test_pressure_follows_the_completion():
    assert Pressure(b"ab.").after(b"ab") == b"."
    assert Pressure(b"ab.").after(b"c") == b"ab."
    assert Pressure().after(b"a") is None
    assert Progress(Text(), (), ()).completion is None
