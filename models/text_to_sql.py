"""Questions about a database, answered by a query that runs on it."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from awrs_ppl import LM, Context, PotentialError
from awrs_ppl.potentials import Soft, Sql


class Task(NamedTuple):
    """A question, the query that is right, the database and its tables, and three examples."""

    question: str
    query: str
    database: Path
    tables: str
    examples: tuple[tuple[str, str], ...]


async def text_to_sql(
    ctx: Context,
    lm: LM,
    task: Task,
    *,
    allowed: Any = None,
    max_tokens: int = 100,
    **options: Any,
) -> str:
    """A query for the question; `critic=finds_rows(task)` prefers one that finds something."""
    shots = "".join(f"Question: {question}\nSQL: {query};\n" for question, query in task.examples)
    query = await ctx.generate(
        lm(f"{task.tables}\n\n{shots}Question: {task.question}\nSQL:", stop="\n")
        * (allowed or Sql(task.database)),
        max_tokens=max_tokens,
        **options,
    )
    return query.strip()


def finds_rows(task: Task) -> Soft:
    """A critic that runs the query: one that finds nothing, or fails, weighs a tenth."""
    database = Sql(task.database)

    def weight(query: str) -> float:
        try:
            return 0.0 if database.rows(query) else -2.3
        except (ValueError, PotentialError):
            return -2.3

    return Soft(weight)


def score(task: Task, query: str) -> float:
    """1 if the query gives the rows of the right one, in whatever order, else 0."""
    database = Sql(task.database)
    try:
        return float(_bag(database.rows(query)) == _bag(database.rows(task.query)))
    except Exception:
        return 0.0


def _bag(rows: Iterable[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row) for row in rows)


def load(questions: str | PathLike[str], database: str | PathLike[str]) -> list[Task]:
    """The questions of a file about one database; examples are questions with other answers."""
    path = Path(database)
    lines = map(json.loads, Path(questions).read_text().splitlines())
    pairs = [(line["question"], line["query"]) for line in lines if line["db_id"] == path.stem]
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        made = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table'")
        tables = "\n".join(sql for (sql,) in made)
    tasks = []
    for question, query in pairs:
        others = [pair for pair in pairs if pair[1] != query]
        examples = tuple(others[:: len(others) // 3][:3])
        tasks.append(Task(question, query, path, tables, examples))
    return tasks
