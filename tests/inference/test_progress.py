"""What an inference shows while it runs."""

from __future__ import annotations

import asyncio
import io
import sys
from types import ModuleType
from typing import Any

import pytest

from awrs_ppl import Bernoulli, Context, ModelError, ToyLM, infer
from awrs_ppl.inference import _progress
from awrs_ppl.inference._progress import StepInfo


async def waiting(ctx: Context) -> None:
    for _ in range(5):
        await ctx.factor(-0.5 * await ctx.sample(Bernoulli(0.5)))


async def nested(ctx: Context) -> float:
    inner = await ctx.call(infer, waiting)
    await ctx.factor(-1.0)
    return inner.log_ml


async def texts(ctx: Context) -> str:
    lm = ToyLM(["a", "b"], seed=2)
    text = await ctx.generate(lm("a"), max_tokens=6)
    await ctx.condition("bb" not in text)
    return text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


@pytest.mark.usefixtures("nowhere")
async def test_bar_in_a_terminal_is_removed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    await infer(waiting, n_particles=7, seed=0)
    lines = shown.getvalue().split("\r")
    assert any("7 particles: 0 steps" in line for line in lines)
    assert "\n" not in shown.getvalue()
    assert lines[-1].strip() == ""  # it is taken away at the end


@pytest.mark.usefixtures("nowhere")
async def test_nested_inferences_have_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    for _ in range(2):  # the second time it is shown again
        await infer(nested, n_particles=3, seed=0)
    assert shown.getvalue().count("3 particles: 0 steps") == 2
    assert "10 particles" not in shown.getvalue()


@pytest.mark.usefixtures("nowhere")
async def test_progress_in_a_log_is_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    posterior = await infer(waiting, n_particles=7, seed=0)
    assert shown.getvalue() == ""  # it was over soon
    monkeypatch.setattr(_progress, "_EVERY", 0.0)
    await infer(waiting, n_particles=7, seed=0)
    lines = shown.getvalue().splitlines()
    assert len(lines) == len(posterior.history)
    assert lines[-1].startswith("7 particles: 5 steps in 0 s, ess=")
    assert lines[-1].endswith(", alive=7")
    assert "\r" not in shown.getvalue()


@pytest.mark.usefixtures("nowhere")
async def test_progress_shows_what_survived_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    async def model(ctx: Context) -> None:
        for _ in range(3):
            await ctx.factor(-2.0 * await ctx.sample(Bernoulli(0.5)))

    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(_progress, "_EVERY", 0.0)
    posterior = await infer(model, n_particles=9, seed=0, ess_threshold=1.0)
    survived = posterior.diagnose().survived
    assert survived is not None
    assert shown.getvalue().splitlines()[-1].endswith(f", survived={100 * survived:.1f} %")


@pytest.mark.usefixtures("nowhere")
async def test_progress_switched_off_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    await infer(waiting, seed=0, progress=False)
    with pytest.raises(ModelError, match="timeout=-1"):
        await infer(waiting, timeout=-1)
    assert shown.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)
    await infer(waiting, seed=0)


async def test_bar_in_a_notebook_without_widgets_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    await infer(waiting, n_particles=7, seed=0)
    assert "\r7 particles: 0 steps" in shown.getvalue()


@pytest.mark.usefixtures("nowhere")
async def test_bars_of_runs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    await infer(nested, n_particles=3, runs=3, seed=0)
    for run in (1, 2, 3):
        assert shown.getvalue().count(f"run {run}/3, 3 particles: 0 steps") == 1
    assert "16 particles" not in shown.getvalue()  # of the inferences inside
    monkeypatch.setattr(sys, "stderr", lines := io.StringIO())
    monkeypatch.setattr(_progress, "_EVERY", 0.0)
    found = await infer(waiting, n_particles=3, runs=12, seed=0)
    steps = [line.partition(",")[0] for line in lines.getvalue().splitlines()]
    first = found.parts[: _progress._MOST]
    assert len(steps) == sum(len(part.history) for part in first)
    assert set(steps) == {f"run {run}/12" for run in range(1, len(first) + 1)}


async def test_function_gets_every_step_and_changes_nothing() -> None:
    seen: list[StepInfo] = []
    options: dict[str, Any] = {"n_particles": 6, "runs": 2, "seed": 3}
    plain = await infer(texts, progress=False, **options)
    watched = await infer(texts, progress=seen.append, **options)
    assert watched.log_ml == plain.log_ml
    assert watched.probabilities == plain.probabilities
    assert watched.log_weights.tolist() == plain.log_weights.tolist()
    for run, part in enumerate(watched.parts, 1):
        infos = [info for info in seen if info.run == run]
        assert [info.step for info in infos] == list(range(1, len(part.history) + 1))
        assert [info.ess for info in infos] == [sync.ess for sync in part.history]
        assert [info.alive for info in infos] == [sync.alive for sync in part.history]
        assert infos[-1].finished == part.alive > 0
        assert infos[0].finished == 0
        assert infos[-1].tokens == part.stats.tokens > infos[0].tokens > 0
    with pytest.raises(AttributeError):
        seen[0].step = 2  # pyright: ignore[reportAttributeAccessIssue]


async def test_exception_of_the_function_comes_out_and_leaves_nothing() -> None:
    def stop(info: StepInfo) -> None:
        if info.step == 2:
            raise LookupError("enough")

    before = len(asyncio.all_tasks())
    with pytest.raises(LookupError, match="enough"):
        await infer(waiting, seed=0, progress=stop)
    assert len(asyncio.all_tasks()) == before


@pytest.mark.parametrize("progress", ["yes", 1, None])
async def test_progress_that_is_neither_is_an_error(progress: Any) -> None:
    with pytest.raises(ModelError, match=r"progress=.*a function of one argument"):
        await infer(waiting, progress=progress)


async def test_progress_that_must_be_awaited_is_an_error() -> None:
    async def later(info: StepInfo) -> None: ...

    with pytest.raises(ModelError, match=r"nothing awaits it"):
        await infer(waiting, progress=later)
