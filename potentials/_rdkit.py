"""RDKit, loaded on first use, one call at a time and without its messages."""

from __future__ import annotations

from functools import cache
from threading import Lock
from types import SimpleNamespace
from typing import Any

from awrs_ppl._extras import install

__all__ = ["elements", "is_sound", "rdkit", "read_molecule"]

_quiet = Lock()


@cache
def rdkit() -> SimpleNamespace:
    """What is used of RDKit. Raises `ImportError` where it is missing."""
    try:
        from rdkit import Chem
        from rdkit.rdBase import BlockLogs
    except ImportError as error:
        raise ImportError(
            f"{error}: potentials for molecules need {install('molecules')}"
        ) from error
    return SimpleNamespace(
        MolFromSmiles=Chem.MolFromSmiles,
        SmilesParserParams=Chem.SmilesParserParams,
        SanitizeMol=Chem.SanitizeMol,
        SanitizeFlags=Chem.SanitizeFlags,
        FastFindRings=Chem.FastFindRings,
        GetPeriodicTable=Chem.GetPeriodicTable,
        BlockLogs=BlockLogs,
    )


@cache
def elements() -> tuple[str, ...]:
    """The symbols of the elements, by number, from hydrogen on."""
    table = rdkit().GetPeriodicTable()
    return tuple(table.GetElementSymbol(number) for number in range(1, 119))


def read_molecule(smiles: str, *, sanitize: bool = True) -> Any | None:
    """The `Mol` of a SMILES; None where RDKit reads none."""
    # RDKit prints its reasons; blocks that overlap would end with the first.
    with _quiet, rdkit().BlockLogs():
        return rdkit().MolFromSmiles(smiles, sanitize=sanitize)


def is_sound(smiles: str, *steps: str) -> bool:
    """Whether RDKit reads a SMILES, hydrogens taken out, and these steps of sanitization pass.

    >>> is_sound("c1cccc1", "CLEANUP", "PROPERTIES"), is_sound("c1cccc1", "KEKULIZE")
    (True, False)
    """
    params = rdkit().SmilesParserParams()
    params.sanitize, params.removeHs = False, True
    with _quiet, rdkit().BlockLogs():
        mol = rdkit().MolFromSmiles(smiles, params)
    if mol is None:
        return False
    flags = rdkit().SanitizeFlags
    chosen = 0
    for step in steps:
        chosen |= getattr(flags, f"SANITIZE_{step}")
    with _quiet, rdkit().BlockLogs():
        return rdkit().SanitizeMol(mol, chosen, catchErrors=True) == flags.SANITIZE_NONE
