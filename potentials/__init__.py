"""Potentials to multiply a language model by.

Each is usable alone, in products, and in genlm-control.
"""

from typing import TYPE_CHECKING, Any

if __name__ != "awrs_ppl.potentials":
    raise ImportError(
        f"this package was imported as {__name__!r}: write `import awrs_ppl.potentials`, "
        "so that its classes exist only once"
    )

if TYPE_CHECKING:
    from awrs_ppl.lifting import boolean
    from awrs_ppl.potential import BooleanPotential
    from awrs_ppl.potentials.predicates import Predicate, predicate
    from awrs_ppl.potentials.regex import Regex
    from awrs_ppl.potentials.soft import Soft
    from awrs_ppl.products import Product, product

__all__ = [
    "BooleanPotential",
    "Predicate",
    "Product",
    "Regex",
    "Soft",
    "boolean",
    "predicate",
    "product",
]

_HOMES = {
    "BooleanPotential": "awrs_ppl.potential",
    "Predicate": "awrs_ppl.potentials.predicates",
    "Product": "awrs_ppl.products",
    "Regex": "awrs_ppl.potentials.regex",
    "Soft": "awrs_ppl.potentials.soft",
    "boolean": "awrs_ppl.lifting",
    "predicate": "awrs_ppl.potentials.predicates",
    "product": "awrs_ppl.products",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
