"""Grammars in Lark's syntax, rewritten so that llguidance reads them as Lark does.

llguidance passes over ignored text only between terminals, reads a lazy repeat as a greedy one,
lets its escaped strings continue past the end of the line, and stops an alternative at a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

__all__ = ["completed", "without_comments"]

_TOKENS = re.compile(
    r'(?P<string>"(?:[^"\\\n]|\\.)*"i?)'
    r"|(?P<comment>//[^\n]*|\#[^\n]*)"
    r"|(?P<regexp>/(?:[^/\\]|\\.)+/[imslux]*)"
    r"|(?P<newline>\r?\n)|(?P<blank>[ \t]+)"
    r"|~(?P<repeat>[0-9]+\.\.[1-9][0-9]*)"
    r"|(?P<name>%?[!?]?[A-Za-z_][\w-]*)"
    r"|(?P<other>.)"
)
_LAZY = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<lazy>[*+?}]\?)", re.DOTALL)
# One character after another, as they stand: what a lazy repeat may stop at.
_LITERALS = re.compile(r"(?:\\[^a-zA-Z0-9]|\\[nrtfv]|[^\\.^$*+?{}\[\]|()])+")

_PRIORITY = re.compile(r"[ \t]*\.[ \t]*[+-]?[0-9]+(?=[ \t]*[:\[{])")
_PRIORITY_TOKENS = re.compile(r"[ \t]+|.")

# As in Lark, whose strings end on their line.
_ESCAPED_STRING = r'/"([^"\\\n]|\\[^\n])*"/'
_ONE_IMPORT = re.compile(r"%import\s+common\s*\.\s*ESCAPED_STRING(?:\s*->\s*([\w-]+))?\s*")
_IMPORTS = re.compile(r"%import\s+common\s*\(([^)]*)\)\s*")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def without_comments(lark: str) -> str:
    """The grammar with its comments cut off, line for line.

    >>> without_comments('start: "#" # a hash')
    'start: "#"'
    """
    return _text(_tokens(lark))


def completed(lark: str) -> str:
    """The grammar that says to llguidance what `lark` says to Lark.

    Raises `ValueError` for a lazy repeat that cannot be rewritten.

    >>> print(completed('start: "a"\\n%ignore " "'))
    start_1: "a"
    %ignore " "
    IGNORED_1: (" ")
    start: IGNORED_1* start_1 IGNORED_1*
    """
    added: list[str] = []
    tokens = _without_priorities(_tokens(lark))
    if any(token.text == "%lark" for token in tokens):
        return _text(tokens)  # a grammar inside has a start and an %ignore of its own
    tokens = _with_strings_on_a_line(tokens, added)
    tokens = _without_lazy_repeats(lark, tokens, added)
    ignored = list(_ignored(tokens))
    if ignored:
        start, name = _unused(lark, "start"), _unused(lark, "IGNORED")
        tokens = [
            _Token("name", token.text.replace("start", start)) if _is_start(token) else token
            for token in tokens
        ]
        added.append(f"{name}: {' | '.join(f'({text})' for text in ignored)}")
        added.append(f"start: {name}* {start} {name}*")
    return "\n".join([_text(tokens), *added])


def _tokens(lark: str) -> list[_Token]:
    tokens: list[_Token] = []
    for found in _TOKENS.finditer(lark):
        kind = found.lastgroup or "other"
        # A line of blanks would end a rule that continues with "|" on the next.
        if kind in ("newline", "comment") and tokens and tokens[-1].kind == "blank":
            tokens.pop()
        if kind == "repeat":
            # As long, and llguidance reads it also behind `"a"i`.
            tokens.append(_Token(kind, f"{{{found['repeat'].replace('..', ',')}}}"))
        elif kind != "comment":
            tokens.append(_Token(kind, found.group()))
    return tokens


def _text(tokens: list[_Token]) -> str:
    return "".join(token.text for token in tokens)


def _is_start(token: _Token) -> bool:
    return token.kind == "name" and token.text.lstrip("!?") == "start"


def _unused(lark: str, name: str) -> str:
    number = 1
    while f"{name}_{number}" in lark:
        number += 1
    return f"{name}_{number}"


def _statements(tokens: list[_Token], name: str) -> Iterator[tuple[int, int]]:
    """Where statements like `%ignore` start and end; they continue where a line begins with "|"."""
    for first, token in enumerate(tokens):
        if token.text != name:
            continue
        last = first
        while last < len(tokens):
            if tokens[last].kind == "newline":
                rest = (t.text for t in tokens[last:] if t.kind not in ("newline", "blank"))
                if next(rest, "") != "|":
                    break
            last += 1
        yield first, last


def _ignored(tokens: list[_Token]) -> Iterator[str]:
    for first, last in _statements(tokens, "%ignore"):
        yield _text([t for t in tokens[first + 1 : last] if t.kind != "newline"]).strip()


def _without_priorities(tokens: list[_Token]) -> list[_Token]:
    """Without `.2` behind the name of a rule or terminal, which chooses between its readings."""
    result: list[_Token] = []
    at = 0
    while at < len(tokens):
        begins = not result or result[-1].kind in ("newline", "blank")
        result.append(tokens[at])
        at += 1
        if begins and tokens[at - 1].kind == "name":
            line = _text([*takewhile(lambda token: token.kind != "newline", tokens[at:])])
            if found := _PRIORITY.match(line):
                # A character is a token there.
                at += len(_PRIORITY_TOKENS.findall(found[0]))
    return result


def _with_strings_on_a_line(tokens: list[_Token], added: list[str]) -> list[_Token]:
    for first, last in [*_statements(tokens, "%import")][::-1]:
        statement = _text(tokens[first:last])
        if found := _ONE_IMPORT.fullmatch(statement):
            names = [found[1] or "ESCAPED_STRING"]
        elif found := _IMPORTS.fullmatch(statement):
            others = [name.strip() for name in found[1].split(",")]
            names = [name for name in others if name == "ESCAPED_STRING"]
            added += [f"%import common.{name}" for name in others if names and name not in names]
        else:
            continue
        if names:
            tokens = tokens[:first] + tokens[last:]
            added.append(f"{names[0]}: {_ESCAPED_STRING}")
    return tokens


def _without_lazy_repeats(lark: str, tokens: list[_Token], added: list[str]) -> list[_Token]:
    result: list[_Token] = []
    for at, token in enumerate(tokens):
        end = _end_of_lazy(token.text) if token.kind == "regexp" else None
        if end is None:
            result.append(token)
            continue
        body = token.text[end : token.text.rindex("/")]
        if not _LITERALS.fullmatch(body) or _continues(tokens, at):
            raise ValueError(
                f"{token.text}: a terminal takes the longest text, and a lazy repeat is "
                f'understood only before one fixed text at its end, as in /".*?"/: write what '
                f'may be repeated, as in /"[^"]*"/'
            )
        name = _unused(lark + "".join(added), "LAZY")
        # The texts of which no shorter one is a match.
        added.append(f"{name}: {token.text} & ~({token.text} /(?s:.+)/)")
        result.append(_Token("name", name))
    return result


def _end_of_lazy(regexp: str) -> int | None:
    """Where the last lazy repeat of a regular expression ends."""
    ends = [found.end() for found in _LAZY.finditer(regexp) if found["lazy"]]
    return ends[-1] if ends else None


def _continues(tokens: list[_Token], at: int) -> bool:
    """Whether a token is in the definition of a terminal and something is behind it there."""
    line = at
    while line and not (
        tokens[line - 1].kind == "newline" and tokens[line].kind in ("name", "newline")
    ):
        line -= 1
    head = next((t.text for t in tokens[line:at] if t.kind == "name"), "")
    behind = next((t.text for t in tokens[at + 1 :] if t.kind != "blank"), "\n")
    return head.isupper() and behind not in ("|", "\n", "\r\n")
