"""What stands in a product and is no potential: the error says what to write."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest

from awrs_ppl import ToyLM, product
from awrs_ppl.potentials import Regex

LM = ToyLM(["a", "b"])


class Person(pydantic.BaseModel):
    name: str


@dataclass
class Point:
    x: int


def no_z(text: str) -> bool:
    return "z" not in text


@pytest.mark.parametrize(
    ("thing", "remedy"),
    [
        ("a+", r"Regex\('a\+'\) for a pattern, OneOf\(\['a\+'\]\) for this text"),
        (b"a+", r"write Regex\('a\+'\) for a pattern"),
        (re.compile("a+"), r"write Regex\('a\+'\)$"),
        (lambda text: True, r"write predicate\(f\), if it says whether a text can still be"),
        (no_z, r"write predicate\(no_z\), if"),
        (Regex, r"write Regex\(\.\.\.\)$"),
        (Person, r"write JsonSchema\(Person\)$"),
        (Point, r"write JsonSchema\(Point\)$"),
        ({"type": "object"}, r"write JsonSchema\(\.\.\.\) for a schema$"),
        (LM, r"a language model stands there with a prompt, as lm\('\.\.\.'\)$"),
        (["a", "b"], r"write OneOf\(\.\.\.\) for texts, product\(\*\.\.\.\) for potentials$"),
        (2, r"factors are potentials, such as Regex\('a\+'\) or predicate\(f\)$"),
        (None, r"a product got None, which is no potential: factors are"),
    ],
)
def test_error_names_the_remedy(thing: Any, remedy: str):
    lm: Any = LM("a")
    for multiply in (lambda: lm * thing, lambda: thing * lm, lambda: product(lm, thing)):
        with pytest.raises(TypeError, match=remedy):
            multiply()
    with pytest.raises(TypeError, match=remedy):
        _ = Regex("a") * thing
