"""JSON documents that a schema allows."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Literal

from awrs_ppl._messages import shorten, show
from awrs_ppl.constraints.arguments import Argument, hidden
from awrs_ppl.constraints.function_key import function_key
from awrs_ppl.constraints.genlm_factor import boolean
from awrs_ppl.constraints.potential import BooleanPotential, Multiplicative
from awrs_ppl.constraints.product import Product
from awrs_ppl.potentials._llguidance import Language
from awrs_ppl.potentials.json import document
from awrs_ppl.potentials.json.classes import is_valid, name_of, schema_of, validator_of
from awrs_ppl.potentials.json.form import Form
from awrs_ppl.potentials.json.inspection import required_members
from awrs_ppl.potentials.json.outline import outlines
from awrs_ppl.potentials.json.rules import Rules
from awrs_ppl.tokens.text import as_bytes

__all__ = ["JsonSchema"]

SHOWN = 40


def _shown(text: str) -> str:
    return shorten(text, SHOWN, tail=0)


def _class_key(kind: Any) -> Hashable:
    try:
        hash(kind)
    except TypeError:
        return function_key(kind)  # itself alone
    return kind


_SCHEMA = (Argument("title", str, lambda _: "…", None), hidden("text"), hidden("form"))


class JsonSchema(Product):
    """The JSON documents that a schema allows, or from which a class is made.

    A product of two Boolean factors. A mask by llguidance says at every token what the schema
    allows in outline: JSON itself, types, names, patterns, bounds. A check gives every value
    that closes to the full validator of `jsonschema`, with `$ref`, `oneOf`, `not`, `if` and
    formats; it rejects at the byte that closes the value. With `engine="check"` it does all.

    `schema` is a class: a pydantic model, a dataclass, a TypedDict or another type that pydantic
    knows. Then

    - pydantic judges the document, at the byte that closes it: validators over several fields and
      custom types hold. One that raises anything but ValueError, AssertionError or pydantic's
      ValidationError is a `PotentialError`;
    - no other keys are allowed, in nested classes too, unless a class has `extra="allow"`; names
      are those of validation: aliases, of several choices the first;
    - integers are written without a point or an exponent, decimals with at most the digits that
      `max_digits` and `decimal_places` leave, as a number or as a string; dates and times as
      pydantic dumps them;
    - `ordered`: keys stand in the order of the class, others behind them; those with a default
      can be left out;
    - `compact`: no space between parts, and no escape that is not needed, as pydantic dumps JSON.

    Bound what can go on: `Field(max_length=24)` for strings and lists, `lt=100` for integers. In a
    string all is allowed: a small model may come out of it only near `max_tokens`, inside a word.

    Or `schema` is a dict or a bool, in the draft its `$schema` names, else 2020-12, and `ordered`
    and `compact` are False by default. With `ordered` the keys that `properties` names stand in its
    order, and others behind them where `additionalProperties` stands beside it. References are
    local: nothing is fetched. A document has no natural end to many models: give those that
    allow spaces a stop, as `lm(prompt, stop="\\n")`, which also keeps it on one line.

    Patterns are regular expressions of ECMA 262 with Unicode (the flag `u`), also where Python or
    pydantic wrote them otherwise; formats are those of the draft, by their RFCs, and are always
    checked; numbers are decimals of any size, so 0.07 is a multiple of 0.01.

    Which of the spellings of a document are allowed, by mask and check alike:

    - before it and, if not `compact`, between its parts at most one line break, and then at most
      40 spaces or tabs; nothing behind it;
    - no key twice in an object; no more than 32 levels; in strings no half of a surrogate pair;
    - no NaN or Infinity, nor a number of more than 400 characters or with an exponent of more
      than six digits;
    - the digits before an exponent obey `type`, `enum`, `const`, `multipleOf` and the bounds
      too, so that they can be checked at once: an integer is `15`, `15.0` or `15e0`, not `1.5e1`.
      (Not so by values of the schema that have an exponent or more than 30 digits themselves.)

    What the specification has otherwise: `contentMediaType` and `contentEncoding` are not
    checked; nor is a `$schema` of one's own read, so all keywords of 2020-12 count; a reference
    to the schema of a draft is one to outside. `dependencies` count in all drafts.

    The mask is as close as can be built at once: where the grammar of the outline has more than
    three million characters, or llguidance takes it for too large, it says less, first without
    patterns and formats, then no more than JSON, and the check does the rest.

    A class counts by what it is, and not by its schema: one that is defined anew is another
    potential. What its validators look up elsewhere must not change.

    Raises `ValueError` for what is no schema, refers outside, has a pattern that is none of ECMA
    262 or whose backreferences are not supported, or could make a check run without limit;
    `TypeError` for what is not JSON, and for a class of which pydantic has no schema. A check of
    the schema that takes more than 5 seconds is a `PotentialError`.

    >>> from pydantic import BaseModel, model_validator
    >>> class Span(BaseModel):
    ...     low: int
    ...     high: int
    ...     @model_validator(mode="after")
    ...     def in_order(self):
    ...         if self.low > self.high:
    ...             raise ValueError("upside down")
    ...         return self
    >>> span = JsonSchema(Span)
    >>> span.parse('{"low":2,"high":12}')
    Span(low=2, high=12)
    >>> import asyncio
    >>> asyncio.run(span.prefix(b'{"low":2,"high":1')), asyncio.run(span.prefix(b'{"high'))
    (0.0, -inf)
    >>> asyncio.run(span.prefix(b'{"low":2,"high":1}'))
    -inf
    >>> JsonSchema({"type": "array", "items": {"type": "integer"}, "maxItems": 2})
    JsonSchema({"type": "array", "items": {"type": "in…)
    """

    arguments = (Argument("_title", shown=str),)
    # Written by its schema, and not by its factors.
    __repr__ = Multiplicative.__repr__

    def __init__(
        self,
        schema: Any,
        *,
        engine: Literal["auto", "check"] = "auto",
        ordered: bool | None = None,
        compact: bool | None = None,
    ) -> None:
        if not isinstance(engine, str) or engine not in ("auto", "check"):
            raise ValueError(f"JsonSchema got engine={engine!r}: choose 'auto' or 'check'")
        for name, option in (("ordered", ordered), ("compact", compact)):
            if option not in (None, True, False):
                raise ValueError(f"JsonSchema got {name}={option!r}: choose True or False")
        is_class = not isinstance(schema, dict | bool)
        kind = _kind(schema) if is_class else None
        self.schema_text = text = schema_of(kind) if is_class else _text(schema)
        form = Form(
            ordered=is_class if ordered is None else bool(ordered),
            compact=is_class if compact is None else bool(compact),
        )
        shown = name_of(kind) if is_class else _shown(text)
        options = {"engine": engine, "ordered": form.ordered, "compact": form.compact}
        usual = {"engine": "auto", "ordered": is_class, "compact": is_class}
        changed = [f"{k}={v!r}" for k, v in options.items() if v != usual[k]]
        self._title = ", ".join([shown, *changed])
        self._kind, self._options = kind, options
        rules, language = _compile(text, engine, form)
        self._parts: list[_Part] = [_Check(shown, text, form, rules, kind)]
        if language is not None:
            self._parts.insert(0, _Outline(shown, text, form, language))
        super().__init__(self._parts)
        boolean(self)

    def __reduce__(self) -> tuple[Any, ...]:
        schema = json.loads(self.schema_text) if self._kind is None else self._kind
        return _made, (schema, self._options)

    def parse(self, text: str | bytes) -> Any:
        """The object that a text is: of the class, or as `json.loads` reads it.

        Raises `ValueError` for a text that is not allowed, and says why.
        """
        data = as_bytes(text)
        if not all(_allows(part, data) for part in self._parts):
            raise ValueError(f"{self!r} does not allow {show(data)}: {self._reason(data)}")
        return json.loads(text) if self._kind is None else validator_of(self._kind)(text)

    def _reason(self, data: bytes) -> str:
        try:
            if self._kind is not None:
                validator_of(self._kind)(data)
        except ValueError as error:
            return str(error)
        for size in range(len(data) + 1):
            if any(part.advance(part.start(), data[:size]) is None for part in self._parts):
                return f"no document begins with {show(data[:size])}"
        return "it is not finished"

    @property
    def engine(self) -> Literal["mask", "check"]:
        """How verdicts are found: by a `"mask"`, with a check of the rest, or by a `"check"`."""
        return "check" if len(self.target.boolean) == 1 else "mask"


def _made(schema: Any, options: dict[str, Any]) -> JsonSchema:
    return JsonSchema(schema, **options)


def _allows(part: _Part, data: bytes) -> bool:
    state = part.advance(part.start(), data)
    return state is not None and bool(part.accepts(state))


class _Part(BooleanPotential):
    def __init__(self, title: str, text: str, form: Form) -> None:
        super().__init__()
        self.title = title
        self.text = text
        self.form = form

    def is_over(self, state: Any) -> Any:
        return self.accepts(state)


class _Outline(_Part):
    """The mask: documents as far as llguidance can check them. A state is the text so far."""

    called = "outline of JsonSchema"
    arguments = _SCHEMA
    searched = True

    def __init__(self, title: str, text: str, form: Form, language: Language) -> None:
        super().__init__(title, text, form)
        self._language = language
        self.mask = language.mask
        self.words = required_members(text)

    def start(self) -> bytes:
        return b""

    def advance(self, state: Any, data: bytes) -> bytes | None:
        return self._language.advance(state, data)

    def accepts(self, state: Any) -> bool:
        return self._language.accepts(state)


class _Check(_Part):
    """The check: JSON, each value that closes, and what a class makes of the whole.

    A state forgets the space between parts.
    """

    called = "JsonSchema"
    arguments = (*_SCHEMA, hidden("kind", _class_key))

    def __init__(self, title: str, text: str, form: Form, rules: Rules, kind: Any) -> None:
        super().__init__(title, text, form)
        self._rules = rules
        self.kind = kind
        self._is_valid = None
        self.searched = kind is None  # else validators of the user's are called
        if kind is not None:
            validate = validator_of(kind)
            self._is_valid = lambda data: is_valid(validate, data, f"JsonSchema({title})")

    def start(self) -> document.State:
        return document.start(self._rules)

    def advance(self, state: Any, data: bytes) -> document.State | None:
        return document.advance(self._rules, state, data, self._is_valid)

    def accepts(self, state: Any) -> bool:
        return document.is_document(self._rules, state, self._is_valid)


@lru_cache(maxsize=64)
def _compile(text: str, engine: str, form: Form) -> tuple[Rules, Language | None]:
    name = f"JsonSchema({_shown(text)})"
    rules = Rules(text, name, form)
    if engine == "check":
        return rules, None
    for outline in outlines(rules):
        try:
            return rules, Language(outline, name=name, remedy="; write engine='check'")
        except ValueError:
            # Rejected by llguidance: the next outline says less.
            continue
    return rules, None


def _text(schema: Any) -> str:
    try:
        return json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        shown = reprlib.repr(schema)  # short, however deep
        raise TypeError(f"JsonSchema got a schema that is not JSON: {shown}: {error}") from error


def _kind(given: Any) -> Any:
    if given is None or isinstance(given, str | bytes | int | float | list | tuple):
        raise TypeError(
            f"JsonSchema got {given!r}: give it a schema as a dict, or a type; "
            "read a text by json.loads first"
        )
    return given
