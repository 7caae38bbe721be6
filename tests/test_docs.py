"""Every public name says what it is, and shows it."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MODULES = ("awrs_ppl", "awrs_ppl.potentials", "awrs_ppl.testing", "awrs_ppl.genlm")
NAMES = [(module, name) for module in MODULES for name in importlib.import_module(module).__all__]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=".".join)
def test_public_name_has_a_docstring_with_an_example(module: str, name: str) -> None:
    thing = getattr(importlib.import_module(module), name)
    docstring = inspect.getdoc(thing) or ""
    assert docstring
    # Modules and exceptions are described in words; examples of all others run as doctests.
    described = inspect.ismodule(thing) or (inspect.isclass(thing) and issubclass(thing, Exception))
    if not described:
        assert ">>>" in docstring, f"{module}.{name} has no example"


@pytest.mark.slow
def test_reference_has_the_parts_of_classes_that_stand_in_other_files(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "docs" / "reference.py"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    page = (tmp_path / "awrs_ppl.html").read_text()
    for name in ("LM.embedded", "LM.gguf", "LM.chat", "Posterior.mode", "Posterior.to_json"):
        assert f'id="{name}"' in page
    assert 'id="ToyLM.embedded"' not in page
