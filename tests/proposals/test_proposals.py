"""Every proposal is properly weighted, outcome by outcome, against enumeration."""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from broken_twins import weighed_alone
from scipy import stats

from awrs_ppl import (
    AWRS,
    BooleanPotential,
    Context,
    LocalAWRS,
    PaperAWRS,
    Prior,
    ToyLM,
    infer,
    predicate,
)
from awrs_ppl.potentials import Regex
from awrs_ppl.proposals import Draw
from awrs_ppl.testing import assert_properly_weighted
from awrs_ppl.tokens.urn import Urn, pick

TOKENS = ["a", "b", "c", "ab", "bc", ".", "b.", "x"]
LM = ToyLM(TOKENS, seed=3, scale=1.5, special=["<pad>"])

PROPOSALS = [
    AWRS(),
    AWRS(effort=50.0),
    AWRS(_max_checks=1),
    AWRS(effort=0.1),
    PaperAWRS("two-loop"),
    PaperAWRS("recursive"),
    PaperAWRS("geometric"),
    Prior(),
]


@predicate(complete=lambda text: len(text) != 1)
def no_bb(text: str) -> bool:
    return "bb" not in text and "x" not in text


@predicate
def only_a(text: str) -> bool:
    return set(text) <= {"a"}


@predicate
def nothing_more(text: str) -> bool:
    return text in ("", "a")


class Masked(BooleanPotential):
    """No "c", by a plain mask, beside those of llguidance."""

    def start(self) -> str:
        return "start"

    def advance(self, state: Any, data: bytes) -> str | None:
        return None if b"c" in data else state

    def accepts(self, state: Any) -> bool:
        return True

    def mask(self, state: Any, vocabulary: Any) -> np.ndarray:
        ids = range(vocabulary.size)
        return np.array([vocabulary.is_text[i] and b"c" not in vocabulary.tokens[i] for i in ids])


CONSTRAINTS = {
    "nothing": lambda lm: lm,
    "check": lambda lm: lm * no_bb,
    "mask": lambda lm: lm * Masked(),
    "both": lambda lm: no_bb * lm * Masked(),
    "regex": lambda lm: lm * Regex("(a|bc|ab)*b?"),
    "regex and check": lambda lm: Regex("(a|bc|ab|b)*") * no_bb * lm,
    "one token left": lambda lm: lm * only_a,
    "two LMs": lambda lm: lm * LM("other", temperature=2.0) * no_bb,
}


@pytest.mark.slow
@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
@pytest.mark.parametrize("constraint", CONSTRAINTS)
async def test_proposals_are_properly_weighted(proposal: Any, constraint: str) -> None:
    product = CONSTRAINTS[constraint](LM("go"))
    await assert_properly_weighted(proposal, product, "a")


@pytest.mark.slow
@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
@pytest.mark.parametrize("text", ["", "ab", "a"])
async def test_proposals_with_stops_are_properly_weighted(proposal: Any, text: str) -> None:
    """Tokens that complete a stop end the text, also one with a prefix in earlier tokens."""
    for stop in (".", "bc", ["b.", "bab"]):
        await assert_properly_weighted(proposal, LM("go", stop=stop) * no_bb, text, draws=1500)


@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
async def test_proposals_at_a_forced_end_are_properly_weighted(proposal: Any) -> None:
    for product in (LM("go") * no_bb, LM("go", stop=".") * Masked(), LM("go") * only_a):
        await assert_properly_weighted(proposal, product, "a", forced=True, draws=500)


@pytest.mark.slow
@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
async def test_draws_made_together_are_properly_weighted(proposal: Any) -> None:
    await assert_properly_weighted(proposal, LM("go") * no_bb, "a", together=5, draws=8000)


@pytest.mark.slow
@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
async def test_proposals_at_zero_mass_are_properly_weighted(proposal: Any) -> None:
    """Nothing is allowed, or what is allowed has no weight."""
    end_only = ToyLM(["a", "b"], weights=lambda context: [0.0, 1.0, 0.0])
    await assert_properly_weighted(proposal, end_only("b") * only_a, "", draws=200)
    await assert_properly_weighted(proposal, LM("go") * nothing_more, "a", draws=2000)


