r"""Which prefixes a pattern allows, as another pattern for partial matches of the package `regex`.

A partial match accepts a text where a path through the pattern comes to need a character behind
its end. That is right if nothing before has decided by the end as if the text were whole: a
look-ahead, a boundary, a lazy repetition (`regex` rejects `"ab"` for `.+?(?<=\.)`), or an atomic
group that has made its choice by one of these. So the pattern is written anew, in these modes:

- `MAIN`: what the end leaves open is taken as true. All paths are tried, so their order does
  not count.
- `EXACT`: whatever comes to the end needs a character there, and so accepts. The order of the
  paths is kept: for atomic groups, and look-aheads whose groups are referred to.
- `MAY`: in a look-ahead: true unless no continuation makes it so. Never needs a character.
- `SURE`: in a negative look-ahead: true only if every continuation makes it so. Never needs one.

No mode rejects a prefix of a match; some texts are allowed that cannot be completed: two
assertions that contradict one another, and the looser rules of `EXACT`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto

from awrs_ppl.potentials.regex.tree import (
    Assertion,
    Atomic,
    Characters,
    Choice,
    Conditional,
    Flags,
    Fuzzy,
    Group,
    Look,
    Node,
    Pattern,
    Reference,
    Repeat,
    Sequence,
    Verb,
    captures,
    flags_behind,
    references,
    short_references,
    walk,
    write,
)

__all__ = ["relax"]


class _Mode(Enum):
    MAIN = auto()
    EXACT = auto()
    MAY = auto()
    SURE = auto()


_MAIN, _EXACT, _MAY, _SURE = _Mode

# In a partial match this accepts at the end of the text, and fails before.
_NEED = r"(?=\Z[\s\S])"
_OR_NEED = rf"(?:{_NEED}|)"
# And this accepts anywhere.
_NEED_ANYWHERE = r"(?=[\s\S]*\Z[\s\S])"
_NEVER = "(?!)"
_ENDS = ("$", r"\Z", r"\z")
_BOUNDARIES = (r"\b", r"\B", r"\m", r"\M")


def relax(pattern: Pattern) -> str:
    r"""A pattern whose partial matches are the prefixes of the pattern's whole matches, or more.

    >>> from awrs_ppl.potentials.regex.syntax import parse
    >>> print(relax(parse(r"a+?b{2}")), relax(parse(r"(?>a+?)\b")))
    a+b{2} (?>(?:(?=\Z[\s\S])|a)+?)(?:\Z|\b)
    """
    return _Writer(pattern).write(pattern.tree, _EXACT if _needs_order(pattern.tree) else _MAIN)


_PLAIN = (Characters, Sequence, Choice, Group, Repeat)
_FAILS = ("(*FAIL)", "(*F)")


def _needs_order(tree: Node) -> bool:
    """Whether the whole must be `EXACT`.

    A verb cuts off the paths that come later, and a group that is called from one position and
    stands at another would need a mode for each.
    """
    inner = [
        node
        for part in walk(tree)
        if isinstance(part, Look | Atomic) or (isinstance(part, Repeat) and part.mode == "+")
        for node in walk(part)
    ]
    return any(isinstance(node, Verb) and node.text not in _FAILS for node in walk(tree)) or (
        any(map(_is_call, walk(tree)))
        and any(_is_call(node) or (isinstance(node, Group) and node.captures) for node in inner)
    )


def _is_call(node: Node) -> bool:
    return isinstance(node, Reference) and node.call


def _is_open(part: Node) -> bool:
    """Whether a part may decide by the end of the text, or by which of its paths comes first."""
    return any(
        isinstance(node, Assertion | Look | Verb | Fuzzy)
        or _is_call(node)
        or (isinstance(node, Conditional) and isinstance(node.test, Look))
        or (isinstance(node, Repeat) and node.mode == "?")
        or (isinstance(node, Characters) and node.text == r"\X")
        for node in walk(part)
    )


def _instead(part: Node, text: str) -> str:
    """Another pattern in place of a part; its groups stay, so that others keep their numbers."""
    return f"(?:{text}|{_NEVER}(?:{write(part)}))" if captures(part) else f"(?:{text})"


class _Writer:
    def __init__(self, pattern: Pattern) -> None:
        self._word = "w" in pattern.flags
        # Then a string is more than its characters: `ss` matches `ß`.
        self._folds = "i" in pattern.flags and bool({"f", "V1"} & pattern.flags)
        self._references = references(pattern.tree)
        self._short = short_references(pattern.tree)
        self._fuzzy_anywhere = any(isinstance(node, Fuzzy) for node in walk(pattern.tree))
        # `regex` forgets that a repetition would need a character if what follows it is tried at
        # the end. That matters only if it then fails there, without needing one.
        self._may_fail_at_end = any(
            isinstance(node, Look | Reference | Verb)
            or (isinstance(node, Assertion) and not (node.at == 0 and node.text in ("^", r"\A")))
            for node in walk(pattern.tree)
        )
        self._kinds: dict[type, Callable[..., str]] = {
            Characters: self._characters,
            Assertion: self._assertion,
            Sequence: lambda node, *how: "".join(self.write(part, *how) for part in node.parts),
            Choice: lambda node, *how: "|".join(self.write(part, *how) for part in node.parts),
            Group: lambda node, *how: f"{node.head}{self.write(node.part, *how)})",
            Atomic: self._atomic,
            Look: self._look,
            Conditional: self._conditional,
            Repeat: self._repeat,
            Fuzzy: self._fuzzy,
            Reference: lambda node, *how: self._item(write(node), *how),
            Verb: lambda node, *how: write(node),
            Flags: lambda node, *how: write(node),
        }

    def write(self, node: Node, mode: _Mode, behind: bool = False) -> str:
        """The node in a mode; in a look-behind, what reads characters never comes to the end."""
        return self._kinds[type(node)](node, mode, behind)

    def _item(self, text: str, mode: _Mode, behind: bool) -> str:
        """What reads characters, as text."""
        if mode is _MAY:
            return rf"(?:\Z|(?!\Z){text})" if not behind else text
        return rf"(?:(?!\Z){text})" if mode is _SURE and not behind else text

    def _characters(self, node: Characters, mode: _Mode, behind: bool) -> str:
        if node.text == r"\X":  # what it reads may become longer
            if behind:
                return self._unknown(node, mode, behind)
            if mode is _SURE:
                return r"(?:(?!\Z)\X(?!\Z))"
            return rf"(?:\X{_OR_NEED})" if mode is not _MAY else self._item(r"\X", mode, behind)
        if node.text == r"\R" and not behind:  # a newline may follow `\r`
            if mode is _SURE:
                return r"(?:(?!\Z|\r\Z)\R)"
            return r"(?:\Z|\r\Z|(?!\Z|\r\Z)\R)" if mode is _MAY else node.text
        return self._item(node.text, mode, behind)

    def _unknown(self, node: Node, mode: _Mode, behind: bool) -> str:
        """In place of what may read any characters."""
        if mode in (_MAIN, _EXACT):  # look-ahead is passed over where the next item fails
            return _instead(node, _NEED_ANYWHERE if behind else r"[\s\S]*")
        return _instead(node, _NEVER if mode is _SURE else r"(?:(?!\Z)[\s\S])*")

    def _assertion(self, node: Assertion, mode: _Mode, behind: bool) -> str:
        text = node.text
        if text == r"\K":
            return ""
        if self._word and text in (*_BOUNDARIES, "^", "$"):
            # These see further than one character.
            if text in _BOUNDARIES:
                return {_EXACT: _NEED_ANYWHERE, _SURE: _NEVER}.get(mode, "")
            near = r"(?=[\s\S]{0,2}\Z[\s\S])"
            return {_EXACT: rf"(?:{near}|{text})", _SURE: _NEVER}.get(mode, rf"(?:\Z|{text})")
        if text not in _ENDS and text not in _BOUNDARIES:
            return rf"(?:\Z|{text})" if mode is _MAY else text
        if mode is _EXACT:
            # `$` holds before a newline at the end, too.
            return rf"(?:(?={'' if text != '$' else chr(92) + 'n?'}\Z[\s\S])|{text})"
        if mode is not _SURE:
            return text if mode is _MAIN and text in _ENDS else rf"(?:\Z|{text})"
        if text in _BOUNDARIES:
            return rf"(?:(?!\Z){text})"
        return r"(?:(?!\Z)(?=\n(?!\Z))$)" if text == "$" else _NEVER

    def _atomic(self, node: Atomic, mode: _Mode, behind: bool) -> str:
        part = node.part
        if mode in (_MAIN, _EXACT):
            return f"(?>{self.write(part, _EXACT, behind)})"
        # Repetitions in a look-behind are lazy (see there), which is another path.
        is_reordered = behind and any(isinstance(node, Repeat) for node in walk(part))
        if is_reordered or _is_open(part):
            if mode is _SURE:
                return _instead(part, _NEVER)
            return f"(?:{self.write(part, _MAY, behind)})"
        text = f"(?>{self.write(part, _MAY, behind)})"
        # Which path comes first is sure where none has come to the end.
        return rf"(?:{text}(?!\Z))" if mode is _SURE and not behind else text

    def _repeat(self, node: Repeat, mode: _Mode, behind: bool) -> str:
        if node.mode == "+":
            return self._atomic(Atomic(replace(node, mode=""), node.at), mode, behind)
        inner = self.write(node.part, mode, behind)
        if not inner:
            return ""
        if not behind and mode in (_MAIN, _EXACT):
            is_lazy = node.mode == "?" and mode is _EXACT
            if is_lazy or (self._may_fail_at_end and not isinstance(node.part, Characters)):
                inner = f"(?:{_NEED}|{inner})"
            if self._fuzzy_anywhere:  # then it ends repetitions where the text ends
                inner = f"(?:{inner}{_OR_NEED})"
        if mode is _EXACT:
            return f"{inner}{node.count}{node.mode}"
        # All paths are tried, and greedy repetitions are the faster ones. In a look-behind one may
        # make `regex` accept at the start of the text, as if characters could come before it.
        return f"{inner}{node.count}{'?' if behind else ''}"

    def _look(self, node: Look, mode: _Mode, behind: bool) -> str:
        if any(isinstance(part, Fuzzy) for part in walk(node)):
            return self._unknown(
                node, mode, behind
            )  # in `regex` errors may move the position where it stands
        if mode is _EXACT or (mode is _MAIN and self._is_exact(node)):
            inner = _EXACT
        else:
            inner = _SURE if node.positive is (mode is _SURE) else _MAY
        text = f"{node.head}{self.write(node.part, inner, node.behind)})"
        return rf"(?:\Z|{text})" if mode is _MAY else text

    def _is_exact(self, look: Look) -> bool:
        """Whether a look-around must say exactly where it comes to the end."""
        outside = self._references
        return any(
            write(node) not in self._short
            if isinstance(node, Reference)
            else (self._folds and not node.behind)
            # What a positive one captured, on the path that came first, is referred to outside.
            or (node.positive and captures(node) and references(node) < outside)
            for node in walk(look)
            if isinstance(node, Reference | Look)
        )

    def _conditional(self, node: Conditional, mode: _Mode, behind: bool) -> str:
        yes, no = self.write(node.yes, mode, behind), self.write(node.no, mode, behind)
        if isinstance(node.test, str):
            text = f"(?({node.test}){yes}|{no})"
            return rf"(?:\Z|{text})" if mode is _MAY and not behind else text
        test = self.write(node.test, mode, behind)
        if flags := "".join(flags_behind(node)):
            # These hold behind a conditional as well, and would end with a group.
            return self._unknown(node, mode, behind) + flags
        otherwise = ""
        if not captures(node.test):
            # No conditional: behind one `regex` loses paths that begin with a look-ahead.
            negative = replace(node.test, positive=not node.test.positive)
            otherwise = self.write(negative, mode, behind)
        elif mode is _SURE:
            return _instead(node, _NEVER)
        if mode is _EXACT and (captures(node.test) or not test.startswith(node.test.head)):
            return self._unknown(node, mode, behind)
        # A look-behind is read from its end, and the test stands where the reading begins.
        return f"(?:{yes}{test}|{no}{otherwise})" if behind else f"(?:{test}{yes}|{otherwise}{no})"

    def _fuzzy(self, node: Fuzzy, mode: _Mode, behind: bool) -> str:
        plain = all(isinstance(inner, _PLAIN) for inner in walk(node.part))
        # How many errors come first may depend on what follows.
        if mode is _EXACT or not plain or _is_open(node.part):
            return self._unknown(node, mode, behind)
        # Errors may be few so far that must become more.
        most = re.sub(r"[0-9]+<=?(?=[eids])", "", node.constraint)
        return f"(?:{write(node.part)}{{{most}}}{_OR_NEED})"
