"""Milliseconds a check and a mask, for each potential, early and late in a long text.

A text of the potential is read token by token. At every token it is checked, and so are some
others, drawn at random; where there is a mask, it is computed once. The figures are means, over
the first quarter of the text and over its last: where a state continues from what was read, the
two are alike.

    python tests/benchmarks/potentials.py --data FOLDER [--quick] [--model NAME] [--json FILE]

`FOLDER` has the data: see the README here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any, cast

import numpy as np

from awrs_ppl import LM
from awrs_ppl.models import goal_inference, json_schema, text_to_sql
from awrs_ppl.potentials import (
    Contains,
    Grammar,
    JsonSchema,
    OneOf,
    PddlGoal,
    Reachable,
    Regex,
    Smiles,
    Sql,
    predicate,
)

MODELS = ("smollm2-135m", "gemma3-270m")
OTHERS = 8  # tokens checked at each position beside the right one

LIST = 'start: "[" [item ("," item)*] "]"\nitem: /[0-9]+/ | start'


@predicate
def no_z(text: str) -> bool:
    return "z" not in text


@predicate(state=lambda text: len(text) % 2)
def even(text: str) -> bool:
    return True


def cases(data: Path) -> dict[str, tuple[Any, str]]:
    """Potentials by their names, each with a text that it allows."""
    schemas = json_schema.load(data / "json_schema" / "schemas.jsonl")
    lines = (data / "json_schema" / "schemas.jsonl").read_text().splitlines()
    documents = [
        [json.dumps(test["data"]) for test in json.loads(line)["tests"] if test["valid"]]
        for line in lines
    ]
    longest = max(range(len(schemas)), key=lambda i: max(map(len, documents[i]), default=0))
    document = max(documents[longest], key=len)
    outline, check = JsonSchema(schemas[longest]).target.boolean
    spider = data / "spider"
    questions = text_to_sql.load(spider / "questions.jsonl", spider / "concert_singer.sqlite")
    query = max((task.query for task in questions), key=len)
    blocks = data / "blocksworld"
    goals = goal_inference.load(blocks / "tasks.jsonl", blocks / "domain.pddl")
    goal = max(goals, key=lambda task: len(task.goal))
    smiles = (data / "molecules" / "gdb17_sample.smi").read_text().split()
    words = "the quick brown fox jumps over the lazy dog " * 10
    return {
        "Regex, mask": (Regex("[a-z ]*"), words),
        "Regex, check": (Regex("[a-z ]*", engine="check"), words),
        "predicate": (no_z, words.replace("z", "s")),
        "predicate, state": (even, words),
        "OneOf": (OneOf([words, words[::-1]]), words),
        "Contains": (Contains("lazy cat"), words + "lazy cat"),
        "Grammar": (Grammar(LIST), "[" + ",".join("[1,22,[333]]" for _ in range(20)) + "]"),
        "JsonSchema, mask": (outline.potential, document),
        "JsonSchema, check": (check.potential, document),
        "Sql": (Sql(questions[0].database), query),
        "Smiles": (Smiles(), max(smiles, key=len)),
        "PddlGoal": (PddlGoal(goal.domain, goal.problem), goal.goal),
        "Reachable": (Reachable(goal.domain, goal.problem), goal.goal),
    }


def measure(potential: Any, text: str, lm: LM) -> dict[str, float]:
    """Milliseconds by kind of evaluation and part of the text."""
    tokens = [bytes(lm.vocabulary.tokens[i]) for i in lm.encode(text)]
    rng = np.random.default_rng(0)
    checks: list[float] = []
    masks: list[float] = []
    state = potential.start()
    if potential.mask is not None:
        potential.mask(state, lm.vocabulary)  # the tables of a vocabulary are made once
    for token in tokens:
        if potential.mask is not None:
            masks.append(timed(lambda state=state: potential.mask(state, lm.vocabulary))[0])
        others = rng.choice(lm.vocabulary.text_ids, OTHERS)
        answers = [
            timed(lambda s=state, t=t: potential.advance(s, t))
            for t in [token, *(bytes(lm.vocabulary.tokens[i]) for i in others)]
        ]
        checks.append(mean(seconds for seconds, _ in answers))
        state = answers[0][1]
        assert state is not None, f"{potential!r} rejects {token!r} in {text!r}"
    end, accepted = timed(lambda: potential.accepts(state))
    assert accepted, f"{potential!r} rejects the end of {text!r}"
    quarter = max(1, len(tokens) // 4)
    row = {"tokens": float(len(tokens)), "end": 1000 * end}
    for name, seconds in (("check", checks), ("mask", masks)):
        if seconds:
            row[f"{name}, early"] = 1000 * mean(seconds[:quarter])
            row[f"{name}, late"] = 1000 * mean(seconds[-quarter:])
    return row


def timed(evaluate: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = evaluate()
    return time.perf_counter() - started, answer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="SmolLM2's tokens alone")
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    columns = ("tokens", "check, early", "check, late", "mask, early", "mask, late", "end")
    results: dict[str, Any] = {}
    for model in given.model or (MODELS[:1] if given.quick else MODELS):
        lm = LM.embedded(cast(Any, model))
        print(f"\n{model}, {lm.vocabulary.size} tokens; milliseconds\n{'':18}", end="")
        print("".join(f"{column:>14}" for column in columns))
        for name, (potential, text) in cases(given.data).items():
            row = results.setdefault(model, {})[name] = measure(potential, text, lm)
            cells = (f"{row[c]:14.3f}" if c in row else f"{'':14}" for c in columns[1:])
            print(f"{name:18}{row['tokens']:14.0f}{''.join(cells)}", flush=True)
    if given.json:
        Path(given.json).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
