"""The problems of `accuracy.py`: what is asked, how results are coarsened, what is known of them.

They were chosen before the method that they judge was written, and none is taken out because a
method does badly on it. See the README here.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import bias
from accuracy_programs import (
    LANGUAGES,
    PALINDROME,
    PARIS,
    QUARTZ,
    STORY,
    Model,
    couplet,
    haiku,
    hard_pattern,
    infilling,
    late_condition,
    long_text,
    one_text,
    palindromes,
    schema_document,
    toy_garden,
)

from awrs_ppl import LM, Context
from awrs_ppl.models import json_schema
from awrs_ppl.potentials import OneOf, Regex

__all__ = ["FAMILIES", "Problem", "problems"]

# A pattern is hard if its evidence on SmolLM2 is below this.
HARD = 1e-3


@dataclass(frozen=True, slots=True)
class Problem:
    """A program, and how its results are judged.

    `family`: "exact" (the posterior is known), "evidence" (the evidence is known), or "survival"
    (what counts is whether a particle is left). `program(lm)` gives the model. `max_tokens` is
    that of its texts. `classes` takes a value to one of at most 10; None: the nine likeliest
    values of the reference are classes of their own, and all others are one. `reference` says how
    the truth is found: by the best-first "search", in the "table" `patterns.csv`, by many large
    "runs", or it is 0 for a fact ("zero"), or there is none. `search` is the program for the
    search, where it needs the same constraint written otherwise. `branch` says which texts go down
    the garden path, or rather do not. `toy` makes the language model, where it is not SmolLM2.
    `particles` are the numbers to run with, where they are not those of the command line.
    """

    name: str
    family: Literal["exact", "evidence", "survival"]
    program: Callable[[LM], Model]
    max_tokens: int
    reference: Literal["search", "table", "runs", "zero", "none"] = "search"
    classes: Callable[[Any], Hashable] | None = None
    search: Callable[[LM], Model] | None = None
    branch: Callable[[str], bool] | None = None
    toy: Callable[[], LM] | None = None
    log_ml: float | None = None
    particles: tuple[int, ...] = ()

    @property
    def is_garden_path(self) -> bool:
        """Whether a branch weighs little for some tokens, and most at the end."""
        return self.branch is not None


FAMILIES = ("exact", "evidence", "survival")


def problems(data: Path | None) -> dict[str, Problem]:
    """All problems by name; those of `bias.py` and the schemas only with the folder `data`."""
    found = [
        Problem(name, "exact", one_text(prompt, Regex(pattern)), 32)
        for name, (prompt, pattern) in LANGUAGES.items()
    ]
    found += [
        Problem("late condition", "exact", late_condition, 256),
        Problem("infilling", "exact", infilling, 256),
        Problem(
            "palindromes",
            "exact",
            one_text(PALINDROME, Regex(r" ([a-z])([a-z])[a-z]\2\1"), 12),
            12,
            classes=lambda text: (ord(text[1]) - ord("a")) // 3,
            search=lambda lm: one_text(PALINDROME, palindromes(), 12)(lm),
        ),
        Problem(
            "garden path, quartz",
            "exact",
            one_text(STORY, Regex(QUARTZ)),
            32,
            branch=lambda text: text.startswith(" as"),
        ),
        Problem(
            "garden path, Paris",
            "exact",
            one_text("The capital of France is", Regex(PARIS)),
            32,
            branch=lambda text: text.startswith(" loc"),
        ),
        Problem(
            "garden path, toy",
            "exact",
            one_text("a", Regex("b[a-d]{6}[a-e]|[acd][a-d]{6}e"), 9),
            9,
            # Of the texts that begin with b the second letter, of the others the first.
            classes=lambda text: text[:2] if text[0] == "b" else text[0],
            branch=lambda text: text.startswith("b"),
            toy=toy_garden,
        ),
    ]
    with Path(__file__).with_name("patterns.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if (z := float(row["z smollm2-135m"])) < HARD:
                pattern = row["pattern"]
                program = partial(hard_pattern, pattern)
                problem = Problem(f"pattern {pattern}", "evidence", program, 32, "table")
                found.append(replace(problem, log_ml=math.log(z)))
    found += [
        Problem("haiku", "evidence", haiku, 20, "runs"),
        Problem("couplet", "evidence", couplet, 24, "runs"),
        replace(
            Problem("long, free", "evidence", partial(long_text, None), 61, "zero"), log_ml=0.0
        ),
        Problem("long, no k", "evidence", partial(long_text, r"[^kK]*"), 61, "runs"),
        Problem("long, no newline", "evidence", partial(long_text, r"[^\n]*"), 61, "runs"),
    ]
    if data is not None:
        found += [*_biased(data), *_schemas(data)]
    return {problem.name: problem for problem in found}


def _biased(data: Path) -> list[Problem]:
    """The five cases of `bias.py`."""

    def program(case: bias.Case, lm: LM) -> Model:
        model, arguments, texts = case

        async def choose(ctx: Context) -> str:
            return await model(ctx, lm, *arguments, allowed=OneOf(texts))

        return choose

    return [
        Problem(f"bias, {name}", "exact", partial(program, case), 100)
        for name, case in bias.cases(data).items()
    ]


def _schemas(data: Path) -> list[Problem]:
    """The JSON schemas, with 10 particles and 200 tokens."""

    schemas = json_schema.load(data / "json_schema" / "schemas.jsonl")
    return [
        Problem(
            f"schema {i}", "survival", partial(schema_document, one), 200, "none", particles=(10,)
        )
        for i, one in enumerate(schemas)
    ]
