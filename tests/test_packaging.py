"""The package as users get it: names, imports, wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import awrs_ppl

ROOT = Path(__file__).parent.parent


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout.strip()


NAMES = """
AWRS AwrsError Bernoulli BooleanPotential Categorical Context ContextLengthError Distribution
EmbeddedModelError LM LocalAWRS ModelError NoSurvivors Posterior PotentialError Prior ReplayError
ToyLM Trace Uniform VocabularyError check_replay errors infer potentials predicate product run
testing
"""


def test_public_names_are_pinned() -> None:
    pinned = NAMES.split()
    assert sorted(awrs_ppl.__all__) == sorted(pinned)
    for name in awrs_ppl.__all__:
        assert getattr(awrs_ppl, name).__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = awrs_ppl.nonsense  # pyright: ignore


def test_importing_loads_neither_torch_nor_genlm() -> None:
    heavy = "[m for m in ('torch', 'genlm', 'transformers', 'llguidance') if m in sys.modules]"
    for statement in (
        "import awrs_ppl",
        "from awrs_ppl import ModelError, NoSurvivors",
        "from awrs_ppl import Categorical, Bernoulli, Uniform",
    ):
        assert _python(f"import sys; {statement}; print({heavy})") == "[]"


def test_names_are_what_they_say_whatever_was_imported_first() -> None:
    assert (
        _python(
            "import awrs_ppl.constraints.product, awrs_ppl.potentials.predicates\n"
            "from awrs_ppl import predicate, product\n"
            "from awrs_ppl.potentials import predicate as again, product as too\n"
            "print(predicate is again, product is too, callable(predicate), callable(product))"
        )
        == "True True True True"
    )


def test_a_folder_of_the_repository_has_one_name_only() -> None:
    for folder in ("potentials", "models"):
        with pytest.raises(subprocess.CalledProcessError) as error:
            _python(f"import sys; sys.path.insert(0, '.'); import {folder}")
        assert f"import awrs_ppl.{folder}" in error.value.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, the wheel made from it, and the wheel made from the checkout."""
    place = tmp_path_factory.mktemp("dist")
    for arguments in (["-o", place / "both", ROOT], ["--wheel", "-o", place / "wheel", ROOT]):
        command = [sys.executable, "-m", "build", "--no-isolation", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = (place / "both").glob("*.tar.gz")
    (from_sdist,) = (place / "both").glob("*.whl")
    (wheel,) = (place / "wheel").glob("*.whl")
    return {"sdist": sdist, "wheel from sdist": from_sdist, "wheel": wheel}


def test_both_wheels_hold_the_files_of_the_checkout(built: dict[str, Path]) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "awrs_ppl", "models", "potentials"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout.split()
    links = {"awrs_ppl/models", "awrs_ppl/potentials"}
    wanted = {name if name.startswith("awrs_ppl/") else f"awrs_ppl/{name}" for name in listed}
    for kind in ("wheel", "wheel from sdist"):
        names = zipfile.ZipFile(built[kind]).namelist()
        assert len(names) == len(set(names))
        modules = {name for name in names if ".dist-info/" not in name}
        assert {"awrs_ppl/models/capitals.py", "awrs_ppl/py.typed"} <= modules
        if listed:  # not where the tests run outside a repository
            assert modules == wanted - links
    first, second = (zipfile.ZipFile(built[kind]) for kind in ("wheel", "wheel from sdist"))
    assert sorted(first.namelist()) == sorted(second.namelist())


def _environment(place: Path) -> Path:
    """A fresh environment that sees what this one has installed; its interpreter."""
    venv.create(place, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "beside.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin" / "python"


USED = """
import pathlib, sys
import awrs_ppl, awrs_ppl.models.capitals
from awrs_ppl.potentials import Regex
home = pathlib.Path(awrs_ppl.__file__).resolve()
lm = awrs_ppl.ToyLM(["a", "b"])
async def model(ctx):
    return await ctx.generate(lm("a") * Regex("a|b"), max_tokens=3)
print(home, sorted(awrs_ppl.run(model, n_particles=20, seed=0, progress=False).probabilities))
from awrs_ppl.cli import main
main(["--help"])
"""


def _used(python: Path, cwd: Path, **variables: str) -> list[str]:
    """The words that a program prints there, run apart from this checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    done = subprocess.run(
        [python, "-c", USED], capture_output=True, text=True, cwd=cwd, env=environment
    )
    assert "usage: awrs-ppl" in done.stdout, done.stdout + done.stderr
    return done.stdout.splitlines()[0].split(maxsplit=1)


@pytest.mark.parametrize("kind", ["sdist", "wheel from sdist", "wheel"])
def test_what_was_built_installs_and_runs(
    kind: str, built: dict[str, Path], tmp_path: Path
) -> None:
    python = _environment(tmp_path / "env")
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    before = set(site.iterdir())
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", *options, built[kind]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in set(site.iterdir()) - before}
    assert {name for name in names if not name.endswith(".dist-info")} == {"awrs_ppl"}
    home, found = _used(python, tmp_path)
    assert Path(home).is_relative_to(site.resolve())
    assert found == "['a', 'b']"
    script = subprocess.run(
        [python.parent / "awrs-ppl", "--version"], capture_output=True, text=True, cwd=tmp_path
    )
    assert awrs_ppl.__version__ in script.stdout, script.stderr


def test_the_tree_of_the_sdist_is_a_checkout(built: dict[str, Path], tmp_path: Path) -> None:
    """What an editable install puts on the path is that tree."""
    with tarfile.open(built["sdist"]) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.glob("awrs_ppl-*")
    home, found = _used(_environment(tmp_path / "env"), tmp_path, PYTHONPATH=str(tree))
    assert Path(home).is_relative_to(tree.resolve())
    assert found == "['a', 'b']"


@pytest.mark.parametrize("lost", ["a text file", "nothing", "an empty folder"])
@pytest.mark.parametrize("name", ["models", "potentials"])
def test_a_checkout_without_its_links_says_what_to_do(lost: str, name: str, tmp_path: Path) -> None:
    """As on Windows, and from archives that know no links."""
    package = tmp_path / "awrs_ppl"
    shutil.copytree(ROOT / "awrs_ppl", package, ignore=shutil.ignore_patterns(name, "__pycache__"))
    if lost == "a text file":
        (package / name).write_text(f"../{name}")
    elif lost == "an empty folder":
        (package / name).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", f"import awrs_ppl.{name}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    error = done.stderr.splitlines()[-1]
    assert error.startswith("ImportError: ")
    for part in (str(package), "../models", "../potentials", "core.symlinks true", "copies"):
        assert part in error


def test_importing_loads_few_modules() -> None:
    loaded = _python(
        "import sys; n = set(sys.modules); import awrs_ppl; print(len(set(sys.modules) - n))"
    )
    assert int(loaded) < 40
