"""Which partial molecules can still become molecules, by RDKit's rules, tried on small ones.

Valences depend on an atom, its bonds and what its neighbors are; double bonds of aromatic atoms on
one system of aromatic bonds. So each is cut out, and RDKit judges it alone: what no later text
can change.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import combinations_with_replacement, product

from awrs_ppl.potentials._rdkit import elements, is_sound, rdkit, read_molecule
from awrs_ppl.potentials._smiles import Atom, Sketch, read

__all__ = ["can_become_molecule"]

# Bonds that RDKit's cleaning needs to see before it accepts more bonds than usual, as in nitro
# groups, perchlorates and complexes of metals; at most three of them are missing.
_SAVING = ("=O", "O", "#N", "[Fe]", ":*")
_MOST_SAVING = 3


def can_become_molecule(smiles: str) -> bool:
    """Whether a molecule may have this partial SMILES, as far as single atoms and rings show.

    False only where RDKit reads no SMILES with this prefix.

    >>> can_become_molecule("C1CC(=O)"), can_become_molecule("C1CC(=O)(=O)")
    (True, False)
    """
    sketch = read(smiles, elements())
    if sketch is None:
        return False
    atoms = sketch.atoms
    for number in range(len(atoms) - sketch.undecided):
        if not _has_room(sketch, number):
            return False
    return all(_has_double_bonds(*system) for system in _systems(sketch))


def _has_room(sketch: Sketch, number: int) -> bool:
    """Whether an atom can have its bonds, and perhaps more if it is unfinished."""
    atom, more = sketch.atoms[number], number in sketch.unfinished
    known = sum(other is not None for _, other in atom.bonds)
    # RDKit takes hydrogen atoms with one bond out before it counts bonds.
    if _is_hydrogen(atom) and (known == 1 or (more and not known)):
        return True
    ends = [None if other is None else sketch.atoms[other] for _, other in atom.bonds]
    arms = [_arms(bond, end) for (bond, _), end in zip(atom.bonds, ends, strict=True)]
    return _is_possible(atom.symbol, tuple(sorted(arms)), more)


def _is_hydrogen(atom: Atom) -> bool:
    return atom.element in ("H", "#1")


def _arms(bond: str, end: Atom | None) -> tuple[str, ...]:
    """What a bond and the atom at its end may be, as far as they matter for the other atom."""
    if end is None:
        # It may be anything, unless the order of the bond says how much valence it takes.
        unknown = bond in ("=", "#", "$", ":")
        return (f"{bond}*", f"{bond}O", f"{bond}N", "[H]") if unknown else ("",)
    bond = bond if bond != "-" else ""
    if _is_hydrogen(end):
        # One more hydrogen of the atom, whatever the bond, unless it is left.
        return ("[H]", f"{bond}*")
    if end.element == "O" and bond in ("", "=") and end.is_neutral:
        return (f"{bond}O",)
    if end.element == "N" and bond == "#" and end.is_neutral:
        return ("#N",)
    if not bond and _is_metal(end.element):
        return ("[Fe]",)
    return (f"{bond}*",)


@lru_cache(maxsize=4096)
def _is_possible(symbol: str, arms: tuple[tuple[str, ...], ...], more: bool) -> bool:
    """Whether RDKit accepts an atom with one of each of these arms, and perhaps some more."""
    for count in range(_MOST_SAVING + 1 if more else 1):
        for saving in combinations_with_replacement(_SAVING, count):
            for chosen in product(*arms):
                branches = "".join(f"({arm})" for arm in (*chosen, *saving) if arm)
                if _is_accepted(symbol + branches):
                    return True
    return False


@cache
def _is_metal(element: str) -> bool:
    # Four bonds of a nitrogen are too many, unless one is to a metal.
    return _is_accepted(f"[{element}]N(*)(*)*")


@lru_cache(maxsize=4096)
def _is_accepted(star: str) -> bool:
    return is_sound(star, "CLEANUP", "CLEANUP_ORGANOMETALLICS", "PROPERTIES")


def _systems(sketch: Sketch) -> Iterator[tuple[str, int]]:
    """Each system of aromatic bonds that is finished, as a SMILES, and its bonds to others."""
    seen: set[int] = set()
    for first, atom in enumerate(sketch.atoms):
        if first in seen or not _is_aromatic(atom):
            continue
        members, waiting = {first}, [first]
        while waiting:
            for bond, other in sketch.atoms[waiting.pop()].bonds:
                if bond == ":" and other is not None and other not in members:
                    members.add(other)
                    waiting.append(other)
        seen |= members
        if not members & sketch.unfinished:
            yield from _system(sketch.atoms, sorted(members))


def _is_aromatic(atom: Atom) -> bool:
    return atom.is_aromatic or any(bond == ":" for bond, _ in atom.bonds)


def _system(atoms: list[Atom], members: list[int]) -> Iterator[tuple[str, int]]:
    numbers: dict[tuple[int, int], int] = {}
    texts = {number: atoms[number].symbol for number in members}
    out = 0
    for number in members:
        for bond, other in atoms[number].bonds:
            assert other is not None
            # A wildcard takes double bonds or leaves them, RDKit leaves out a ring with "~", and
            # takes out a hydrogen.
            if atoms[other].element in ("*", "#0", "H", "#1") or bond == "~":
                return
            pair = min(number, other), max(number, other)
            if other not in members:
                out += 1
                (arm,) = _arms(bond, atoms[other])
                texts.setdefault(other, "[C]" if arm.endswith("*") else arm.lstrip("=#"))
            if pair not in numbers:
                numbers[pair] = len(numbers)
                texts[number] += bond
            texts[number] += f"%({numbers[pair]})"
            if other not in members:
                texts[other] += f"%({numbers[pair]})"
    yield ".".join(texts.values()), out


@lru_cache(maxsize=4096)
def _has_double_bonds(system: str, out: int) -> bool:
    """Whether RDKit finds the double bonds of an aromatic system, with `out` bonds to others."""
    if is_sound(system, "CLEANUP", "CLEANUP_ORGANOMETALLICS", "KEKULIZE"):
        return True
    mol = read_molecule(system, sanitize=False)
    if mol is None:
        return True
    rdkit().FastFindRings(mol)
    # By what stands outside, a bond between two rings may come to lie in a ring as well.
    return out >= 2 and not all(
        part.IsInRing() for part in (*mol.GetAtoms(), *mol.GetBonds()) if part.GetIsAromatic()
    )
