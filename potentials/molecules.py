"""Molecules written as SMILES, and critics that weigh them, by RDKit."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from typing import Any

from awrs_ppl.constraints.arguments import function
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.potentials._bonding import can_become_molecule
from awrs_ppl.potentials._rdkit import rdkit, read_molecule
from awrs_ppl.potentials.soft import Soft

__all__ = ["MoleculeProperty", "Qed", "Smiles"]

# Blanks, behind which RDKit reads names and extensions, and what is not ASCII.
_NEVER = re.compile(rb"[^!-~]")


class Smiles(BooleanPotential):
    """The SMILES of molecules, as RDKit reads them: valences kept, rings and branches closed.

    A text may end where RDKit reads and sanitizes it. A prefix is rejected only if RDKit reads no
    text that continues it: its syntax is wrong, one atom has too many bonds, or a finished
    aromatic system has no room for its double bonds. What takes more than one atom or system to
    see is rejected later, at the latest at the end.

    RDKit's dialect counts: beside the standard, `->`, `<-` and `~` are bonds, `[#6]` is carbon and
    `%(123)` a ring number, while `[C+++]` and `[C+03]` are no atoms. Not accepted are the empty
    text, reactions, and what RDKit reads behind a blank (names, CXSMILES). One space may stand
    before the molecule, as behind `"Molecule:"`; any other blank, and what is not ASCII, is
    rejected.

    A check reads the whole text anew, at 3 to 4 µs a character, and atoms with bonds not seen
    before take RDKit about a millisecond. Needs the extra `molecules`.

    >>> import asyncio
    >>> smiles = Smiles()
    >>> asyncio.run(smiles.prefix(b"C1CC(=O")), asyncio.run(smiles.complete(b"C1CC(=O)N1"))
    (0.0, 0.0)
    >>> asyncio.run(smiles.prefix(b"C1CC(=O)(=O")), asyncio.run(smiles.complete(b"C1CC"))
    (-inf, -inf)
    """

    arguments = ()
    cost = 1 / 256  # a tenth of a millisecond in the mean

    def __init__(self) -> None:
        super().__init__()
        rdkit()

    def start(self) -> bytes:
        """The state of the empty text: a state is the text so far."""
        return b""

    def advance(self, state: Any, data: bytes) -> bytes | None:
        """The text with `data`; None if no molecule has this prefix."""
        text = state + data
        smiles = _smiles(text)
        return text if smiles is not None and can_become_molecule(smiles) else None

    def accepts(self, state: Any) -> bool:
        """Whether RDKit reads the text."""
        return molecule(state) is not None

    def is_over(self, state: Any) -> bool:
        """What `accepts` says: a text that need not end is over here."""
        return self.accepts(state)


class MoleculeProperty(Soft):
    """Molecules weighed by `f(mol)`, a log-weight; as a critic, or as a factor of a product.

    `f` gets an RDKit `Mol`, sanitized, and may be `async`. Like that of `Soft`, its number is a
    log-weight, so to favour a property that is itself a probability or a score, take its
    logarithm. A text that is no molecule weighs -inf, and `f` is not called. Only whole texts are
    weighed. NaN and +inf are errors. Needs the extra `molecules`.

    >>> import asyncio
    >>> few_atoms = MoleculeProperty(lambda mol: -0.5 * mol.GetNumAtoms())
    >>> asyncio.run(few_atoms.complete(b"CCO")), asyncio.run(few_atoms.complete(b"C(C"))
    (-1.5, -inf)
    """

    arguments = (function("_of"),)

    def __init__(self, f: Callable[[Any], float | Awaitable[float]]) -> None:
        if not callable(f):
            raise TypeError(
                f"{type(self).__name__} got {f!r}: it needs a function from a molecule to a number"
            )
        rdkit()

        def weigh(text: str) -> float | Awaitable[float]:
            mol = molecule(text.encode())
            return -math.inf if mol is None else f(mol)

        super().__init__(weigh)
        self._of = f


class Qed(MoleculeProperty):
    """Molecules weighed by how drug-like they are: QED, between 0 and 1, by RDKit.

    The log-weight is log QED, and -inf for what is no molecule. From: Bickerton et al.,
    "Quantifying the chemical beauty of drugs", Nature Chemistry 2012.

    >>> import asyncio
    >>> round(asyncio.run(Qed().complete(b"CC(=O)Oc1ccccc1C(=O)O")), 2)  # aspirin
    -0.6
    """

    arguments = ()

    def __init__(self) -> None:
        super().__init__(_log_qed)


def molecule(text: bytes) -> Any | None:
    """The RDKit `Mol` of a SMILES; None where it is none."""
    smiles = _smiles(text)
    # RDKit reads the empty text as a molecule without atoms.
    return read_molecule(smiles) if smiles else None


def _smiles(text: bytes) -> str | None:
    """The SMILES without the space before it; None where there are characters of no SMILES."""
    text = text.removeprefix(b" ")
    return None if _NEVER.search(text) else text.decode("ascii")


def _log_qed(mol: Any) -> float:
    from rdkit.Chem.QED import qed

    value = qed(mol)
    return math.log(value) if value > 0 else -math.inf
