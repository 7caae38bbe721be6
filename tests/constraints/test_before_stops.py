"""What may become a stop is held back: masks agree with checks, and prefixes of allowed texts are
allowed."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from awrs_ppl import BooleanPotential, ToyLM
from awrs_ppl.constraints.before_stops import BeforeStop, held_back
from awrs_ppl.potentials import Contains, Grammar, OneOf, Regex, predicate
from awrs_ppl.tokens.stops import first_stop
from awrs_ppl.tokens.text import Text

TOKENS = ["a", "b", "c", "ab", "bc", "abc", "\n", "a\n", "b\na", "\n\n", "c\n\n", "a\nb\n"]
LM = ToyLM([*TOKENS, "。".encode()[:1], "。".encode()[1:], "。"], seed=1)
STOPS = ["\n\n", "abca", ["bb", "\na"], "。\n", ["ab", "abcab"]]
POTENTIALS = {
    "pattern": Regex("[a-c\n]{0,3}"),
    "list": OneOf(["a", "ab\nc", "abc", "bc\n", "b。a"]),
    "grammar": Grammar('start: "a" /[bc\\n]*/'),
    "contains": Contains("bc"),
    "checks": predicate(lambda text: "c\n" not in text),
}


@pytest.mark.parametrize("stop", STOPS, ids=repr)
@pytest.mark.parametrize("name", POTENTIALS)
def test_masks_say_what_checks_say(name, stop):
    factor = (LM("a", stop=stop) * POTENTIALS[name]).target.boolean[0]
    assert isinstance(factor, BeforeStop)
    vocabulary, seen = LM.vocabulary, 0

    async def run() -> None:
        nonlocal seen
        for length in (0, 1, 2):
            for ids in product(vocabulary.text_ids.tolist(), repeat=length):
                data = b"".join(vocabulary.tokens[i] for i in ids)
                if first_stop(data, factor.stops) is not None:
                    continue
                state = await factor.begin(Text(data))
                if state is None:
                    continue
                mask = factor.mask(state, vocabulary)
                for token in vocabulary.text_ids.tolist():
                    if first_stop(data + vocabulary.tokens[token], factor.stops) is not None:
                        continue
                    after = await factor.advance(state, token, vocabulary.tokens[token])
                    again = await factor.begin(Text(data + vocabulary.tokens[token]))
                    assert after == again
                    if mask is not None:
                        assert bool(mask[token]) == (after is not None)
                    seen += after is not None

    asyncio.run(run())
    assert seen > 10
    assert (POTENTIALS[name].mask is None) == (name == "checks")


def test_what_is_pending_is_read_at_the_end():
    factor = (LM("a", stop="\n\n") * Regex("[abc]+")).target.boolean[0]

    async def run() -> None:
        state = await factor.begin(Text(b"ab\n"))
        assert state is not None
        assert not await factor.accepts(state)
        assert not await factor.is_over(state)
        assert await factor.advance(state, None, b"a") is None
        assert await factor.is_over(await factor.begin(Text(b"ab")))

    asyncio.run(run())


def test_stops_of_one_byte_hold_nothing_back():
    factor = (LM("a", stop=["\n", "b"]) * Regex("[abc]+")).target.boolean[0]
    assert not isinstance(factor, BeforeStop)
    # Nor one that begins within a character: what comes before it is not a text.
    assert held_back((b"ab", b"\x80a", b"c")) == (b"ab",)


def test_potential_with_a_mask_that_is_awaited_is_checked():
    class Awaited(BooleanPotential):
        def __init__(self) -> None:
            super().__init__()
            self.mask = Regex("[a-c\n]*").mask

        def start(self) -> bytes:
            return b""

        async def advance(self, state: bytes, data: bytes) -> bytes | None:
            return state + data

        def accepts(self, state: bytes) -> bool:
            return True

    factor = (LM("a", stop="\n\n") * Awaited()).target.boolean[0]
    assert factor.mask((b"a", b"\n"), LM.vocabulary) is None
