"""A JSON document, read byte by byte, and judged by rules at each value that closes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import regex

from awrs_ppl.potentials.json.form import ESCAPE, GAP
from awrs_ppl.potentials.json.numbers import EXPONENT_DIGITS, read
from awrs_ppl.potentials.json.rules import Place, Rules
from awrs_ppl.tokens.text import decode

__all__ = ["State", "advance", "is_document", "start"]

DEPTH = 32
DIGITS = 400

_GAP = regex.compile(GAP.encode())
_PLAIN = regex.compile(rb'[^"\\\x00-\x1f]*')
_NUMBER = regex.compile(
    rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,%d})?" % EXPONENT_DIGITS
)
# A surrogate only as the first or the second half of a pair.
_ESCAPE = regex.compile(
    rb'\\(?:["\\/bfnrt]|u(?:[0-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}'
    rb"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
)
_NEEDED = regex.compile(ESCAPE.encode())
_WORDS = (b"true", b"false", b"null")

# What the text ends in, or what may come next.
_IN_STRING, _IN_KEY, _IN_NUMBER, _IN_WORD = "in string", "in key", "in number", "in word"
_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END = "value", "value or ]", "key", "key or }"
_COLON, _MORE, _NOTHING = ":", ", or bracket", "nothing"

Places = tuple[Place, ...]
Judge = Callable[[bytes], bool] | None


@dataclass(frozen=True, slots=True)
class _Open:
    """An object or array that is not closed yet.

    It begins at `at`; `places` must hold for it; `names` are the keys that can come next, if
    they are known; `room` is how many members or items it can have.
    """

    at: int
    is_object: bool
    places: Places
    names: frozenset[str] | None
    room: float
    count: int = 0
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class State:
    """The text so far, without the gaps that are over; the rest follows from these two."""

    text: bytes
    gap: bytes
    expects: str = field(compare=False)
    places: Places = field(compare=False)
    opened: tuple[_Open, ...] = field(compare=False, default=())
    # Where the string, number or word at the end begins, and how long its escape is so far.
    at: int = field(compare=False, default=0)
    escape: int = field(compare=False, default=0)
    # The bytes of a character that is not complete.
    pending: bytes = field(compare=False, default=b"")


def start(rules: Rules) -> State:
    """The state of the empty text."""
    return State(b"", b"", _VALUE, rules.root)


def advance(rules: Rules, state: State, data: bytes, is_valid: Judge = None) -> State | None:
    """The state after `data`; None if no document has this prefix.

    `is_valid` judges what the rules allow, without gaps, at the byte that closes the document."""
    try:
        pending = decode(state.pending + data)[1]
    except UnicodeDecodeError:
        return None
    reader = _Reader(rules, state, is_valid)
    if not reader.read(data) or not reader.key_may_continue(len(pending)):
        return None
    return State(
        bytes(reader.text),
        reader.gap,
        reader.expects,
        reader.places,
        tuple(reader.opened),
        reader.at,
        reader.escape,
        pending,
    )


def is_document(rules: Rules, state: State, is_valid: Judge = None) -> bool:
    """Whether the text is a whole document. A number is judged now, all else was when closed."""
    if state.expects == _IN_NUMBER and not state.opened:
        return _Reader(rules, state, is_valid).close_number()
    return state.expects == _NOTHING


class _Reader:
    """A state that changes. False everywhere says that no document has this prefix."""

    def __init__(self, rules: Rules, state: State, is_valid: Judge) -> None:
        self.rules = rules
        self.is_valid = is_valid
        self.text = bytearray(state.text)
        self.gap = state.gap
        self.expects = state.expects
        self.places = state.places
        self.opened = list(state.opened)
        self.at = state.at
        self.escape = state.escape

    def read(self, data: bytes) -> bool:
        at = 0
        while at < len(data):
            end = at
            if self.expects in (_IN_STRING, _IN_KEY) and not self.escape:
                end = _PLAIN.match(data, at).end()  # pyright: ignore[reportOptionalMemberAccess]
                self.text += data[at:end]
            if end == at:
                end = at + 1
                if not self.step(data[at:end]):
                    return False
            at = end
        return True

    def step(self, byte: bytes) -> bool:
        if self.expects in (_IN_STRING, _IN_KEY):
            return self.string(byte)
        if self.expects == _IN_WORD:
            return self.word(byte)
        if self.expects == _IN_NUMBER:
            if byte in b"0123456789+-.eE":
                return self.number(byte)
            if not self.close_number():
                return False
        if self.expects == _NOTHING:
            return False
        if byte in b" \t\r\n":
            if self.text and self.rules.form.compact:
                return False
            self.gap += byte
            return _GAP.fullmatch(self.gap, partial=True) is not None
        if not _GAP.fullmatch(self.gap):
            return False
        self.gap = b""
        self.text += byte
        return self.mark(byte)

    def mark(self, byte: bytes) -> bool:
        """A byte that is neither space nor in a string, number or word."""
        expects = self.expects
        if byte == b"]" and expects in (_VALUE_OR_END, _MORE):
            return not self.opened[-1].is_object and self.close()
        if byte == b"}" and expects in (_KEY_OR_END, _MORE):
            return self.opened[-1].is_object and self.close()
        if byte == b"," and expects == _MORE:
            return self.comma()
        if byte == b":" and expects == _COLON:
            self.expects = _VALUE
            return True
        if expects in (_KEY_OR_END, _VALUE_OR_END) and not self.opened[-1].room > 0:
            return False
        if byte == b'"' and expects in (_KEY, _KEY_OR_END):
            self.at, self.expects = len(self.text) - 1, _IN_KEY
            return True
        return expects in (_VALUE, _VALUE_OR_END) and self.begin(byte)

    def begin(self, byte: bytes) -> bool:
        self.at = len(self.text) - 1
        if byte in b"{[":
            return self.open(byte == b"{")
        if byte == b'"':
            self.expects = _IN_STRING
        elif byte in b"-0123456789":
            self.expects = _IN_NUMBER
        else:
            self.expects = _IN_WORD
            return byte in b"tfn"
        return True

    # --- strings, numbers, words ----------------------------------------------------------

    def string(self, byte: bytes) -> bool:
        self.text += byte
        if self.escape:
            self.escape += 1
            form = _NEEDED if self.rules.form.compact else _ESCAPE
            match = form.fullmatch(self.text[-self.escape :], partial=True)
            if match is not None and not match.partial:
                self.escape = 0
            return match is not None
        if byte == b"\\":
            self.escape = 1
            return True
        if byte != b'"':
            return False
        return self.close_key() if self.expects == _IN_KEY else self.close_value(self.at)

    def number(self, byte: bytes) -> bool:
        self.text += byte
        number = self.text[self.at :]
        return len(number) <= DIGITS and _NUMBER.fullmatch(number, partial=True) is not None

    def close_number(self) -> bool:
        number = bytes(self.text[self.at :])
        return _NUMBER.fullmatch(number) is not None and self.close_value(self.at)

    def word(self, byte: bytes) -> bool:
        self.text += byte
        word = bytes(self.text[self.at :])
        if word in _WORDS:
            return self.close_value(self.at)
        return any(whole.startswith(word) for whole in _WORDS)

    # --- keys -----------------------------------------------------------------------------

    def key_may_continue(self, pending: int) -> bool:
        """Whether the key at the end, if any, is a prefix of one that the object can have."""
        if self.expects != _IN_KEY or (names := self.opened[-1].names) is None:
            return True
        written = self.text[self.at : len(self.text) - max(self.escape, pending)]
        begun = json.loads(written + b'"')
        return any(name.startswith(begun) for name in names)

    def close_key(self) -> bool:
        top = self.opened[-1]
        key = json.loads(self.text[self.at :])
        names = top.names
        if key in top.keys or (names is not None and key not in names):
            return False
        if not self.rules.following(top.places, top.keys, frozenset({key})):
            return False
        keys = top.keys | {key}
        if names is not None:
            names = self.rules.names(top.places, keys)
        self.opened[-1] = replace(top, keys=keys, names=names)
        self.expects = _COLON
        return self.demand(self.rules.member(top.places, key))

    # --- objects and arrays ---------------------------------------------------------------

    def open(self, is_object: bool) -> bool:
        if len(self.opened) >= DEPTH:
            return False
        places, rules = self.places, self.rules
        names = rules.names(places) if is_object else None
        room = rules.room(places, "Properties" if is_object else "Items")
        self.opened.append(_Open(self.at, is_object, places, names, room))
        self.expects = _KEY_OR_END if is_object else _VALUE_OR_END
        if not is_object and not self.demand(rules.item(places, 0)):
            # Nothing can follow but the end.
            self.opened[-1] = replace(self.opened[-1], room=0)
        return True

    def comma(self) -> bool:
        top = self.opened[-1]
        self.expects = _KEY if top.is_object else _VALUE
        if not top.is_object and not self.demand(self.rules.item(top.places, top.count)):
            return False
        # Without a name left, no key can follow.
        return top.count < top.room and (top.names is None or bool(top.names))

    def demand(self, places: Places | None) -> bool:
        """What must hold for the value that comes; False if none can come."""
        self.places = places or ()
        return places is not None

    def close(self) -> bool:
        top = self.opened.pop()
        self.places = top.places
        return self.close_value(top.at)

    def close_value(self, at: int) -> bool:
        if self.places:
            text = bytes(self.text[at:])
            if not self.rules.holds(self.places, read(text), text):
                return False
        if not self.opened and self.is_valid and not self.is_valid(bytes(self.text)):
            return False
        self.places = ()
        if self.opened:
            top = self.opened[-1]
            self.opened[-1] = replace(top, count=top.count + 1)
        self.expects = _MORE if self.opened else _NOTHING
        return True
