"""The code of the README and of the pages beside it runs, and prints what it says."""

from __future__ import annotations

import ast
import inspect
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import regex

from awrs_ppl import LM, infer
from awrs_ppl.models import json_schema, molecules
from awrs_ppl.potentials import PddlGoal, Sql
from awrs_ppl.testing import assert_prefix_closed

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


def cells(page: str) -> list[str]:
    """The code that `make docs` executes."""
    found = r"```\{code-cell\} ipython3\n(?::[^\n]*\n\n)?(.*?)```"
    return re.findall(found, (ROOT / page).read_text(), flags=re.DOTALL)


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_links_lead_to_files() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


async def _run(source: str, namespace: dict[str, Any]) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    # Without this module's own way to read annotations, which pydantic could not resolve there.
    code = compile(source, "README.md", "exec", flags=flags, dont_inherit=True)
    result = eval(code, namespace)
    if inspect.isawaitable(result):
        await result


@pytest.mark.slow
async def test_readme_program_prints_the_best_answer_shown(capsys: Any) -> None:
    namespace: dict[str, Any] = {}
    (block,) = blocks("README.md")
    await _run(block, namespace)
    posterior = namespace["posterior"]
    assert "France" in capsys.readouterr().out
    assert math.isfinite(posterior.log_ml)
    (shown,) = re.findall(r"this prints\n\n```\n(.*?)```", README, flags=re.DOTALL)
    # The numbers depend on the machine's rounding, the best answer does not.
    best = posterior.mode()
    assert repr(best) in shown.splitlines()[2]


async def test_potentials_of_the_docs_give_their_weights() -> None:
    namespace: dict[str, Any] = {}
    wanted = (
        "from awrs_ppl",
        "@predicate(complete",
        "class EvenBytes",
        "short = Soft",
        "from decimal",
    )
    for cell in cells("docs/potentials.md"):
        if cell.startswith(wanted):
            # What follows in a cell needs a language model.
            await _run(cell.partition("\n\n\nasync def")[0], namespace)
    balanced, even = namespace["balanced"], namespace["EvenBytes"]()
    await assert_prefix_closed(balanced, ["(a)(", "())", "((b)"])
    assert await balanced.complete(b"(()") == -math.inf
    assert await even.complete(b"ab") == 0.0
    assert await even.complete(b"abc") == -math.inf
    assert await namespace["short"].complete(b"four") == -2.0
    allowed, text = namespace["allowed"], namespace["text"]
    assert namespace["invoice"].total * 2 == 3
    assert await allowed.complete(text.encode()) == 0.0
    assert await allowed.prefix(text.replace("1.5", "1.6").encode()) == -math.inf


@pytest.mark.slow
async def test_domains_of_the_docs_give_allowed_texts() -> None:
    namespace: dict[str, Any] = {"lm": LM.embedded()}
    imports, *found = cells("docs/domains.md")[1:]
    programs = [
        cell.partition("\n\n\n")[0].rstrip() for cell in found if cell.startswith("async def")
    ]
    assert len(programs) == 5
    for source in (imports, *programs):
        await _run(source, namespace)
        assert source is imports or len(source.splitlines()) <= 5

    async def results(name: str, *args: Any, n: int = 4) -> list[str]:
        posterior = await infer(namespace[name], *args, n_particles=n, seed=0, progress=False)
        assert posterior.values
        return posterior.values

    (chat,) = (block for block in blocks("docs/bigger_models.md") if "Write one SQLite" in block)
    await _run(chat, namespace)
    assert [*inspect.signature(namespace["answer"]).parameters][:2] == ["ctx", "lm"]

    for text in await results("date"):
        assert regex.fullmatch(r" (\d{4})-\d\d-11 \(\1\)", text)
    fields = {"name": {"type": "string"}, "age": {"type": "integer"}}
    for text in await results("person"):
        assert json_schema.score({"properties": fields, "required": [*fields]}, text) == 1.0
    path = DATA / "concert_singer.sqlite"
    shot = "Question: How many stadiums are there?\nSQL: SELECT count(*) FROM stadium;\n"
    for text in await results("query", path, "How many singers are there?", shot):
        Sql(path).rows(text)
    known = (DATA / "drugs.smi").read_text().split()
    for text in await results("molecule", known, n=8):
        assert molecules.score([], text.strip()) > 0.0
    domain = (DATA / "blocksworld" / "domain.pddl").read_text()
    line = (DATA / "blocksworld" / "problems.jsonl").read_text().splitlines()[0]
    problem = json.loads(line)["problem"]
    prefix = problem[: problem.index("(and") + len("(and")]
    for text in await results("goal", "", prefix, domain):
        assert await PddlGoal(domain, prefix).complete(text.encode()) == 0.0
