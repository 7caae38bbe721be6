"""Names in double quotes that SQLite would take for strings, and nobody would."""

from __future__ import annotations

from awrs_ppl.potentials.sql.place import START
from awrs_ppl.potentials.sql.reader import BOUNDARIES, Reader
from awrs_ppl.potentials.sql.tokens import BLANK, TOKEN

__all__ = ["meant_as_names"]

_AGGREGATES = frozenset((b"avg", b"count", b"group_concat", b"max", b"min", b"sum", b"total"))
# What stands around a whole result column or term.
_BEFORE = frozenset(("select", "distinct", "all", ",", "by"))
_BEHIND = BOUNDARIES | {None, ",", ")", ";", "from", "as", "asc", "desc", "nulls", "NEW"}


def meant_as_names(reader: Reader, text: bytes) -> bytes:
    """The statement with backticks for double quotes, of which SQLite makes no strings, around
    what is a whole result column or term of GROUP BY or ORDER BY, or all that is aggregated.

    A string would make no sense there. Elsewhere it may: `WHERE name = "Amy"`.
    """
    place, at = START, 0
    # Each token: what it is, the name it stands for, where it begins and whether in a SELECT.
    seen: list[tuple[str, bytes | None, int, bool]] = []
    while at < len(text):
        match = TOKEN.match(text, at)
        assert match is not None
        token, following = match[0], text[match.end() : match.end() + 1]
        if not BLANK.match(token):
            symbol, name = reader.symbol(place, token, following)
            seen.append((symbol, name, at, place.flag != START.flag))
        place = reader.take(place, token, at, following, lambda *_: None)
        at = match.end()
    pieces, end = [], 0
    for i, (symbol, name, begin, in_select) in enumerate(seen):
        if symbol != "COLUMN" or name is None or text[begin : begin + 1] != b'"':
            continue
        before = [None, None, None, *(entry[:2] for entry in seen[:i])][-3:]
        last = before[2][0] if before[2] else None
        behind = seen[i + 1][0] if i + 1 < len(seen) else None
        whole = in_select and last in _BEFORE and behind in _BEHIND
        called = before[1] if last == "(" else before[0]
        aggregated = (
            behind == ")"
            and (last == "(" or last == "distinct")
            and called is not None
            and called[0] == "COLUMN"
            and called[1] in _AGGREGATES
        )
        if whole or aggregated:
            match = TOKEN.match(text, begin)
            assert match is not None
            pieces += [text[end:begin], _in_backticks(match[0])]
            end = match.end()
    return b"".join([*pieces, text[end:]])


def _in_backticks(token: bytes) -> bytes:
    name = token[1:-1].replace(b'""', b'"').replace(b"`", b"``")
    return b"`" + name + b"`"
