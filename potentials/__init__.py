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
    from awrs_ppl.constraints.genlm_factor import boolean
    from awrs_ppl.constraints.potential import BooleanPotential
    from awrs_ppl.constraints.product import Product, product
    from awrs_ppl.potentials.grammar import Grammar
    from awrs_ppl.potentials.json import JsonSchema
    from awrs_ppl.potentials.molecules import MoleculeProperty, Qed, Smiles
    from awrs_ppl.potentials.planning import PddlGoal, PlanAchieves, Reachable
    from awrs_ppl.potentials.predicates import Predicate, predicate
    from awrs_ppl.potentials.regex import Regex
    from awrs_ppl.potentials.soft import Soft
    from awrs_ppl.potentials.sql import Sql
    from awrs_ppl.potentials.text import Contains, OneOf

__all__ = [
    "BooleanPotential",
    "Contains",
    "Grammar",
    "JsonSchema",
    "MoleculeProperty",
    "OneOf",
    "PddlGoal",
    "PlanAchieves",
    "Predicate",
    "Product",
    "Qed",
    "Reachable",
    "Regex",
    "Smiles",
    "Soft",
    "Sql",
    "boolean",
    "predicate",
    "product",
]

_HOMES = {
    "BooleanPotential": "awrs_ppl.constraints.potential",
    "Contains": "awrs_ppl.potentials.text",
    "Grammar": "awrs_ppl.potentials.grammar",
    "JsonSchema": "awrs_ppl.potentials.json",
    "MoleculeProperty": "awrs_ppl.potentials.molecules",
    "OneOf": "awrs_ppl.potentials.text",
    "PddlGoal": "awrs_ppl.potentials.planning",
    "PlanAchieves": "awrs_ppl.potentials.planning",
    "Predicate": "awrs_ppl.potentials.predicates",
    "Product": "awrs_ppl.constraints.product",
    "Qed": "awrs_ppl.potentials.molecules",
    "Reachable": "awrs_ppl.potentials.planning",
    "Regex": "awrs_ppl.potentials.regex",
    "Smiles": "awrs_ppl.potentials.molecules",
    "Soft": "awrs_ppl.potentials.soft",
    "Sql": "awrs_ppl.potentials.sql",
    "boolean": "awrs_ppl.constraints.genlm_factor",
    "predicate": "awrs_ppl.potentials.predicates",
    "product": "awrs_ppl.constraints.product",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
