"""Backreferences of patterns, as far as the package `regex` matches them as ECMA 262 does."""

from __future__ import annotations

from collections.abc import Iterator

from awrs_ppl.potentials.json.pattern_nodes import (
    Alternatives,
    Backreference,
    Group,
    Look,
    Node,
    Repeat,
    children,
    walk,
)

__all__ = ["check_backreferences"]


def check_backreferences(node: Node) -> None:
    """Raises where `regex` would keep a group's text that ECMA 262 forgets.

    A repetition forgets, before each turn, what its groups have captured.
    """
    used = {part.number for part in walk(node) if isinstance(part, Backreference)}
    for repeat in walk(node):
        if isinstance(repeat, Repeat) and repeat.high != 1:
            inside = {part.number for part in walk(repeat.body) if isinstance(part, Group)}
            if inside & used and not inside & used <= set(_always(repeat.body)):
                number = min(inside & used - set(_always(repeat.body)))
                raise ValueError(
                    f"\\{number} refers to a group that not every turn of a repetition sets, "
                    "which is not supported: write the repetition without it"
                )
    _check_order(node, set(), used)


def _check_order(node: Node, seen: set[int], used: set[int]) -> None:
    if isinstance(node, Backreference) and node.number not in seen:
        raise ValueError(
            f"\\{node.number} stands before the end of the group that it refers to, "
            "which is not supported: leave it out, it matches nothing there"
        )
    if (
        isinstance(node, Look)
        and not node.ahead
        and used & {part.number for part in walk(node) if isinstance(part, Group | Backreference)}
    ):
        raise ValueError(
            "a backreference and a look-behind around its group are not supported together"
        )
    for part in children(node):
        _check_order(part, seen, used)
    if isinstance(node, Group):
        seen.add(node.number)


def _always(node: Node) -> Iterator[int]:
    """The groups that are set wherever the node matches."""
    if isinstance(node, Group):
        yield node.number
    if isinstance(node, Alternatives | Look) or (isinstance(node, Repeat) and node.low == 0):
        return
    for part in children(node):
        yield from _always(part)
