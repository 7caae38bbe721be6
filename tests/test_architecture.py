"""Structure: folders in layers from the ground up, and modules that can be read at a sitting."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

import awrs_ppl

PACKAGE = Path(awrs_ppl.__file__).parent

# A module imports its own layer and those before it. The ground is what lies beside the folders.
LAYERS = (
    *("ground", "tokens", "constraints", "workers", "lm", "proposals", "program", "posterior"),
    *("envelope", "inference", "scale", "genlm", "testing", "potentials", "cli", "models"),
)
# Each of these two collects names from everywhere.
TOP = ("__init__", "__main__")
MOST_LINES = 300


def layer_of(module: str) -> str | None:
    """The layer of a module of the package; None for the package itself and for others."""
    first, _, rest = module.partition(".")
    if first != "awrs_ppl" or not rest or rest in TOP:
        return None
    folder = rest.partition(".")[0]
    return folder if folder in LAYERS else "ground"


def upward(module: str, imported: Iterable[str]) -> list[str]:
    """What a module imports from a layer above its own."""
    own = layer_of(module)
    if own is None:
        return []
    above = LAYERS[LAYERS.index(own) + 1 :]
    return [name for name in imported if layer_of(name) in above]


def imports_of(source: str) -> list[str]:
    """The modules that a source imports, at its top or in its functions."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def sources() -> dict[str, str]:
    """The source of every module, those behind the symbolic links included."""
    paths = [
        Path(folder, file)
        for folder, _, files in os.walk(PACKAGE, followlinks=True)
        for file in files
        if file.endswith(".py")
    ]
    return {
        ".".join(("awrs_ppl", *path.relative_to(PACKAGE).with_suffix("").parts)): path.read_text()
        for path in sorted(paths)
    }


def test_imports_follow_the_layers() -> None:
    found = {name: upward(name, imports_of(source)) for name, source in sources().items()}
    assert "awrs_ppl.potentials.regex" in found or "awrs_ppl.potentials.regex.regex" in found
    assert {name: above for name, above in found.items() if above} == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("awrs_ppl.tokens.urn", "from awrs_ppl.constraints.product import Product"),
        ("awrs_ppl.rng", "def f():\n    import awrs_ppl.lm.cache"),
        ("awrs_ppl.constraints.product", "from awrs_ppl.lm import LM"),
        ("awrs_ppl.lm.cache", "from awrs_ppl import proposals"),
    ],
)
def test_import_from_a_layer_above_is_found(module: str, source: str) -> None:
    assert upward(module, imports_of(source))


def test_import_from_a_layer_below_is_allowed() -> None:
    source = "import numpy\nfrom awrs_ppl.tokens.urn import Urn\nfrom awrs_ppl import _values"
    assert upward("awrs_ppl.constraints.product", imports_of(source)) == []


def test_modules_stay_within_their_limit() -> None:
    lines = {name: source.count("\n") for name, source in sources().items()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
