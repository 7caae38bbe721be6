r"""The nodes of a pattern of the package `regex`, as `parse` in `syntax` reads them.

What matches one character (`a`, `\w`, `[a-z]`) stays the text it was: only `regex` says which
characters that is. `at` is the position in the pattern.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "Assertion",
    "Atomic",
    "Characters",
    "Choice",
    "Conditional",
    "Flags",
    "Fuzzy",
    "Group",
    "Look",
    "Node",
    "Pattern",
    "Reference",
    "Repeat",
    "Sequence",
    "Verb",
    "captures",
    "children",
    "flags_behind",
    "references",
    "short_references",
    "walk",
    "write",
]


@dataclass(frozen=True, slots=True)
class Characters:
    r"""What matches one character (or what is one to a reader: `\X`, `\R`)."""

    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Assertion:
    """What matches a position: an anchor or a boundary."""

    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Flags:
    """Flags from here to the end of the group."""

    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Parentheses: `(`, `(?:`, `(?<name>`, `(?i:` or `(?|`."""

    head: str
    part: Node
    at: int

    @property
    def captures(self) -> bool:
        return self.head == "(" or bool(self.name)

    @property
    def name(self) -> str:
        return self.head[self.head.find("<") + 1 : -1] if "<" in self.head else ""


@dataclass(frozen=True, slots=True)
class Atomic:
    part: Node
    at: int


@dataclass(frozen=True, slots=True)
class Look:
    """Look-ahead or look-behind."""

    behind: bool
    positive: bool
    part: Node
    at: int

    @property
    def head(self) -> str:
        return f"(?{'<' if self.behind else ''}{'=' if self.positive else '!'}"


@dataclass(frozen=True, slots=True)
class Conditional:
    """By a group's name or number, or by a look-around."""

    test: str | Look
    yes: Node
    no: Node
    at: int


@dataclass(frozen=True, slots=True)
class Repeat:
    """At most `high` times, if that is not None; `mode` is `""`, `"?"` or `"+"`."""

    part: Node
    low: int
    high: int | None
    mode: str
    at: int

    @property
    def count(self) -> str:
        bounds = (self.low, self.high)
        short = {
            (0, None): "*",
            (1, None): "+",
            (0, 1): "?",
            (self.low, self.low): f"{{{self.low}}}",
        }
        return short.get(bounds) or f"{{{self.low},{'' if self.high is None else self.high}}}"


@dataclass(frozen=True, slots=True)
class Fuzzy:
    """A part that may be matched with errors."""

    part: Node
    constraint: str
    at: int


@dataclass(frozen=True, slots=True)
class Reference:
    """What a group matched, or with `call` what it would match here."""

    text: str
    call: bool
    at: int


@dataclass(frozen=True, slots=True)
class Verb:
    text: str
    at: int


Node: TypeAlias = (
    Characters
    | Assertion
    | Flags
    | Sequence
    | Choice
    | Group
    | Atomic
    | Look
    | Conditional
    | Repeat
    | Fuzzy
    | Reference
    | Verb
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A tree, and the flags that are set anywhere in it, as `frozenset({"i", "V1"})`."""

    tree: Node
    flags: frozenset[str]


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below a node."""
    if isinstance(node, Sequence | Choice):
        return node.parts
    if isinstance(node, Conditional):
        return (*([node.test] if isinstance(node.test, Look) else []), node.yes, node.no)
    if isinstance(node, Group | Atomic | Look | Repeat | Fuzzy):
        return (node.part,)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    for child in children(node):
        yield from walk(child)


def flags_behind(part: Node) -> Iterator[str]:
    """The flags in a part that hold behind it, too: those in no group."""
    if isinstance(part, Flags):
        yield write(part)
    elif isinstance(part, Sequence | Choice):
        for inner in part.parts:
            yield from flags_behind(inner)
    elif isinstance(part, Conditional):
        yield from flags_behind(part.yes)
        yield from flags_behind(part.no)


def captures(part: Node) -> bool:
    """Whether a part has a group that captures."""
    return any(isinstance(node, Group) and node.captures for node in walk(part))


def references(part: Node) -> int:
    """How often a part depends on what a group captured, or calls one."""
    return sum(
        isinstance(node, Reference)
        or (isinstance(node, Conditional) and node.test != "DEFINE" and isinstance(node.test, str))
        for node in walk(part)
    )


def write(node: Node) -> str:
    """The node as a pattern."""
    if isinstance(node, Sequence):
        return "".join(map(write, node.parts))
    if isinstance(node, Choice):
        return "|".join(map(write, node.parts))
    if isinstance(node, Group | Look):
        return f"{node.head}{write(node.part)})"
    if isinstance(node, Atomic):
        return f"(?>{write(node.part)})"
    if isinstance(node, Repeat):
        return f"{write(node.part)}{node.count}{node.mode}"
    if isinstance(node, Fuzzy):
        return f"{write(node.part)}{{{node.constraint}}}"
    if isinstance(node, Conditional):
        test = write(node.test) if isinstance(node.test, Look) else f"({node.test})"
        return f"(?{test}{write(node.yes)}|{write(node.no)})"
    if isinstance(node, Reference) and node.text[1:].isdigit():
        return rf"\g<{node.text[1:]}>"  # then a digit that follows is no part of it
    return node.text


def short_references(tree: Node) -> set[str]:
    """The references to groups that capture one character: no text ends inside what they match."""
    groups = [node for node in walk(tree) if isinstance(node, Group)]
    numbered = [group for group in groups if group.captures]
    names = [group.name for group in numbered if group.name]
    if len(set(names)) < len(names) or any(group.head == "(?|" for group in groups):
        return set()  # two groups share a number
    short = [(str(i), group) for i, group in enumerate(numbered, 1) if _is_short(group.part)]
    return {rf"\g<{name}>" for i, group in short for name in (i, group.name)} | {
        f"(?P={group.name})" for _, group in short
    }


def _is_short(part: Node) -> bool:
    if isinstance(part, Choice):
        return all(map(_is_short, part.parts))
    return isinstance(part, Characters) and part.text not in (r"\X", r"\R")
