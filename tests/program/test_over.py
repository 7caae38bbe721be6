"""Texts that need not end, by `ctx.generate(..., ends=False)`, and stops of several tokens.

The judge is exact enumeration, or arithmetic on the weights of a `ToyLM`. Where as many children
compete as there are texts, and every verdict is known, an inference has no noise.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from small_programs import SURE, generating, no_bb, soft

from awrs_ppl import AWRS, ModelError, PaperAWRS, Prior, ToyLM, infer, predicate, product, run
from awrs_ppl.constraints import before_stops
from awrs_ppl.potentials import Contains, OneOf, Regex
from awrs_ppl.proposals import token_step
from awrs_ppl.testing import assert_properly_weighted, enumerate_posterior
from awrs_ppl.tokens.vocabulary import Vocabulary

LM = ToyLM(["a", "b", "ab", "c", "\n", "a\n", "\n\n", "."], seed=5, scale=1.0)
CJK = ToyLM(["a", "丁", "七", "丁".encode()[:2], "丁".encode()[2:], "。", "\n"], seed=2)


@predicate(complete=lambda text: len(text) >= 2)
def two_letters(text: str) -> bool:
    return len(text) <= 3


# What is exact: masks, and predicates that are checked to the end.
EXACT = {
    "plain": (LM("a"), {}),
    "stop": (LM("a", stop="b"), {}),
    "stop of two": (LM("a", stop="\n\n"), {}),
    "stops": (LM("a", stop=["\n\n", "ab."]), {}),
    "choice": (LM("a") * OneOf(["a", "ab", "abc", "c", "ca"]), {}),
    "pattern": (LM("a") * Regex("[a-c]{2,4}"), {}),
    "pattern and stop": (LM("a", stop="\n\n") * Regex("[a-c]+\n?[a-c]*"), {}),
    "predicate": (LM("a") * no_bb, {}),
    "predicate and stop": (LM("a", stop="\n\n") * no_bb * Regex("[a-c\n]+"), {}),
    "whole texts": (LM("a") * two_letters, {}),
    "one is over": (LM("a") * two_letters * no_bb, {}),
    "both": (LM("a") * two_letters * Regex("[ac]*"), {}),
    "contains": (LM("a", stop=".") * Contains("ab"), {}),
    "soft": (LM("a", stop="\n\n") * Regex("[a-c]{1,3}") * soft(0.4), {}),
    "critic": (LM("a") * Regex("[a-c]{2,3}"), {"critic": soft(0.7)}),
    "two models": (product(LM("a", stop="\n\n"), LM("b", temperature=2.0), no_bb), {}),
    "characters": (CJK("a") * Regex("[丁七]{2}"), {}),
    "characters and stop": (CJK("a", stop="。\n") * two_letters, {}),
}


@pytest.mark.parametrize("max_tokens", [1, 2, 3])
@pytest.mark.parametrize("name", EXACT)
def test_texts_that_need_not_end_are_those_of_enumeration(name, max_tokens):
    potential, options = EXACT[name]
    model = generating(potential, ends=False, max_tokens=max_tokens, proposal=SURE, **options)
    exact = asyncio.run(enumerate_posterior(model))
    found = run(model, n_particles=1024, ess_threshold=1.0, seed=0, progress=False)
    assert found.log_ml == pytest.approx(exact.log_ml, abs=1e-4)
    for value, p in exact.probabilities.items():
        assert found.probabilities.get(value, 0.0) == pytest.approx(p, abs=1e-4)


@pytest.mark.parametrize("max_tokens", [2, 3])
@pytest.mark.parametrize("name", [n for n, (p, _) in EXACT.items() if "stop" in n])
def test_stops_of_several_tokens_end_texts_that_end(name, max_tokens):
    model = generating(EXACT[name][0], max_tokens=max_tokens, proposal=SURE)
    exact = asyncio.run(enumerate_posterior(model))
    found = run(model, n_particles=1024, ess_threshold=1.0, seed=0, progress=False)
    assert found.log_ml == pytest.approx(exact.log_ml, abs=1e-4)


def test_first_word_is_weighed_without_an_end():
    """Three words; what they weigh is what the model gives to them, and to nothing else."""
    words = {" king": 4.0, " fox": 2.0, " ship": 1.0}
    lm = ToyLM([*words, "."], weights=lambda context: [*words.values(), 3.0, 5.0])
    with_end = {" king": 0.5, " fox": 0.3, " ship": 0.2}
    short = ToyLM(
        [*words, "."],
        weights=lambda context: (
            [*words.values(), 3.0, 5.0]
            if len(context) == 1
            else [1, 1, 1, 1, 100 * with_end[[*words][context[1]]]]
        ),
    )
    for model, ends, wanted in (
        (lm, False, {word: weight / 7 for word, weight in words.items()}),
        (short, False, {word: weight / 7 for word, weight in words.items()}),
    ):
        program = generating(model(".") * OneOf(list(words)), ends=ends)
        found = run(program, n_particles=8, seed=0, progress=False)
        assert found.probabilities == pytest.approx(wanted)
        assert found.log_ml == pytest.approx(math.log(7 / 15))
    ended = run(generating(short(".") * OneOf(list(words))), n_particles=8, seed=0, progress=False)
    weights = {w: words[w] * 100 * with_end[w] / (4 + 100 * with_end[w]) for w in words}
    total = sum(weights.values())
    assert ended.probabilities == pytest.approx({w: x / total for w, x in weights.items()})


def test_max_tokens_counts_tokens_of_text_alone():
    lm = ToyLM(["a"], weights=lambda context: [1.0, 3.0])
    found = run(generating(lm("a"), max_tokens=5, ends=False), n_particles=2, progress=False)
    assert found.probabilities == {"aaaaa": pytest.approx(1.0)}
    assert found.log_ml == pytest.approx(5 * math.log(0.25))


def test_model_without_an_end_token_generates():
    lm = ToyLM(["a", "b"], seed=1)
    lm.vocabulary = Vocabulary(lm.vocabulary.tokens, ends=[], special=[2])
    with pytest.raises(ModelError, match="no end token"):
        run(generating(lm("a")), progress=False)
    found = run(generating(lm("a"), max_tokens=2, ends=False), n_particles=4, progress=False)
    assert all(len(text) == 2 for text in found.probabilities)


def test_pattern_that_continues_gives_the_shortest_text():
    found = run(generating(LM("a") * Regex("[a-c]+"), ends=False), n_particles=8, progress=False)
    assert set(found.probabilities) == {"a", "b", "ab", "c"}


def test_empty_text_is_never_over():
    lm = ToyLM(["a", " ", " b"], seed=3)
    found = run(generating(lm("a", stop=" "), max_tokens=2, ends=False), progress=False)
    assert set(found.probabilities) <= {"a", "aa"}
    only = ToyLM([" ", " b"], seed=3)
    found = run(generating(only(" ", stop=" "), max_tokens=2, ends=False), progress=False)
    assert found.log_ml == -math.inf


@pytest.mark.parametrize("given", [None, 1, "no", np.array([True, False])])
def test_ends_is_a_truth_value(given):
    with pytest.raises(ModelError, match="ends="):
        run(generating(LM("a"), ends=given), progress=False)


def word_by_word(n: int) -> Any:
    async def model(ctx):
        words = []
        for _ in range(n):
            text = "".join(words)
            word = await ctx.generate(
                LM("a" + text, stop="\n") * Regex("[a-c]{2}"), ends=False, name="word"
            )
            words.append(word)
            await ctx.factor(-float(word.count("b")))
        return tuple(words)

    return model


def test_program_word_by_word():
    exact = asyncio.run(enumerate_posterior(word_by_word(2)))
    found = run(word_by_word(2), n_particles=512, ess_threshold=1.0, seed=1, progress=False)
    assert found.log_ml == pytest.approx(exact.log_ml, abs=1e-6)
    assert found.probabilities == pytest.approx(exact.probabilities, abs=1e-6)


@pytest.mark.parametrize("proposal", [AWRS(), AWRS(_max_checks=1), PaperAWRS("recursive"), Prior()])
@pytest.mark.parametrize("last", [False, True])
async def test_proposals_are_properly_weighted_without_an_end(proposal, last):
    for potential in (
        LM("a", stop="b") * no_bb,
        LM("a", stop=["\n\n", "ab."]) * two_letters * Regex("[a-c\n]+"),
        product(LM("a", stop="."), LM("b"), no_bb),
    ):
        await assert_properly_weighted(
            proposal, potential, "a", ends=False, forced=last, draws=1500, together=3
        )


# --- what an end or a stop decides must be caught -------------------------------------------


async def evidence(potential: Any, *, runs: int = 40, **options: Any) -> float:
    total = 0.0
    for seed in range(runs):
        model = generating(potential, **options)
        found = await infer(model, n_particles=64, seed=seed, progress=False)
        total += math.exp(found.log_ml) / runs
    return total


def ends_weigh(monkeypatch):
    right = Vocabulary.closings
    monkeypatch.setattr(
        Vocabulary,
        "closings",
        lambda self, stops, tail, *, by_end=True, empty=True: right(self, stops, tail),
    )


def over_by_one(monkeypatch):
    async def is_over(verdicts, states, data):
        return any([await f.is_over(s) for f, s in zip(verdicts.target.boolean, states)])  # noqa: B905

    monkeypatch.setattr(token_step, "is_over", is_over)


def pending_unread(monkeypatch):
    async def accepts(self, state):
        return await self.factor.accepts(state[0])

    monkeypatch.setattr(before_stops.BeforeStop, "accepts", accepts)


def nothing_held_back(monkeypatch):
    monkeypatch.setattr(before_stops, "held_back", lambda stops: ())


BROKEN = {
    "an end token ends it": (ends_weigh, lambda: LM("a", stop="."), False),
    "one factor does not accept": (
        over_by_one,
        lambda: LM("a") * OneOf(["a", "aa", "ab", "ac"]) * two_letters,
        False,
    ),
    "what is pending is not read": (
        pending_unread,
        lambda: LM("a", stop="\n\n") * Regex("[a-c]{1,3}"),
        True,
    ),
    "nothing is held back": (
        nothing_held_back,
        lambda: LM("a", stop="\n\n") * Regex("[a-c]{1,3}"),
        True,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_ends_are_caught(name, monkeypatch):
    fault, potential, ends = BROKEN[name]
    options = {"max_tokens": 3, "ends": ends}
    exact = math.exp((await enumerate_posterior(generating(potential(), **options))).log_ml)
    assert await evidence(potential(), **options) == pytest.approx(exact, rel=0.05)
    fault(monkeypatch)
    assert await evidence(potential(), **options) != pytest.approx(exact, rel=0.08)


# --- who says that a text is over ------------------------------------------------------------


def test_is_over_is_what_accepts_says():
    for potential, texts in (
        (Regex("a+b?"), [b"", b"a", b"ab", b"aab"]),
        (OneOf(["a", "abc"]), [b"", b"a", b"ab", b"abc"]),
        (two_letters, [b"", b"a", b"ab", b"abc"]),
    ):
        for text in texts:
            state = potential.advance(potential.start(), text)
            assert potential.is_over(state) == potential.accepts(state)
    assert not no_bb.is_over(no_bb.advance(no_bb.start(), b"a"))
    holds = Contains("a")
    assert not holds.is_over(holds.advance(holds.start(), b"a"))
