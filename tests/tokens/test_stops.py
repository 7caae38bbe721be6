"""Stops against a plain search: the text ends before the stop that is complete first."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections import defaultdict

import pytest

from awrs_ppl import ToyLM
from awrs_ppl.potentials import predicate
from awrs_ppl.testing import assert_unbiased, enumerate_posterior
from awrs_ppl.tokens.stops import first_stop, stop_prefix
from awrs_ppl.tokens.vocabulary import Vocabulary

# Some begin inside others, some are others' ends, some repeat their own prefix.
SOME = [
    (b"x",),
    (b"xy", b"y"),
    (b"xyx", b"yx", b"xx"),
    (b"xx", b"xxx"),
    (b"axy", b"xa"),
    (b"yxy", b"xyxx"),
    (b"aa", b"aax", b"xaay"),
]


def cut(text: bytes, stops: tuple[bytes, ...]) -> int | None:
    """Where a text ends that is read byte by byte; None if it continues."""
    for end in range(1, len(text) + 1):
        done = [stop for stop in stops if text[:end].endswith(stop)]
        if done:
            return end - max(map(len, done))
    return None


def texts(letters: str, longest: int) -> list[bytes]:
    found = (itertools.product(letters, repeat=n) for n in range(longest + 1))
    return ["".join(one).encode() for some in found for one in some]


@pytest.mark.parametrize("stops", SOME, ids=repr)
def test_first_stop_is_where_a_plain_search_ends(stops):
    for text in texts("axy", 6):
        assert first_stop(text, stops) == cut(text, stops), text


@pytest.mark.parametrize("stops", SOME, ids=repr)
def test_stop_prefix_is_the_longest_prefix_of_a_stop_at_the_end(stops):
    for text in texts("axy", 5):
        ends = [text[i:] for i in range(len(text))]
        tails = [end for end in ends if any(s.startswith(end) and s != end for s in stops)]
        assert stop_prefix(text, stops) == max(tails, key=len, default=b""), text


@pytest.mark.parametrize("stops", SOME, ids=repr)
def test_closings_after_every_tail_are_those_of_a_plain_search(stops):
    tokens = texts("axy", 3)[1:]
    vocabulary = Vocabulary([*tokens, b"<end>"], ends=[len(tokens)])
    for text in texts("axy", 4):
        if cut(text, stops) is not None:
            continue
        closings = vocabulary.closings(stops, stop_prefix(text, stops))
        found = {}
        for end, ids in zip(closings.ends, closings.ids, strict=True):
            for token in ids.tolist():
                assert token not in found
                found[token] = end.apply(text)
        wanted = {
            i: (text + token)[:where]
            for i, token in enumerate(tokens)
            if (where := cut(text + token, stops)) is not None
        }
        assert found == {**wanted, len(tokens): text}, text
        # What gives the same text is one outcome.
        ended = [end.apply(text) for end in closings.ends]
        assert len(ended) == len(set(ended))
        assert sorted(closings.tokens.tolist()) == sorted(found)


class Case:
    """A random model, stops, and a constraint; and its texts by a plain search."""

    def __init__(self, rng: random.Random) -> None:
        self.tokens = rng.sample(["a", "x", "y", "xy", "yx", "ax", "xa", "xx"], rng.randint(3, 4))
        self.stops = tuple(rng.choice(SOME))
        self.most = 4
        salt = rng.random()

        def noise(*key) -> float:
            return random.Random(repr((salt, *key))).random()

        self.weights = lambda context: [
            0.3 + noise(context, i) for i in range(len(self.tokens) + 1)
        ]
        # So few prefixes are allowed that there are dead ends, many after the prefix of a stop.
        self.allows = lambda text: all(noise(text[:i]) < 0.7 for i in range(1, len(text) + 1))
        self.may_end = lambda text: self.allows(text) and noise("end", text) < 0.5
        self.lm = ToyLM(self.tokens, weights=self.weights)

    async def model(self, ctx) -> tuple[str, str]:
        stop = [stop.decode() for stop in self.stops]
        rule = predicate(self.allows, complete=self.may_end)
        # The second text knows the dead ends that the first one met.
        first = await ctx.generate(self.lm("a", stop=stop) * rule, max_tokens=self.most)
        return first, await ctx.generate(self.lm("a", stop=stop) * rule, max_tokens=self.most)

    def begun(self, text: str) -> int:
        """How many letters at the end may become a stop: they are not judged yet."""
        begins = (stop.decode()[:n] for stop in self.stops for n in range(1, len(stop)))
        return max((len(begin) for begin in begins if text.endswith(begin)), default=0)

    def masses(self) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        prompt = self.lm.prompt_ids("a")

        def go(ids: tuple[int, ...], text: str, mass: float) -> None:
            row = self.weights(prompt + ids)
            for i, weight in enumerate(row):
                share = mass * weight / sum(row)
                ended = i == len(self.tokens)
                longer = text if ended else text + self.tokens[i]
                where = cut(longer.encode(), self.stops)
                # At the last token only an end is left, and a stop that takes nothing else away.
                last = len(ids) == self.most - 1
                if where is not None and not (last and longer[:where] != text):
                    ended, longer = True, longer[:where]
                elif last and not ended:
                    continue
                if ended:
                    found[longer] += share * self.may_end(longer)
                elif self.allows(longer[: len(longer) - self.begun(longer)]):
                    go((*ids, i), longer, share)

        go((), "", 1.0)
        return found


def case_of(seed: object) -> Case:
    """A case with some evidence."""
    for attempt in itertools.count():
        case = Case(random.Random(f"{seed} {attempt}"))
        if sum(case.masses().values()) > 0.02:
            return case
    raise AssertionError


def test_texts_with_stops_weigh_what_a_plain_search_gives(fuzz):
    for rng in fuzz.rngs(30):
        case = case_of(rng.random())
        exact = asyncio.run(enumerate_posterior(case.model))
        masses = case.masses()
        total = sum(masses.values())
        assert exact.log_ml == pytest.approx(2 * math.log(total))
        for (first, second), p in exact.probabilities.items():
            assert p == pytest.approx(masses[first] * masses[second] / total**2)


@pytest.mark.slow
def test_infer_with_stops_and_dead_ends_is_unbiased(fuzz):
    for rng in fuzz.rngs(6):
        case = case_of(rng.random())
        asyncio.run(assert_unbiased(case.model, runs=50, n_particles=6, ess_threshold=0.9))


@pytest.mark.slow
async def test_dead_end_after_the_prefix_of_a_stop_belongs_to_what_is_pending():
    # After "ax" nothing is allowed: "a" may not end before the stop "xy". But "ac" may. The second
    # text comes to the same state of the constraint by another way, "ca".
    rows = [[1, 5, 1, 3, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [9, 1, 1, 1, 8]]
    lm = ToyLM(
        ["a", "x", "y", "c"],
        weights=lambda context: (
            rows[context[-1]] if len(context) > 1 else [9 if context == (0,) else 1, 1, 1, 9, 1]
        ),
    )
    kept = {"": 0, "c": 1, "a": 2, "ca": 2, "ac": 3, "cac": 3}
    rule = predicate(
        kept.__contains__, complete=lambda text: text in ("ac", "cac"), state=kept.__getitem__
    )

    async def model(ctx):
        first = await ctx.generate(lm("a", stop="xy") * rule, max_tokens=5)
        return first, await ctx.generate(lm("c", stop="xy") * rule, max_tokens=5)

    checked = {"runs": 60, "n_particles": 8, "ess_threshold": 0.9, "resampling": "stratified"}
    await assert_unbiased(model, **checked)
