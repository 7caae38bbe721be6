"""What is written to the log, and that nothing is where nobody set one up."""

from __future__ import annotations

import subprocess
import sys

import pytest

from awrs_ppl import Context, ToyLM, infer


async def model(ctx: Context) -> str:
    lm = ToyLM(["a", "b"], seed=2)
    text = await ctx.generate(lm("a"), max_tokens=6)
    await ctx.factor(-2.0 * text.count("b"))
    return text


async def test_inference_writes_begin_end_and_resamplings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("DEBUG", logger="awrs_ppl"):
        posterior = await infer(model, n_particles=8, runs=2, seed=3, progress=False)
    records = [record for record in caplog.records if record.name.startswith("awrs_ppl")]
    assert {record.name for record in records} == {"awrs_ppl.inference.logger"}
    info = [record.getMessage() for record in records if record.levelname == "INFO"]
    first, last = info
    assert first == "model: inference of 8 particles in each of 2 runs begins, seed 3"
    assert f"log_ml {posterior.log_ml:.2f}, ESS {posterior.ess:.1f} of 16" in last
    assert f"{posterior.stats.tokens} tokens in " in last
    debug = [record.getMessage() for record in records if record.levelname == "DEBUG"]
    resampled = sum(sync.chosen for part in posterior.parts for sync in part.history)
    assert len(debug) == resampled > 0
    assert all(line.startswith(("run 1, step", "run 2, step")) for line in debug)


async def test_end_of_an_interrupted_inference_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="awrs_ppl"):
        await infer(model, seed=0, progress=False, timeout=0)
    assert "inference timed out: log_ml -inf" in caplog.messages[-1]


@pytest.mark.parametrize("level", [None, "INFO"])
def test_log_is_silent_until_it_is_set_up(level: str | None) -> None:
    code = f"""
import awrs_ppl, logging
root = list(logging.root.handlers)
if {level!r}:
    logging.basicConfig(level={level!r})
log = logging.getLogger("awrs_ppl.some.module")
log.info("for those who ask")
log.warning("for everyone")
assert {level!r} or logging.root.handlers == root == []
assert not logging.getLogger("awrs_ppl").handlers
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("for those who ask" in done.stderr) == (level is not None)
    assert done.stderr.count("for everyone") == 1
    assert done.stdout == ""
