"""A program on many inputs: in order, at once, resumed, and with failures that name their input."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from awrs_ppl import Categorical, ModelError, ToyLM, infer, infer_many, predicate, run_many
from awrs_ppl.errors import SavedFileError
from awrs_ppl.inference import _progress

LM = ToyLM(["a", "b", "ab", "c"], seed=4)


@predicate
def no_bb(text: str) -> bool:
    return "bb" not in text


async def text_after(ctx, prompt: str) -> str:
    first = await ctx.generate(LM(prompt) * no_bb, max_tokens=4)
    await ctx.factor(-0.3 * first.count("a"))
    return first


PROMPTS = ["a", "b", "ab", "c", "ca", "ba"]
QUIET = {"n_particles": 6, "progress": False}


async def results_of(inputs=PROMPTS, **options):
    return [found async for found in infer_many(text_after, inputs, **{**QUIET, **options})]


def told(posterior) -> tuple:
    return posterior.log_ml, tuple(posterior.values), tuple(posterior.log_weights)


@pytest.mark.parametrize("concurrency", [1, 2, 5, 50])
async def test_posteriors_are_those_of_infer_in_order(concurrency):
    found = await results_of(seed=3, concurrency=concurrency)
    assert len(found) == len(PROMPTS)
    for prompt, posterior in zip(PROMPTS, found, strict=True):
        alone = await infer(text_after, prompt, seed=posterior.seed, **QUIET)
        assert told(posterior) == told(alone)
    assert len({posterior.seed for posterior in found}) == len(PROMPTS)


async def test_seed_of_an_input_follows_from_its_number():
    all_of_them = await results_of(seed=3)
    some = await results_of(PROMPTS[:3], seed=3)
    assert [p.seed for p in some] == [p.seed for p in all_of_them[:3]]
    other = await results_of(PROMPTS[:3], seed=4)
    assert {p.seed for p in other}.isdisjoint(p.seed for p in some)
    assert [p.seed for p in await results_of(["a"])] != [p.seed for p in await results_of(["a"])]


def test_sync_form_and_no_inputs():
    assert list(run_many(text_after, [], **QUIET)) == []
    found = list(run_many(text_after, iter(PROMPTS), seed=3, **QUIET))
    assert list(map(told, found)) == list(map(told, asyncio.run(results_of(seed=3))))
    first = next(iter(run_many(text_after, PROMPTS, seed=3, **QUIET)))
    assert told(first) == told(found[0])


async def test_so_many_at_once_and_no_more_inputs_than_needed():
    running = most = read = 0

    def inputs():
        nonlocal read
        for i in range(1000):
            read += 1
            yield i

    async def model(ctx, i):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await ctx.call(asyncio.sleep, 0.001)
        running -= 1
        return i

    seen = []
    async with aclosing(
        infer_many(model, inputs(), concurrency=3, n_particles=1, progress=False)
    ) as results:
        async for posterior in results:
            seen += posterior.values
            if len(seen) == 20:
                break
    assert seen == list(range(20))
    assert most == 3
    assert read <= 20 + 4 * 3


async def test_leaving_early_stops_what_is_in_progress():
    stopped = []

    async def model(ctx, i):
        try:
            await ctx.call(asyncio.sleep, 0 if i == 0 else 3600)
        finally:
            stopped.append(i)
        return i

    async with aclosing(infer_many(model, range(4), n_particles=1, progress=False)) as results:
        assert (await anext(results)).values == [0]
    assert sorted(stopped) == [0, 1, 2, 3]
    assert len(asyncio.all_tasks()) == 1


async def picky(ctx, i):
    if i % 2:
        raise RuntimeError(f"no {i}")
    return await ctx.sample(Categorical([i, i + 10]))


async def test_failure_names_its_input_and_comes_in_its_place():
    found = [
        f
        async for f in infer_many(picky, range(5), on_error="return", n_particles=2, progress=False)
    ]
    assert [isinstance(f, RuntimeError) for f in found] == [False, True, False, True, False]
    assert any("in input 3: 3" in note for note in found[3].__notes__)
    results = infer_many(picky, range(5), n_particles=2, progress=False)
    assert (await anext(results)).values
    with pytest.raises(RuntimeError, match="no 1") as caught:
        await anext(results)
    assert any("in input 1: 1" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("abc", {}, "inputs 'abc'"),
        (3, {}, "inputs 3"),
        (["a"], {"concurrency": 0}, "concurrency"),
        (["a"], {"on_error": "ignore"}, "on_error='ignore'"),
        (["a"], {"partial": True}, "partial=True"),
        (["a"], {"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_quoted_at_once(inputs, options, message):
    with pytest.raises((ModelError, ValueError, TypeError), match=message):
        infer_many(text_after, inputs, **options)


async def test_option_of_infer_that_is_wrong_is_its_error():
    with pytest.raises(ModelError, match="n_particles"):
        await results_of(n_particles=0)


async def test_run_many_in_a_loop_says_what_to_write():
    with pytest.raises(ModelError, match="async for posterior in infer_many"):
        run_many(text_after, PROMPTS)


# --- a folder ---------------------------------------------------------------------------------


async def test_what_is_saved_is_read_and_not_done_again(tmp_path):
    times = []

    async def model(ctx, prompt):
        times.append(prompt)
        return await text_after(ctx, prompt)

    async def done(inputs, **options):
        options = {"n_particles": 1, "progress": False, "save": tmp_path / "job", **options}
        return [p async for p in infer_many(model, inputs, **options)]

    first = await done(PROMPTS[:4], seed=5)
    assert times == PROMPTS[:4]
    again = await done(PROMPTS)  # the seed is that of the folder
    assert times == PROMPTS
    assert list(map(told, again[:4])) == list(map(told, first))
    plain = [p async for p in infer_many(model, PROMPTS, seed=5, n_particles=1, progress=False)]
    assert list(map(told, again)) == list(map(told, plain))


async def test_folder_of_another_job_is_refused(tmp_path):
    await results_of(seed=1, save=tmp_path)
    for options, message in (
        ({"seed": 2}, "the seed there is 1, and now 2"),
        ({"n_particles": 7}, "the options"),
        ({"inputs": ["a", "x"]}, "another input 1, not of 'x'"),
    ):
        with pytest.raises(ModelError, match=message):
            await results_of(**{"seed": 1, "save": tmp_path, **options})
    with pytest.raises(ModelError, match="the model there is"):
        [p async for p in infer_many(picky, [0], save=tmp_path, seed=1, n_particles=6)]


async def test_damaged_files_are_named(tmp_path):
    await results_of(["a", "b"], seed=1, save=tmp_path)
    file = next(iter(sorted(tmp_path.glob("000001-*"))))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SavedFileError, match=file.name):
        await results_of(["a", "b"], seed=1, save=tmp_path)
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(ModelError, match=r"job\.json"):
        await results_of(["a", "b"], seed=1, save=tmp_path)
    (tmp_path / "job.json").unlink()
    with pytest.raises(ModelError, match=r"no job\.json"):
        await results_of(["a", "b"], seed=1, save=tmp_path)


async def test_inputs_that_cannot_be_told_apart_are_refused(tmp_path):
    async def model(ctx, thing):
        return 1

    with pytest.raises(ModelError, match="cannot be found again"):
        [p async for p in infer_many(model, [object()], save=tmp_path, progress=False)]


KILLED = """
    import sys, time
    from awrs_ppl import run_many
    async def model(ctx, i):
        def work():
            print(i, file=open(sys.argv[2], "a"), flush=True)
            time.sleep(0.02)
            return i * i
        return await ctx.call(work)
    if __name__ == "__main__":
        for p in run_many(model, range(60), save=sys.argv[1], n_particles=1, seed=0, concurrency=4):
            print(p.values[0], p.log_ml, flush=True)
