"""Faults to plant in the library, each with a program on which it shows.

A fault is a context manager; inside it the library is wrong, by a part of `broken_twins.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import broken_twins as wrong
import wrong_children
from random_programs import Program

from awrs_ppl import (
    AWRS,
    Bernoulli,
    Categorical,
    Context,
    PaperAWRS,
    ToyLM,
    predicate,
    product,
)
from awrs_ppl.constraints import ends, prefix_propagation
from awrs_ppl.constraints.before_stops import BeforeStop
from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.constraints.target import Target
from awrs_ppl.inference import population, runs, step, text_step
from awrs_ppl.inference.population import Particle
from awrs_ppl.inference.resampling import SCHEMES
from awrs_ppl.lm.prompted import PromptedLM
from awrs_ppl.potentials import Soft
from awrs_ppl.potentials.predicates import Predicate
from awrs_ppl.program.statements import Sample
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.proposals import paper, pool, token_step
from awrs_ppl.proposals.token_step import Progress
from awrs_ppl.tokens.vocabulary import Closing, Vocabulary

__all__ = ["FAULTS", "Fault"]

Planted = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Fault:
    """What is wrong, how it is planted, and where it shows."""

    name: str
    planted: Planted
    program: Program
    runs: int = 600


# --- programs -----------------------------------------------------------------------------


def lm(tokens: Sequence[str | bytes], *weights: float) -> ToyLM:
    """A language model with one distribution at all contexts; the end's weight is the last."""
    return ToyLM(tokens, weights=lambda context: weights)


LETTERS = lm(["a", "b", "c"], 4, 3.5, 1.5, 1)
UNEVEN, EVEN = LETTERS("a"), lm(["a", "b"], 1, 1, 1)("a")
NARROW = lm(["a", "ab", "c", "cc"], 6, 1, 1, 1, 1)("c")
TWO_DISTRIBUTIONS = ToyLM(
    ["a", "b"], weights=lambda context: [8, 1, 1] if context[0] == 0 else [1, 8, 1]
)
anything = predicate(lambda text: True)
only_b = predicate(lambda text: "a" not in text and "c" not in text)
no_c = predicate(lambda text: "c" not in text)
no_a = predicate(lambda text: "a" not in text)
no_b = predicate(lambda text: "b" not in text)


@predicate(state=lambda text: text[-1:])
def no_pairs(text: str) -> bool:
    return all(a != b for a, b in pairwise(text))


TEXTS = ("ab", "c", "cab")
LISTED = predicate(
    lambda text: any(known.startswith(text) for known in TEXTS),
    complete=lambda text: text in TEXTS,
)


class OneDraw(AWRS):
    """A single draw from the tail, so that it matters."""

    def _plan(self, head: Any, members: int) -> None:
        head.draws = int(head.unknown.mass > 0.0)


def program(model: Any, again: bool = False, jointly: bool = False, **options: Any) -> Program:
    """A program whose particles are copied, where its faults are not those of children."""
    return Program(
        model,
        {"n_particles": 2, "resampling": "stratified", **options},
        again=again,
        jointly=jointly,
    )


def text_of(potential: Any, max_tokens: int = 2, again: bool = False, **options: Any) -> Program:
    """A program of one text; `proposal`, `critic` and `ends` are those of the statement."""
    given = {name: options.pop(name, None) for name in ("proposal", "critic")}
    given["ends"] = options.pop("ends", True)

    async def model(ctx: Context) -> str:
        return await ctx.generate(potential, max_tokens=max_tokens, **given)

    return program(model, again, **options)


async def same_twice(ctx: Context) -> bool:
    """Whether two texts of one distribution agree."""
    first = await ctx.generate(EVEN * anything, max_tokens=2)
    return first == await ctx.generate(EVEN * anything, max_tokens=2)


async def narrow(ctx: Context) -> tuple[str, str]:
    """After "a" no token is allowed: a dead end, which the second text knows."""
    first = await ctx.generate(NARROW * LISTED, max_tokens=4)
    return first, await ctx.generate(NARROW * LISTED, max_tokens=4)


async def coin(ctx: Context) -> bool:
    return await ctx.sample(Bernoulli(0.5))


class Alone(Bernoulli):
    """A coin whose sides are not shared among particles: those share only `Bernoulli` itself."""


async def heads(ctx: Context) -> bool:
    return await ctx.sample(Alone(0.5))


