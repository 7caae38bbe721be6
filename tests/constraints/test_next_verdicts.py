"""Verdicts: propagation, sharing, the cache, joint draws. All of it leaves the distribution as it
is, and each way to get it wrong is caught."""

from __future__ import annotations

import asyncio
import functools
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from broken_twins import accepted_for_all, across_characters, dead_prefix, longer_accepted
from hypothesis import given, settings
from hypothesis import strategies as st

from awrs_ppl import AWRS, LM, BooleanPotential, Categorical, Context, ToyLM, infer, predicate
from awrs_ppl.constraints import prefix_propagation, verdict_cache
from awrs_ppl.constraints.dead_ends import is_dead_end
from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.constraints.product import target_of
from awrs_ppl.constraints.target import start
from awrs_ppl.constraints.verdict_cache import (
    ConstraintVerdicts,
    StateVerdicts,
    TailDraws,
    VerdictCache,
)
from awrs_ppl.errors import PotentialError
from awrs_ppl.potentials import Predicate, Regex, predicates
from awrs_ppl.proposals import pool
from awrs_ppl.proposals.head import Head
from awrs_ppl.proposals.token_step import Progress, TokenStep, weigh
from awrs_ppl.testing import assert_properly_weighted, assert_unbiased, enumerate_posterior
from awrs_ppl.tokens.text import Text
from awrs_ppl.tokens.vocabulary import Vocabulary

# Whole characters, their parts, characters with a common prefix, combining marks, and no UTF-8.
PIECES = ["a", "ab", "b", "丁", "七", "丁a", "🙂", "🙃", "e", "\u0301", "e\u0301"]
PARTS = [
    "丁".encode()[:2],
    "丁".encode()[2:],
    "七".encode()[2:],
    "🙂".encode()[:3],
    b"\x99",
    b"\xff",
]
TOKENS = [*(piece.encode() for piece in PIECES), *PARTS]
TOY = ToyLM(TOKENS, seed=2, scale=1.2)

SETTINGS = {
    "all": AWRS(),
    "high effort": AWRS(effort=100.0),
    "low effort": AWRS(effort=0.1),
    "one check": AWRS(_max_checks=1),
    "few checks": AWRS(_max_checks=3, effort=0.5),
}


@predicate
def no_smile(text: str) -> bool:
    return "🙂" not in text and "丁丁" not in text and "\u0301\u0301" not in text


@predicate(state=lambda text: text[-1:])
def no_pairs(text: str) -> bool:
    return all(a != b for a, b in pairwise(text))


@predicate(complete=lambda text: text.endswith("丁"))
def two_kinds(text: str) -> bool:
    return all(c in "丁七" for c in text)


CONSTRAINTS = {
    "no smile": lambda lm: lm * no_smile,
    "two checks": lambda lm: no_smile * lm * no_pairs,
    "two kinds": lambda lm: lm * two_kinds,
    "mask and check": lambda lm: lm * Regex("[ab丁七🙂e]*") * no_pairs,
}


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "丁", "a"])
@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "warm"])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("constraint", CONSTRAINTS)
async def test_awrs_with_shared_verdicts_is_properly_weighted(
    constraint: str, setting: str, warm: bool, text: str
) -> None:
    if constraint == "two kinds" and text == "a":
        return
    product = CONSTRAINTS[constraint](TOY("go"))
    await assert_properly_weighted(
        SETTINGS[setting], product, text, draws=1200, together=3, warm=warm
    )


async def pair(ctx: Context, proposal: Any) -> tuple[str, str]:
    """The second prompt is the same for all: particles with different texts meet again."""
    first = await ctx.generate(TOY("x") * no_pairs * no_smile, max_tokens=2, proposal=proposal)
    second = await ctx.generate(TOY("y", stop="a") * no_smile, max_tokens=2, proposal=proposal)
    return first, second


async def same_twice(ctx: Context, proposal: Any) -> bool:
    """Whether two texts of one distribution agree."""
    first = await ctx.generate(EVEN("a") * anything, max_tokens=2, proposal=proposal)
    return first == await ctx.generate(EVEN("a") * anything, max_tokens=2, proposal=proposal)


