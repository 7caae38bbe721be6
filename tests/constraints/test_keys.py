"""Keys of potentials: two that differ in anything have different keys, equal ones the same."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from awrs_ppl import ToyLM, infer
from awrs_ppl.constraints.target import Target
from awrs_ppl.potentials import (
    BooleanPotential,
    Contains,
    Grammar,
    JsonSchema,
    OneOf,
    Regex,
    Soft,
    boolean,
    predicate,
)

LONG = "x" * 200
lm, other = ToyLM(["a", "b"]), ToyLM(["a", "b"], seed=1)


def schema(**last: Any) -> dict[str, Any]:
    """Schemas that differ only at their end."""
    properties = {f"property{i}": {"type": "string"} for i in range(20)}
    return {"type": "object", "properties": {**properties, "zz": last}}


def limited(limit: Any, key: Any = None) -> Callable[[str], bool]:
    return lambda text: len(text) < (limit if key is None else limit[key])


def short(text: str) -> bool:
    return len(text) < 3


def even(text: str) -> bool:
    return len(text) % 2 == 0


# Makers, each called twice; no two of a row may have a common key.
ROWS: dict[str, list[Callable[[], Any]]] = {
    "Regex": [
        lambda: Regex("a"),
        lambda: Regex("a "),
        lambda: Regex("(?:a)"),
        lambda: Regex("a", engine="check"),
        lambda: Regex(LONG + "a"),
        lambda: Regex(LONG + "b"),
        lambda: Regex(LONG + "b", engine="check"),
    ],
    "OneOf": [
        lambda: OneOf(["a"]),
        lambda: OneOf(["a", "b"]),
        lambda: OneOf(["ab"]),
        lambda: OneOf([*map(str, range(100)), "a"]),
        lambda: OneOf([*map(str, range(100)), "b"]),
    ],
    "Contains": [
        lambda: Contains("a"),
        lambda: Contains("b"),
        lambda: Contains(LONG + "a"),
        lambda: Contains(LONG + "b"),
    ],
    "Grammar": [
        lambda: Grammar('start: "a"'),
        lambda: Grammar('start: "b"'),
        lambda: Grammar(f'start: "{LONG}" "a"'),
        lambda: Grammar(f'start: "{LONG}" "b"'),
    ],
    "JsonSchema": [
        lambda: JsonSchema(schema(type="string")),
        lambda: JsonSchema(schema(type="integer")),
        lambda: JsonSchema(schema(type="integer", minimum=1)),
        lambda: JsonSchema(schema(type="integer", minimum=2)),
        lambda: JsonSchema(schema(type="integer", minimum=2.5)),
        lambda: JsonSchema(schema(const=1)),
        lambda: JsonSchema(schema(const=True)),
        lambda: JsonSchema(schema(const="1")),
        lambda: JsonSchema(schema(enum=[1, 2])),
        lambda: JsonSchema(schema(enum=[1, 3])),
        lambda: JsonSchema(schema(type="integer"), engine="check"),
    ],
    "predicate": [
        lambda: predicate(short),
        lambda: predicate(even),
        lambda: predicate(short, complete=even),
        lambda: predicate(short, complete=short),
        lambda: predicate(short, state=len),
        lambda: predicate(short, complete=even, state=len),
        lambda: predicate(short, on_error="reject"),
        lambda: predicate(limited(3)),
        lambda: predicate(limited(4)),
        lambda: predicate(limited(3.0)),
        lambda: predicate(limited((1, 2, 3), 0)),
        lambda: predicate(limited((1, 2, 4), 0)),
        lambda: predicate(short, complete=limited(3)),
        lambda: predicate(short, complete=limited(4)),
        lambda: predicate(short, state=limited(4)),
    ],
    "language model": [
        lambda: lm("a"),
        lambda: lm("b"),
        lambda: lm("aa"),
        lambda: lm("a", temperature=0.5),
        lambda: lm("a", temperature=2.0),
        lambda: lm("a", stop="a"),
        lambda: lm("a", stop="b"),
        lambda: lm("a", stop=["a", "b"]),
        lambda: lm("a", stop=["ab"]),
        lambda: lm("a", stop="a", temperature=0.5),
        lambda: other("a"),
    ],
    "product": [
        lambda: lm("a") * Regex("a"),
        lambda: lm("b") * Regex("a"),
        lambda: lm("a") * other("a") * Regex("a"),
        lambda: other("a") * Regex("a"),
        lambda: lm("a") * Regex("a") * predicate(short),
        lambda: lm("a") * predicate(short),
        lambda: lm("a") * predicate(even),
        lambda: lm("a", temperature=0.5) * predicate(short),
    ],
}


def key_of(potential: Any) -> Any:
    """The key by which the verdicts of a potential in a product are kept, or a whole product."""
    target = Target.of([potential]) if not hasattr(potential, "target") else potential.target
    return target.key[:2]


@pytest.mark.parametrize("kind", ROWS)
def test_key_of_potentials_alike_is_equal_and_of_others_different(kind):
    made = [(make(), make()) for make in ROWS[kind]]
    for one, same in made:
        assert key_of(one) == key_of(same), one
        assert hash(key_of(one)) == hash(key_of(same))
    for (one, _), (another, _) in itertools.combinations(made, 2):
        # Whether a schema is also known by a mask changes nothing of what it allows.
        if json_alike(one, another):
            continue
        assert key_of(one) != key_of(another), (one, another)


def json_alike(one: Any, another: Any) -> bool:
    return isinstance(one, JsonSchema) and one.schema_text == another.schema_text


def test_key_of_potentials_of_different_kinds_is_different():
    every = [make() for makers in ROWS.values() for make in makers]
    for one, another in itertools.combinations(every, 2):
        if type(one) is not type(another):
            assert key_of(one) != key_of(another), (one, another)


CONTAINERS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "list": ([1, 2], lambda it: it.append(3)),
    "item of a list": ([1, 2], lambda it: it.__setitem__(0, 5)),
    "dict": ({"a": 1}, lambda it: it.update(b=2)),
    "value of a dict": ({"a": 1}, lambda it: it.update(a=2)),
    "set": ({1, 2}, lambda it: it.add(3)),
    "bytearray": (bytearray(b"ab"), lambda it: it.__setitem__(0, 5)),
    "list in a dict": ({"a": [1]}, lambda it: it["a"].append(2)),
    "dict in a list": ([{"a": 1}], lambda it: it[0].update(a=2)),
    "list in a tuple": (([1],), lambda it: it[0].append(2)),
    "dict in a dict in a list": ([{"a": {"b": 1}}], lambda it: it[0]["a"].update(b=2)),
    "set in a long tuple": ((*range(100), {1}), lambda it: it[-1].add(2)),
}


def by_closure(names: Any) -> Any:
    return lambda text: text in str(names)


def by_default(names: Any) -> Any:
    return lambda text, names=names: text in str(names)


def by_global(names: Any) -> Any:
    scope: dict[str, Any] = {"names": names}
    exec("def function(text): return text in str(names)", scope)
    return scope["function"]


def by_attribute(names: Any) -> Any:
    function: Any = lambda text: text in str(function.names)  # noqa: E731
    function.names = names
    return function


def by_partial(names: Any) -> Any:
    return functools.partial(lambda names, text: text in str(names), names)


NAMING = {f.__name__: f for f in (by_closure, by_default, by_global, by_attribute, by_partial)}


@pytest.mark.parametrize("where", NAMING)
@pytest.mark.parametrize("kind", CONTAINERS)
def test_key_of_a_predicate_follows_what_changes_inside_of_what_it_names(kind, where):
    start, change = CONTAINERS[kind]
    names = copy.deepcopy(start)
    function = NAMING[where](names)
    made = predicate(function)
    before = key_of(made)
    assert key_of(predicate(function)) == before
    change(names)
    assert key_of(made) != before
    assert key_of(predicate(function)) == key_of(made)


async def test_verdicts_of_a_schema_are_not_those_of_one_with_the_same_first_characters():
    texts = [json.dumps({"zz": 1}), json.dumps({"zz": "a"})]
    model_of = ToyLM(texts, weights=lambda context: [1, 1, 1])
    found = []
    for kind in ("integer", "string"):

        async def model(ctx, kind=kind):
            target = model_of(texts[0]) * JsonSchema(schema(type=kind), engine="check")
            return await ctx.generate(target, max_tokens=2)

        found.append(await infer(model, n_particles=8, seed=0, progress=False, remember=True))
    assert [set(posterior.values) for posterior in found] == [{texts[0]}, {texts[1]}]


@pytest.mark.parametrize("kind", ROWS)
def test_potentials_are_equal_where_their_keys_are(kind):
    made = [(make(), make()) for make in ROWS[kind]]
    for one, same in made:
        assert one == same
        assert hash(one) == hash(same)
    for (one, _), (another, _) in itertools.combinations(made, 2):
        assert (one == another) == (one.key == another.key), (one, another)


def test_potential_without_declared_arguments_equals_itself_alone():
    class Anything(BooleanPotential):
        def start(self):
            return b""

        def advance(self, state, data):
            return state

        def accepts(self, state):
            return True

    one, another = Anything(), Anything()
    assert one == one.key
    assert one != another
    assert (repr(one), one.fingerprint) == ("Anything()", type(one).__qualname__)


def test_predicate_that_has_changed_equals_no_earlier_one_and_keeps_its_hash():
    names = ["a"]
    made = predicate(by_closure(names))
    before = hash(made)
    other = predicate(by_closure(["a"]))
    assert made != other, "lists go by identity"
    assert made == predicate(by_closure(names))
    names.append("b")
    assert hash(made) == before


async def test_verdicts_of_a_soft_potential_declared_boolean_are_not_those_of_changed_values():
    allowed = {"a"}

    def weigh(text: str) -> float:
        return 0.0 if set(text) <= allowed else -math.inf

    model_of = ToyLM(["a", "b"], weights=lambda context: [1, 1, 1])

    async def model(ctx):
        target = model_of("a") * boolean(Soft(weigh, prefix=weigh))
        return await ctx.generate(target, max_tokens=2)

    found = []
    for letter in ("a", "b"):
        allowed.clear()
        allowed.add(letter)
        posterior = await infer(model, n_particles=20, seed=0, progress=False, remember=True)
        found.append(set(posterior.values))
    assert found == [{"", "a"}, {"", "b"}]
