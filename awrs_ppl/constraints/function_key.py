"""When two functions surely give the same verdicts."""

from __future__ import annotations

import dis
import struct
import weakref
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from threading import RLock
from types import CodeType, FunctionType, MethodType
from typing import Any
from weakref import WeakValueDictionary

from awrs_ppl._recent import Recent

__all__ = ["FunctionKey", "function_key", "global_names"]

# Tuples and frozensets of this many items are read once, not at each call.
LONG = 64
# Lists, dicts and sets of more items are compared by identity and length alone.
LOOKED_THROUGH = 1024


class FunctionKey:
    """What is compared of a function; equal ones are one object, so that to look one up is fast."""

    __slots__ = ("__weakref__", "parts")

    def __init__(self, parts: Hashable) -> None:
        self.parts = parts


def function_key(function: Callable[..., Any] | None) -> FunctionKey:
    """A key that is the same for functions that surely give the same verdicts.

    Compared are the code, but not its file and lines; the defaults; the attributes; and the values
    of the closed-over and global names that the code loads, the functions among them in the same
    way. `str`, `bytes`, numbers, `None`, tuples and frozensets are compared by type and value,
    a `partial` and a bound method by their parts, and everything else by identity: classes,
    modules, builtins; a list, dict or set also by what is in it now; an object that wraps a
    function, as those of `functools.cache` and `predicate` do, also by that function. Any other
    change inside an object is not seen (nor in a container of over a thousand items, if its
    length stays), nor is one of a name that is made up at run time (`globals()[name]`).

    The key is that of this moment: it is another one after a global has changed. It keeps alive
    what it compares by identity. It costs about 10 µs for a small function.

    >>> def above(limit):
    ...     return lambda text: len(text) > limit
    >>> function_key(above(3)) == function_key(above(3))
    True
    >>> function_key(above(3)) == function_key(above(3.0))
    False
    """
    parts = _Walk().key(function)
    number = hash(parts)
    with _lock:
        found = _keys.get(number)
        if found is None or found.parts != parts:
            found = _keys[number] = FunctionKey(parts)
        return found


_lock = RLock()  # what the garbage collector frees may run code that comes here
# By hash and not by what is compared, which would be held for good where it holds its own key.
_keys: WeakValueDictionary[int, FunctionKey] = WeakValueDictionary()


class _Same:
    """An object, equal to itself alone; held, so that no other gets its address."""

    __slots__ = ("it",)

    def __init__(self, it: object) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it

    def __hash__(self) -> int:
        return id(self.it)


class _Parts:
    """A tuple, hashed once."""

    __slots__ = ("hash", "parts")

    def __init__(self, *parts: Hashable) -> None:
        self.parts = parts
        self.hash = hash(parts)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Parts) and self.parts == other.parts)

    def __hash__(self) -> int:
        return self.hash