EVEN = ToyLM(["a", "b"], weights=lambda context: [1.0, 1.0, 1.0])


@predicate
def anything(text: str) -> bool:
    return True


@pytest.mark.slow
@pytest.mark.parametrize("remember", [False, True])
@pytest.mark.parametrize("setting", SETTINGS)
async def test_infer_with_shared_verdicts_is_unbiased(setting: str, remember: bool) -> None:
    await assert_unbiased(pair, SETTINGS[setting], runs=120, n_particles=6, remember=remember)


# --- what follows from a check ------------------------------------------------------------


async def learned(
    product: Any, text: bytes, proposal: Any, seed: int, cache: VerdictCache | None = None
) -> NextVerdicts:
    """The verdicts after one joint draw."""
    target = target_of(product)
    assert target.vocabulary is not None
    here = Text(text)
    states = await start(target, here)
    assert isinstance(states, tuple)
    step = TokenStep.at(target, Progress(here, states, ()), cache or VerdictCache(), proposal)
    weigh([step], [await lm.lm.logits([(*lm.prompt, seed)], [1.0]) for lm in target.dense])
    await step.draw([np.random.default_rng([seed, i]) for i in range(3)])
    return step.verdicts


async def wrong_verdicts(found: NextVerdicts) -> list[bytes]:
    """The tokens with a wrong verdict."""
    wrong = []
    vocabulary = found.vocabulary
    for i, verdicts in found.known.items():
        factor = found.target.boolean[i]
        for token in vocabulary.text_ids.tolist():
            data = bytes(vocabulary.tokens[token])
            verdict = verdicts.verdict(token, vocabulary)
            true = await factor.advance(found.states[i], token, data) is not None
            if verdict is not None and verdict is not true:
                wrong.append(data)
    return wrong


FORBIDDEN = st.sets(
    st.text(st.sampled_from("ab丁七🙂🙃e\u0301"), min_size=1, max_size=2), min_size=1, max_size=4
)


def none_of(forbidden: set[str]) -> Predicate:
    return predicate(lambda text: not any(word in text for word in forbidden))


@settings(max_examples=120)
@given(
    st.lists(FORBIDDEN, min_size=1, max_size=3),
    st.sampled_from(["", "a", "丁", "b七"]),
    st.integers(0, 9),
    st.booleans(),
)
def test_verdicts_learned_by_propagation_are_true(
    forbidden: list[set[str]], text: str, seed: int, in_character: bool
) -> None:
    """Of each factor of a product."""
    data = text.encode() + (b"\xe4\xb8" if in_character else b"")  # in the middle of a character
    if not any(word in text for words in forbidden for word in words):
        product = math.prod(map(none_of, forbidden), start=TOY("go"))
        assert asyncio.run(_wrong(product, data, AWRS(effort=200.0), seed)) == []


