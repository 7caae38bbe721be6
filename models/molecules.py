"""Molecules like those given, and drug-like ones rather than others."""

import random
from os import PathLike
from pathlib import Path
from typing import Any

from awrs_ppl import LM, Context
from awrs_ppl.potentials import Smiles


async def molecules(
    ctx: Context,
    lm: LM,
    known: list[str],
    *,
    allowed: Any = None,
    max_tokens: int = 100,
    **options: Any,
) -> str:
    """One more molecule as SMILES; `critic=Qed()` weighs it by its drug-likeness."""
    listed = "".join(f"Molecule: {smiles}\n" for smiles in known)
    smiles = await ctx.generate(
        lm(f"{listed}Molecule:", stop="\n") * (allowed or Smiles()),
        max_tokens=max_tokens,
        **options,
    )
    return smiles.strip()


def score(known: list[str], smiles: str) -> float:
    """The quantitative estimate of drug-likeness (QED) by RDKit; 0 for what is no molecule."""
    from rdkit.Chem import QED, MolFromSmiles
    from rdkit.rdBase import BlockLogs

    with BlockLogs():
        molecule = MolFromSmiles(smiles) if smiles else None
    return QED.qed(molecule) if molecule is not None else 0.0


def load(path: str | PathLike[str], *, count: int = 20, seed: int = 0) -> list[str]:
    """`count` molecules of a file with one a line, drawn by `seed`."""
    lines = Path(path).read_text().split()
    return random.Random(seed).sample(lines, count)