class _Walk:
    """The functions that one of them reaches, numbered: they may call each other."""

    def __init__(self) -> None:
        self.functions: list[FunctionType] = []
        self.numbers: dict[int, int] = {}
        self.met = 0
        self.open: set[int] = set()

    def key(self, function: Any) -> Hashable:
        root = self.value(function)
        # The list grows while it is read.
        return (root, *[self.parts(found) for found in self.functions])

    def parts(self, function: FunctionType) -> Hashable:
        code, names = _code(function.__code__)
        return (
            code,
            self.value(function.__defaults__),
            self.items(function.__kwdefaults__ or {}),
            self.items(function.__dict__),
            tuple([self.cell(cell) for cell in function.__closure__ or ()]),
            tuple([self.loaded(name, function) for name in names]),
        )

    def loaded(self, name: str, function: FunctionType) -> Hashable:
        for names in (function.__globals__, function.__builtins__):
            if name in names:
                return self.value(names[name])
        return "missing"

    def cell(self, cell: Any) -> Hashable:
        try:
            return self.value(cell.cell_contents)
        except ValueError:
            return "empty"

    def items(self, mapping: dict[str, Any]) -> Hashable:
        return tuple([(name, self.value(mapping[name])) for name in sorted(mapping)])

    def value(self, it: Any) -> Hashable:
        kind = type(it)
        if kind in _PLAIN:
            return (kind, it)
        if kind is float:
            # The bits separate 0.0 from -0.0, and a NaN is equal to itself.
            return (kind, struct.pack("d", it))
        if kind is complex:
            return (kind, struct.pack("dd", it.real, it.imag))
        if kind is FunctionType or kind in (list, dict, set, bytearray):
            self.met += 1  # may change: see `several`
        if kind is FunctionType:
            if id(it) not in self.numbers:
                self.numbers[id(it)] = len(self.functions)
                self.functions.append(it)
            return (kind, self.numbers[id(it)])
        if kind is tuple or kind is frozenset:
            return self.several(it, kind)
        if kind is CodeType:
            return _code(it)[0]
        if kind is MethodType:
            return (kind, self.value(it.__self__), self.value(it.__func__))
        if kind is partial:
            return (kind, self.value(it.func), self.value(it.args), self.items(it.keywords))
        if isinstance(it, list | dict | set | bytearray):
            return self.changing(it)
        wrapped = getattr(it, "__dict__", _NOTHING).get("__wrapped__")
        return _Same(it) if wrapped is None else (_Same(it), self.value(wrapped))

    def changing(self, it: Any) -> Hashable:
        """A container that may change: this one, as it is now."""
        if id(it) in self.open or len(it) > LOOKED_THROUGH:
            return (_Same(it), len(it))
        self.open.add(id(it))
        try:
            if isinstance(it, dict):
                return (_Same(it), tuple([(self.value(k), self.value(v)) for k, v in it.items()]))
            kind = frozenset if isinstance(it, set) else tuple
            return (_Same(it), kind(map(self.value, it)))
        finally:
            self.open.discard(id(it))

    def several(self, it: Any, kind: Any) -> Hashable:
        if len(it) < LONG:
            keys = kind(map(self.value, it))
            # Of two NaNs in a set one would be lost.
            return (kind, keys) if len(keys) == len(it) else _Same(it)
        found = _long.get(id(it))
        if found is not None and found[0] is it:
            return found[1]
        met = self.met
        keys = kind(map(self.value, it))
        key = _Parts(kind, keys if len(keys) == len(it) else _Same(it))
        # What a function does may change; nothing else in it may.
        if self.met == met:
            _long.put(id(it), (it, key))
        return key


_NOTHING: dict[str, Any] = {}
_PLAIN = frozenset({str, bytes, int, bool, type(None), type(...)})
# By address: a tuple or frozenset, held so that no other gets its address, and its key.
_long = Recent(LONG)

# By address: Python's own comparison of code objects includes their lines, and hashes slowly.
_codes: dict[int, tuple[weakref.ref[CodeType], _Parts, tuple[str, ...]]] = {}


def _code(code: CodeType) -> tuple[_Parts, tuple[str, ...]]:
    """What a code object does, and the names that it looks up in globals and builtins."""
    address = id(code)
    found = _codes.get(address)
    if found is not None and found[0]() is code:
        return found[1:]
    parts = _Parts(
        code.co_code,
        code.co_exceptiontable,
        code.co_flags,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_names,
        code.co_varnames,
        code.co_cellvars,
        code.co_freevars,
        tuple(map(_Walk().value, code.co_consts)),
    )
    names = tuple(dict.fromkeys(global_names(code)))
    _codes[address] = (weakref.ref(code, partial(_forget, address, _codes)), parts, names)
    return parts, names


def _forget(address: int, codes: dict[int, Any], _: Any) -> None:
    # The table is held: at the end of the interpreter the module's own name is None.
    codes.pop(address, None)


# Instructions whose name is that of an attribute or a module, or of what is written to. All
# others are taken to read a global, so that one that a later Python adds is not overlooked.
_NOT_READ = ("_ATTR", "_METHOD", "IMPORT_", "STORE_", "DELETE_")


def global_names(code: CodeType) -> Iterator[str]:
    """The names that code looks up in globals and builtins, also in the functions in it."""
    for instruction in dis.get_instructions(code):
        if instruction.opcode in dis.hasname and not any(
            part in instruction.opname for part in _NOT_READ
        ):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from global_names(constant)