async def test_prefix_accepted_by_one_factor_is_unknown_to_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first rejects "a1" and accepts its prefix "a", which the second rejects."""
    lm = ToyLM(["a1", "a2", "a", "b"], weights=lambda context: [5.0, 5.0, 1.0, 1.0, 1.0])
    product = lm("b") * none_of({"1", "2"}) * none_of({"a"})
    assert await _wrong(product, b"", AWRS(), 0) == []
    await assert_properly_weighted(AWRS(), product, draws=1500)
    monkeypatch.setattr(prefix_propagation, "_accept_prefixes", accepted_for_all)
    assert await _wrong(product, b"", AWRS(), 0) == [b"a"]


async def _wrong(product: Any, data: bytes, proposal: Any, seed: int) -> list[bytes]:
    return await wrong_verdicts(await learned(product, data, proposal, seed))


async def test_rejected_prefix_rejects_all_tokens_with_it() -> None:
    """Thousands of tokens are learned by a few checks."""
    tokens = [f" {i}" for i in range(3000)] + [str(i) for i in range(200)]
    lm = ToyLM(tokens, scale=0.1)

    @predicate
    def no_space(text: str) -> bool:
        return " " not in text

    found = await learned(lm("1") * no_space, b"", AWRS(), 0)
    assert found.n_checks < 40
    assert found.known[0].ranges
    rejected = [v for v in range(3200) if found.known[0].verdict(v, lm.vocabulary) is False]
    assert len(rejected) == 3000


async def test_accepted_token_accepts_its_prefixes() -> None:
    lm = ToyLM(["abcd", "a", "ab", "abc", "b"], weights=lambda context: [9, 1, 1, 1, 1, 0])
    found = await learned(lm("b") * predicate(lambda text: True), b"", AWRS(), 0)
    assert {0, 1, 2, 3} <= set(found.known[0].accepted)


def stale(patch: pytest.MonkeyPatch) -> None:
    """Use the verdicts of one state for all others."""
    right = ConstraintVerdicts.at
    patch.setattr(
        ConstraintVerdicts, "at", lambda self, state, vocabulary: right(self, 0, vocabulary)
    )


@pytest.mark.parametrize(
    ("part", "fault"),
    [("_reject_by_prefix", across_characters), ("_accept_prefixes", longer_accepted)],
)
async def test_wrong_prefix_propagation_is_caught(
    part: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = ToyLM(["丁", "七", "a", "ab"], weights=lambda context: [5.0, 3.0, 2.0, 2.0, 1.0])
    product = lm("a") * predicate(lambda text: "丁" not in text and "ab" not in text)
    await assert_properly_weighted(AWRS(), product, draws=1500)
    monkeypatch.setattr(prefix_propagation, part, fault)
    with pytest.raises(AssertionError, match="mean weight"):
        await assert_properly_weighted(AWRS(), product, draws=1500)


async def test_accepted_prefix_is_not_counted_as_a_rejection() -> None:
    found = await learned(ToyLM(["ab", "b"])("a") * predicate(str.isascii), b"", AWRS(), 0)
    assert await prefix_propagation.check_prefix(found, 0, b"a") is not None
    assert not found.rejections


# --- sharing ------------------------------------------------------------------------------


async def no_pairs_text(ctx: Context) -> str:
    return await ctx.generate(TOY("x") * no_pairs, max_tokens=3)


async def test_verdicts_of_another_state_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    await assert_unbiased(no_pairs_text, runs=60, n_particles=6)
    stale(monkeypatch)
    with pytest.raises((AssertionError, PotentialError), match=r"mean over|by its `advance`"):
        await assert_unbiased(no_pairs_text, runs=60, n_particles=6)


async def test_verdicts_of_a_state_that_forgets_are_shared() -> None:
    """Ten letters in any order: the state is the last one, whatever came before."""
    lm = ToyLM(list("abcdefghij"), scale=0.3)

    def rule(text: str) -> bool:
        return all(a != b for a, b in pairwise(text))

    async def model(ctx: Context, constraint: Any) -> str:
        return await ctx.generate(lm("a") * constraint, max_tokens=12)

    counts = []
    for constraint in (predicate(rule), predicate(rule, state=lambda text: text[-1:])):
        posterior = await infer(model, constraint, n_particles=20, seed=0, progress=False)
        counts.append(sum(posterior.stats.checks.values()))
    assert counts[1] < counts[0] / 3


async def test_remembered_verdicts_save_checks_and_are_kept_apart() -> None:
    async def model(ctx: Context, letter: str) -> str:
        @predicate  # made again in each particle: equal as long as the letter is
        def without(text: str) -> bool:
            return letter not in text

        return await ctx.generate(TOY("x") * without, max_tokens=3)

    async def checks(letter: str, remember: bool) -> int:
        posterior = await infer(
            model, letter, n_particles=6, seed=1, remember=remember, progress=False
        )
        assert not any(letter in value for value in posterior.values)
        return sum(posterior.stats.checks.values())

    first = await checks("a", True)
    again = [await checks("a", True) for _ in range(3)]
    assert sum(again) < 2 * first
    assert await checks("a", False) == await checks("a", False)  # nothing was kept for these
    await checks("b", True)


async def test_awrs_with_lasting_verdicts_checks_at_half_the_price() -> None:
    lm = ToyLM([chr(0x4E00 + i) for i in range(60)], seed=1)
    even = predicate(lambda text: all(ord(c) % 2 == 0 for c in text))

    async def checks(effort: float, *, lasts: bool) -> int:
        cache, proposal = VerdictCache(lasts=lasts), AWRS(effort=effort)
        return (await learned(lm("丁") * even, b"", proposal, 5, cache)).n_checks

    assert await checks(4.0, lasts=True) == await checks(2.0, lasts=False)
    assert await checks(4.0, lasts=True) < await checks(4.0, lasts=False)


async def test_runs_at_the_same_time_share_verdicts_without_bias() -> None:
    @predicate
    async def slow(text: str) -> bool:
        await asyncio.sleep(0)
        return "🙂" not in text

    async def model(ctx: Context) -> str:
        return await ctx.generate(TOY("x") * slow, max_tokens=2)

    exact = await enumerate_posterior(model)
    runs = await asyncio.gather(
        *(infer(model, n_particles=4, remember=True, progress=False) for _ in range(150))
    )
    evidence = np.exp([run.log_ml for run in runs])
    error = evidence.std() / math.sqrt(len(runs)) + 1e-9
    assert abs(evidence.mean() - math.exp(exact.log_ml)) < 4.5 * error


class OneDraw(AWRS):
    """A single draw from the tail, so that it matters."""

    def _plan(self, head: Any, members: int) -> None:
        head.draws = int(head.unknown.mass > 0.0)


async def second_runs(seeds: int) -> tuple[float, float, float]:
    """Evidence of a run after one with the same seed: mean, its error, and the true value."""
    lm = ToyLM(["a", "b", "c"], weights=lambda context: [0.3, 0.4, 0.2, 0.1])
    proposal = OneDraw(effort=0.1, _max_checks=1)
    found = []
    target = 0.0
    for seed in range(seeds):

        @predicate
        def rule(text: str, number: int = seed) -> bool:  # nothing is known of it yet
            return "a" not in text and "c" not in text and number >= 0

        async def model(ctx: Context) -> str:
            return await ctx.generate(lm("a") * rule, max_tokens=2, proposal=proposal)

        if not target:
            target = math.exp((await enumerate_posterior(model)).log_ml)
        runs = [
            await infer(model, n_particles=1, seed=seed, remember=True, progress=False)
            for _ in range(2)
        ]
        found.append(math.exp(runs[1].log_ml))
    return float(np.mean(found)), float(np.std(found)) / math.sqrt(seeds), target


@pytest.mark.slow
async def test_remembered_verdicts_never_meet_the_numbers_that_made_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mean, error, target = await second_runs(600)
    assert abs(mean - target) < 4.5 * error
    monkeypatch.setattr("awrs_ppl.inference.runs.secrets.randbits", lambda bits: 0)
    mean, error, target = await second_runs(600)
    assert abs(mean - target) > 4.5 * error, "the fault would not be seen"


async def test_remembered_constraint_that_changes_is_warned_of() -> None:
    seen: dict[str, bool] = {}

    @predicate
    def rule(text: str) -> bool:
        return seen.setdefault(text, "b" not in text)

    @predicate
    @functools.cache
    def kept(text: str) -> bool:
        return "b" not in text

    async def model(ctx: Context, constraint: Any) -> str:
        return await ctx.generate(TOY("x") * constraint, max_tokens=3)

    with pytest.warns(UserWarning, match=r"nothing of predicate\(rule\): a list, dict"):
        await infer(model, rule, n_particles=2, seed=0, remember=True, progress=False)
    await infer(model, rule, n_particles=2, seed=0, progress=False)
    first = await infer(model, kept, n_particles=50, remember=True, progress=False)
    again = await infer(model, kept, n_particles=50, remember=True, progress=False)
    assert again.stats.checks.get("predicate(kept)", 0) < first.stats.checks["predicate(kept)"]


@pytest.mark.parametrize("together", [False, True])
async def test_checks_ahead_do_not_change_the_result(together: bool) -> None:
    """Slow checks, several at once, done in any order: the posterior of quick ones."""
    rng = np.random.default_rng(0)

    def rule(text: str) -> bool:
        return "🙂" not in text and not text.startswith("ab")

    async def slow_rule(text: str) -> bool:
        await asyncio.sleep(float(rng.random()) * 1e-3)
        return rule(text)

    async def model(ctx: Context, constraint: Any) -> str:
        product = TOY("x") * constraint * (no_pairs if together else predicate(len_below))
        return await ctx.generate(product, max_tokens=4)

    quick = await infer(model, predicate(rule, cost=1.0), n_particles=12, seed=3, progress=False)
    for _ in range(2):
        slow = await infer(model, predicate(slow_rule), n_particles=12, seed=3, progress=False)
        assert slow.values == quick.values
        assert slow.log_weights.tolist() == quick.log_weights.tolist()


def len_below(text: str) -> bool:
    return len(text) < 9


# --- joint draws --------------------------------------------------------------------------


@pytest.mark.slow
async def test_strata_without_permutation_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"runs": 150, "n_particles": 4, "resampling": "stratified"}
    await assert_unbiased(same_twice, AWRS(), **options)

    def unpermuted(members: int, rng: np.random.Generator) -> np.ndarray:
        return (np.arange(members) + rng.random(members)) / members

    monkeypatch.setattr(pool, "strata", unpermuted)
    with pytest.raises(AssertionError, match="mean over"):
        await assert_unbiased(same_twice, AWRS(), **options)


async def test_joint_draws_are_as_even_as_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six particles and three equal outcomes two draw each; single draws scatter."""

    async def model(ctx: Context) -> str:
        return await ctx.generate(EVEN("a") * anything, max_tokens=2)

    async def counts(seed: int) -> list[int]:
        posterior = await infer(model, n_particles=6, seed=seed, ess_threshold=0, progress=False)
        return [posterior.values.count(value) for value in ("a", "b", "")]

    assert [await counts(seed) for seed in range(20)] == [[2, 2, 2]] * 20
    monkeypatch.setattr(pool, "strata", lambda members, rng: rng.random(members))
    assert [await counts(seed) for seed in range(20)] != [[2, 2, 2]] * 20


