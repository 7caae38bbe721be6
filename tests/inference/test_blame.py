"""That a death is blamed on what rejected most, and not on what was checked last."""

from __future__ import annotations

import math
import string
from typing import Any

import pytest

from awrs_ppl import (
    BooleanPotential,
    Context,
    LocalAWRS,
    NoSurvivors,
    PaperAWRS,
    Posterior,
    Prior,
    ToyLM,
    infer,
    run,
)
from awrs_ppl.constraints.dead_ends import DeadEnds
from awrs_ppl.potentials import OneOf, Regex, predicate

LETTERS = ToyLM(list(string.ascii_lowercase), weights=lambda context: [1.0] * 26 + [0.1])
TOGETHER = "allow nothing together"


def weighing(*weights: float) -> ToyLM:
    """The letters "a", "b", ... and the end, always by these weights."""
    letters = string.ascii_lowercase[: len(weights) - 1]
    return ToyLM(list(letters), weights=lambda context: weights)


async def deaths(target: Any, **options: Any) -> Posterior:
    generate = {key: options.pop(key) for key in ("max_tokens", "proposal") if key in options}

    async def model(ctx: Context) -> str:
        return await ctx.generate(target, **generate)

    return await infer(model, n_particles=4, seed=0, progress=False, **options)


@pytest.mark.parametrize("scheme", ["auto", "stratified"])
async def test_predicate_is_blamed_for_what_was_known_of_it_before(scheme: str) -> None:
    """Its verdicts are shared by length: at the last texts the pattern alone is still checked."""
    seen: list[str] = []

    def short(text: str) -> bool:
        seen.append(text)
        return len(text) < 2

    two = predicate(short, complete=lambda text: False, state=len)
    posterior = await deaths(LETTERS("a") * Regex("[a-z]{6}") * two, resampling=scheme)
    assert posterior.kills == {"predicate(short)": 4}
    assert len({death.text for death in posterior.deaths}) > 1
    # One text of one letter was checked on all the letters, the others on none.
    assert len({text[0] for text in seen if len(text) == 2}) < 3
    explained = " ".join(str(posterior.explain()).split())
    assert "predicate(short) killed 4 of 4 particles" in explained.replace(" of 2 ", " of 4 ")


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [
        (1.0, f"Regex('a{{3}}') and predicate(short) {TOGETHER}"),
        (0.11, f"Regex('a{{3}}') and predicate(short) {TOGETHER}"),
        # An end that would hardly have been drawn.
        (0.09, "predicate(short)"),
    ],
)
async def test_pattern_whose_rejection_weighs_something_is_named_with_the_predicate(
    ends: float, wanted: str
) -> None:
    @predicate
    def short(text: str) -> bool:
        return len(text) < 2

    posterior = await deaths(weighing(1.0, ends)("a") * Regex("a{3}") * short)
    assert list(posterior.kills) == [wanted]


async def test_factor_that_rejects_all_is_blamed_alone() -> None:
    never = predicate(lambda text: text == "", complete=lambda text: False)
    posterior = await deaths(LETTERS("a") * Regex("[a-m]+") * never)
    assert list(posterior.kills) == [repr(never)]
    upper = Regex("[A-Z]+")
    posterior = await deaths(LETTERS("a") * Regex("[a-m]+") * upper)
    assert list(posterior.kills) == [repr(upper)]


async def test_masks_that_leave_nothing_together_are_named_together() -> None:
    first, second = Regex("[a-m]+"), OneOf(["xyz"])
    posterior = await deaths(LETTERS("a") * second * first)
    assert list(posterior.kills) == [f"{second!r} and {first!r} {TOGETHER}"]


async def test_predicates_that_allow_nothing_together_are_named_together() -> None:
    def of(letters: str) -> Any:
        return predicate(lambda text: set(text) <= set(letters), complete=lambda text: text != "")

    posterior = await deaths(weighing(3.0, 4.0, 1.0)("a") * of("a") * of("b"))
    assert [killer.count("predicate") for killer in posterior.kills] == [2]
    assert TOGETHER in str(posterior)
    assert f"{TOGETHER} and killed 1 of 1 particle" in " ".join(str(posterior.explain()).split())


async def test_rejections_count_by_the_weight_of_the_language_model() -> None:
    """Many tokens of no weight beside one that has nearly all."""
    names = ["x", *(f"y{i}" for i in range(50))]
    lm = ToyLM(names, weights=lambda context: [100.0, *[0.1] * 50, 0.001])
    no_x = predicate(lambda text: "x" not in text)
    no_y = predicate(lambda text: "y" not in text, complete=lambda text: text != "")
    posterior = await deaths(lm("x") * no_y * no_x)
    assert list(posterior.kills) == [repr(no_x)]


@pytest.mark.parametrize("proposal", [PaperAWRS(), PaperAWRS("geometric"), LocalAWRS()])
async def test_estimators_of_the_paper_blame_alike(proposal: Any) -> None:
    short = predicate(lambda text: len(text) < 2, complete=lambda text: False)
    posterior = await deaths(LETTERS("a") * Regex("[a-z]{6}") * short, proposal=proposal)
    assert set(posterior.kills) == {repr(short)}


