"""What reads untrusted text, given what a fuzzer invents that sees which code it reaches.

*Texts* (a model writes them): `json`, `sql`, `smiles`, `goal`. A potential says the same whether
the bytes come at once, one by one or in two parts; but for goals, what it accepts, the library
that it stands for accepts. *Sources* (a user finds them somewhere): `pattern`, `schema`,
`grammar`. They are rejected with an error of the library, or the potential that they make says
the same.

    pip install --group fuzz
    python tests/fuzz/by_coverage.py TARGET [--seconds 60]

The exit status is 0 where nothing was found; else the input is shown, and kept in the folder
that is named. It is not a part of the tests that pytest runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

try:
    atheris: Any = importlib.import_module("atheris")
except ImportError:  # pytest looks into every file for examples
    atheris = None

with atheris.instrument_imports(include=["awrs_ppl"]) if atheris else contextlib.nullcontext():
    from awrs_ppl.errors import AwrsError
    from awrs_ppl.potentials import Grammar, JsonSchema, PddlGoal, Regex, Smiles, Sql

DATA = Path(__file__).parents[1] / "data"
LONGEST = 200
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "pattern": "^[A-Z]"},
        "age": {"type": "integer", "minimum": 3},
        "tags": {"type": "array", "items": {"enum": ["a", 1.5, None]}, "maxItems": 2},
        "any": {"anyOf": [{"type": "boolean"}, {"$ref": "#/properties/tags"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
}
Judge = Callable[[bytes], None]
# What judges inputs, and some to begin with.
Target = tuple[Judge, list[bytes]]


def state_after(factor: Any, parts: Iterable[bytes]) -> Any:
    """The state after bytes that come in parts; None where one is rejected."""
    state = factor.start()
    for part in parts:
        if state is None:
            return None
        state = factor.advance(state, part)
    return state


def accepts(potential: Any, data: bytes) -> bool:
    """Whether a text may end, which is the same however its bytes come."""
    product = getattr(potential, "target", None)
    factors = [factor.potential for factor in product.boolean] if product else [potential]
    half = len(data) // 2
    found = True
    for factor in factors:
        verdicts = []
        for parts in ([data], [data[:half], data[half:]], [bytes([byte]) for byte in data]):
            state = state_after(factor, [part for part in parts if part])
            verdicts.append((state is not None, state is not None and bool(factor.accepts(state))))
        assert len(set(verdicts)) == 1, f"{factor}: at once, in halves, byte by byte: {verdicts}"
        found = found and verdicts[0][1]
    return found


# --- texts ----------------------------------------------------------------------------------


def json_texts() -> Target:
    import jsonschema

    schema = JsonSchema(SCHEMA)

    def judge(data: bytes) -> None:
        if accepts(schema, data):
            jsonschema.validate(json.loads(data), SCHEMA)

    return judge, [b'{"name": "Al", "age": 3, "tags": ["a", null], "any": true}']


def sql_texts() -> Target:
    sql = Sql(DATA / "concert_singer.sqlite")

    def judge(data: bytes) -> None:
        if accepts(sql, data):
            assert sql._engine.database.error(data.decode()) is None

    return judge, [b"SELECT count(*) FROM singer WHERE age > 3"]


def smiles_texts() -> Target:
    from rdkit import Chem, rdBase

    rdBase.DisableLog("rdApp.*")
    smiles = Smiles()

    def judge(data: bytes) -> None:
        if accepts(smiles, data):
            assert Chem.MolFromSmiles(data.decode().strip()) is not None

    return judge, [b"CC(=O)Oc1ccccc1C(=O)O", b"C[N+](C)(C)[C@@H]1CC1"]


def goal_texts() -> Target:
    problem = json.loads((DATA / "blocksworld" / "problems.jsonl").read_text().splitlines()[0])
    domain = (DATA / "blocksworld" / "domain.pddl").read_text()
    goal = PddlGoal(domain, problem["problem"])

    def judge(data: bytes) -> None:
        accepts(goal, data)

    return judge, [b" (on-table b1) (clear b1)))", b" (on b1 b2) (holding b3)))"]


# --- sources: each input is a source, a zero byte, a text ------------------------------------


def judge_of(name: str, kind: Callable[[str], Any], truth: Any = None) -> Judge:
    """The judge of potentials that are made from a source by `kind`."""

    def judge(data: bytes) -> None:
        source, _, text = data.partition(b"\0")
        try:
            potential = kind(source.decode("utf-8", "replace"))
        except (json.JSONDecodeError, RecursionError):
            return
        except (AwrsError, TypeError, ValueError) as error:
            if name not in str(error):
                raise  # it does not say what is wrong with what
            return
        try:
            accepted = accepts(potential, text)
        except AwrsError:
            return
        # Only what says the truth may give up in its own ways.
        with contextlib.suppress(TimeoutError, UnicodeDecodeError, MemoryError):
            assert truth is None or accepted == truth(source.decode(), text.decode())

    return judge


def patterns() -> Target:
    import regex

    def matches(pattern: str, text: str) -> bool:
        return regex.fullmatch(pattern, text, timeout=1) is not None

    seeds = [b"[a-z]{2,3}(ab|c)*$\0abc", b"(?i)\\p{Lu}+(?=a)\\b\0A"]
    return judge_of("Regex", Regex, matches), seeds


def schemas() -> Target:
    def schema(source: str) -> Any:
        return JsonSchema(json.loads(source))

    return judge_of("JsonSchema", schema), [json.dumps(SCHEMA).encode() + b'\0{"name":']


def grammars() -> Target:
    return judge_of("Grammar", Grammar), [b'start: "a" start | /[b-d]+/\0ab']


TARGETS: dict[str, Callable[[], Target]] = {
    "json": json_texts,
    "sql": sql_texts,
    "smiles": smiles_texts,
    "goal": goal_texts,
    "pattern": patterns,
    "schema": schemas,
    "grammar": grammars,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    if atheris is None:
        parser.error("atheris is not installed: pip install --group fuzz")
    judge, seeds = TARGETS[given.target]()
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{given.target}-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
        judge(seed)
    print(f"what is found is kept in {folder}", file=sys.stderr)
    atheris.Setup(
        [
            sys.argv[0],
            f"-artifact_prefix={folder}/",
            f"-max_total_time={given.seconds}",
            f"-max_len={LONGEST}",
            "-timeout=60",
            "-rss_limit_mb=6000",
            str(corpus),
        ],
        judge,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