# --- dead ends ----------------------------------------------------------------------------


class OneOf(BooleanPotential):
    """Some texts, and their prefixes."""

    def __init__(self, *texts: str) -> None:
        super().__init__()
        self.texts = [text.encode() for text in texts]

    def start(self) -> bytes:
        return b""

    def advance(self, state: bytes, data: bytes) -> bytes | None:
        text = state + data
        return text if any(known.startswith(text) for known in self.texts) else None

    def accepts(self, state: bytes) -> bool:
        return state in self.texts


# After "a" only "b" would be allowed, and there is no such token.
NARROW = ToyLM(["a", "ab", "c", "cc"], weights=lambda context: [6.0, 1.0, 1.0, 1.0, 1.0])
LISTED = OneOf("ab", "c", "cab")


async def narrow(ctx: Context) -> tuple[str, str]:
    first = await ctx.generate(NARROW("c") * LISTED, max_tokens=4)
    return first, await ctx.generate(NARROW("c") * LISTED, max_tokens=4)


async def test_dead_ends_are_met_once_and_leave_the_distribution_as_it_is() -> None:
    await assert_unbiased(narrow, runs=150, n_particles=8)
    posterior = await infer(narrow, n_particles=8, seed=0, progress=False)
    assert len(posterior.kills) <= 1
    # The second statement does not walk into what the first has met.
    assert posterior.history[-1].alive == 8


