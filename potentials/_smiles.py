"""Partial SMILES, read as far as they go: atoms, bonds, and which atoms may still get more.

The grammar is the one of RDKit's parser, its extensions included: `->` and `<-` for dative bonds,
`~` for any bond, `[#6]` for an element by its number, ring numbers as in `%(123)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import regex

__all__ = ["Atom", "Sketch", "read"]

_NUMBER = r"(?:0|[1-9][0-9]{0,9})"
_ORGANIC = r"Cl|Br|[BCNOPSFI]"
_AROMATIC = r"[bcnops]"
_TWENTY = r"(?:1[0-9]?|20?|[3-9])"
_THIRTY = r"(?:[12][0-9]?|30?|[4-9])"
_CHIRAL = rf"@@?|@'*(?:(?:TH|AL)[12]?|SP[123]?|TB{_TWENTY}?|OH{_THIRTY}?)"
_SYSTEMATIC = "Uu[bhnopqstu]"

# What the bond on a ring number or before an atom may be; "/" and "\" say nothing of the order.
_BONDS = {"/": "", "\\": "", "\\\\": ""}
# From the other end.
_TURNED = {"->": "<-", "<-": "->"}


@dataclass(slots=True)
class Atom:
    """An atom: how it is written without isotope, chirality and class, and its bonds.

    A bond is its symbol, as written behind this atom, and the number of the other atom: None
    where that is still to come. The symbol of a single or aromatic bond may be empty.
    """

    symbol: str
    element: str
    charge: str = ""
    bonds: list[tuple[str, int | None]] = field(default_factory=list)

    @property
    def is_aromatic(self) -> bool:
        """Whether it is written in small letters."""
        return self.element.islower()

    @property
    def is_neutral(self) -> bool:
        """Whether it has no charge."""
        return self.charge in ("", "+0", "-0")


@dataclass(frozen=True, slots=True)
class Sketch:
    """What a partial SMILES says: its atoms in order, and the atoms that may get more bonds.

    `undecided`: the last atom is `B` or `C`, which may be the first letter of `Br` or `Cl`.
    """

    atoms: list[Atom]
    unfinished: set[int]
    undecided: bool


def read(text: str, elements: tuple[str, ...]) -> Sketch | None:
    """The sketch of a partial SMILES; None if no SMILES has this prefix.

    >>> sketch = read("CC(=O)[N", ("N",))
    >>> [atom.symbol for atom in sketch.atoms], sketch.atoms[1].bonds, sorted(sketch.unfinished)
    (['C', 'C', 'O'], [('', 0), ('=', 2)], [1])
    >>> read("CC)", ("N",)) is None
    True
    """
    reader = _Reader()
    tokens = _tokens(elements)
    at, undecided = 0, False
    while at < len(text):
        found = tokens.match(text, at)
        if found is None:
            # The rest must be the prefix of one token that fits here.
            found = tokens.fullmatch(text, at, partial=True)
            if found is None or not reader.may_take(text[at]):
                return None
            undecided = False
            break
        if not reader.take(found):
            return None
        at, undecided = found.end(), found["plain"] in ("B", "C")
    return reader.sketch(undecided)


@cache
def _tokens(elements: tuple[str, ...]) -> regex.Pattern[str]:
    # Two letters before one; hydrogen has no chirality.
    names = sorted({*elements, _SYSTEMATIC} - {"H"}, key=len, reverse=True)
    quoted = "|".join(f"'{name}'" for name in elements if len(name) == 2)
    element = rf"{'|'.join(names)}|{quoted}|\*|#{_NUMBER}|se|as|te|si|{_AROMATIC}"
    return regex.compile(
        rf"\[(?:{_NUMBER})?"
        rf"(?:(?P<element>H)|(?P<element>{element})(?:{_CHIRAL})?)(?P<hydrogen>H{_NUMBER}?)?"
        rf"(?P<charge>\+\+|--|[+-]{_NUMBER}?)?(?::{_NUMBER})?\]"
        rf"|(?P<plain>{_ORGANIC}|{_AROMATIC}|\*)"
        r"|(?P<bond>->|<-|\\\\|[-=#$:~/\\])"
        r"|(?P<ring>[0-9]|%(?:[1-9][0-9]|\([0-9]{1,5}\)))"
        r"|(?P<mark>[().])"
    )


class _Reader:
    """Reads tokens one by one."""

    def __init__(self) -> None:
        self.atoms: list[Atom] = []
        # The atom that gets the next bond, last, below it those of the open branches.
        self._stack: list[int | None] = [None]
        self._rings: dict[int, tuple[int, str]] = {}
        self._bond: str | None = None
        # Whether the bond stands behind an atom, and a ring number may follow, or behind a "(".
        self._behind_atom = False
        # The last token: "" at the start, then one of "atom", "bond", "(", ")", ".".
        self._last = ""

    def may_take(self, first: str) -> bool:
        """Whether a token with this first character may come next."""
        if first == "[":
            return True
        return self._may_bond() if first in "-<\\" else self._may_number()

    def _may_bond(self) -> bool:
        return self._last in ("atom", ")", "(")

    def _may_number(self) -> bool:
        return self._last in ("atom", ")") or (self._last == "bond" and self._behind_atom)

    def take(self, token: regex.Match[str]) -> bool:
        """Read one token; whether it may stand there."""
        if symbol := token["plain"]:
            return self._take_atom(Atom(symbol, symbol))
        if bond := token["bond"]:
            if not self._may_bond():
                return False
            self._behind_atom = self._last != "("
            self._bond = _BONDS.get(bond, bond)
            self._last = "bond"
            return True
        if number := token["ring"]:
            return self._may_number() and self._take_ring(int(number.strip("%()")))
        if mark := token["mark"]:
            return self._take_mark(mark)
        element, charge = token["element"], token["charge"] or ""
        return self._take_atom(
            Atom(f"[{element}{token['hydrogen'] or ''}{charge}]", element, charge)
        )

    def _take_atom(self, atom: Atom) -> bool:
        number, before = len(self.atoms), self._stack[-1]
        self.atoms.append(atom)
        if before is not None and self._last != ".":
            self._join(before, number, self._bond or "")
        self._bond = None
        self._stack[-1] = number
        self._last = "atom"
        return True

    def _take_mark(self, mark: str) -> bool:
        if self._last not in ("atom", ")"):
            return False
        if mark == "(":
            self._stack.append(self._stack[-1])
        elif mark == ")":
            if len(self._stack) == 1:
                return False
            self._stack.pop()
        self._last = mark
        return True

    def _take_ring(self, number: int) -> bool:
        here, bond = self._stack[-1], self._bond or ""
        assert here is not None
        self._bond, self._last = None, "atom"
        if number not in self._rings:
            self._rings[number] = here, bond
            return True
        there, other = self._rings.pop(number)
        if there == here or any(atom == there for _, atom in self.atoms[here].bonds):
            return False
        # What is written first counts; "~" says there only that nothing written later does.
        bond = other or _TURNED.get(bond, bond)
        self._join(there, here, "" if bond == "~" else bond)
        return True

    def _join(self, one: int, other: int, bond: str) -> None:
        if not bond and self.atoms[one].is_aromatic and self.atoms[other].is_aromatic:
            bond = ":"
        self.atoms[one].bonds.append((bond, other))
        self.atoms[other].bonds.append((_TURNED.get(bond, bond), one))

    def sketch(self, undecided: bool) -> Sketch:
        unfinished = {number for number in self._stack if number is not None}
        if self._last == ".":
            unfinished.discard(self._stack[-1])
        for number, bond in self._rings.values():
            unfinished.add(number)
            self.atoms[number].bonds.append((bond, None))
        here = self._stack[-1]
        # A ring number may follow that says already what its bond is.
        said = self._behind_atom and any(bond for _, bond in self._rings.values())
        if self._last == "bond" and here is not None and not said:
            self.atoms[here].bonds.append((self._bond or "", None))
        return Sketch(self.atoms, unfinished, undecided)