"""


def test_job_that_is_killed_does_nothing_again(tmp_path):
    script, log, job = tmp_path / "script.py", tmp_path / "log", tmp_path / "job"
    script.write_text(textwrap.dedent(KILLED))
    command = [sys.executable, str(script), str(job), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(job.glob("*-*.gz"))) < 15:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finished = {int(file.name[:6]) for file in job.glob("*-*.json.gz")}
    before = log.read_text().split()
    assert len(finished) < 60, "it was too fast to be killed"
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [line.split()[0] for line in out.splitlines()] == [str(i * i) for i in range(60)]
    again = log.read_text().split()[len(before) :]
    assert finished.isdisjoint(map(int, again))
    assert len(again) == 60 - len(finished)
    assert json.loads(Path(job, "job.json").read_text())["seed"] == 0


def test_evidence_of_each_input_is_right():
    """The right number from the model's own row."""
    lm = ToyLM(["a", "b"], weights=lambda context: [1, 2, 1] if context[0] == 0 else [2, 1, 1])

    async def first_is_a(ctx, prompt):
        return await ctx.generate(lm(prompt) * predicate(lambda t: t in ("", "a")), max_tokens=2)

    found = list(run_many(first_is_a, ["a", "b"], n_particles=4, seed=0, progress=False))
    # The empty text and its end, or "a" and its end.
    assert found[0].log_ml == pytest.approx(math.log(1 / 4 + 1 / 4 * 1 / 4))
    assert found[1].log_ml == pytest.approx(math.log(1 / 4 + 2 / 4 * 1 / 4))


def test_lines_in_a_log_count_the_inputs(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "_EVERY", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # other tests import it
    list(run_many(text_after, PROMPTS, n_particles=2, seed=0))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" in ")[0] for line in lines] == [
        f"infer_many: {i} of 6 inputs" for i in range(1, 7)
    ]
