"""Which functions have equal keys: those that surely give the same verdicts, and no others."""

from __future__ import annotations

import functools
import gc
import math
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awrs_ppl import predicate
from awrs_ppl.constraints.function_key import function_key


def _cell(source: str, names: dict[str, Any] | None = None) -> Callable[[str], Any]:
    """`f` after a cell of a notebook was run, with the names that earlier cells left."""
    names = {} if names is None else names
    exec(source, names)
    return names["f"]


def _above(limit: Any) -> Callable[[str], bool]:
    return lambda text: len(text) > limit


def _default(limit: Any) -> Callable[[str], bool]:
    return lambda text, limit=limit: len(text) > limit


def _keyword(limit: Any) -> Callable[[str], bool]:
    return lambda text, *, limit=limit: len(text) > limit


def _wrapped(function: Callable[[str], bool]) -> Callable[[str], bool]:
    @functools.wraps(function)
    def wrapper(text: str) -> bool:
        return function(text)

    return wrapper


def _logged(function: Callable[[str], bool]) -> Callable[[str], bool]:
    """Two of these differ only by `__wrapped__`."""

    @functools.wraps(function)
    def wrapper(text: str) -> bool:
        return wrapper.__wrapped__(text)  # pyright: ignore

    return wrapper


def _recursive(step: int) -> Callable[[str], bool]:
    def down(text: str) -> bool:
        return not text or down(text[step:])

    return down


def _mutual(step: int) -> Callable[[str], bool]:
    def even(text: str) -> bool:
        return not text or odd(text[1:])

    def odd(text: str) -> bool:
        return bool(text) and even(text[step:])

    return even


def _unfilled() -> Callable[[str], bool]:
    function = lambda text: later(text)  # noqa: E731
    if function is None:
        later = str.isupper
    return function


def _partial(function: Any, *args: Any, **kwargs: Any) -> Any:
    return functools.partial(function, *args, **kwargs)


