"""The example programs: their results, their scores and their loaders, on real data."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from awrs_ppl import LM, infer
from awrs_ppl.models import (
    goal_inference,
    infilling,
    json_schema,
    molecules,
    pattern_matching,
    riddle,
    text_to_sql,
    two_prompts,
)
from awrs_ppl.potentials import Qed, Reachable

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def lm() -> LM:
    return LM.embedded("smollm2-135m")


async def values(program: Any, *args: Any, n: int = 4, **options: Any) -> list[Any]:
    """The results of a run, by weight."""
    posterior = await infer(
        partial(program, **options), *args, n_particles=n, seed=1, progress=False
    )
    return list(posterior.probabilities)


@pytest.mark.slow
async def test_pattern_matching_gives_matches(lm: LM, tmp_path: Path) -> None:
    file = tmp_path / "patterns.csv"
    file.write_text('pattern\n"a{1,3}"\n(\\w)\\1\n')
    patterns = pattern_matching.load(file)
    assert patterns == ["a{1,3}", r"(\w)\1"]
    found = await values(pattern_matching.pattern_matching, lm, patterns[0])
    assert found
    assert all(pattern_matching.score(patterns[0], text) == 1 for text in found)
    assert pattern_matching.score(patterns[1], "ab") == 0


@pytest.mark.slow
async def test_json_schema_gives_valid_documents(lm: LM) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, 22, 333]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    found = await values(json_schema.json_schema, lm, schema, max_tokens=40)
    assert found
    assert all(json_schema.score(schema, text) == 1 for text in found)
    assert json_schema.score(schema, '{"n": "1"}') == json_schema.score(schema, "{") == 0
    assert len(json_schema.load(DATA / "json_schemas.jsonl")) > 1


@pytest.mark.slow
async def test_text_to_sql_gives_queries_that_run(lm: LM, tmp_path: Path) -> None:
    database = DATA / "concert_singer.sqlite"
    pairs = [
        ("How many singers do we have?", "SELECT count(*) FROM singer"),
        ("What are their names?", "SELECT name FROM singer"),
        ("Where do they come from?", "SELECT DISTINCT country FROM singer"),
        ("Which stadiums are there?", "SELECT name FROM stadium"),
    ]
    file = tmp_path / "questions.jsonl"
    lines = [{"db_id": "concert_singer", "question": q, "query": s} for q, s in pairs]
    file.write_text("\n".join(map(json.dumps, [*lines, {**lines[0], "db_id": "another"}])))
    tasks = text_to_sql.load(file, database)
    assert [task.question for task in tasks] == [question for question, _ in pairs]
    assert all(task.query not in dict(task.examples).values() for task in tasks)
    assert "CREATE TABLE" in tasks[0].tables
    critic = text_to_sql.finds_rows(tasks[0])
    found = await values(text_to_sql.text_to_sql, lm, tasks[0], max_tokens=25, critic=critic)
    assert all(text_to_sql.Sql(database).rows(query) is not None for query in found)
    assert text_to_sql.score(tasks[0], "SELECT count(singer_id) FROM singer") == 1
    assert text_to_sql.score(tasks[0], "SELECT count(*) FROM stadium") == 0
    assert text_to_sql.score(tasks[0], "DROP TABLE singer") == 0
    assert await critic.complete(b"SELECT name FROM singer WHERE age > 200") < 0


@pytest.mark.slow
async def test_molecules_gives_molecules(lm: LM) -> None:
    known = molecules.load(DATA / "molecules.smi", count=5)
    assert len(set(known)) == 5
    assert known == molecules.load(DATA / "molecules.smi", count=5)
    found = await values(molecules.molecules, lm, known, max_tokens=30, critic=Qed())
    assert all(molecules.score(known, smiles) > 0 for smiles in found)
    assert molecules.score(known, "C1CC") == molecules.score(known, "") == 0


@pytest.mark.slow
async def test_goal_inference_gives_closed_goals(lm: LM, tmp_path: Path) -> None:
    problems = (DATA / "blocksworld" / "problems.jsonl").read_text().splitlines()
    file = tmp_path / "tasks.jsonl"
    lines = [
        {"problem": json.loads(line)["problem"], "init_text": "So it is.", "goal_text": "So be it."}
        for line in problems[:2]
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    first, second = goal_inference.load(file, DATA / "blocksworld" / "domain.pddl")
    assert second.problem.endswith("(:goal (and")
    assert goal_inference.score(second, second.goal) == 1
    assert goal_inference.score(second, " (arm-empty)))") == 0
    critic = Reachable(second.domain, second.problem)
    found = await values(
        goal_inference.goal_inference, lm, second, first, max_tokens=60, critic=critic
    )
    assert all(goal.strip().endswith(")))") for goal in found)


@pytest.mark.slow
async def test_infilling_two_prompts_and_riddle_give_texts(lm: LM) -> None:
    assert await values(infilling.infilling, lm, "She opened the door, and", ", so she closed it.")
    assert await values(two_prompts.two_prompts, lm, "A fruit, for example the", "Yellow, like the")
    for text in await values(riddle.riddle, lm):
        described, _, name = text.partition(" —")
        assert described.startswith("Let me describe a well-known")
        assert name.strip().lower() not in described.lower()
