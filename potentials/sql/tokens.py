"""SQLite's tokens: how bytes are cut into them."""

from __future__ import annotations

import re

__all__ = [
    "BLANK",
    "BLANKS",
    "BLOB",
    "LONE",
    "NUMBER",
    "QUOTES",
    "TOKEN",
    "WORD",
    "is_closed",
    "shape",
    "unquoted",
]

# A token that begins at a position, also one that is cut off by the end of the text.
TOKEN = re.compile(
    rb"""[ \t\r\n\f]+|--[^\n]*|/\*(?:.*?\*/|.*)|'(?:[^']|'')*'?|"(?:[^"]|"")*"?|`(?:[^`]|``)*`?"""
    rb"""|\[[^\]]*\]?|[xX]'[0-9a-fA-F]*'?|[A-Za-z_\x80-\xff][\w$\x80-\xff]*|0[xX][0-9a-fA-F]*"""
    rb"""|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]*)?|->>?|\|\||<[<=>]?|>[>=]?|==?|!=|.""",
    re.DOTALL,
)
BLANKS = b" \t\r\n\f"
BLANK = re.compile(rb"[ \t\r\n\f]|--|/\*")
WORD = re.compile(rb"[A-Za-z_\x80-\xff]")
NUMBER = re.compile(rb"0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
BLOB = re.compile(rb"[xX]'")
# Tokens that nothing can make longer.
LONE = frozenset(b"(),;*+~&%")
QUOTES = {ord("'"): b"'", ord('"'): b'"', ord("`"): b"`", ord("["): b"]"}


def is_closed(token: bytes) -> bool:
    """Whether a token that begins with a quote has its last one.

    >>> is_closed(b"'it''s'"), is_closed(b"'it''")
    (True, False)
    """
    close = QUOTES[token[0]]
    if close == b"]":
        return token.endswith(close)
    return token.count(close) % 2 == 0


def unquoted(token: bytes) -> bytes:
    """The name that a token stands for, in lower case: case is of ASCII alone to SQLite."""
    close = QUOTES.get(token[0])
    if close is None:
        return token.lower()
    return token[1:-1].replace(close * 2, close).lower()


def shape(token: bytes) -> bytes:
    """What decides how a token may continue: strings of equal shape continue alike."""
    first = token[:1]
    if not first:
        return token
    if token[0] in QUOTES:
        return first + QUOTES[token[0]] if is_closed(token) else first
    if BLOB.match(token):
        return token[:2].lower() + (b"'" if len(token) > 2 and token.endswith(b"'") else b"")
    if BLANK.match(token):
        if token.startswith(b"--"):
            return b"--"
        if token.startswith(b"/*"):
            if len(token) > 3 and token.endswith(b"*/"):
                return b"/**/"
            return b"/**" if len(token) > 2 and token.endswith(b"*") else b"/*"
        return b" "
    if first.isdigit() or (first == b"." and len(token) > 1):
        token = re.sub(rb"[0-9]+", b"1", token) if token[:2] not in (b"0x", b"0X") else token[:3]
        return b"0" if token == b"1" and first == b"0" else token.lower()
    return token.lower()