class Rule:
    """Callable, and with a method."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, text: str) -> bool:
        return len(text) > self.limit

    def holds(self, text: str) -> bool:
        return len(text) > self.limit

    def fails(self, text: str) -> bool:
        return not self.holds(text)


RULE, OTHER = Rule(3), Rule(3)


class Wrapper:
    """Callable, around a function that it may negate."""

    def __init__(self, function: Any, turns: bool) -> None:
        self.__wrapped__, self.turns = function, turns

    def __call__(self, text: str) -> bool:
        return self.__wrapped__(text) is not self.turns


NAN = float("nan")
LISTED = ["a"]
LONG = tuple(f"word {i}" for i in range(500))

HELPER = "def helper(text): return text.strip()\n"
USES = "def f(text): return helper(text) != ''"
NESTED = "def f(text): return any((lambda c: c in ALLOWED)(c) for c in text)"


def _with(value: Any, source: str = "def f(text): return text in ALLOWED") -> Callable[[str], Any]:
    return _cell(source, {"ALLOWED": value})


EQUAL = {
    "a lambda made again": (_above(3), _above(3)),
    "equal strings": (_above("ab"), _above("".join(["a", "b"]))),
    "equal large numbers": (_above(10**30), _above(10**30)),
    "the same NaN": (_above(NAN), _above(float("nan"))),
    "equal tuples": (_above((1, "a", None, (2.0,))), _above((1, "a", None, (2.0,)))),
    "equal frozensets": (_above(frozenset("abc")), _above(frozenset("cba"))),
    "equal long tuples": (_above(LONG), _above(LONG[:9] + LONG[9:])),
    "equal long frozensets": (_above(frozenset(LONG)), _above(frozenset(reversed(LONG)))),
    "the same list": (_above(LISTED), _above(LISTED)),
    "a tuple with the same list": (_above((1, LISTED)), _above((1, LISTED))),
    "equal defaults": (_default(3), _default(3)),
    "equal keyword defaults": (_keyword(3), _keyword(3)),
    "a cell run again": (_cell(HELPER + USES), _cell(HELPER + USES)),
    "a cell run again, further down": (_cell(HELPER + USES), _cell("\n\n" + HELPER + "\n" + USES)),
    "equal constants of nested code": (_with("abc", NESTED), _with("abc", NESTED)),
    "a global that is not used": (
        _cell(USES, {"helper": str.strip, "a": 1}),
        _cell(USES, {"helper": str.strip, "a": 2}),
    ),
    "an attribute with the name of a global": (
        _cell("def f(text): return text.upper()", {"upper": 1}),
        _cell("def f(text): return text.upper()", {"upper": 2}),
    ),
    "functions with other names": (
        _cell("def f(text): return len(text) > 3"),
        _cell("def g(text): return len(text) > 3\nf = g"),
    ),
    "equal decorated functions": (_wrapped(_above(3)), _wrapped(_above(3))),
    "recursion": (_recursive(1), _recursive(1)),
    "mutual recursion": (_mutual(1), _mutual(1)),
    "an empty cell": (_unfilled(), _unfilled()),
    "a missing global": (_cell("def f(t): return gone(t)"), _cell("def f(t): return gone(t)")),
    "a method of one instance": (RULE.holds, RULE.holds),
    "one callable object": (RULE, RULE),
    "one class": (Rule, Rule),
    "equal partials": (_partial(_above(3), 1), _partial(_above(3), 1)),
    "keywords of a partial in another order": (
        _partial(_above(3), a=1, b=2),
        _partial(_above(3), b=2, a=1),
    ),
    "a builtin": (len, len),
    "functions in a tuple": (_above((_above(1), "a")), _above((_above(1), "a"))),
    "None": (None, None),
}

DIFFERENT = {
    "another value": (_above(3), _above(4)),
    "int and float": (_above(1), _above(1.0)),
    "int and bool": (_above(1), _above(True)),
    "str and bytes": (_above("a"), _above(b"a")),
    "float and complex": (_above(1.0), _above(1 + 0j)),
    "zeros of other sign": (_above(0.0), _above(-0.0)),
    "complex zeros of other sign": (_above(complex(0, 0.0)), _above(complex(0, -0.0))),
    "NaN and a number": (_above(NAN), _above(0.0)),
    "tuples of other types": (_above((1, 2)), _above((1, 2.0))),
    "nested tuples of other types": (_above(((1,),)), _above(((True,),))),
    "frozensets of other types": (_above(frozenset({1})), _above(frozenset({True}))),
    "a tuple and a frozenset": (_above((1,)), _above(frozenset({1}))),
    "long tuples": (_above(LONG), _above((*LONG[:-1], "z"))),
    "long tuples of other types": (_above((1,) * 500), _above((1.0,) * 500)),
    "long tuples of other functions": (_above((_above(1),) * 99), _above((_above(2),) * 99)),
    "equal lists": (_above(["a"]), _above(["a"])),
    "a tuple with equal lists": (_above((1, ["a"])), _above((1, ["a"]))),
    "a subclass of str": (_above("a"), _above(type("S", (str,), {})("a"))),
    "other defaults": (_default(3), _default(4)),
    "defaults of other type": (_default(1), _default(True)),
    "other keyword defaults": (_keyword(3), _keyword(4)),
    "a default and a keyword": (_default(3), _keyword(3)),
    "an edited constant": (_cell("def f(t): return 1"), _cell("def f(t): return 1.0")),
    "an edited constant, bool": (_cell("def f(t): return 1"), _cell("def f(t): return True")),
    "an edited constant, sign": (_cell("def f(t): return 0.0"), _cell("def f(t): return -0.0")),
    "an edited constant in a tuple": (
        _cell("def f(t): return t in (1, 2)"),
        _cell("def f(t): return t in (1, 2.0)"),
    ),
    "an edited operator": (_cell("def f(t): return t < 'a'"), _cell("def f(t): return t > 'a'")),
    "an edited method": (_cell("def f(t): return t.upper()"), _cell("def f(t): return t.lower()")),
    "an edited handler": (
        _cell("def f(t):\n try: return int(t)\n except ValueError: return 0"),
        _cell("def f(t):\n try: return int(t)\n except TypeError: return 0"),
    ),
    "an edited import": (
        _cell("def f(t):\n import math as m\n return m"),
        _cell("def f(t):\n import cmath as m\n return m"),
    ),
    "a generator": (_cell("def f(t): return t"), _cell("def f(t): yield t")),
    "an edited lambda inside": (
        _with("a", NESTED),
        _with("a", NESTED.replace("c in A", "c not in A")),
    ),
    "a global of a lambda inside": (_with("abc", NESTED), _with("abd", NESTED)),
    "an edited helper": (_cell(HELPER + USES), _cell(HELPER.replace("strip", "lstrip") + USES)),
    "a helper's helper": tuple(
        _cell(f"def low(t): return t[{i}:]\ndef helper(t): return low(t)\n{USES}") for i in (1, 2)
    ),
    "a helper in a class inside": tuple(
        _cell(f"X = {i}\ndef f(t):\n class A:\n  y = X\n return A.y") for i in (1, 2)
    ),
    "a builtin that is shadowed": (
        _cell("def f(t): return len(t)"),
        _cell("def f(t): return len(t)", {"len": lambda t: 3}),
    ),
    "a global that was missing": (
        _cell("def f(t): return gone(t)"),
        _cell("def f(t): return gone(t)", {"gone": None}),
    ),
    "another decorated function": (_wrapped(_above(3)), _wrapped(_above(4))),
    "another wrapped attribute": (_logged(_above(3)), _logged(_above(4))),
    "decorated or not": (_wrapped(_above(3)), _above(3)),
    "recursion with another step": (_recursive(1), _recursive(2)),
    "mutual recursion with another step": (_mutual(1), _mutual(2)),
    "empty and full cells": (_unfilled(), _cell("def g(x): return lambda t: x(t)\nf = g(len)")),
    "methods of two instances": (RULE.holds, OTHER.holds),
    "two methods of one instance": (RULE.holds, RULE.fails),
    "two objects around one function": (Wrapper(RULE.holds, False), Wrapper(RULE.holds, True)),
    "two callable objects": (RULE, OTHER),
    "two classes": tuple(_cell("class f:\n x = 1") for _ in range(2)),
    "instances as globals": (_with(RULE), _with(OTHER)),
    "other arguments of a partial": (
        _partial(_above(3), 1),
        _partial(_above(3), 2),
    ),
    "other functions of a partial": (
        _partial(_above(3), 1),
        _partial(_above(4), 1),
    ),
    "other keywords of a partial": (
        _partial(_above(3), a=1),
        _partial(_above(3), b=1),
    ),
    "two builtins": (len, repr),
    "methods of two strings": ("ab".startswith, "ac".startswith),
    "modules": (_with(math), _with(sys)),
    "functions in a tuple, edited": (_above((_above(1), "a")), _above((_above(2), "a"))),
    "one function or two": (_above((f := _above(1), f, RULE)), _above((f, _above(1), OTHER))),
    "sets of NaNs": (_above(frozenset({NAN, float("nan")})), _above(frozenset({NAN}))),
    "with and without": (None, _above(3)),
}


@pytest.mark.parametrize(("one", "two"), EQUAL.values(), ids=EQUAL)
def test_function_key_of_equal_functions_is_equal(one: Any, two: Any) -> None:
    assert function_key(one) == function_key(two)
    assert hash(function_key(one)) == hash(function_key(two))


@pytest.mark.parametrize(("one", "two"), DIFFERENT.values(), ids=DIFFERENT)
def test_function_key_of_different_functions_is_different(one: Any, two: Any) -> None:
    assert function_key(one) == function_key(one)
    assert function_key(one) != function_key(two)
    assert function_key(two) != function_key(one)


def test_function_key_of_lambdas_in_a_loop_compares_their_values() -> None:
    """All see the last value of the loop; with a default each sees its own."""
    shared = [lambda text: len(text) > limit for limit in range(3)]  # noqa: B023
    assert len({function_key(f) for f in shared}) == 1
    own = [lambda text, limit=limit: len(text) > limit for limit in (1, 2, 1)]
    assert [function_key(f) == function_key(own[0]) for f in own] == [True, False, True]


def test_function_key_after_edited_cells_of_a_notebook_changes() -> None:
    """One dictionary of globals: the function that was not run again changes too."""
    names: dict[str, Any] = {"LIMIT": 3}
    f = _cell(HELPER + "def f(text): return len(helper(text)) > LIMIT", names)
    keys = [function_key(f)]
    for edit in (
        "LIMIT = 4",
        "LIMIT = 4.0",
        "def helper(text): return text.lstrip()",
        "helper = str.strip",
        "len = helper",
        "del LIMIT",
    ):
        exec(edit, names)
        keys.append(function_key(f))
    assert len(set(keys)) == len(keys)
    exec("LIMIT = 3; del len\n" + HELPER, names)
    assert function_key(f) == keys[0], "as it was at first"


@pytest.mark.parametrize("wrap", [functools.cache, predicate], ids=["cache", "predicate"])
def test_function_key_after_an_edited_helper_inside_an_object_changes(wrap: Any) -> None:
    """The object stays the same, and what it does changes."""
    names: dict[str, Any] = {}
    inner = _cell(HELPER + USES, names)
    f = _with(wrap(inner), "def f(text): return ALLOWED(text)")
    before = function_key(f)
    assert function_key(f) == before
    exec("def helper(text): return text", names)
    assert function_key(f) != before


def test_function_key_after_a_changed_closure_changes() -> None:
    limit = 3

    def f(text: str) -> bool:
        return len(text) > limit

    before = function_key(f)
    limit = 4
    assert function_key(f) != before
    limit = 3
    assert function_key(f) == before


def test_function_key_after_a_changed_attribute_changes() -> None:
    def f(text: str) -> bool:
        return text in f.allowed  # pyright: ignore

    f.allowed = "ab"  # pyright: ignore
    before = function_key(f)
    f.allowed = "abc"  # pyright: ignore
    assert function_key(f) != before


def test_function_key_keeps_alive_what_it_compares_by_identity() -> None:
    """Else a new object at the old address would be taken for the old one."""
    rule = Rule(1)
    alive = weakref.ref(rule)
    key = function_key(_above(rule))
    del rule
    gc.collect()
    assert alive() is not None
    del key
    gc.collect()
    assert alive() is None


def test_function_key_of_code_at_a_reused_address_is_new() -> None:
    """Facts about a code object die with it."""
    seen = set()
    for i in range(300):
        seen.add(function_key(_cell(f"def f(t): return t[{i}:] + X{i}")))
        gc.collect(0)
    assert len(seen) == 300


def test_function_key_of_a_long_chain_of_functions_sees_the_last() -> None:
    """Longer than Python's stack."""
    source = "def f0(t): return t\n" + "".join(
        f"def f{i}(t): return f{i - 1}(t)\n" for i in range(1, 3000)
    )
    names: dict[str, Any] = {}
    exec(source, names)
    before = function_key(names["f2999"])
    exec("def f0(t): return t * 2", names)
    assert function_key(names["f2999"]) != before


ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats(-1, 1)
    | st.sampled_from([0.0, -0.0, 1.0, NAN, 1j, b"a", "a"])
)
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(ATOMS, max_size=3)
)


