"""Where in a statement its tokens lead, and which names may stand there."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from awrs_ppl._messages import show
from awrs_ppl.potentials.sql.automaton import OUT, Automaton, Edge
from awrs_ppl.potentials.sql.grammar import RESERVED
from awrs_ppl.potentials.sql.names import Names
from awrs_ppl.potentials.sql.place import (
    CLOSED,
    CLOSES,
    COLUMN,
    FUNCTION,
    HAS_SOURCES,
    MAIN,
    MEMBER,
    NONE,
    NOTHING,
    SELECT,
    Open,
    Place,
    Rejected,
    have_sources,
)
from awrs_ppl.potentials.sql.tokens import (
    BLANK,
    BLOB,
    LONE,
    NUMBER,
    QUOTES,
    TOKEN,
    WORD,
    is_closed,
    unquoted,
)

__all__ = ["BOUNDARIES", "Judge", "Options", "Reader"]

# Words behind the sources of a SELECT.
BOUNDARIES = frozenset(
    ("where", "group", "having", "window", "order", "limit", "union", "intersect", "except")
)
_ROLES = frozenset(("COLUMN", "TABLE", "NEW", "CTE", "MEMBER"))
# Roles of names that SQLite also takes from single quotes.
_IN_STRINGS = frozenset(("TABLE", "NEW", "CTE", "MEMBER"))

# Is given the place in front of a token, where that begins, and what closes the text before it so
# that all its names must be known.
Judge = Callable[[Place, int, bytes], None]


class Options(NamedTuple):
    """What may stand at a place: keywords, the role of a name, other tokens."""

    keywords: frozenset[bytes]
    role: str | None
    others: frozenset[str]


class Reader:
    """Reads tokens by an automaton; names must be in `names`, or given by the text itself."""

    def __init__(self, automaton: Automaton, names: Names) -> None:
        self.names = names
        self._automaton = automaton
        self._options = lru_cache(maxsize=4096)(self._find_options)

    def read(self, place: Place, data: bytes, judge: Judge) -> tuple[Place, int]:
        """The place in front of the last token of `data`, which may still continue, and where that
        begins. Raises `Rejected`, and what `judge` does."""
        at = 0
        while at < len(data):
            match = TOKEN.match(data, at)
            assert match is not None
            token, end = match[0], match.end()
            if end == len(data) and token[0] not in LONE:
                if self._can_continue(place, token):
                    self.take(place, token, at, b"", judge)
                break
            place = self.take(place, token, at, data[end : end + 1], judge)
            at = end
        return place, at

    def end(self, place: Place, token: bytes, judge: Judge) -> None:
        """Read the last token of a statement. Raises `Rejected` if it cannot be the last."""
        if token:
            place = self.take(place, token, 0, b"", judge)
        if not self._ends(place.state, place.stack):
            raise Rejected("the statement is unfinished")

    def options(self, place: Place) -> Options:
        """What may stand at a place."""
        return self._options(place.state, place.stack)

    def known(self, place: Place, role: str | None) -> frozenset[bytes] | None:
        """The names that may stand at a place in their role, outside of quotes; None: any."""
        if role == "TABLE":
            return self.names.tables | place.tables
        if role in ("COLUMN", "MEMBER") and place.has_sources:
            return self.names.columns | place.names
        return frozenset() if role is None else None

    def take(self, place: Place, token: bytes, at: int, following: bytes, judge: Judge) -> Place:
        """The place behind a whole token at `at`, with the byte that follows."""
        if BLANK.match(token):
            if place.last == MEMBER:
                if place.has_sources:
                    judge(place, at, self._closing(place))
                return place._replace(last=NOTHING)
            return place
        symbol, name = self.symbol(place, token, following)
        found = self._edge(place, symbol)
        if found is None:
            raise Rejected(f"{show(token)} cannot stand there")
        _, flag, stack = found
        if name is not None:
            self._check_name(place, symbol, token, name)
        elif symbol == "(" and place.last in (COLUMN, MAIN):
            raise Rejected("there is no such function, or not in a query that only reads")
        # A name in front of a dot is no column, one in front of a bracket is a function.
        if place.last not in (COLUMN, FUNCTION, MAIN) or symbol not in (".", "("):
            bounds = symbol in (")", ";") or (symbol in BOUNDARIES and flag == SELECT)
            if flag == SELECT and not bounds:
                pass
            elif (place.last != NOTHING or flag == SELECT) and have_sources(stack):
                judge(place, at, self._closing(place))
        return self._after(place, symbol, name, found, token)

    def _after(
        self,
        place: Place,
        symbol: str,
        name: bytes | None,
        found: tuple[Edge, int, tuple[Open, ...]],
        token: bytes,
    ) -> Place:
        edge, flag, stack = found
        state, last = edge.target, NOTHING
        names, tables, cte = place.names, place.tables, place.cte
        if symbol == "select":
            flag = SELECT
        elif symbol == "values" or (symbol in BOUNDARIES and flag == SELECT):
            flag = HAS_SOURCES
        if edge.target == OUT:
            state, flag, last = stack[-1].target, stack[-1].flag, CLOSED
            stack = stack[:-1]
        elif edge.frame is not None:
            close = CLOSES.get(edge.frame, b")")
            close = close + cte if edge.frame == "body" else close
            stack = (*stack, Open(edge.target, flag, edge.frame, close))
            state, flag = self._automaton.starts[edge.frame], NONE
        if symbol in ("NEW", "CTE") and name is not None:
            names |= {name}
            if symbol == "CTE":
                tables, cte = tables | {name}, token
        elif symbol == "COLUMN":
            last = FUNCTION if name in self.names.functions else COLUMN
            last = MAIN if name == b"main" else last
        elif symbol == "MEMBER":
            last = COLUMN if place.last == MAIN else MEMBER
        elif symbol == ".":
            last = place.last
        return Place(state, flag, stack, names, tables, last, cte)

    def _edge(self, place: Place, symbol: str) -> tuple[Edge, int, tuple[Open, ...]] | None:
        """Where a token leads, and what is open there."""
        edges, calls = self._automaton.edges, self._automaton.calls
        state, flag, stack = place.state, place.flag, place.stack
        while symbol not in edges[state]:
            call = calls.get(state)
            if call is not None and call.frame is not None:
                start = self._automaton.starts[call.frame]
                if symbol in edges[start]:
                    stack = (*stack, Open(call.target, flag, call.frame, b""))
                    state, flag = start, NONE
                    continue
            if state not in self._automaton.ends or not stack or stack[-1].close:
                return None
            state, flag, stack = stack[-1].target, stack[-1].flag, stack[:-1]
        return edges[state][symbol], flag, stack

    def _ends(self, state: int, stack: tuple[Open, ...]) -> bool:
        while state in self._automaton.ends and stack and not stack[-1].close:
            state, stack = stack[-1].target, stack[:-1]
        return not stack and state in self._automaton.ends

    def _find_options(self, state: int, stack: tuple[Open, ...]) -> Options:
        edges, calls = self._automaton.edges, self._automaton.calls
        symbols: set[str] = set()
        while True:
            symbols |= edges[state].keys()
            if (call := calls.get(state)) is not None and call.frame is not None:
                symbols |= edges[self._automaton.starts[call.frame]].keys()
            if state not in self._automaton.ends or not stack or stack[-1].close:
                break
            state, stack = stack[-1].target, stack[:-1]
        words = {symbol for symbol in symbols if symbol.islower()}
        roles = _ROLES & symbols
        assert len(roles) < 2, roles
        return Options(
            frozenset(word.encode() for word in words),
            next(iter(roles), None),
            frozenset(symbols - words - roles),
        )

    def symbol(self, place: Place, token: bytes, following: bytes) -> tuple[str, bytes | None]:
        """What a whole token is at a place, and the name that it stands for."""
        options = self.options(place)
        role = options.role
        if BLOB.match(token):
            symbol = "BLOB"
            if not token.endswith(b"'") or len(token) < 3:
                raise Rejected(f"{show(token)} is not closed")
        elif WORD.match(token):
            word = token.lower()
            if word in options.keywords:
                return word.decode(), None
            if role is None or word.decode("utf-8", "replace") in RESERVED:
                raise Rejected(f"{show(token)} cannot stand there")
            return role, word
        elif token[0] in QUOTES:
            if not is_closed(token):
                raise Rejected(f"{show(token)} is not closed")
            if token[:1] == b"'" and "STRING" in options.others:
                return "STRING", None
            if role is None or (token[:1] == b"'" and role not in _IN_STRINGS):
                raise Rejected(f"{show(token)} cannot stand there")
            return role, unquoted(token)
        elif token[:1].isdigit() or (token[:1] == b"." and len(token) > 1):
            symbol = "NUMBER"
            if not NUMBER.fullmatch(token) or WORD.match(following) or following.isdigit():
                raise Rejected(f"{show(token + following)} is no number")
        else:
            symbol = token.decode("latin-1")
        return symbol, None

    def _check_name(self, place: Place, symbol: str, token: bytes, name: bytes) -> None:
        known = self.known(place, symbol)
        if known is None or name in known or (token[0] in QUOTES and symbol != "TABLE"):
            return
        kind = {"TABLE": "table", "MEMBER": "column"}.get(symbol, "column, table or function")
        raise Rejected(f"there is no {kind} {show(token)} to read")

    def _can_continue(self, place: Place, token: bytes) -> bool:
        """Whether the last token is a whole word that no name can begin with, and behind which
        all sources of a SELECT are known. Raises `Rejected` if nothing has this prefix."""
        if BLANK.match(token) or token in (b"-", b"/"):
            return False
        options = self.options(place)
        others = options.others
        if BLOB.match(token) or token[:1].isdigit() or (token[:1] == b"." and len(token) > 1):
            fits = ("BLOB" if BLOB.match(token) else "NUMBER") in others
        elif WORD.match(token):
            word = token.lower()
            as_name = self._begins_name(place, options.role, word)
            fits = as_name or any(keyword.startswith(word) for keyword in options.keywords)
            if fits and not as_name:
                return word in options.keywords and word.decode() in BOUNDARIES
            fits = fits or (word == b"x" and "BLOB" in others)
        elif token[0] in QUOTES:
            fits = options.role is not None and (token[:1] != b"'" or options.role in _IN_STRINGS)
            fits = fits or (token[:1] == b"'" and "STRING" in others)
        else:
            text = token.decode("latin-1")
            fits = any(other.startswith(text) for other in others)
            fits = fits or (text == "." and "NUMBER" in others)
        if not fits:
            raise Rejected(f"{show(token)} cannot stand there")
        return False

    def _begins_name(self, place: Place, role: str | None, word: bytes) -> bool:
        if role is None:
            return False
        if role == "TABLE":
            own, tables = place.tables, True
        elif role in ("COLUMN", "MEMBER") and place.has_sources:
            own, tables = place.names, False
        else:
            return True
        return self.names.begins(word, tables) or any(name.startswith(word) for name in own)

    def _closing(self, place: Place) -> bytes:
        """What closes all that is open at a place."""
        state, closing = place.state, b""
        for entry in reversed(place.stack):
            if entry.close == b" END" and state not in self._automaton.ends:
                while_ = self._automaton.edges[state]
                closing += b" THEN 1" if "then" in while_ else b" WHEN 1 THEN 1"
            elif entry.frame == "cast" and state not in self._automaton.ends:
                closing += b" AS INT"
            closing += entry.close
            state = entry.target
        return closing
