"""What the names of a planning problem stand for, and formulas written with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from awrs_ppl.potentials.planning.formulas import (
    Both,
    Compare,
    Each,
    Either,
    Formula,
    Literal,
    Number,
    Same,
    When,
)
from awrs_ppl.potentials.planning.numbers import ARITHMETIC, CHANGES, COMPARISONS, is_number
from awrs_ppl.potentials.planning.text import Atom, Tree, show

__all__ = ["Scope"]

Signatures = dict[str, list[list[str]]]


class Scope(NamedTuple):
    """The names that a formula may use. Its methods raise `ValueError` for what is no formula.

    Predicates and functions have for each argument the objects that fit it. `fitting` gives the
    variables of a typed list with theirs.
    """

    predicates: Signatures
    functions: Signatures
    objects: dict[str, list[str]]
    fitting: Callable[[Tree], dict[str, list[str]]]
    variables: frozenset[str] = frozenset()

    def within(self, variables: dict[str, list[str]]) -> Scope:
        """The scope with more variables."""
        return self._replace(variables=self.variables.union(variables))

    def condition(self, tree: Tree, true: bool = True) -> Formula:
        """The condition that a tree says, or its negation."""
        match tree:
            case [[*_] as only]:
                return self.condition(only, true)
            case []:
                return Both([]) if true else Either([])
            case [*_] if self._is_atom(tree):
                return Literal(self.atom(tree), true)
            case ["and" | "or" as name, *parts]:
                several = [self.condition(part, true) for part in parts]
                return Both(several) if (name == "and") == true else Either(several)
            case ["imply", one, other]:
                several = [self.condition(one, not true), self.condition(other, true)]
                return Either(several) if true else Both(several)
            case ["not", part]:
                return self.condition(part, not true)
            case ["forall" | "exists" as name, parameters, part]:
                bound = self.fitting(parameters)
                part = self.within(bound).condition(part, true)
                return Each(bound, part, (name == "forall") == true)
            case ["=", str(left), str(right)] if self._are_objects(left, right):
                for word in (left, right):
                    self._check_word(word, tree)
                return Same(left, right, true)
            case [str(name), left, right] if name in COMPARISONS:
                for part in (left, right):
                    self.check_number(part)
                return Compare(tree, true)
        raise ValueError(
            self._unknown(tree, f"and, or, not, imply, forall, exists, {', '.join(COMPARISONS)}")
        )

    def effect(self, tree: Tree) -> Formula:
        """The effect that a tree says."""
        match tree:
            case []:
                return Both([])
            case [*_] if self._is_atom(tree):
                return Literal(self.atom(tree), True)
            case ["and", *parts]:
                return Both([self.effect(part) for part in parts])
            case ["not", [*_] as part]:
                return Literal(self.atom(part), False)
            case ["forall", parameters, part]:
                bound = self.fitting(parameters)
                return Each(bound, self.within(bound).effect(part), True)
            case ["when", needed, part]:
                return When(
                    self.condition(needed), self.condition(needed, False), self.effect(part)
                )
            case [str(name), [str(function), *_] as term, by] if name in CHANGES:
                if function not in self.functions:
                    raise ValueError(self._no_number(term))
                for part in (term, by):
                    self.check_number(part)
                return Number(tree)
        raise ValueError(
            self._unknown(tree, f"effect by and, not, forall, when, {', '.join(CHANGES)}")
        )

    def atom(self, tree: list[Tree]) -> Atom:
        """The atom that a tree is."""
        if not tree or not isinstance(tree[0], str) or tree[0] not in self.predicates:
            raise ValueError(self._unknown(tree))
        return self._checked(tree, self.predicates[tree[0]])

    def check_number(self, tree: Tree) -> None:
        """Accept decimals, values of functions and arithmetic."""
        match tree:
            case str() if is_number(tree):
                return None
            case [str(name), *_] if name in self.functions:
                self._checked(tree, self.functions[name])
                return None
            case ["-", part]:
                return self.check_number(part)
            case [str(name), *parts] if name in ARITHMETIC and len(parts) > 1:
                for part in parts:
                    self.check_number(part)
                return None
        raise ValueError(self._no_number(tree))

    def _is_atom(self, tree: list[Tree]) -> bool:
        """Whether a tree is an atom, were its predicate called `when` or `not`."""
        return all(isinstance(it, str) for it in tree) and tree[0] in self.predicates

    def _are_objects(self, *words: str) -> bool:
        return not any(is_number(word) and word not in self.objects for word in words)

    def _checked(self, tree: list[Tree], parameters: list[list[str]]) -> Atom:
        name, *words = tree
        if len(words) != len(parameters):
            raise ValueError(
                f"{show(tree)} has {len(words)} arguments, and {name} takes {len(parameters)}"
            )
        for word, fitting in zip(words, parameters, strict=True):
            self._check_word(word, tree)
            # A variable may be of a wider type: what does not fit is then never true.
            if word not in fitting and word in self.objects:
                raise ValueError(f"{word} in {show(tree)} is of no type that {name} takes there")
        return tuple(map(str, tree))

    def _check_word(self, word: Tree, tree: list[Tree]) -> None:
        if not isinstance(word, str):
            raise ValueError(f"{show(word)} in {show(tree)} is no object: write a name or variable")
        if word.startswith("?"):
            if word not in self.variables:
                raise ValueError(f"{word} in {show(tree)} is not among the parameters: declare it")
        elif word not in self.objects:
            raise ValueError(f"{word} in {show(tree)} is no object: declare it")

    def _unknown(self, tree: Tree, other: str = "") -> str:
        head = tree[0] if tree else ""
        if isinstance(tree, list) and isinstance(head, str):
            if head.startswith(":"):
                return f"{show(tree)} stands inside another section: close that with a bracket"
            if head in self.predicates:
                return f"{show(tree)} is no atom: give {head} names and variables"
        atoms = _known("predicates", self.predicates)
        if not other:
            return f"{show(tree)} is no atom of {atoms}"
        return f"{show(tree)} is neither an atom of {atoms} nor a whole {other}"

    def _no_number(self, tree: Tree) -> str:
        return (
            f"{show(tree)} is no number: write a decimal, a value of "
            f"{_known('functions', self.functions)}, +, -, * or /"
        )


def _known(section: str, names: Signatures) -> str:
    return f"({' '.join([f':{section}', *names])})"
