"""How values are laid out as text, and that no two of them look alike."""

from __future__ import annotations

import asyncio
import collections
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from awrs_ppl import Categorical, Context, Posterior, ToyLM, infer
from awrs_ppl.inference._progress import StepInfo
from awrs_ppl.posterior._texts import texts, wrapped


def shown(values: Sequence[Any], width: int = 40, lines: int | None = 12) -> list[str]:
    return [text.text for text in texts(values, width, lines)]


@dataclass
class Town:
    name: str
    people: int


class Person(BaseModel):
    name: str
    town: dict[str, Any]


Point = collections.namedtuple("Point", "first_coordinate second_coordinate")


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("cat", ["'cat'"]),
        ("cat\n", ["'cat\\n'"]),
        ("\n\n", ["'\\n\\n'"]),
        ('it\'s "so"', ["'it's \"so\"'"]),
        ("one  \ntwo ", ["'one··", "two '"]),
        ("a\tb\u202e\n\x1bc", ["'a\\tb\\u202e", "\\x1bc'"]),
        ("e" + 5 * "\u0301", ["'e" + 3 * "\u0301" + 2 * "\\u0301" + "'"]),
        (b"\xff", ["b'\\xff'"]),
        ({"name": "Anna Amalia", "city": "Berlin am See"}, None),
        (Town("Berlin am See, wherever it is", 7), None),
        (Town("Berlin", 7), ["Town(name='Berlin', people=7)"]),
        (Person(name="Anna Amalia", town={"city": "Berlin am See"}), None),
        (Point("a" * 30, 2), ["Point(", f"  first_coordinate='{'a' * 30}',", *"  second", ")"]),
        (np.eye(2), ["array([[1., 0.],", "       [0., 1.]])"]),
    ],
)
def test_value_is_laid_out_so(value: Any, lines: list[str] | None) -> None:
    (text,) = shown([value])
    if lines is None:  # indented, and a field to a line
        assert text.count("\n") >= 3
        assert all(line.startswith("  ") for line in text.split("\n")[1:-1])
        assert "'Berlin am See" in text
    elif isinstance(value, Point):
        assert text.split("\n")[:2] == lines[:2]
    else:
        assert text.split("\n") == lines


def test_long_list_is_filled_and_short_one_is_a_line() -> None:
    assert shown([[1, 2, 3]]) == ["[1, 2, 3]"]
    (text,) = shown([list(range(40))])
    assert text.split("\n")[0] == "["
    assert text.split("\n")[1] == "  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,"
    assert json.loads(text) == list(range(40))


def test_json_is_indented_only_where_it_says_the_same() -> None:
    good = json.dumps({"a": [1.5, None, "é\u202e"], "b": {"c": "x" * 30}})
    odd = '{"a": 1, "a": 2, "bbbbbbbbbbbbbbbbbbb": 1.50, "c": "ddddddddddddd"}'
    first, second = shown([good, odd])
    assert first.startswith('{\n  "a": [1.5, null, "é\\u202e"],\n  "b": ')
    assert second == f"'{odd}'"


def test_few_characters_are_never_left_out() -> None:
    cut = 0
    for length in range(1, 2000, 7):
        text, _ = texts(["z" * length, "y" * 3000], 40, 12)
        left = length - text.text.count("z")
        assert left == 0 or (text.is_cut and left > 100)
        with_quote = f"[… {left + 1:,} more characters]"
        assert text.is_cut == (with_quote in text.text)
        cut += text.is_cut
    assert 100 < cut < 250


def test_texts_that_differ_late_are_cut_where_they_differ() -> None:
    values = [500 * "same " + f"{i} then" + 500 * " same" for i in range(5)]
    found = texts(values, 40, 12)
    assert all(text.is_cut for text in found)
    assert all(f"{i} then" in text.text for i, text in enumerate(found))
    assert all(len(text.text) < 400 for text in found)


def test_values_that_look_alike_are_shown_exactly() -> None:
    assert shown(["a\tb", "a\\tb"]) == ["'a\\tb'", "'a\\\\tb'"]
    spaced = ['{"a": 1, "b": "cccccccccccccccc"}', '{"a":1,"b":"cccccccccccccccc"}']
    assert shown(spaced, 20) == [f"'{text}'" for text in spaced]


