"""Tasks as users have them: each script runs, and what it gives is judged without the library.

By default on SmolLM2 135M: what so small a model says may be foolish, but it keeps the rules. With
`--model NAME` on that one; Qwen2.5-Coder must read all five invoices.
"""

from __future__ import annotations

import datetime
import importlib.util
import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from awrs_ppl import LM

SMALL = "smollm2-135m"
pytestmark = pytest.mark.slow


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lm" in metafunc.fixturenames:
        models = metafunc.config.option.model or [SMALL]
        metafunc.parametrize("lm", models, indirect=True, scope="module")


@pytest.fixture(scope="module")
def lm(request: pytest.FixtureRequest) -> LM:
    return LM(request.param)


def task(name: str) -> ModuleType:
    """A script beside this file. Some are called as modules of others are, so by its path."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"tasks_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_invoices_that_are_read_add_up(lm: LM) -> None:
    script = task("invoices")
    found: list[Any] = [invoice for invoice in script.main(lm) if invoice is not None]
    for invoice in found:
        assert script.Invoice.model_validate_json(invoice.model_dump_json()) == invoice
        total = sum(round(100 * line.price) * line.quantity for line in invoice.lines)
        assert total == round(100 * invoice.total)
    assert len(found) >= (len(script.TEXTS) if "qwen" in lm.name else 1)


def test_the_query_runs_and_has_the_rows_that_sqlite_gives(lm: LM) -> None:
    script = task("sql")
    query, rows = script.main(lm)
    with closing(sqlite3.connect(f"{script.DATABASE.as_uri()}?mode=ro", uri=True)) as connection:
        assert connection.execute(query).fetchall() == rows


def test_the_lines_of_the_haiku_have_five_seven_and_five_syllables(lm: LM) -> None:
    poem = task("poetry").main(lm)
    assert [syllables(line) for line in poem.splitlines()] == [5, 7, 5]


def syllables(line: str) -> int:
    """By hand: a vowel after what is none, but an e at the end of a word that has others."""
    count = 0
    for word in "".join(c if c.isalpha() else " " for c in line.lower()).split():
        vowels = [c in "aeiouy" for c in word]
        found = sum(
            now and not before for now, before in zip(vowels, [False, *vowels], strict=False)
        )
        silent = word.endswith("e") and len(word) > 1 and not vowels[-2]
        count += max(1, found - silent)
    return count


def test_what_fills_a_gap_leads_to_the_right_side(lm: LM) -> None:
    script = task("infilling")
    found = script.main(lm)
    for posterior in found.values():
        assert all(re.fullmatch(r"( [a-z]+){2,8},", middle) for middle in posterior.values)

    def follows(middle: str) -> float:
        return scores[middle]

    scores: dict[str, float] = {}
    for middle in {middle for posterior in found.values() for middle in posterior.values}:
        scores[middle] = score(lm, script.LEFT + middle, script.RIGHT)
    both, left = (found[name].expect(follows) for name in ("both sides", "left side alone"))
    print(f"log-probability of the right side {both:.1f}, without looking at it {left:.1f}")
    assert both > left


def score(lm: LM, prompt: str, text: str) -> float:
    """The log-probability of a text, from the logits of the model itself."""
    import torch

    context, ids = lm.prompt_ids(prompt), lm(prompt).encode(text)
    model = lm.engine.model  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *ids]])).logits[0].float()
    rows = torch.log_softmax(logits[len(context) - 1 : -1], -1)
    return float(rows[range(len(ids)), list(ids)].sum())


def test_scored_and_drawn_words_have_the_same_probability(lm: LM) -> None:
    found = task("classification").main(lm)
    assert len(found) == 6
    for _, _, scored, drawn in found:
        assert math.isclose(scored, drawn, abs_tol=1e-3)


def test_the_calculator_is_right_and_its_result_is_in_the_answer(lm: LM) -> None:
    expression, result, sentence = task("tools").main(lm)
    assert re.fullmatch(r"\d+ [-+*] \d+", expression)
    assert eval(expression) == result
    assert str(result) in sentence.split()


def test_the_answer_of_a_conversation_keeps_its_rules(lm: LM) -> None:
    answer = task("chat").main(lm)
    assert "tea" not in answer.lower()
    assert "coffee" not in answer.lower()
    assert 4 <= len(answer.split()) <= 12
    assert answer.endswith(".")


def test_a_posterior_can_be_read_kept_and_loaded(lm: LM) -> None:
    found = task("notebook").main(lm)
    posterior, loaded, frame = found["posterior"], found["loaded"], found["frame"]
    assert loaded.values == posterior.values
    assert loaded.log_weights.tolist() == posterior.log_weights.tolist()
    assert loaded.log_ml == posterior.log_ml
    assert loaded.probabilities == posterior.probabilities
    assert str(loaded) == str(posterior)
    assert len(frame) == len(posterior)
    of_places = frame.groupby("place")["probability"].sum()
    assert found["places"] == pytest.approx(of_places[of_places > 0].to_dict())
    assert all(posterior.mode()["animal"] in page for page in (found["html"], str(posterior)))
    assert all(size > 1000 for size in found["pictures"])


def test_answers_side_by_side_come_in_order_and_are_the_same(lm: LM) -> None:
    script = task("batch")
    alone, together = script.main(lm)
    for country, one, other in zip(script.CAPITALS, alone, together, strict=True):
        assert {found for found, _ in (*one.values, *other.values)} == {country}
        assert {city for _, city in one.values} <= set(script.CAPITALS.values())
        assert one.log_ml == pytest.approx(other.log_ml, abs=1e-3)
        # What both kept: few particles may keep others of the unlikely cities.
        assert other.top(1)[0][0] == one.mode()
        assert other.top(1)[0][1] == pytest.approx(one.top(1)[0][1], abs=1e-3)


def test_the_words_of_the_acrostic_have_its_letters_and_particles_live(lm: LM) -> None:
    script = task("word_by_word")
    posterior = script.main(lm)
    assert posterior.alive >= len(posterior) // 2
    for text in posterior.values:
        words = text.split()
        assert "".join(word[0] for word in words) == script.LETTERS
        assert len({*words}) == len(words)


def test_every_date_is_a_day_of_the_calendar(lm: LM) -> None:
    script = task("dates")
    found = script.main(lm)
    assert list(found) == list(script.SENTENCES)
    for day in found.values():
        assert datetime.datetime.strptime(day, "%Y-%m-%d").strftime("%Y-%m-%d") == day


def test_a_recipe_explains_a_recipe_better_by_more_than_the_error(lm: LM) -> None:
    found = task("compare").main(lm)
    assert found.best == "recipe"
    report = found["report"]
    assert report.runs == 4
    assert report.error is not None
    assert report.log_bayes_factor_error is not None
    assert report.log_bayes_factor < -2 * report.log_bayes_factor_error