async def test_dead_end_taken_for_a_rejected_prefix_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # All tokens with the prefix that led to the dead end are rejected.
    monkeypatch.setattr(NextVerdicts, "known_outcomes", dead_prefix)
    with pytest.raises(AssertionError, match="mean over"):
        await assert_unbiased(narrow, runs=150, n_particles=8)


async def test_statement_without_constraints_after_a_dead_end_is_unbiased() -> None:
    async def model(ctx: Context) -> tuple[str, str]:
        first = await ctx.generate(NARROW("c") * LISTED, max_tokens=4)
        return first, await ctx.generate(NARROW("c"), max_tokens=2)

    await assert_unbiased(model, runs=60, n_particles=8)


# After the first two bytes of a character 64 tokens continue it, and 3,000 do not.
INSIDE = ToyLM(
    [
        "a",
        "丁".encode()[:2],
        *(bytes([b]) for b in range(0x80, 0xC0)),
        *map("x{}".format, range(3000)),
    ],
    weights=lambda context: [1.0, 4.0, *([0.01] * 64), *([0.001] * 3000), 0.2],
)


async def test_dead_end_in_a_multi_byte_character_is_known_for_certain() -> None:
    found = await learned(INSIDE("a") * predicate(str.isascii), "丁".encode()[:2], AWRS(), 0)
    # The 64 tokens that continue it, and the end.
    assert found.n_checks <= 65
    assert is_dead_end(found)
    assert await wrong_verdicts(found) == []


