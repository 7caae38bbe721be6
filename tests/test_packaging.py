"""The package as users get it: names, imports, wheel."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution, packages_distributions
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
AWRS AwrsError Bernoulli BooleanPotential Categorical Context ContextLengthError Diagnosis
Distribution EmbeddedModelError LM LocalAWRS ModelError NoSurvivors PaperAWRS Posterior
PotentialError Prior ReplayError SavedFileError ToyLM Trace Uniform VocabularyError WorkerError
check_replay compare errors exact infer infer_many potentials predicate product rejection run
run_many testing
"""


def test_public_names_are_pinned() -> None:
    pinned = NAMES.split()
    assert sorted(awrs_ppl.__all__) == sorted(pinned)
    for name in awrs_ppl.__all__:
        assert getattr(awrs_ppl, name).__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = awrs_ppl.nonsense  # pyright: ignore


def test_import_loads_neither_torch_nor_genlm() -> None:
    heavy = "[m for m in ('torch', 'genlm', 'transformers', 'llguidance') if m in sys.modules]"
    for statement in (
        "import awrs_ppl",
        "from awrs_ppl import ModelError, NoSurvivors",
        "from awrs_ppl import Categorical, Bernoulli, Uniform",
    ):
        assert _python(f"import sys; {statement}; print({heavy})") == "[]"


@pytest.mark.slow
def test_names_are_the_same_whatever_was_imported_first() -> None:
    assert (
        _python(
            "import awrs_ppl.constraints.product, awrs_ppl.potentials.predicates\n"
            "from awrs_ppl import predicate, product\n"
            "from awrs_ppl.potentials import predicate as again, product as too\n"
            "print(predicate is again, product is too, callable(predicate), callable(product))"
        )
        == "True True True True"
    )