async def coins(ctx: Context) -> tuple[bool, bool]:
    return await coin(ctx), await coin(ctx)


async def imported(ctx: Context) -> str:
    return await ctx.sample(Categorical("abc", [1, 2, 3]), proposal=Categorical("abc"))


async def weighed(ctx: Context) -> tuple[bool, bool]:
    """Uneven weights, and a coin after they were made even."""
    heads = await coin(ctx)
    await ctx.factor(0.8 if heads else -0.4)
    return heads, await coin(ctx)


async def halved(ctx: Context) -> bool:
    """Half of the particles die at once."""
    await ctx.condition(await coin(ctx))
    return await coin(ctx)


async def ahead(ctx: Context) -> tuple[bool, str]:
    """Some particles wait at a condition while others, at a text, make a resampling due."""
    short, heads = await coins(ctx)
    if short:
        await ctx.factor(0.0)
        await ctx.condition(heads)
        return heads, ""
    return heads, await ctx.generate(EVEN * only_b, max_tokens=3)


async def two_prompts(ctx: Context) -> tuple[bool, str]:
    """One constraint and no text yet, but two distributions."""
    heads = await coin(ctx)
    prompt = TWO_DISTRIBUTIONS("a" if heads else "b")
    return heads, await ctx.generate(prompt * anything, max_tokens=2)


def by_coin(**options: tuple[Any, Any]) -> Program:
    """A text at one prompt, with one of two values of each option: of the prompt, of the
    product or of the statement."""

    async def model(ctx: Context) -> tuple[bool, str]:
        heads = await coin(ctx)
        own = {name: values[heads] for name, values in options.items()}
        prompt = LETTERS("a", stop=own.get("stop"), temperature=own.get("temperature", 1.0))
        return heads, await ctx.generate(
            product(prompt, anything, *own.get("factors", ())),
            max_tokens=own.get("max_tokens", 2),
            critic=own.get("critic"),
        )

    return program(model, n_particles=4)


# --- all of them --------------------------------------------------------------------------


def of(owner: Any, name: str, instead: Any) -> Planted:
    return lambda: patch.object(owner, name, instead)


def of_estimator(name: str, estimator: Any, instead: Any) -> Fault:
    """A fault in one of the paper's estimators."""
    program = text_of(UNEVEN * only_b, proposal=PaperAWRS(estimator))
    return Fault(
        name, lambda: patch.dict(paper.ESTIMATORS, {estimator: instead}), program, runs=1200
    )


def length(text: str) -> float:
    return -0.6 * len(text)


def misleading(text: str) -> float:
    return 0.5 * len(text) - text.startswith("b")


def without_a(text: str) -> float:
    return -math.inf if "a" in text else 0.5


def likes_a(text: str) -> float:
    return 1.5 * text.count("a")


def likes_b(text: str) -> float:
    return 1.5 * text.count("b")


def nothing(text: str) -> float:
    return -math.inf


ONE_CHECK = text_of(UNEVEN * only_b, proposal=AWRS(effort=4.0, _max_checks=1))
FOUR_DRAWS = text_of(UNEVEN * only_b, proposal=AWRS(effort=4.0, _max_checks=1), n_particles=1)
ONE_DRAW = text_of(UNEVEN * only_b, proposal=OneDraw(effort=4.0, _max_checks=1))
FEW_VISITS = text_of(
    lm(["a", "b", "c"], 10, 3, 1, 3)("a") * no_c,
    2,
    proposal=AWRS(effort=0.1),
    n_particles=1,
)
CHINESE = lm(["丁", "七", "a"], 5, 3, 2, 1)("a")
REMEMBERING: dict[str, Any] = {
    "again": True,
    "remember": True,
    "n_particles": 1,
    "proposal": OneDraw(effort=0.1, _max_checks=1),
}
EVENED: dict[str, Any] = {"n_particles": 4, "ess_threshold": 1.0}
# Both characters have one prefix, and one of them is not allowed.
PARTS = lm(["七".encode()[:2], "丁".encode()[2:], "七".encode()[2:], "a", "b"], 6, 1, 6, 1, 4, 1)
WAITING = text_of(
    PARTS("a") * predicate(lambda text: "丁" not in text and "b" not in text), 4, **EVENED
)
ENDING = text_of(UNEVEN * no_pairs, 4, **EVENED)
DEAD_ENDS = program(narrow, n_particles=8)
SAME = program(same_twice, **EVENED)
WEIGHED, HALVED, AHEAD = (program(model, **EVENED) for model in (weighed, halved, ahead))
NO_A = Soft(without_a, prefix=without_a)
LIKES_A, LIKES_B = Soft(likes_a, prefix=likes_a), Soft(likes_b, prefix=likes_b)
NOTHING = Soft(nothing, prefix=nothing)
LENGTHS, STOPS = by_coin(max_tokens=(1, 3)), by_coin(stop=(None, "b"))
TEMPERATURES = by_coin(temperature=(0.4, 2.5))
COMPETING: dict[str, Any] = {**EVENED, "resampling": "auto"}
MANY_DRAWS = text_of(UNEVEN * only_b, proposal=AWRS(effort=30.0, _max_checks=1), **COMPETING)
TWO_CHILDREN = text_of(UNEVEN * no_pairs, 4, **{**COMPETING, "n_particles": 2})
CRITIC = text_of(EVEN * anything, 4, critic=Soft(length, prefix=misleading), **EVENED)

