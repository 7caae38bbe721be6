"""What regular expressions are made of, and how the package `regex` has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from awrs_ppl.potentials.json import characters
from awrs_ppl.potentials.json.characters import WORD, Ranges

__all__ = [
    "Alternatives",
    "Backreference",
    "Edge",
    "Group",
    "Look",
    "Node",
    "Repeat",
    "Sequence",
    "children",
    "walk",
    "written",
]


@dataclass(frozen=True, slots=True)
class Sequence:
    """One part after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """One of several."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """From `low` to `high` times; `high` None says without limit."""

    body: Node
    low: int
    high: int | None
    lazy: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A group that captures, by its number."""

    number: int
    body: Node


@dataclass(frozen=True, slots=True)
class Look:
    """What follows (`ahead`) or precedes, or what does not."""

    ahead: bool
    negative: bool
    body: Node


@dataclass(frozen=True, slots=True)
class Edge:
    """`^`, `$`, `b` or `B`."""

    kind: str


@dataclass(frozen=True, slots=True)
class Backreference:
    """The text of a group, or nothing where the group is not set."""

    number: int


# A tuple of ranges is one character out of them.
Node = Ranges | Sequence | Alternatives | Repeat | Group | Look | Edge | Backreference


def children(node: Node) -> tuple[Node, ...]:
    """The parts of a part."""
    if isinstance(node, Sequence):
        return node.parts
    if isinstance(node, Alternatives):
        return node.options
    return (node.body,) if isinstance(node, Repeat | Group | Look) else ()


def walk(node: Node) -> Iterator[Node]:
    """A part and all that is in it."""
    yield node
    for part in children(node):
        yield from walk(part)


def written(node: Node) -> str:
    """The expression for the package `regex`, without flags."""
    if isinstance(node, tuple):
        return characters.written(node)
    if isinstance(node, Sequence):
        return "".join(map(written, node.parts))
    if isinstance(node, Alternatives):
        return f"(?:{'|'.join(map(written, node.options))})"
    if isinstance(node, Repeat):
        high = "" if node.high is None else node.high
        return f"(?:{written(node.body)}){{{node.low},{high}}}{'?' * node.lazy}"
    if isinstance(node, Group):
        return f"({written(node.body)})"
    if isinstance(node, Look):
        kind = ("" if node.ahead else "<") + ("!" if node.negative else "=")
        return f"(?{kind}{written(node.body)})"
    if isinstance(node, Backreference):
        return f"(?({node.number})\\{node.number}|)"
    if node.kind in "^$":
        return r"\A" if node.kind == "^" else r"\Z"
    word = characters.written(WORD)
    inside = f"(?<={word})(?={word})"
    outside = f"(?<!{word})(?!{word})"
    if node.kind == "B":
        return f"(?:{inside}|{outside})"
    return f"(?:(?<={word})(?!{word})|(?<!{word})(?={word}))"
