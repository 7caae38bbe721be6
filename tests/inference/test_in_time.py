"""Children in time and late ones, near `max_tokens`: whatever is guessed, results are those of
enumeration.

Where as many children compete as there are texts, and every verdict is known, an inference has no
noise; elsewhere the mean of the evidence over seeds is compared, with broken twins.
"""

from __future__ import annotations

import asyncio
import copy
import math
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, model_validator
from random_programs import random_program
from small_programs import SURE, generating, no_bb, soft

from awrs_ppl import AWRS, LM, ToyLM, infer, product, run
from awrs_ppl.constraints.completion import CompletionSearch
from awrs_ppl.constraints.target import Target, start
from awrs_ppl.inference import competition
from awrs_ppl.inference.in_time import choose_apart
from awrs_ppl.posterior.by_value import entry
from awrs_ppl.potentials import Grammar, JsonSchema, OneOf, Regex
from awrs_ppl.proposals import Pool, room
from awrs_ppl.testing import enumerate_posterior
from awrs_ppl.tokens.text import Text

# To stay costs little, and to close much.
TOY = ToyLM(["a", "b", "ab", ".", "b.", "\n"], seed=5, scale=1.5)
CJK = ToyLM(["a", "丁", "七", "丁".encode()[:2], "丁".encode()[2:], "。"], seed=2)
# More letters than are tried, of nearly equal weight: others, too, are in time.
LETTERS = ToyLM(list("abcdefghijklmnopqrst"), seed=7, scale=0.3)


