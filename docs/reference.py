"""Write the reference: `python docs/reference.py FOLDER`.

A public class may have parts that stand in files of their own. pdoc leaves out what a class
inherits from modules that are not documented, so these members are made its own first.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import pdoc

MODULES = ("awrs_ppl", "awrs_ppl.models", "awrs_ppl.genlm")


def adopt_parts(thing: type) -> None:
    """Give a class the members of its bases in this library, up to the first that is public."""
    for base in thing.__mro__[1:]:
        if not base.__module__.startswith("awrs_ppl.") or base.__name__ in PUBLIC:
            break
        for name, member in vars(base).items():
            if not name.startswith("_") and name not in vars(thing):
                setattr(thing, name, member)


PUBLIC = {
    name for module in MODULES for name in getattr(importlib.import_module(module), "__all__", ())
}

if __name__ == "__main__":
    for module in MODULES:
        found = importlib.import_module(module)
        for name in getattr(found, "__all__", ()):
            if inspect.isclass(getattr(found, name)):
                adopt_parts(getattr(found, name))
    pdoc.pdoc(*MODULES, output_directory=Path(sys.argv[1]))
