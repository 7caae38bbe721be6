"""Goals of planning problems, described in English and written in PDDL."""

import json
import re
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from awrs_ppl import LM, Context
from awrs_ppl.potentials import PddlGoal


class Task(NamedTuple):
    """A problem described in English; in PDDL up to its goal; and the goal that is right."""

    told: str
    problem: str
    goal: str
    domain: str


async def goal_inference(
    ctx: Context,
    lm: LM,
    task: Task,
    example: Task,
    *,
    allowed: Any = None,
    max_tokens: int = 100,
    **options: Any,
) -> str:
    """The goal in PDDL; `critic=Reachable(task.domain, task.problem)` wants a plan for it."""
    return await ctx.generate(
        lm(
            f"{example.told}\n{example.problem}{example.goal}\n\n{task.told}\n{task.problem}",
            stop="\n",
        )
        * (allowed or PddlGoal(task.domain, task.problem)),
        max_tokens=max_tokens,
        **options,
    )


def score(task: Task, goal: str) -> float:
    """1 for the literals that are right, in any order, else 0."""
    return float(_literals(goal) == _literals(task.goal))


def _literals(goal: str) -> set[str]:
    return {" ".join(found.split()).lower() for found in re.findall(r"\(([^()]*)\)", goal)}


def load(tasks: str | PathLike[str], domain: str | PathLike[str]) -> list[Task]:
    """The problems of a file with one a line."""
    found = []
    for line in Path(tasks).read_text().splitlines():
        task = json.loads(line)
        cut = re.search(r"\(:goal\s*\(and", task["problem"])
        assert cut is not None
        problem, goal = task["problem"][: cut.end()], task["problem"][cut.end() :]
        described = f"{task['init_text']}\n{task['goal_text']}"
        found.append(Task(described, problem, goal.rstrip(), Path(domain).read_text()))
    return found
