"""Molecules written as SMILES, and critics that weigh them.

The beginnings are judged by partialsmiles, whole texts by RDKit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from functools import cache
from threading import Lock
from types import SimpleNamespace
from typing import Any

from awrs_ppl.errors import PotentialError
from awrs_ppl.potential import BooleanPotential, show
from awrs_ppl.potentials.soft import Soft

__all__ = ["MoleculeProperty", "Qed", "Smiles"]

# Steps of the search for the double bonds of one aromatic system.
MOST_STEPS = 100_000

# No reactions, which are no molecules; and "%" is the beginning of a ring number of two digits.
_NEVER = re.compile(r"[^!-=?-~]|%(?!\d\d|\d?\Z)")

_quiet = Lock()


class Smiles(BooleanPotential):
    """The SMILES of molecules: no valence exceeded, every ring and branch closed.

    A beginning is rejected as soon as partialsmiles sees that no molecule can begin so; a text
    may end where RDKit reads and sanitizes it. Both are stricter than the grammar of SMILES in
    some points: partialsmiles wants usual valences, and no branch at the end of another (`C(C)`).

    One space may stand before the molecule, as behind `"Molecule:"`; any other blank, and what
    is not ASCII, is rejected. The empty text is no molecule, and a reaction is none.

    A check reads the whole text anew, since partialsmiles validates all atoms each time: about
    7 µs a character. Where the aromatic bonds of a text take more than 100,000 steps to assign,
    that is a `PotentialError`. Needs `pip install "awrs-ppl[molecules]"`.

    >>> import asyncio
    >>> smiles = Smiles()
    >>> asyncio.run(smiles.prefix(b"C1CC(=O")), asyncio.run(smiles.complete(b"C1CC(=O)N1"))
    (0.0, 0.0)
    >>> asyncio.run(smiles.prefix(b"C1CC(=O)(=O")), asyncio.run(smiles.complete(b"C1CC"))
    (-inf, -inf)
    """

    def __init__(self) -> None:
        super().__init__()
        _libraries()

    @property
    def key(self) -> tuple[type]:
        """Equal for all of them."""
        return (type(self),)

    @property
    def fingerprint(self) -> str:
        """The kind."""
        return "Smiles()"

    def __repr__(self) -> str:
        return "Smiles()"

    def start(self) -> bytes:
        """The state of the empty text: a state is the text so far."""
        return b""

    def advance(self, state: Any, data: bytes) -> bytes | None:
        """The text with `data`, if all its beginnings are beginnings of molecules."""
        text = state + data
        # Each character in turn: "C$B" has too many bonds, and "C$Br" may still have.
        for end in range(len(state) + 1, len(text) + 1):
            if not _begins(text[:end]):
                return None
        return text

    def accepts(self, state: Any) -> bool:
        """Whether RDKit reads the text."""
        return molecule(state) is not None


class MoleculeProperty(Soft):
    """Molecules weighed by `f(mol)`, a log-weight; as a critic, or as a factor of a product.

    `f` gets an RDKit `Mol`, sanitized, and may be `async`. Like that of `Soft`, its number is a
    log-weight, so to favour a property that is itself a probability or a score, take its
    logarithm. A text that is no molecule weighs -inf, and `f` is not asked. Only whole texts are
    weighed. NaN and +inf are errors. Needs `pip install "awrs-ppl[molecules]"`.

    >>> import asyncio
    >>> few_atoms = MoleculeProperty(lambda mol: -0.5 * mol.GetNumAtoms())
    >>> asyncio.run(few_atoms.complete(b"CCO")), asyncio.run(few_atoms.complete(b"C(C"))
    (-1.5, -inf)
    """

    def __init__(self, f: Callable[[Any], float | Awaitable[float]]) -> None:
        if not callable(f):
            raise TypeError(
                f"{type(self).__name__} got {f!r}: it needs a function from a molecule to a number"
            )
        _libraries()

        def weigh(text: str) -> float | Awaitable[float]:
            mol = molecule(text.encode())
            return -math.inf if mol is None else f(mol)

        super().__init__(weigh)
        self._of = f

    @property
    def fingerprint(self) -> str:
        """The name of the function."""
        return f"MoleculeProperty({getattr(self._of, '__qualname__', type(self._of).__qualname__)})"

    def __repr__(self) -> str:
        return f"MoleculeProperty({getattr(self._of, '__name__', type(self._of).__name__)})"


class Qed(MoleculeProperty):
    """Molecules weighed by how drug-like they are: QED, between 0 and 1, by RDKit.

    The log-weight is log QED, and -inf for what is no molecule. From: Bickerton et al.,
    "Quantifying the chemical beauty of drugs", Nature Chemistry 2012.

    >>> import asyncio
    >>> round(asyncio.run(Qed().complete(b"CC(=O)Oc1ccccc1C(=O)O")), 2)  # aspirin
    -0.6
    """

    def __init__(self) -> None:
        super().__init__(_log_qed)

    @property
    def fingerprint(self) -> str:
        """The kind."""
        return "Qed()"

    def __repr__(self) -> str:
        return "Qed()"


def molecule(text: bytes) -> Any | None:
    """The RDKit `Mol` of a SMILES; None where it is none."""
    text = text.removeprefix(b" ")
    if not text or _NEVER.search(text.decode("latin-1")):
        return None
    rdkit = _libraries()
    # RDKit prints its reasons; blocks that overlap would end with the first.
    with _quiet, rdkit.BlockLogs():
        return rdkit.MolFromSmiles(text.decode())


def _begins(text: bytes) -> bool:
    smiles = text.removeprefix(b" ").decode("latin-1")
    if _NEVER.search(smiles):
        return False
    libraries = _libraries()
    try:
        libraries.Parser(partial=True, rulesToIgnore=0).parse(smiles)
    except libraries.NoSmiles:
        return False
    except (_TooManySteps, RecursionError) as error:
        raise PotentialError(
            f"Smiles() found no end in assigning the aromatic bonds of {show(text)}: "
            "allow shorter texts only"
        ) from error
    return True


def _log_qed(mol: Any) -> float:
    from rdkit.Chem.QED import qed

    value = qed(mol)
    return math.log(value) if value > 0 else -math.inf


class _TooManySteps(Exception):
    pass


class _Counted(list[Any]):
    """Atoms that can be looked up so often and no more."""

    steps = 0

    def __getitem__(self, index: Any) -> Any:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise _TooManySteps
        return super().__getitem__(index)


@cache
def _libraries() -> SimpleNamespace:
    """What is used of RDKit and partialsmiles. Raises `ImportError` where one is missing."""
    try:
        from partialsmiles import Error
        from partialsmiles.smiparser import SmilesParser
        from rdkit.Chem import MolFromSmiles
        from rdkit.rdBase import BlockLogs
    except ImportError as error:
        raise ImportError(
            f'{error}: potentials for molecules need pip install "awrs-ppl[molecules]"'
        ) from error

    class Parser(SmilesParser):
        def validateKekulization(self, mol: Any, state: Any) -> Any:
            # Its search follows every alternating path, of which there can be very many.
            mol.atoms = _Counted(mol.atoms)
            return super().validateKekulization(mol, state)

    return SimpleNamespace(
        MolFromSmiles=MolFromSmiles, BlockLogs=BlockLogs, Parser=Parser, NoSmiles=Error
    )
