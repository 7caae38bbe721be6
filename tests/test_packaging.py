"""The package as users get it: names, imports, wheel."""

from __future__ import annotations

import subprocess
import sys
import time
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
ToyLM Trace Uniform VocabularyError check_replay errors infer potentials predicate product run testing
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
            "import awrs_ppl.products, awrs_ppl.potentials.predicates\n"
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


def test_the_wheel_holds_one_package(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"awrs_ppl"}
    for expected in (
        "awrs_ppl/py.typed",
        "awrs_ppl/potentials/regex.py",
        "awrs_ppl/models/capitals.py",
    ):
        assert expected in names
    assert len(names) == len(set(names))


def test_the_wheel_works(tmp_path: Path) -> None:
    """Installed beside the dependencies of this environment, not from the repository."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import awrs_ppl; from awrs_ppl.potentials import Regex; import awrs_ppl.models\n"
        f"assert awrs_ppl.__file__.startswith({str(tmp_path)!r}), awrs_ppl.__file__\n"
        "print(Regex('a+'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "Regex('a+')"


def test_importing_is_quick() -> None:
    """Not a bar on time: the modules that are loaded are few. The seconds are only printed."""
    started = time.perf_counter()
    loaded = int(
        _python(
            "import sys; n = set(sys.modules); import awrs_ppl; print(len(set(sys.modules) - n))"
        )
    )
    print(f"{time.perf_counter() - started:.2f} s, {loaded} modules")
    assert loaded < 40