@pytest.mark.slow
@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
async def test_proposals_under_a_dominant_rejected_token_are_proper(
    proposal: Any,
) -> None:
    lm = ToyLM(["a", "b", "c"], weights=lambda context: [0.01, 0.98, 0.005, 0.005])
    # The paper's estimators have heavy tails here: their distribution is right, their variance is
    # not.
    draws = 20000 if isinstance(proposal, Prior | PaperAWRS) else 2000
    await assert_properly_weighted(
        proposal, lm("a") * predicate(lambda text: "b" not in text), "", draws=draws
    )


async def test_temperature_near_zero_does_not_underflow() -> None:
    """Allowed tokens of probability e-200 in float32 rows still weigh what they should."""
    lm = ToyLM(["a", "b"], weights=lambda context: [1.0, math.exp(-20.0), math.exp(-20.0)])
    await assert_properly_weighted(AWRS(), lm("a", temperature=0.1) * Regex("b*"), "", draws=300)


async def test_local_awrs_is_not_properly_weighted() -> None:
    with pytest.raises(AssertionError, match="mean weight"):
        await assert_properly_weighted(LocalAWRS(), LM("go") * no_bb, "ab")


# --- broken twins: each is a mistake that looks right, and must be caught ------------------


@dataclass(frozen=True)
class Broken(AWRS):
    """The head-tail estimator, with one thing wrong."""

    fault: str = ""

    async def draw(self, outcomes: Any, verdicts: Any, rngs: Any) -> list[Draw]:
        everything = outcomes.urn().copy()
        head = await self._learn(outcomes, verdicts, len(rngs))
        self._plan(head, len(rngs))
        return [await self._broken(head, everything, outcomes, verdicts, rng) for rng in rngs]

    async def _broken(
        self, head: Any, everything: Urn, outcomes: Any, verdicts: Any, rng: Any
    ) -> Draw:
        mass, rest, k = head.mass, head.unknown.mass, max(head.draws, 1)
        tail = [head.unknown.draw(rng) for _ in range(k)] if rest else []
        found = [outcome for outcome in tail if await verdicts.check(outcome)]
        weight = rest / k
        if self.fault == "tail verdicts enter A before W is formed":
            mass += sum(head.unknown.weight(v) for v in set(found))
        if self.fault == "draws until accepted":
            while rest and not found and mass == 0:
                outcome = head.unknown.draw(rng)
                found = [outcome] if await verdicts.check(outcome) else []
            weight = rest
        if self.fault == "repeated draws merged":
            found = list(dict.fromkeys(found))
        if self.fault == "tail drawn from everything":
            found = [v for v in [everything.draw(rng)] if await verdicts.check(v)]
            weight = rest
        total = mass + weight * len(found)
        if total <= 0:
            return Draw(-1, -math.inf)
        if rng.random() * total < mass and head.mass > 0.0:
            known, weights, twists = head.frozen()
            i = pick(np.cumsum(weights * twists), rng.random() * head.mass)
            return Draw(int(known[i]), outcomes.log_scale + math.log(total))
        return Draw(found[int(rng.integers(len(found)))], outcomes.log_scale + math.log(total))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("tail verdicts enter A before W is formed", {"_max_checks": 1}),
        ("draws until accepted", {"_max_checks": 1}),
        ("repeated draws merged", {"_max_checks": 1}),
        ("tail drawn from everything", {"_max_checks": 2}),
    ],
)
async def test_broken_twins_are_caught(fault: str, options: dict[str, Any]) -> None:
    # One heavy token rejected, so that with one check nothing is accepted yet, and then ties.
    lm = ToyLM(["a", "b", "c"], weights=lambda context: [0.4, 0.35, 0.15, 0.1])
    product = lm("a") * predicate(lambda text: "a" not in text)
    await assert_properly_weighted(AWRS(**options), product, "", draws=6000)
    with pytest.raises(AssertionError, match="mean weight"):
        await assert_properly_weighted(Broken(fault=fault, **options), product, "", draws=6000)


@pytest.mark.slow
async def test_pooled_draws_weighed_alone_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = ToyLM(["a", "b", "c"], weights=lambda context: [0.4, 0.35, 0.15, 0.1])
    product = lm("a") * predicate(lambda text: "a" not in text)
    proposal = AWRS(_max_checks=1)
    await assert_properly_weighted(proposal, product, "", together=3, draws=6000)
    monkeypatch.setattr(AWRS, "_plan", weighed_alone)
    with pytest.raises(AssertionError, match="mean weight"):
        await assert_properly_weighted(proposal, product, "", together=3, draws=6000)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["two-loop", "recursive", "geometric"])
