"""The members of an object and the items of an array, as the rules of a grammar for llguidance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

__all__ = ["in_any_order", "in_order", "marks", "repeated"]

# Most items of an array that are written out.
ITEMS = 200


def marks(gap: str) -> Iterator[str]:
    """The terminals for what stands between parts, with the space around it."""
    gap = gap.replace("/", r"\x2f")
    yield r"GAP: /\r?\n[ \t]{0,40}|[ \t]{1,40}/"
    yield from (f"{name}: /{gap}{mark}{gap}/" for name, mark in (("COMMA", ","), ("COLON", ":")))
    for name, opening, closing in (("ARRAY", r"\[", r"\]"), ("OBJECT", r"\{", r"\}")):
        yield f"OPEN_{name}: /{opening}{gap}/"
        yield f"CLOSE_{name}: /{gap}{closing}/"
    yield rf"NO_ITEMS: /\[{gap}\]/"
    yield rf"NO_MEMBERS: /\{{{gap}\}}/"


def in_any_order(members: Sequence[str]) -> str:
    """An object with one member or more."""
    either = " | ".join(members)
    return f"OPEN_OBJECT ({either}) (COMMA ({either}))* CLOSE_OBJECT"


def in_order(
    named: Sequence[tuple[str, bool]],
    others: Sequence[str],
    *,
    are_last: bool,
    add: Callable[[str], str],
) -> str:
    """An object with one member or more: those that are named, in this order, each once.

    Each comes with whether it must be there. Others are in between, or last. `add` makes a rule
    of a text, and gives its name. The text is as long as there are members, however many can be
    left out. It is empty if there can be no such object.
    """
    either = f"({' | '.join(others)})"
    more = f"(COMMA {either})*" if others else ""
    between = "" if are_last else more
    # From the last to the first: what can follow a member, and what can begin an object here.
    rest, begun = more, add(f"{either} {more}") if others and not (between and named) else ""
    for member, is_needed in reversed(named):
        begun = f"{member} {rest}" + (f" | {begun}" if begun and not is_needed else "")
        begun = add(begun)
        own = f"{between} COMMA {member}"
        rest = add(f"{own} {rest}" if is_needed else f"({own})? {rest}")
    if between and named:
        begun = f"({begun} | {either} {rest})"
    return f"OPEN_OBJECT {begun} CLOSE_OBJECT" if begun else ""


def repeated(item: str, low: int, high: int | None, count: int) -> str:
    """Items behind a comma each: `low` of them or more, and `high` less `count` at most."""
    if not item:
        return ""
    low = max(low, 0) if low <= ITEMS else 0
    most = "" if high is None or high - count > ITEMS else high - count
    return f"(COMMA {item}){{{low},{most}}}"