FAULTS = [
    Fault("tail verdicts enter A before W", wrong.proposal_that("looks"), ONE_CHECK),
    Fault("drawn until accepted", wrong.proposal_that("insists"), ONE_DRAW),
    Fault("repeated draws merged", wrong.proposal_that("merges"), FOUR_DRAWS),
    Fault("roulette without its weight", wrong.proposal_that("visits"), FEW_VISITS, runs=2400),
    Fault("roulette shares its number", wrong.proposal_that("shares"), FEW_VISITS, runs=2400),
    Fault("pooled draws weighed alone", of(AWRS, "_plan", wrong.weighed_alone), ONE_CHECK),
    Fault("strata not permuted", of(pool, "strata", wrong.unpermuted), SAME),
    of_estimator("two-loop without its second", "two-loop", wrong.one_loop),
    of_estimator("recursive with x put back", "recursive", wrong.put_back),
    of_estimator("geometric with one success", "geometric", wrong.one_success),
    Fault(
        "verdicts of another state",
        of(Predicate, "_state", wrong.stale),
        text_of(UNEVEN * no_pairs, 4),
    ),
    Fault(
        "propagation across part of a character",
        of(prefix_propagation, "_reject_by_prefix", wrong.across_characters),
        text_of(CHINESE * predicate(lambda text: "丁" not in text)),
    ),
    Fault(
        "longer tokens accepted, too",
        of(prefix_propagation, "_accept_prefixes", wrong.longer_accepted),
        text_of(lm(["a", "ab", "b"], 5, 2, 2, 1)("b") * predicate(lambda text: "ab" not in text)),
    ),
    Fault(
        "prefix accepted by all factors",
        of(prefix_propagation, "_accept_prefixes", wrong.accepted_for_all),
        text_of(lm(["ab", "a", "c"], 5, 2, 2, 1)("c") * no_b * no_a),
    ),
    Fault(
        "dead end as rejected prefix",
        of(NextVerdicts, "known_outcomes", wrong.dead_prefix),
        DEAD_ENDS,
    ),
    Fault(
        "remembered with the same numbers",
        of(runs, "secrets", SimpleNamespace(randbits=lambda bits: 0)),
        text_of(lm(["a", "b", "c"], 3, 4, 2, 1)("a") * only_b, **REMEMBERING),
        runs=2400,
    ),
    Fault(
        "rejected end accepted",
        of(ends, "_evaluate", wrong.any_end),
        text_of(EVEN * predicate(lambda text: True, complete=lambda text: text != "b")),
    ),
    Fault("end forced without its weight", of(AWRS, "draw", wrong.free_end), ONE_CHECK),
    Fault(
        "stop not trimmed",
        of(Closing, "apply", lambda self, text: text + self.keep),
        text_of(lm(["a", "b"], 2, 2, 1)("a", stop="ab"), 4),
    ),
    Fault(
        "end weighed where a text need not end",
        of(Vocabulary, "closings", wrong.by_any_end),
        text_of(lm(["a", "b", "."], 4, 3, 2, 6)("a", stop=".") * no_pairs, 3, ends=False),
    ),
    Fault(
        "over where one factor does not accept",
        of(token_step, "is_over", wrong.over_by_one),
        text_of(LETTERS("a") * LISTED * predicate(anything, complete=no_b), 4, ends=False),
    ),
    Fault(
        "not over with the last token",
        of(token_step, "with_last", lambda target: replace(target, boolean=target.boolean * 2)),
        text_of(EVEN * predicate(anything, complete=lambda text: text != "b"), 1, ends=False),
    ),
    Fault(
        "pending bytes of a stop not read",
        of(BeforeStop, "accepts", wrong.only_what_lasts),
        text_of(lm(["a", "b"], 2, 2, 1)("a", stop="bb") * no_b, 3),
    ),
    Fault(
        "two prompts drawn as one",
        of(Generate, "draw_key", wrong.by_constraint),
        program(two_prompts, **EVENED),
    ),
    Fault("max_tokens of the first", of(text_step, "_steps", wrong.first_limit), LENGTHS),
    Fault(
        "temperature not in the key",
        of(PromptedLM, "key", wrong.key_without("temperature")),
        TEMPERATURES,
    ),
    Fault("temperature of the first", of(ToyLM, "logits", wrong.first_temperature), TEMPERATURES),
    Fault("stop not in the key", of(PromptedLM, "key", wrong.key_without("stop")), STOPS),
    Fault(
        "soft factor of the first",
        of(text_step, "weigh_texts", wrong.first_weigher),
        by_coin(factors=([LIKES_A], [LIKES_B])),
    ),
    Fault(
        "soft factors not in the key",
        of(Target, "key", property(wrong.key_without_weighers)),
        by_coin(factors=([LIKES_A], [NOTHING])),
    ),
    Fault(
        "critic of the first",
        of(step, "weigh_texts", wrong.first_weigher),
        by_coin(critic=(LIKES_A, LIKES_B)),
    ),
    Fault(
        "weight of prefixes not divided out",
        of(text_step, "_weigh", wrong.undivided),
        text_of(EVEN * Soft(length, prefix=misleading), 3),
    ),
    Fault("twist not undone", of(Particle, "weigh", wrong.keep_twist), CRITIC),
    Fault("guess of a verdict kept", of(Particle, "weigh", wrong.keep_twist), WAITING),
    Fault("guess of a verdict not divided out", of(pool, "Draw", wrong.undivided_guess), WAITING),
    Fault("critic's last word left out", of(step, "weigh_texts", wrong.by_prefix), CRITIC),
    Fault(
        "critic evaluated on a stop's prefix",
        of(Progress, "lasting", lambda self, stops: self.text),
        text_of(lm(["a", "b"], 2, 2, 1)("a", stop="aa"), 3, critic=NO_A, **EVENED),
    ),
    Fault("mean over the survivors", of(population, "log_mean", wrong.of_survivors), HALVED),
    Fault("weights kept in resampling", wrong.children_that(wrong.keep_weight), WEIGHED),
    Fault("ended texts given the mean weight", wrong.everyone_weighs_the_mean, ENDING),
    Fault("replay weighs again", wrong.children_that(wrong.weigh_again), WEIGHED),
    Fault("condition ignored on replay", wrong.children_that(wrong.ignore_condition), AHEAD),
    Fault(
        "residual without chance",
        lambda: patch.dict(SCHEMES, residual=wrong.largest_rests),
        program(weighed, ess_threshold=1.0, resampling="residual"),
    ),
    Fault("equal draws dropped", wrong_children.equal_draws_dropped, MANY_DRAWS),
    Fault("one child for the tail", wrong_children.one_child_for_the_tail, MANY_DRAWS),
    Fault(
        "equal particles dropped",
        wrong_children.equal_particles_dropped,
        program(same_twice, **COMPETING),
    ),
    Fault(
        "twist left in a child",
        wrong_children.twist_left,
        text_of(EVEN * anything, 4, critic=Soft(length, prefix=misleading), **COMPETING),
    ),
    Fault("light children with their own weight", wrong_children.own_weight, TWO_CHILDREN),
    Fault("children normalized", wrong_children.normalized, TWO_CHILDREN),
    Fault(
        "draw from a proposal unweighed",
        of(Sample, "weigh", wrong.unweighed),
        program(imported, **EVENED),
    ),
    Fault(
        "numbers of a step used again",
        wrong.streams_by("slot"),
        program(same_twice, n_particles=1),
    ),
    Fault(
        "numbers of a sample used again",
        wrong.streams_by("step", "slot"),
        program(coins),
    ),
    Fault(
        "numbers copied to other particles",
        wrong.streams_by("step", "index"),
        program(heads, jointly=True),
    ),
]