async def test_broken_weights_of_the_papers_estimators_are_caught(
    estimator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight that is a little too even, which no single draw would show."""
    from awrs_ppl.proposals import paper

    right = paper.ESTIMATORS[estimator]

    async def wrong(outcomes: Any, verdicts: Any, rng: Any) -> Draw:
        draw = await right(outcomes, verdicts, rng)
        return draw._replace(log_weight=0.8 * draw.log_weight)

    monkeypatch.setitem(paper.ESTIMATORS, estimator, wrong)
    with pytest.raises(AssertionError, match="mean weight"):
        await assert_properly_weighted(PaperAWRS(estimator), LM("go") * no_bb, "ab", draws=15000)


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="PaperAWRS got estimator='magic': choose one of"):
        PaperAWRS("magic")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"PaperAWRS got estimator=8.0: choose one of"):
        PaperAWRS(8.0)  # pyright: ignore[reportArgumentType]
    for effort in (0, -1.0, math.nan, math.inf, True, "4"):
        with pytest.raises(ValueError, match=r"AWRS got effort=.*: it must be a number, positive"):
            AWRS(effort=effort)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="_max_checks=0"):
        AWRS(_max_checks=0)
    with pytest.raises(ValueError, match="_negligible=1"):
        AWRS(_negligible=1)


@pytest.mark.parametrize("rejected", [0.0, 2.0])
async def test_awrs_checks_no_more_outcomes_than_pay(rejected: float) -> None:
    """300 tokens that together weigh a tenth: few of them are worth a check each."""
    tokens = ["bb", "a", *(f"{i:03}" for i in range(300))]
    lm = ToyLM(tokens, weights=lambda context: [rejected, 1.0, *[0.1 / 300] * 300, 0.0])

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * no_bb, max_tokens=2, proposal=AWRS(effort=4.0))

    posterior = await infer(model, n_particles=1, seed=0, progress=False)
    assert 1 <= posterior.stats.checks["predicate(no_bb)"] <= 12


# --- options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [{"effort": 99}, {"negligible": 0.1}, {"max_checks": 7}],
    ids=lambda option: min(option),
)
def test_option_that_a_proposal_does_not_have_is_named(option: Any) -> None:
    (name,) = option
    others = [PaperAWRS, LocalAWRS, Prior]
    for other in others if name == "effort" else [AWRS, *others]:
        with pytest.raises(TypeError, match=name):
            other(**option)


def test_options_have_their_defaults() -> None:
    proposal = AWRS()
    assert (proposal.effort, proposal._negligible, proposal._max_checks) == (None, 1e-4, 512)
    assert proposal == AWRS(None) == pickle.loads(pickle.dumps(proposal)) == replace(proposal)
    assert replace(AWRS(_max_checks=7), effort=1.0) == AWRS(1.0, _max_checks=7) != AWRS(1.0)
    assert (
        PaperAWRS()
        == PaperAWRS("two-loop")
        == replace(PaperAWRS("geometric"), estimator="two-loop")
    )
    assert len({AWRS(), AWRS(1.0), PaperAWRS(), PaperAWRS("recursive"), PaperAWRS()}) == 4


@pytest.mark.parametrize("estimator", ["two-loop", "recursive", "geometric"])
def test_awrs_with_an_estimator_of_the_papers_is_deprecated(estimator: Any) -> None:
    message = re.escape(
        f"AWRS(estimator='{estimator}') is deprecated: write PaperAWRS('{estimator}')"
    )
    with pytest.warns(DeprecationWarning, match=message) as warned:
        assert AWRS(estimator=estimator) == PaperAWRS(estimator)
    assert warned[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=message):
        assert AWRS(estimator) == PaperAWRS(estimator)
    with (
        pytest.warns(DeprecationWarning, match=message),
        pytest.raises(ValueError, match=f"estimator='{estimator}' and another option"),
    ):
        AWRS(estimator=estimator, effort=99)


def test_awrs_with_its_old_name_as_an_estimator_is_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match=re.escape("write AWRS()")):
        assert AWRS(estimator="head-tail", effort=2.0) == AWRS(2.0)
    with (
        pytest.warns(DeprecationWarning, match="PaperAWRS"),
        pytest.raises(ValueError, match=r"PaperAWRS got estimator='magic': choose one of"),
    ):
        AWRS(estimator="magic")


# --- little mass ----------------------------------------------------------------------------


@predicate(complete=lambda text: text == "b")
def only_b(text: str) -> bool:
    return text in ("", "b")


def text_under(lm: ToyLM, proposal: Any, constraint: Any = only_b) -> Any:
    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * constraint, max_tokens=2, proposal=proposal)

    return model


def log_evidence(weights: list[float]) -> float:
    """Of the text "b" and its end, by fractions."""
    exact = [Fraction(weight) for weight in weights]
    share = exact[1] * exact[-1] / sum(exact) ** 2
    return math.log(share.numerator) - math.log(share.denominator)


@pytest.mark.parametrize(
    "proposal", [AWRS(), PaperAWRS("recursive"), PaperAWRS("geometric")], ids=str
)
async def test_weights_are_right_down_to_the_smallest_float(proposal: Any, fuzz: Any) -> None:
    """With one text allowed, two estimators are exact and one is in a known distribution."""
    quotients = []
    for rng in fuzz.rngs(60):
        least = rng.choice([5e-324, 1e-300, 10 ** -rng.uniform(0, 323), 5e-324 * rng.randint(1, 9)])
        weights = [rng.uniform(0.5, 2), least, rng.uniform(0.5, 2), rng.uniform(0.5, 2)]
        lm = ToyLM(["a", "b", "c"], weights=lambda context, w=weights: w)
        model = text_under(lm, proposal)
        posterior = await infer(model, n_particles=1, seed=rng.randrange(10**6), progress=False)
        assert posterior.values == ["b"]
        wanted = log_evidence(weights)
        if proposal == PaperAWRS("geometric"):
            # At the first token the weight is mass / (trials - 1), and at the end it is exact.
            if least < 1e-9:
                quotients.append(math.exp(wanted - posterior.log_ml))
        else:
            assert posterior.log_ml == pytest.approx(wanted, rel=1e-9)
    if quotients:
        # Trials until the second of two rare successes, times their rarity.
        assert stats.kstest(quotients, stats.gamma(2).cdf).pvalue > 1e-3


async def test_mass_below_float32_keeps_its_digits() -> None:
    """In float32 what is allowed has two digits or none; it is the same in float64."""

    class Narrow(ToyLM):
        async def logits(self, contexts: Any, temperatures: Any) -> Any:
            return (await super().logits(contexts, temperatures)).float()

    for least in (3.3e-45, 1e-40, 1e-60):
        weights = [1.0, least, 1.0, 1.0]
        lm = Narrow(["a", "b", "c"], weights=lambda context, w=weights: w)
        for proposal in (AWRS(), PaperAWRS("recursive"), Prior(), LocalAWRS()):
            exact = await infer(text_under(lm, proposal), n_particles=1, seed=0, progress=False)
            if isinstance(proposal, Prior):
                continue  # it draws "b" never
            assert exact.values == ["b"]
            if proposal.is_proper:
                assert exact.log_ml == pytest.approx(log_evidence(weights), rel=1e-5)


async def test_forced_end_of_tiny_weight_keeps_its_digits() -> None:
    class Narrow(ToyLM):
        async def logits(self, contexts: Any, temperatures: Any) -> Any:
            return (await super().logits(contexts, temperatures)).float()

    lm = Narrow(["a"], weights=lambda context: [1.0, 1e-50])
    for proposal in (AWRS(), PaperAWRS("geometric"), Prior()):

        async def model(ctx: Context, proposal: Any = proposal) -> str:
            return await ctx.generate(lm("a"), max_tokens=1, proposal=proposal)

        posterior = await infer(model, n_particles=2, seed=0, progress=False)
        assert posterior.log_ml == pytest.approx(math.log(1e-50), rel=1e-5)


async def test_end_behind_many_rejected_tokens_is_found() -> None:
    # Nothing may follow "a", and the end is the least likely of 300 outcomes.
    tokens = ["a", *(f"b{i}" for i in range(300))]
    lm = ToyLM(tokens, weights=lambda context: [1.0, *[1.0] * 300, 1e-6])
    only_a = predicate(lambda text: text in ("", "a"))

    async def model(ctx: Context) -> str:
        proposal = AWRS(_max_checks=40)
        return await ctx.generate(lm("a") * only_a, max_tokens=3, proposal=proposal)

    for seed in range(10):
        posterior = await infer(model, n_particles=2, seed=seed, progress=False)
        assert (posterior.alive, posterior.dead) == (1, 0)  # equal ones are one
