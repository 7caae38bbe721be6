"""JSON documents that a schema allows."""

from __future__ import annotations

import json
import reprlib
from functools import lru_cache
from typing import Any, Literal

from awrs_ppl._messages import shorten
from awrs_ppl.constraints.arguments import Argument
from awrs_ppl.constraints.genlm_factor import boolean
from awrs_ppl.constraints.potential import BooleanPotential, Multiplicative
from awrs_ppl.constraints.product import Product
from awrs_ppl.potentials._llguidance import Language
from awrs_ppl.potentials.json import document
from awrs_ppl.potentials.json.outline import outlines
from awrs_ppl.potentials.json.rules import Rules

__all__ = ["JsonSchema"]

SHOWN = 40


def _shown(text: str) -> str:
    return shorten(text, SHOWN, tail=0)


class JsonSchema(Product):
    """The JSON documents that a schema allows, judged by the package `jsonschema`.

    A product of two Boolean factors. A mask by llguidance says at every token what the schema
    allows in outline: JSON itself, types, names, patterns, bounds. A check gives every value
    that closes to the full validator, with `$ref`, `oneOf`, `not`, `if` and formats, and the
    document at its end; it rejects at the byte that closes the value. With `engine="check"` it
    does all the work.

    `schema` is a dict or a bool, in the draft its `$schema` names, else 2020-12; or a pydantic
    model, a dataclass, or another type that pydantic knows. References are local: nothing is
    fetched. Keys may come in any order. A document has no natural end to many models: give them
    a stop, as `lm(prompt, stop="\\n")`, which also keeps it on one line.

    Patterns are regular expressions of ECMA 262 with Unicode (the flag `u`), also where Python or
    pydantic wrote them otherwise; formats are those of the draft, by their RFCs, and are always
    checked; numbers are decimals of any size, so 0.07 is a multiple of 0.01.

    Which of the spellings of a document are allowed, by mask and check alike:

    - before it and between its parts at most one line break, and then at most 40 spaces or
      tabs; nothing behind it;
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

    Raises `ValueError` for what is no schema, refers outside, has a pattern that is none of ECMA
    262 or whose backreferences are not supported, or could make a check run without limit;
    `TypeError` for what is not JSON. A check that takes more than 5 seconds is a
    `PotentialError`.

    >>> import asyncio
    >>> point = JsonSchema({"type": "array", "items": {"type": "integer"}, "maxItems": 2})
    >>> asyncio.run(point.prefix(b"[1, ")), asyncio.run(point.complete(b"[1, 2, 3]"))
    (0.0, -inf)
    >>> point
    JsonSchema({"type": "array", "items": {"type": "in…)
    """

    arguments = (Argument("schema_text", shown=_shown),)
    # Written by its schema, and not by its factors.
    __repr__ = Multiplicative.__repr__

    def __init__(self, schema: Any, *, engine: Literal["auto", "check"] = "auto") -> None:
        if not isinstance(engine, str) or engine not in ("auto", "check"):
            raise ValueError(f"JsonSchema got engine={engine!r}: choose 'auto' or 'check'")
        text = _text(schema)
        self.schema_text = text
        rules, language = _compile(text, engine)
        factors: list[BooleanPotential] = [_Check(text, rules)]
        if language is not None:
            factors.insert(0, _Outline(text, language))
        super().__init__(factors)
        boolean(self)

    @property
    def engine(self) -> Literal["mask", "check"]:
        """How verdicts are found: by a `"mask"`, with a check of the rest, or by a `"check"`."""
        return "check" if len(self.target.boolean) == 1 else "mask"


class _Part(BooleanPotential):
    arguments = (Argument("text", shown=_shown, compared=lambda text: "…"),)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def is_over(self, state: Any) -> Any:
        return self.accepts(state)


class _Outline(_Part):
    """The mask: documents as far as llguidance can check them. A state is the text so far."""

    called = "outline of JsonSchema"

    def __init__(self, text: str, language: Language) -> None:
        super().__init__(text)
        self._language = language
        self.mask = language.mask

    def start(self) -> bytes:
        return b""

    def advance(self, state: Any, data: bytes) -> bytes | None:
        return self._language.advance(state, data)

    def accepts(self, state: Any) -> bool:
        return self._language.accepts(state)


class _Check(_Part):
    """The check: JSON, and each value that closes. A state forgets the space between parts."""

    called = "JsonSchema"

    def __init__(self, text: str, rules: Rules) -> None:
        super().__init__(text)
        self._rules = rules

    def start(self) -> document.State:
        return document.start(self._rules)

    def advance(self, state: Any, data: bytes) -> document.State | None:
        return document.advance(self._rules, state, data)

    def accepts(self, state: Any) -> bool:
        return document.is_document(self._rules, state)


@lru_cache(maxsize=64)
def _compile(text: str, engine: str) -> tuple[Rules, Language | None]:
    name = f"JsonSchema({_shown(text)})"
    rules = Rules(text, name)
    if engine == "check":
        return rules, None
    for outline in outlines(rules):
        try:
            return rules, Language(
                outline,
                name=name,
                remedy="; write engine='check'",
            )
        except ValueError:
            # Rejected by llguidance: the next outline says less.
            continue
    return rules, None


def _text(schema: Any) -> str:
    if not isinstance(schema, dict | bool):
        schema = _schema_of(schema)
    try:
        return json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        shown = reprlib.repr(schema)  # short, however deep
        raise TypeError(f"JsonSchema got a schema that is not JSON: {shown}: {error}") from error


def _schema_of(kind: Any) -> Any:
    if kind is None or isinstance(kind, str | bytes | int | float | list | tuple):
        raise TypeError(
            f"JsonSchema got {kind!r}: give it a schema as a dict, or a type; "
            "read a text by json.loads first"
        )
    try:
        hash(kind)
    except TypeError:
        return _schema_by_pydantic(kind)
    return _known_type(kind)


def _schema_by_pydantic(kind: Any) -> Any:
    try:
        from pydantic import PydanticUserError, TypeAdapter
    except ImportError as error:
        raise ImportError(
            f'JsonSchema({kind!r}) needs pydantic: pip install "awrs-ppl[json]"'
        ) from error
    try:
        return TypeAdapter(kind).json_schema()
    except (PydanticUserError, TypeError, ValueError) as error:  # older ones raise what they meet
        raise TypeError(
            f"JsonSchema got {kind!r}, which pydantic has no schema for: {error}"
        ) from error


_known_type = lru_cache(maxsize=64)(_schema_by_pydantic)
