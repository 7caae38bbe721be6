"""PDDL as trees: lists of words in small letters, without comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from awrs_ppl._messages import shorten

__all__ = ["Atom", "Binding", "Tree", "grounded", "show", "trees", "write"]

Tree: TypeAlias = "str | list[Tree]"
# A predicate or function and its arguments; and the objects of variables.
Atom: TypeAlias = tuple[str, ...]
Binding: TypeAlias = Mapping[str, str]

# Readers of trees are recursive: their depth is bounded where trees are made.
MAX_DEPTH = 100

# A "?" begins a word, as in other readers: "?x?y" is two variables.
_PART = re.compile(r";[^\r\n]*|[()]|\??[^\s();?]+|\?")
_SMALL = {ord(it): it.lower() for it in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def trees(text: str, *, unfinished: str = "") -> list[Tree]:
    """The lists and words of a text.

    If `unfinished` names a section, the text may end inside it, or before it.

    >>> trees("(:types A b) ; two")
    [[':types', 'a', 'b']]
    """
    open_: list[list[Tree]] = [[]]
    for found in _PART.finditer(text.removeprefix("\ufeff").translate(_SMALL)):
        part = found[0]
        if part == "(":
            if len(open_) > MAX_DEPTH:
                raise ValueError(f"its brackets are nested more than {MAX_DEPTH} deep")
            inner: list[Tree] = []
            open_[-1].append(inner)
            open_.append(inner)
        elif part == ")":
            if len(open_) == 1:
                raise ValueError(f"a bracket closes nothing behind {show(text[: found.start()])}")
            open_.pop()
        elif not part.startswith(";"):
            if not part.isascii():
                raise ValueError(f"{part!r} has a letter that is not ASCII: write a name without")
            open_[-1].append(part)
    if len(open_) > 1 and not (unfinished and (len(open_) == 2 or open_[2][:1] == [unfinished])):
        raise ValueError(f"{show(write(open_[-1])[:-1])} is not closed: it lacks a bracket")
    return open_[0]


def write(tree: Tree) -> str:
    """A tree as text, in one line."""
    return tree if isinstance(tree, str) else f"({' '.join(map(write, tree))})"


def show(text: Tree) -> str:
    """A text or a tree as messages quote it, of 61 characters at most."""
    shown = re.sub(r"[ \t\r\n]+", " ", text if isinstance(text, str) else write(text)).strip(" ")
    return repr(shorten(shown, 61, tail=20))


def grounded(words: Iterable[Tree], binding: Binding) -> Atom:
    """An atom with objects for its variables."""
    return tuple(binding.get(word, word) for word in map(write, words))