PROGRAMS = {
    "sentence": (TOY("a") * Regex(r"[ab]*\."), {}),
    "must be long": (TOY("a") * Regex(r"[ab]{3,}\."), {}),
    "finite": (TOY("a") * OneOf(["a", "aab", "abab.", "b", "ba.", "b.b.b"]), {}),
    "nested": (TOY("a") * Grammar('start: x+ "."\nx: "a" | "b" x "b"'), {}),
    "stop": (TOY("a", stop="\n") * Regex(r"[ab]+\.[ab]*"), {}),
    "stop of two": (TOY("a", stop=".b") * Regex(r"[ab.]+b"), {}),
    "predicate": (TOY("a") * Regex(r"[ab]*\.") * no_bb, {}),
    "two masks": (TOY("a") * Regex(r"[ab]*\.") * Regex(r"(a|b|ab\.|ba\.)*"), {}),
    "soft": (TOY("a") * Regex(r"[ab]*\.") * soft(0.4), {}),
    "critic": (TOY("a") * Regex(r"[ab]*\."), {"critic": soft(0.7)}),
    "two models": (product(TOY("a"), TOY("b", temperature=2.0), Regex(r"[ab]*\.")), {}),
    "characters": (CJK("a") * Regex("[丁七a]*。"), {}),
    "text that need not end": (TOY("a") * Regex(r"[ab]*\."), {"ends": False}),
    "stop, and need not end": (TOY("a", stop="\n") * Regex(r"[ab]{2,}\.?"), {"ends": False}),
    "many letters": (LETTERS("a") * Regex("[a-t]{2}"), {}),
    "finite, and need not end": (TOY("a") * OneOf(["aab", "abab.", "ba."]), {"ends": False}),
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
        first = await ctx.generate(TOY("a") * Regex(r"[ab]*\."), max_tokens=max_tokens)
        await ctx.factor(-0.5 * first.count("b"))
        potential = TOY("b" + first) * Regex(r"[ab]*\.") * no_bb
        second = await ctx.generate(potential, max_tokens=max_tokens)
        return first, second

    return model


NOISY = {
    "sentence": generating(TOY("a") * Regex(r"[ab]*\."), max_tokens=4),
    "predicate": generating(TOY("a") * Regex(r"[ab]*\.") * no_bb, max_tokens=4),
    "critic": generating(TOY("a") * Regex(r"[ab]*\."), max_tokens=4, critic=soft(0.7)),
    "need not end": generating(TOY("a") * Regex(r"[ab]*\."), max_tokens=4, ends=False),
    "finite": generating(PROGRAMS["finite"][0], max_tokens=3),
    "few checks": generating(
        TOY("a") * Regex(r"[ab]*\.") * no_bb, max_tokens=4, proposal=AWRS(_max_checks=1)
    ),
    "two statements": two_statements(3),
    "many letters": generating(LETTERS("a") * Regex("[a-t]{3}"), max_tokens=4),
    # Of several letters that end the text, the completion has one.
    "any letter": generating(TOY("a") * Regex("[ab.]{1,4}"), max_tokens=2),
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
async def test_no_text_is_drawn_too_seldom_to_be_seen():
    program = random_program(np.random.default_rng([0, 136]))
    assert await unseen(program) < 0.01


# --- what would break it must be caught -----------------------------------------------------


def late_dropped(monkeypatch):
    right = competition.choose_apart
    monkeypatch.setattr(
        competition,
        "choose_apart",
        lambda in_time, late, count, rng: right(in_time, () if in_time else late, count, rng),
    )


def counted_twice(monkeypatch):
    """What leads to the end competes with the others, too."""

    def divided(step, pool):
        whole = copy.copy(pool)
        whole.urn = pool.urn and pool.urn.copy()
        first, second = room.divided(step, pool)
        return (first, whole) if first and second else (first, second)

    monkeypatch.setattr(competition, "divided", divided)


def weighed_by_places(monkeypatch):
    """Each competition has the weight that its places would have, and not its own."""
    right = competition.choose_apart

    def choose_apart(in_time, late, count, rng):
        if not in_time or not late:
            return right(in_time, late, count, rng)
        first, share = right(in_time, (), count // 2, rng)
        second, _ = right(late, (), count - count // 2, rng)
        second = [child._replace(log_weight=child.log_weight - 0.5) for child in second]
        return sorted([*first, *second]), share

    monkeypatch.setattr(competition, "choose_apart", choose_apart)


FAULTS = {"late dropped": late_dropped, "twice": counted_twice, "places": weighed_by_places}


@pytest.mark.parametrize("fault", FAULTS)
async def test_broken_choice_is_caught(fault, monkeypatch):
    FAULTS[fault](monkeypatch)
    wrong = 0
    for name in ("sentence", "many letters", "few checks"):
        exact = math.exp((await enumerate_posterior(NOISY[name])).log_ml)
        wrong += abs(z_of(await evidences(NOISY[name], n_particles=3), exact)) > 4.5
    assert wrong


# --- what it is for ---------------------------------------------------------------------------


def reluctant(context: Any) -> list[float]:
    """To close a text has one part in ten thousand."""
    return [0.7, 0.3, 1e-4, 1.0]


@pytest.mark.parametrize("max_tokens", [5, 20, 50])
def test_reluctant_texts_end_at_the_limit(max_tokens):
    lm = ToyLM(["a", "b", "."], weights=reluctant)
    model = generating(lm("a") * Regex(r"[ab]*\."), max_tokens=max_tokens)
    found = run(model, n_particles=8, seed=0, progress=False)
    assert sum(weight > -math.inf for weight in found.log_weights) >= 5


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
        (Regex(r"[^?]*[?]"), b"why"),
        (Regex(r"(.|\n)*#"), b"ab"),
        (Regex("[A-Za-z ]+\n"), b"ab"),
    ],
)
async def test_completions_complete(potential, text):
    target = (TOY("a") * potential).target
    states = await start(target, Text(text))
    assert not isinstance(states, str)
    found = await CompletionSearch(target, states, text).find()
    assert found is not None
    for factor in target.boolean:
        assert await factor.accepts(await factor.begin(Text(text + found)))


async def test_text_without_completion_has_none():
    target = Target.of([TOY("a"), Regex("a*"), Regex("a*b")])
    states = await start(target, Text(b"a"))
    assert not isinstance(states, str)
    assert await CompletionSearch(target, states, b"a").find() is None


def test_no_validator_is_asked_of_texts_that_nobody_drew():
    asked = list[Any]()

    class Pair(BaseModel):
        a: int
        b: int

        @model_validator(mode="after")
        def note(self):
            asked.append(self)
            return self

    target = (TOY("a") * JsonSchema(Pair)).target
    states = asyncio.run(start(target, Text(b'{"a":1')))
    assert not isinstance(states, str)
    search = CompletionSearch(target, states, b'{"a":1')
    assert asyncio.run(search.find()) == b',"b":0}'
    assert not asked


def test_required_name_that_is_no_text_is_no_word():
    assert JsonSchema({"type": "object", "required": ["\ud800"]}).engine == "mask"


@pytest.mark.parametrize(("many", "few"), [(50, 1), (1, 50)])
def test_places_that_few_children_leave_are_taken(many, few):
    def entry_of(count, parent):
        ids = np.arange(count)
        return parent, 0.0, Pool(0.0, ids, np.ones(count), np.ones(count))

    children, _ = choose_apart(
        [entry_of(many, 0)], [entry_of(few, 1)], 16, np.random.default_rng(0)
    )
    assert len(children) == 16


class Person(BaseModel):
    name: str
    age: int
    story: str


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_zero_shot_json_with_strings_of_any_length_lives(seed):
    """This model closes no string by itself: in one competition all particles die."""
    lm = LM.embedded("smollm2-135m")
    people = lm.chat("Tell me of a person, as JSON.") * JsonSchema(Person)
    found = run(generating(people, max_tokens=32), n_particles=8, seed=seed, progress=False)
    assert sum(weight > -math.inf for weight in found.log_weights) >= 3
    for text in found.values:
        Person.model_validate_json(text)