def test_folder_of_the_repository_has_one_name_only() -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdist", "wheel from sdist", "wheel"])
def test_distribution_installs_and_runs(kind: str, built: dict[str, Path], tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_tree_of_the_sdist_is_a_checkout(built: dict[str, Path], tmp_path: Path) -> None:
    """What an editable install puts on the path is that tree."""
    with tarfile.open(built["sdist"]) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.glob("awrs_ppl-*")
    home, found = _used(_environment(tmp_path / "env"), tmp_path, PYTHONPATH=str(tree))
    assert Path(home).is_relative_to(tree.resolve())
    assert found == "['a', 'b']"


@pytest.mark.parametrize("lost", ["a text file", "nothing", "an empty folder"])
@pytest.mark.parametrize("name", ["models", "potentials"])
def test_checkout_without_its_links_says_what_to_do(lost: str, name: str, tmp_path: Path) -> None:
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


def test_import_loads_few_modules() -> None:
    loaded = _python(
        "import sys; n = set(sys.modules); import awrs_ppl; print(len(set(sys.modules) - n))"
    )
    assert int(loaded) < 40


# --- dependencies ---------------------------------------------------------------------------


def normal(name: str) -> str:
    """A distribution's name as indexes compare it, without the version or extras behind it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", name)[0]).lower()


providers = cache(packages_distributions)


@cache
def provider(module: str) -> str:
    """The distribution that a module comes from; of what is not installed, the module's name."""
    names = set(providers().get(module.partition(".")[0], ()))
    if len(names) > 1:  # a namespace
        folder = "/".join(module.split(".")[:2])
        files = {name: distribution(name).files or () for name in names}
        names = {n for n in names if any(f.as_posix().startswith(folder) for f in files[n])}
    return normal(min(names, default=module.partition(".")[0]))


def source_of(path: Path) -> str:
    """A script, or the code of a notebook."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def imports_in(node: ast.AST, *, at_import: bool = True) -> Iterator[tuple[str, bool]]:
    """The modules that code imports, each with whether that happens when the code is imported."""
    match node:
        case ast.Import(names=names):
            yield from ((alias.name, at_import) for alias in names)
        case ast.ImportFrom(module=str(module), names=names, level=0):
            # Of a namespace, what is imported may itself be the module.
            parts = [f"{module}.{a.name}" for a in names] if "." not in module else [module]
            yield from ((part, at_import) for part in parts)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            at_import = False
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            at_import = False
    for child in ast.iter_child_nodes(node):
        yield from imports_in(child, at_import=at_import)


# vLLM asks for an older llguidance than the library needs, so no extra can bring it: see LM.vllm.
UNDECLARED = {"vllm"}


def wrong_dependencies(root: Path) -> list[str]:
    """What a tree declares and does not use, or uses and does not declare."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    settings = tomllib.loads(text)
    project, groups = settings["project"], settings.get("dependency-groups", {})
    extras = {
        extra: [entry for entry in entries if normal(entry) != project["name"]]
        for extra, entries in project.get("optional-dependencies", {}).items()
    }
    required = {normal(entry) for entry in project["dependencies"]}
    optional = {normal(entry) for entries in extras.values() for entry in entries} - required
    developing = [entry for entries in groups.values() for entry in entries]
    wrong, used = [], defaultdict[str, set[str]](set)
    for part, folders, declared in (
        ("the library", ("awrs_ppl", "models", "potentials"), required | optional),
        ("development", ("tests", "tutorials"), required | optional | {*map(normal, developing)}),
    ):
        files = [file for folder in folders for file in sorted((root / folder).rglob("*.*"))]
        scripts = [file for file in files if file.suffix in (".py", ".ipynb")]
        own = {"awrs_ppl"} | {file.stem for file in scripts if part == "development"}
        for file in scripts:
            # What is loaded by its name may be made up by a test: it is a use and needs no line.
            by_name = re.findall(r"""import_module\(["']([\w.]+)""", source := source_of(file))
            used[part] |= set(map(provider, by_name))
            for module, at_import in imports_in(ast.parse(source)):
                top = module.partition(".")[0]
                if top in sys.stdlib_module_names or top in own:
                    continue
                if top in UNDECLARED and not at_import:
                    continue
                used[part].add(name := provider(module))
                where = f"{file.relative_to(root).as_posix()} imports {module}"
                if name not in declared:
                    wrong.append(f"{where}: {name} is not declared for {part}")
                elif at_import and part == "the library" and name in optional:
                    wrong.append(f"{where} when it is loaded: {name} is an extra")
    library = [*project["dependencies"], *(entry for some in extras.values() for entry in some)]
    for part, entries in (("the library", library), ("development", developing)):
        for entry in entries:
            says = re.search(rf"""["']{re.escape(entry)}["'].*#""", text)
            if normal(entry) not in used[part] and not says:
                wrong.append(f"{entry} is declared and nothing in {part} imports it")
    (everything,) = project.get("optional-dependencies", {}).get("all", [""])
    # Ray is for those who have a cluster, and large.
    if left := extras.keys() - {"all", "ray"} - set(re.findall(r"\w+", everything)):
        wrong.append(f"the extra all lacks {sorted(left)}")
    return sorted(set(wrong))


@pytest.mark.slow
def test_dependencies_are_declared_and_used() -> None:
    assert wrong_dependencies(ROOT) == []


def test_wrong_dependencies_of_a_made_up_tree_are_found(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        """
[project]
name = "awrs-ppl"
dependencies = [
    "numpy>=2.0",
    "genlm-control",
    "Jinja2",  # templates need it
    "tqdm",
]
[project.optional-dependencies]
molecules = ["rdkit", "regex"]
display = ["pandas", "matplotlib>=3"]
all = ["awrs-ppl[display]"]
[dependency-groups]
dev = [
    "pytest",
    "hypothesis",
    "ruff",  # make check
    "atheris",
]
"""
    )
    sources = {
        "awrs_ppl/one.py": "import numpy as np, os.path, scipy.stats\nfrom awrs_ppl import two\n"
        "from genlm import control, backend\nfrom . import two",
        "awrs_ppl/two.py": "from typing import TYPE_CHECKING\nimport rdkit.Chem, hypothesis\n"
        "if TYPE_CHECKING:\n    import pandas as pd\n"
        "def plot():\n    import matplotlib.pyplot\n    import not_installed",
        "tests/test_one.py": "import pytest, helper, genlm.control.sampler\n"
        "import importlib\natheris = importlib.import_module('atheris')\n"
        "importlib.import_module('made_up')",
        "tests/deep/helper.py": "import lark",
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    notebook = {"cells": [{"cell_type": "code", "source": ["await x\n", "import selenium"]}]}
    (tmp_path / "tutorials").mkdir()
    (tmp_path / "tutorials" / "one.ipynb").write_text(json.dumps(notebook))
    assert wrong_dependencies(tmp_path) == [
        "awrs_ppl/one.py imports genlm.backend: genlm-backend is not declared for the library",
        "awrs_ppl/one.py imports scipy.stats: scipy is not declared for the library",
        "awrs_ppl/two.py imports hypothesis: hypothesis is not declared for the library",
        "awrs_ppl/two.py imports not_installed: not-installed is not declared for the library",
        "awrs_ppl/two.py imports rdkit.Chem when it is loaded: rdkit is an extra",
        "hypothesis is declared and nothing in development imports it",
        "regex is declared and nothing in the library imports it",
        "tests/deep/helper.py imports lark: lark is not declared for development",
        "the extra all lacks ['molecules']",
        "tqdm is declared and nothing in the library imports it",
        "tutorials/one.ipynb imports selenium: selenium is not declared for development",
    ]