async def test_next_bytes_in_a_multi_byte_character_leave_nothing_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside = "丁".encode()[:2].decode("utf-8", "surrogateescape")
    await assert_properly_weighted(AWRS(), TOY("go") * no_smile, inside, draws=1500)
    monkeypatch.setattr(predicates, "continuing", lambda data: range(0x82, 0xC0))
    with pytest.raises(AssertionError, match="mean weight"):
        await assert_properly_weighted(AWRS(), TOY("go") * no_smile, inside, draws=1500)


def only_c(text: str) -> bool:
    return text in ("", "a", "ab", "c")


async def test_dead_ends_of_a_mask_and_a_check_leave_the_result_unbiased() -> None:
    """One that is reached by other tokens than those that met it first."""
    lm = ToyLM(["a", "b", "ab", "c"], weights=lambda context: [5.0, 5.0, 0.01, 1.0, 0.5])
    ends = predicate(only_c, complete=lambda text: text == "c")

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * Regex("[abc]*") * ends, max_tokens=4)

    await assert_unbiased(model, runs=80, n_particles=4, remember=True)


# --- edge cases ---------------------------------------------------------------------------


async def test_predicate_over_a_list_that_grows_is_another_constraint() -> None:
    lm = ToyLM(["a", "b"], weights=lambda context: [1.0, 1.0, 2.0])

    async def model(ctx: Context) -> list[str]:
        banned: list[str] = []
        for _ in range(2):
            rule = predicate(lambda text: not any(word in text for word in banned))
            word = await ctx.generate(lm("a") * rule, max_tokens=2)
            if word:
                banned.append(word)
        return banned

    for seed in range(20):
        posterior = await infer(model, n_particles=8, seed=seed, ess_threshold=0, progress=False)
        for value in posterior.values:
            assert len(set(value)) == len(value)


async def test_accepted_tokens_outside_the_mask_do_not_end_learning() -> None:
    """Known to be allowed, but not by the mask: nothing is accepted yet."""
    letters = [chr(97 + i) for i in range(20)]
    lm = ToyLM([*letters, "z"], weights=lambda context: [*[1.0] * 20, 3.0, 1e-9])
    check = predicate(lambda text: set(text) <= {"t", "z"}, state=lambda text: "")

    async def model(ctx: Context) -> str:
        await ctx.generate(lm("a") * Regex("z*") * check, max_tokens=2)
        return await ctx.generate(lm("a") * Regex("[a-y]*") * check, max_tokens=2)

    posterior = await infer(model, n_particles=8, seed=0, progress=False)
    assert {str(value) for value in posterior.values} <= {"t", ""}
    assert posterior.dead == 0


async def test_weights_too_small_for_squares_keep_the_evidence() -> None:
    lm = ToyLM(["a", "b", "c"], weights=lambda context: [1.0, 1e-170, 1e-171, 1e-172])
    product = lm("b") * predicate(lambda text: "a" not in text)
    for proposal in (AWRS(), AWRS(_max_checks=1)):

        async def model(ctx: Context, proposal: AWRS = proposal) -> str:
            return await ctx.generate(product, max_tokens=2, proposal=proposal)

        posterior = await infer(model, n_particles=4, seed=0, progress=False)
        assert posterior.log_ml > -800


