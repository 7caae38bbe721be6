"""`awrs-ppl run PROGRAM --inputs FILE.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from awrs_ppl import Posterior, ToyLM, run
from awrs_ppl.cli import cli

PROGRAM = """
from awrs_ppl.potentials import Regex

async def model(ctx, lm, topic, times=1):
    print("noise")
    if topic == "bad":
        raise ValueError("no such topic")
    if topic == "dead":
        await ctx.condition(False)
    return times * await ctx.generate(lm("a" if topic == "x" else "b") * Regex("[ab]"))

async def none(ctx):
    return 1
"""


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "_language_model", lambda name: ToyLM(["a", "b", "c"], seed=3))
    monkeypatch.chdir(tmp_path)
    Path("program.py").write_text(PROGRAM)

    def command(lines: list[str], *arguments: str, function: str = "model"):
        Path("inputs.jsonl").write_text("\n".join(lines))
        status = cli.main(
            ["run", f"program.py:{function}", "--inputs", "inputs.jsonl", "--seed", "1", *arguments]
        )
        out, err = capsys.readouterr()
        return status, out, err

    return command


def test_each_line_is_an_input_in_order(command):
    status, out, err = command(['"x"', "", '{"topic": "y", "times": 2}'], "--json")
    assert status == 0
    assert "noise" in err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["input"] for row in rows] == [{"topic": "x"}, {"topic": "y", "times": 2}]

    async def model(ctx, prompt):
        from awrs_ppl.potentials import Regex

        return await ctx.generate(ToyLM(["a", "b", "c"], seed=3)(prompt) * Regex("[ab]"))

    for row, prompt, times in zip(rows, "ab", (1, 2), strict=True):
        found = row["posterior"]
        alone = run(model, prompt, seed=found["seed"], progress=False)
        assert found["log_ml"] == pytest.approx(alone.log_ml)
        shares = {one["value"]: one["probability"] for one in found["probabilities"]}
        assert shares == pytest.approx({times * k: v for k, v in alone.probabilities.items()})


def test_likeliest_value_of_each_is_printed(command):
    status, out, _ = command(['"x"', '"y"'])
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["0", "1"]
    assert all(0.5 <= float(line.split()[1]) <= 1 for line in out.splitlines())


def test_inputs_without_results_are_named_and_the_others_done(command):
    status, out, err = command(['"x"', '"bad"', '"dead"', '"y"'])
    assert status == 1
    assert [line.split()[0] for line in out.splitlines()] == ["0", "3"]
    assert "input 1: ValueError: no such topic" in err
    assert "input 2: " in err
    assert "2 of 4 inputs have no results" in err


def test_saved_results_are_read(command, tmp_path):
    first = command(['"x"', '"y"'], "--save", "kept")
    files = sorted(Path("kept").glob("*-*.json.gz"))
    assert len(files) == 2
    assert Posterior.load(files[0]).values
    again = command(['"x"', '"y"'], "--save", "kept")
    assert again[1] == first[1]
    assert "noise" not in again[2]
    status, _, err = command(['"x"', '"y"'], "--save", "kept", "--particles", "3")
    assert status == 2
    assert "give another folder" in err


@pytest.mark.parametrize(
    ("lines", "function", "message"),
    [
        (["{x"], "model", "line 1: '{x' is no JSON"),
        (['{"times": 2}'], "model", "needs topic"),
        (['"x"', '{"topic": "x", "other": 1}'], "model", "line 2"),
        (['{"topic": "x", "lm": 1}'], "model", "line 1"),
        (["3"], "none", "is no object"),
    ],
)
def test_lines_that_do_not_fit_are_quoted(command, lines, function, message):
    status, out, err = command(lines, function=function)
    assert (status, out) == (2, "")
    assert message in err


def test_options_that_do_not_go_together(command, capsys):
    assert command(['"x"'], "--partial")[0] == 2
    assert cli.main(["run", "program.py:none", "--save", "kept"]) == 2
    assert "--inputs" in capsys.readouterr().err


def test_program_without_a_model_and_no_lines(command):
    assert command(["{}", "{}"], function="none")[:2] == (
        0,
        "     0  1.0000  1\n     1  1.0000  1\n",
    )
    assert command([], function="none")[:2] == (0, "")