async def test_mask_is_blamed_where_the_proposal_does_not_look_at_it() -> None:
    target = weighing(1.0, 1.0, 0.1)("a") * Regex("b{3}")
    posterior = await deaths(target, proposal=Prior(), ess_threshold=0)
    assert posterior.kills == {"Regex('b{3}')": 4}


async def test_language_model_is_named_where_it_gives_what_is_allowed_no_weight() -> None:
    posterior = await deaths(weighing(1.0, 0.0, 1.0)("a") * Regex("b+"))
    assert list(posterior.kills) == [f"Regex('b+') and the language model {TOGETHER}"]
    posterior = await deaths(weighing(1.0, 0.0)("a") * Regex("a+"), max_tokens=3)
    assert posterior.kills == {"the language model (no text that ends within 3 tokens)": 1}


async def test_dead_end_is_blamed_on_what_kills_there() -> None:
    """What leads to dead ends is rejected by what is to blame for these: at "b" all does."""
    lm = ToyLM(["a", "b"], weights=lambda context: [1.0, 1.0, 0.1])
    two = predicate(lambda text: len(text) < 3, complete=lambda text: False)
    target = lm("a") * Regex("[ab]{9}") * two
    posterior = None
    for _ in range(4):
        posterior = await deaths(target, resampling="stratified", remember=True)
        assert list(posterior.kills) == [repr(two)]
    assert posterior is not None
    assert {death.token for death in posterior.deaths} < {1, 2}  # nearer to the start each time


def test_dead_ends_keep_who_is_to_blame() -> None:
    known = DeadEnds()
    known.add("end", ("before", 3))
    assert known.blamed("before") == {3: ()}
    known.blame("end", (1,))
    known.blame("elsewhere", (0,))
    known.forbid("other", 4, "end")
    known.add("end", ("before", 5))  # met again
    assert (known.blamed("before"), known.blamed("other")) == ({3: (1,), 5: (1,)}, {4: (1,)})
    assert known.tokens("before") == {3, 5}
    assert "elsewhere" not in known


async def test_death_takes_no_check_of_a_dear_constraint() -> None:
    calls: list[str] = []

    def short(text: str) -> bool:
        calls.append(text)
        return len(text) < 1

    blamed = []
    for cost in (None, 1.0):
        calls.clear()
        target = weighing(1.0, 2.0, 9.0)("a") * Regex("a{3}") * predicate(short, cost=cost)
        posterior = await deaths(target)
        blamed += posterior.kills
        assert len(calls) == len(set(calls))
        assert set(calls) == {"", "a"}
    assert blamed == [f"Regex('a{{3}}') and predicate(short) {TOGETHER}", "predicate(short)"]


async def test_end_that_max_tokens_forces_says_so() -> None:
    posterior = await deaths(LETTERS("a") * Regex("[a-z]{30}"), max_tokens=20)
    assert posterior.kills == {"Regex('[a-z]{30}') (no text that ends within 20 tokens)": 4}
    with pytest.raises(NoSurvivors, match=r"no text that ends within 20 tokens.*larger max_tokens"):
        posterior.mode()
    for shown in (str(posterior), str(posterior.explain()), posterior._repr_html_()):
        assert "no text that ends within 20 tokens" in " ".join(shown.split())


def _killed(potential: Any, **options: Any) -> tuple[list[str], str]:
    async def model(ctx: Any) -> str:
        return await ctx.generate(potential, **options)

    posterior = run(model, n_particles=4, seed=0, progress=False)
    assert posterior.log_ml == -math.inf
    return list(posterior.kills), " ".join(str(posterior).split())


def test_first_token_that_holds_the_stop_is_explained() -> None:
    lm = ToyLM(["a", " ", " b"], weights=lambda context: [1, 8, 4, 1])
    for ends in (False, True):
        names, shown = _killed(lm("a", stop=" ") * Regex(" [ab]+"), ends=ends)
        assert names[0].endswith("(at a first token that holds the stop)")
        assert "give a stop that comes behind it" in shown


def test_text_that_is_never_over_is_explained() -> None:
    class Finite(BooleanPotential):
        def start(self) -> bytes:
            return b""

        def advance(self, state: Any, data: bytes) -> bytes | None:
            return state + data if b"ab".startswith(state + data) else None

        def accepts(self, state: Any) -> bool:
            return state == b"ab"

    lm = ToyLM(["a", "b"], seed=1)
    names, shown = _killed(lm("a") * Finite(), ends=False)
    assert names == ["Finite() (at an accepted text that is not over)"]
    assert "give your potential is_over" in shown

    class Over(Finite):
        def is_over(self, state: Any) -> bool:
            return self.accepts(state)

    async def model(ctx: Any) -> str:
        return await ctx.generate(lm("a") * Over(), ends=False)

    assert run(model, n_particles=4, progress=False).probabilities == {"ab": pytest.approx(1.0)}


def test_last_token_of_a_text_that_need_not_end_is_named_once() -> None:
    lm = ToyLM(["a", "b"], seed=1)
    names, shown = _killed(lm("a") * Regex("[ab]{9}"), ends=False, max_tokens=3)
    assert names == ["Regex('[ab]{9}') (no text that is over within 3 tokens)"]
    assert "larger max_tokens" in shown