async def test_contexts_of_one_state_learn_from_each_other_in_one_step() -> None:
    """The second context of a state starts with what the first has learned."""
    lm = ToyLM([*(f" {i}" for i in range(2000)), "a", "b"], scale=0.2)

    def rule(text: str) -> bool:
        return " " not in text

    constraint = predicate(rule, state=lambda text: "")

    async def model(ctx: Context) -> str:
        await ctx.generate(lm("a") * constraint, max_tokens=2)
        number = await ctx.sample(Categorical([0, 1, 2, 3]))
        return await ctx.generate(lm("a" * (1 + number)) * constraint, max_tokens=3)

    posterior = await infer(model, n_particles=16, seed=0, progress=False)
    assert sum(posterior.stats.checks.values()) < 60


async def test_check_limit_does_not_count_checks_ahead() -> None:
    def rule(text: str) -> bool:
        return text in ("", "e") or text.startswith("七")

    async def slow_rule(text: str) -> bool:
        await asyncio.sleep(0)
        return rule(text)

    async def model(ctx: Context, constraint: Any) -> str:
        proposal = AWRS(_max_checks=4)
        return await ctx.generate(TOY("x") * constraint, max_tokens=4, proposal=proposal)

    quick = await infer(model, predicate(rule, cost=1.0), n_particles=6, seed=1, progress=False)
    slow = await infer(model, predicate(slow_rule), n_particles=6, seed=1, progress=False)
    assert slow.values == quick.values
    assert slow.log_weights.tolist() == quick.log_weights.tolist()


# --- multi-byte characters ----------------------------------------------------------------

MOSTLY_PARTS = ToyLM(["a", "b", *PARTS[:3]], weights=lambda context: [1, 20, 9, 3, 3, 3])


@predicate
def only_a(text: str) -> bool:
    return text in ("", "a")


async def test_twist_where_few_characters_are_allowed_saves_particles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The prefix of a character weighs nine times what "a" does, and cannot become allowed."""

    async def model(ctx: Context) -> str:
        return await ctx.generate(MOSTLY_PARTS("x") * only_a, max_tokens=3)

    async def dead() -> int:
        options = {"n_particles": 4, "resampling": "stratified"}
        found = [await infer(model, seed=s, progress=False, **options) for s in range(40)]
        return sum(sum(posterior.kills.values()) for posterior in found)

    few = await dead()
    monkeypatch.setattr(Head, "twist", lambda self: 1.0)
    assert few < 0.5 * await dead()


async def test_twist_is_carried_through_a_multi_byte_character(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its bytes are drawn one by one, and only the last one brings a verdict."""
    smile = [bytes([byte]) for byte in "🙂".encode()]
    toy = ToyLM(["b", *smile], weights=lambda context: [4, 1, 1, 1, 1, 1])
    product = toy("x") * predicate(lambda text: "b" not in text)
    drawn: list[tuple[int, float]] = []
    right = pool.Draw

    def draw(outcome: int, log_weight: float, twist: float) -> Any:
        drawn.append((outcome, twist))
        return right(outcome, log_weight, twist)

    async def model(ctx: Context) -> str:
        return await ctx.generate(product, max_tokens=6)

    monkeypatch.setattr(pool, "Draw", draw)
    for seed in range(40):
        await infer(model, n_particles=1, seed=seed, progress=False)
    first = [i for i, (outcome, _) in enumerate(drawn[:-4]) if outcome == 1]
    assert first
    for i in first:
        outcomes, twists = zip(*drawn[i : i + 4], strict=True)
        assert set(outcomes[1:]) <= {2, 3, 4}
        assert twists[0] < 0.0
        assert twists == (twists[0],) * 3 + (0.0,)


