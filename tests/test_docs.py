"""Every public name says what it is, and shows it; the guide is built strictly."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from awrs_ppl import errors

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

MODULES = ("awrs_ppl", "awrs_ppl.potentials", "awrs_ppl.testing", "awrs_ppl.genlm")
NAMES = [(module, name) for module in MODULES for name in importlib.import_module(module).__all__]
ERRORS = [("awrs_ppl.errors", name) for name in errors.__all__]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=".".join)
def test_public_name_has_a_docstring_with_an_example(module: str, name: str) -> None:
    thing = getattr(importlib.import_module(module), name)
    docstring = inspect.getdoc(thing) or ""
    assert docstring
    # Modules and exceptions are described in words; examples of all others run as doctests.
    described = inspect.ismodule(thing) or (inspect.isclass(thing) and issubclass(thing, Exception))
    if not described:
        assert ">>>" in docstring, f"{module}.{name} has no example"


# Classes whose objects a user meets and does not make.
GIVEN = ("lm.PromptedLM", "posterior.explanation.Explanation", "posterior.posterior.Stats")


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _documented() -> list[Any]:
    """What the directives of the reference are about."""
    found: list[Any] = []
    for page in (DOCS / "reference").glob("*.rst"):
        for kind, path in re.findall(r"^\.\. auto(\w+):: ([\w.]+)", page.read_text(), re.MULTILINE):
            if kind == "module":
                module = importlib.import_module(path)
                found += (getattr(module, name) for name in getattr(module, "__all__", ()))
            else:
                found.append(_named(path))
    return found


def test_every_public_name_is_in_the_reference() -> None:
    documented = _documented()
    public = [
        *(f"{module}.{name}" for module, name in (*NAMES, *ERRORS)),
        *(f"awrs_ppl.{name}" for name in GIVEN),
    ]
    missing = [
        name
        for name in public
        if not inspect.ismodule(_named(name)) and not any(_named(name) is one for one in documented)
    ]
    assert not missing, "write a line as `.. autoclass:: NAME` in a page of docs/reference"


def _build(source: Path, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Build as `make docs` does."""
    recipe = re.search(r"-m sphinx (.*?) docs build/docs", (ROOT / "Makefile").read_text(), re.S)
    assert recipe is not None
    strict = recipe[1].replace("\\\n", " ").replace("build/doctrees", str(target / "doctrees"))
    command = [sys.executable, "-m", "sphinx", *strict.split(), *options]
    command += [str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


PAGE = """---
file_format: mystnb
kernelspec: {name: python3}
---

# A page

"""
CELL = "```{code-cell} ipython3\n%s\n```\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (CELL % "1 + 1", None),
        (CELL % "1 / 0", "ZeroDivisionError"),
        (CELL % "import warnings; warnings.warn('old')", "stderr"),
        ("[there](nowhere.md)", "nowhere"),
        ("[there](#nowhere)", "nowhere"),
        ("{func}`awrs_ppl.nothing`", "awrs_ppl.nothing"),
        ("<img src='https://example.org/image.png'>", "example.org"),
    ],
    ids=["whole", "raises", "warns", "link to a page", "link to a section", "name", "network"],
)
def test_page_with_a_fault_fails_the_build(
    tmp_path: Path, content: str, complaint: str | None
) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    shutil.copy(DOCS / "conf.py", source)
    shutil.copytree(DOCS / "_static", source / "_static")
    (source / "index.md").write_text(PAGE + content)
    built = _build(source, tmp_path / "built")
    if complaint is None:
        assert built.returncode == 0, built.stderr
        assert "2" in (tmp_path / "built" / "index.html").read_text()
    else:
        assert built.returncode != 0
        assert complaint in built.stderr


# Cells that are not executed have no language by which they could be coloured.
OFF = ("-D", "nb_execution_mode=off", "-D", "suppress_warnings=myst-nb.lexer")


@pytest.mark.slow
def test_reference_has_what_a_class_has_and_no_more(tmp_path: Path) -> None:
    built = _build(DOCS, tmp_path, *OFF)
    assert built.returncode == 0, built.stderr
    models = (tmp_path / "reference" / "models.html").read_text()
    posterior = (tmp_path / "reference" / "posterior.html").read_text()
    # From files of their own, which are private bases.
    for name in ("LM.__call__", "LM.embedded", "LM.gguf", "LM.chat", "lm.PromptedLM.log_prob"):
        assert f'id="awrs_ppl.{name}"' in models
    for name in ("Posterior.mode", "Posterior.to_json", "Posterior.pool", "Trace.log_weights"):
        assert f'id="awrs_ppl.{name}"' in posterior
    assert 'id="awrs_ppl.ToyLM.embedded"' not in models
    # Nobody calls these constructors.
    for name in ("Posterior", "Trace", "Diagnosis"):
        head = re.search(rf'id="awrs_ppl.{name}">(.*?)</dt>', posterior, re.DOTALL)
        assert head is not None
        assert "sig-param" not in head[1]