def _exact(value: Any) -> str:
    """Types and values: the same text for values that nothing separates."""
    if isinstance(value, frozenset):
        return f"frozenset{sorted(map(_exact, value))}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_exact, value))})"
    return f"{type(value).__name__} {value!r}"


@given(VALUES, VALUES)
def test_function_key_compares_values_by_type_and_value(one: Any, two: Any) -> None:
    for build in (_above, _default, _keyword, _with):
        same = function_key(build(one)) == function_key(build(two))
        assert same == (_exact(one) == _exact(two))


def test_key_of_predicates_made_again_is_equal() -> None:
    def build(limit: int, **options: Any) -> Any:
        return predicate(lambda text: len(text) < limit, **options)

    assert build(3).key == build(3).key
    assert len({build(3).key, build(3).key, build(4).key}) == 2
    even = {"complete": lambda text: len(text) % 2 == 0}
    assert build(3, **even).key == build(3, **even).key
    assert build(3, **even).key != build(3).key
    assert build(3, state=len).key != build(3).key
    assert build(3, complete=len).key != build(3, state=len).key
    assert build(3, on_error="reject").key != build(3).key
    assert build(3, workers=2).key == build(3).key, "the verdicts are the same"


def test_key_of_a_predicate_after_an_edited_helper_changes() -> None:
    names: dict[str, Any] = {}
    potential = predicate(_cell(HELPER + USES, names))
    before = potential.key
    exec("def helper(text): return text", names)
    assert potential.key != before


def test_key_that_belongs_to_what_it_compares_is_freed() -> None:
    class Owner:
        key: Any = None

    def owned() -> weakref.ref[Owner]:
        owner = Owner()
        owner.key = function_key(lambda text: owner is not None)
        return weakref.ref(owner)

    found = owned()
    gc.collect()
    assert found() is None