async def test_draw_while_another_run_learns_does_not_change() -> None:
    """While the tail is checked, the other's verdict comes: a token of A ends in a character."""
    waiting = "x丁".encode()[:3]
    toy = ToyLM(["x丁y", waiting, "a", "b", "c", "d"], weights=lambda c: [4, 3, 2, 1, 1, 1, 1])
    answered = asyncio.Event()

    async def no_a(text: str) -> bool:
        if text == "x":
            await answered.wait()
        if text in ("b", "c", "d"):
            answered.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return "a" not in text

    constraint = predicate(no_a)
    constraint.speculation = 1
    target = target_of(toy("q") * constraint)
    assert target.vocabulary is not None
    states = await start(target, Text())
    assert isinstance(states, tuple)
    rows = [await lm.lm.logits([lm.prompt], [1.0]) for lm in target.dense]
    proposal, total, runs = AWRS(_max_checks=1), 0.0, 1500
    for seed in range(runs):
        answered.clear()
        shared = VerdictCache()
        empty = Progress(Text(), states, ())
        other, one = (TokenStep.at(target, empty, shared, proposal) for _ in range(2))
        check = asyncio.create_task(other.verdicts.check(1))
        await asyncio.sleep(0)
        weigh([one], rows)
        (drawn,) = await one.draw([np.random.default_rng(seed)])
        answered.set()
        await check
        total += math.exp(drawn.log_weight) if drawn.outcome == 1 else 0.0
    assert total / runs == pytest.approx(3 / 13, rel=0.08)


# --- limits -------------------------------------------------------------------------------


def test_verdict_cache_after_many_states_stays_within_its_limit() -> None:
    """Ten thousand states of a vocabulary of 262,144 tokens."""
    vocabulary = Vocabulary([str(i).encode() for i in range(2**18)], ends=[0])
    limit = 2**21
    kept = VerdictCache(limit)
    for number in range(10_000):
        state = b"state %d" % number
        verdicts = kept.constraint("constraint").at(state, vocabulary)
        for token in range(20):
            verdicts.accept(token, state + b"x")
            verdicts.reject(1000 + token)
        verdicts.reject_range(5000, 200_000)
        verdicts.arrays(vocabulary)
        kept.constraint("constraint").charge(state, vocabulary, TailDraws())
        assert kept.constraint("constraint").cost <= limit
    assert kept.constraint("constraint").at(b"state 9999", vocabulary).accepted
    assert not kept.constraint("constraint").at(b"state 0", vocabulary).accepted


def test_cost_of_verdicts_is_about_the_memory_they_take() -> None:
    import tracemalloc

    vocabulary = Vocabulary([str(i).encode() for i in range(5000)], ends=[0])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = []
        for number in range(200):
            verdicts = StateVerdicts()
            for token in range(30):
                verdicts.accept(300 + token + 7 * number, b"a text of some length %d" % token)
                verdicts.reject(2000 + token + 7 * number)
            kept.append(verdicts)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.5 * taken < sum(verdicts.cost for verdicts in kept) < 3 * taken
    assert vocabulary.size == 5000


async def test_verdict_cache_over_its_limit_leaves_the_result_unbiased() -> None:
    """A cache that keeps next to nothing changes costs, not results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdict_cache.VerdictCache.__init__, "__defaults__", (1500, 64))
        await assert_unbiased(pair, AWRS(), runs=100, n_particles=6)


# --- characters on a real vocabulary ------------------------------------------------------


def five(text: str) -> bool:
    return text.lstrip(" ") in ("", "😀", "😂", "😊", "😍", "😎")


def han(text: str) -> bool:
    return all("\u4e00" <= c <= "\u9fff" for c in text) and 2 <= len(text) <= 4


CHARACTERS = {
    "emoji": ("😊😂😍😎😀😂😍", predicate(five, complete=lambda text: text.strip() != ""), five),
    "han": (
        "中文 你好 世界 再见 ",
        Regex(r"\p{InCJK_Unified_Ideographs}{2,4}", engine="check"),
        han,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("which", CHARACTERS)
async def test_characters_of_several_tokens_are_generated_whole(which: str) -> None:
    """Emoji and Chinese characters, which the tokenizer may spell byte by byte."""
    prompt, constraint, is_right = CHARACTERS[which]
    lm = LM.embedded(device="cpu")

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm(prompt) * constraint, max_tokens=14)

    posterior = await infer(model, n_particles=16, seed=0, progress=False)
    assert math.isfinite(posterior.log_ml)
    for value in posterior.probabilities:
        assert is_right(value)
        assert value