PIECES = st.sampled_from(
    ["a", "ab " * 40, "\n", " ", "\\n", "\t", "\x1b", "'", '"', "漢" * 50, "{", "…", "\u0301"]
)


@given(st.lists(st.lists(PIECES, max_size=12).map("".join), min_size=2, max_size=6, unique=True))
def test_different_texts_never_look_alike(values: list[str]) -> None:
    found = shown(values, 20, 10)
    assert len(set(found)) == len(values)
    assert all(line.isprintable() for text in found for line in text.split("\n"))
    whole = shown(values, 20, None)
    assert not any("more characters]" in text for text in whole)
    assert len(set(whole)) == len(values)


@given(st.lists(PIECES, max_size=20).map("".join), st.integers(4, 40))
def test_wrapped_lines_fit_and_lose_nothing(text: str, width: int) -> None:
    text = text.replace("\n", "")
    lines = wrapped(text, width)
    assert "".join(lines) == text
    assert all(len(line) + line.count("漢") <= width for line in lines)


# --- in a posterior ---------------------------------------------------------------------------


async def posterior_of(values: list[Any]) -> Posterior:
    async def model(ctx: Context) -> Any:
        return values[await ctx.sample(Categorical(list(range(len(values)))))]

    return await infer(model, n_particles=20 * len(values), seed=0, progress=False)


async def test_one_long_poem_is_shown_whole() -> None:
    poem = "\n".join(f"line {i} of a poem that is not short" for i in range(40))
    posterior = await posterior_of([poem])
    for page in (str(posterior), posterior._repr_html_()):
        assert all(f"line {i} of" in page for i in range(40))
        assert "full()" not in page


async def test_full_shows_what_the_table_cuts_and_says() -> None:
    values = [f"{'x' * 9000} {i} {'y' * 9000}" for i in range(30)]
    posterior = await posterior_of(values)
    assert "12 cut short (…): posterior.full() shows everything" in str(posterior)
    assert "20 cut short (…): posterior.full() shows everything" in posterior._repr_html_()
    assert "18 more values" in str(posterior)
    full = posterior.full()
    packed = "".join(str(full).split())
    for value in posterior.probabilities:
        assert value in full._repr_html_()
        assert value.replace(" ", "") in packed
    for page in (str(full), repr(full), full._repr_html_()):
        assert "cut short" not in page
        assert "more value" not in page


async def test_unfinished_particles_show_their_text_so_far() -> None:
    lm = ToyLM(["<b>", "b"], weights=lambda context: [1, 1, 0])
    task = asyncio.current_task()
    assert task is not None

    def stop(info: StepInfo) -> None:
        if info.step == 3:
            task.cancel()

    async def model(ctx: Context) -> str:
        if await ctx.sample(Categorical([True, False]), name="at once"):
            return "done"
        return await ctx.generate(lm("a"), max_tokens=50, name="text")

    options: dict[str, Any] = {"n_particles": 8, "seed": 0, "partial": True}
    posterior = await infer(model, progress=stop, **options)
    partial = [trace.partial for trace in posterior if trace.partial is not None]
    assert 0 < len(partial) < 8
    assert 0 < posterior.unfinished < 1
    for name, text, is_over in partial:
        assert name == "text"
        assert len(text.replace("<b>", "b")) == 3  # a token a step
        assert not is_over
        assert f"text: '{text}…" in str(posterior.full())
        assert f"text: &#x27;{escape(text)}…" in posterior.full()._repr_html_()
        assert f"text={text!r}" in repr(next(t for t in posterior if t.partial))
        break
    assert "of the weight is unfinished; so far:" in str(posterior)
    kept = pickle.loads(pickle.dumps(posterior))
    assert str(kept) == str(posterior)


async def test_finished_particles_have_no_partial_text() -> None:
    posterior = await posterior_of(["a"])
    assert {trace.partial for trace in posterior} == {None}
    assert "unfinished" not in str(posterior)
