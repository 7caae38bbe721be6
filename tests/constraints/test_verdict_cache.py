"""What the cache adds up, over the steps of an inference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from awrs_ppl import AWRS, ToyLM, predicate
from awrs_ppl.constraints.product import target_of
from awrs_ppl.constraints.target import start
from awrs_ppl.constraints.verdict_cache import TailDraws, VerdictCache, size_of
from awrs_ppl.proposals.token_step import Progress, TokenStep, weigh
from awrs_ppl.tokens.text import Text
from awrs_ppl.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary([b"a", b"b"], ends=())


def test_draws_from_the_tail_add_up_by_state_and_by_constraint() -> None:
    cache = VerdictCache()
    for state, draws in (("s", (5, 2)), ("t", (7, 7)), ("s", (1, 0))):
        cache.constraint("key").at(state, VOCABULARY)
        cache.constraint("key").charge(state, VOCABULARY, TailDraws(*draws))
    assert cache.constraint("key").at("s", VOCABULARY).tail == TailDraws(6, 2)
    assert cache.constraint("key").at("t", VOCABULARY).tail == TailDraws(7, 7)
    assert cache.constraint("key").tail == TailDraws(13, 9)
    assert cache.constraint("another").tail == TailDraws()


def test_cost_of_a_state_is_charged_once_however_often() -> None:
    constraint = VerdictCache().constraint("key")
    known = constraint.at("s", VOCABULARY)
    costs = [known.cost]
    for token, state in ((0, "after"), (1, "after" * 100)):
        known.accept(token, state)
        costs.append(known.cost)
    # A token costs more than the state after it, and a state that is found later costs, too.
    assert costs[1] - costs[0] > size_of("after")
    assert costs[2] - costs[1] > size_of("after" * 100)
    for _ in range(3):
        constraint.charge("s", VOCABULARY, TailDraws())
    assert constraint.cost == known.cost > 0
    before = known.cost
    known.accept_prefix(b"ab")
    constraint.charge("s", VOCABULARY, TailDraws())
    assert constraint.cost == known.cost > before


async def test_token_in_a_character_is_drawn_by_the_twist_with_which_it_was_begun() -> None:
    """Nothing new is known of the verdict before the character is whole."""
    snowman = "\u2603".encode()
    tokens = [b"a", b"b", snowman[:1], snowman[1:2], snowman[2:]]
    lm = ToyLM(tokens, weights=lambda context: [1.0, 1.0, 4.0, 2.0, 2.0, 1.0])
    target = target_of(lm("a") * predicate(lambda text: not text.endswith("a")))
    states = await start(target, Text(snowman[:1], (2,)))
    assert isinstance(states, tuple)
    for twist in (-0.25, -1.5):
        progress = Progress(Text(snowman[:1], (2,)), states, (), twist=twist)
        step = TokenStep.at(target, progress, VerdictCache(), AWRS())
        weigh([step], [await lm.logits([(0, 2)], [1.0])])
        for draw in await step.draw([np.random.default_rng(seed) for seed in range(20)]):
            assert draw.log_weight > -math.inf
            assert draw.outcome in (3, 4)  # either may be the second byte of a character
            assert draw.twist == pytest.approx(twist)
