"""Types of planning problems, and the objects of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from awrs_ppl.potentials.planning.text import Tree, show

__all__ = ["Types", "check_name"]


def _typed(words: Tree) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The names of a list such as `a b - t c - (either u v) d`, each with its types."""
    if isinstance(words, str):
        raise ValueError(f"{words} is no list: write it in brackets")
    names: list[str] = []
    rest = iter(words)
    for word in rest:
        if isinstance(word, str) and not word.startswith("-"):
            names.append(word)
            continue
        match next(rest, None) if word == "-" else word:
            case ["either", *several] if (
                word == "-" and several and all(isinstance(it, str) for it in several)
            ):
                types = tuple(map(str, several))
            case str(one):
                types = (one.removeprefix("-"),)
            case _:
                raise ValueError(f"{show(words)} is no list of names: write a b - type c d - type")
        yield from ((name, types) for name in names)
        names = []
    yield from ((name, ()) for name in names)


@dataclass
class Types:
    """The types of a domain, and the objects of each."""

    declared: list[Tree]
    parents: dict[str, set[str]] = field(default_factory=dict)
    objects: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parents["object"] = set()
        for name, above in _typed(self.declared):
            check_name(name)
            self.parents.setdefault(name, set()).update(above)
            for it in above:  # a type may be declared by what it is the parent of
                self.parents.setdefault(it, set())

    def add(self, objects: list[Tree]) -> None:
        """Declare objects. One that is said to be of several types, or twice, is of them all."""
        for name, types in _typed(objects):
            check_name(name)
            known = self.objects.setdefault(name, ["object"])
            fresh = list(types)
            while fresh:
                one = fresh.pop()
                if one not in known:
                    known.append(one)
                    fresh.extend(self._above(one))

    def fitting(self, words: Tree) -> dict[str, list[str]]:
        """The variables of a typed list, each with the objects that fit it."""
        found: dict[str, list[str]] = {}
        for name, objects in self.arguments(words):
            if name in found:
                raise ValueError(f"{name} stands twice in {show(words)}: rename one")
            found[name] = objects
        return found

    def arguments(self, words: Tree) -> Iterator[tuple[str, list[str]]]:
        """The same, where a name may stand for several arguments."""
        for name, types in _typed(words):
            if not name.startswith("?"):
                raise ValueError(f"{name} in {show(words)} is no variable: write ?{name}")
            for it in types:
                self._above(it)
            wanted = set(types or ["object"])
            yield name, [it for it, its in self.objects.items() if not wanted.isdisjoint(its)]

    def _above(self, name: str) -> set[str]:
        if name not in self.parents:
            raise ValueError(f"{name} is no type: declare it in (:types …)")
        return self.parents[name]


def check_name(name: str) -> None:
    """Raise `ValueError` for a word that cannot name anything."""
    if name[0] in "?:":
        raise ValueError(f"{name} is no name: write it without {name[0]}")
