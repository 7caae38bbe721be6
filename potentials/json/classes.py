"""The JSON of classes that pydantic knows: their schema, and what they make of a document."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any

from awrs_ppl._extras import install
from awrs_ppl._messages import show
from awrs_ppl.errors import PotentialError
from awrs_ppl.potentials.json.numbers import DIGITS, read
from awrs_ppl.potentials.json.numerals import numerals

__all__ = ["is_valid", "name_of", "schema_of", "validator_of"]

_NAIVE = {"time": r"^[\d:.]*$", "date-time": r"[T ][\d:.]*$"}
_AWARE = r"(?:Z|[+\-]\d\d:\d\d)$"


def name_of(kind: Any) -> str:
    """The name of a class, or how another type is written."""
    return kind.__name__ if isinstance(kind, type) else repr(kind)


def schema_of(kind: Any) -> str:
    """The schema of the documents from which a class is made, as JSON.

    Closed, where the class does not allow extras; by validation aliases; with the digits of a
    decimal; with dates and times as pydantic reads them. Raises `TypeError`.
    """
    return _known(_schema, kind)


def validator_of(kind: Any) -> Callable[[str | bytes], Any]:
    """What makes an object of a document; it raises pydantic's `ValidationError`."""
    return _known(_validator, kind)


def _known(make: Callable[[Any], Any], kind: Any) -> Any:
    try:
        hash(kind)
    except TypeError:  # an annotation with what cannot be hashed
        return make(kind)
    return _remembered(make, kind)


@lru_cache(maxsize=128)
def _remembered(make: Callable[[Any], Any], kind: Any) -> Any:
    return make(kind)


def is_valid(validate: Callable[[bytes], Any], text: bytes, name: str) -> bool:
    """Whether a class can be made of a document. `PotentialError` if its own code fails."""
    try:
        validate(text)
    except (ValueError, AssertionError):  # with pydantic's `ValidationError`, which is the first
        return False
    except Exception as error:
        raise PotentialError(
            f"{name}: a validator raised {type(error).__name__}: {error} on the document "
            f"{show(text)}; raise ValueError for what is not allowed"
        ) from error
    return True


def _validator(kind: Any) -> Callable[[str | bytes], Any]:
    from pydantic import BaseModel, TypeAdapter

    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_validate_json
    return TypeAdapter(kind).validate_json


def _schema(kind: Any) -> str:
    try:
        from pydantic import PydanticUserError, TypeAdapter
    except ImportError as error:
        raise ImportError(f"JsonSchema({kind!r}) needs pydantic: {install('json')}") from error
    try:
        schema = TypeAdapter(kind).json_schema(schema_generator=_generator(), mode="validation")
        return json.dumps(schema, allow_nan=False)
    except (PydanticUserError, TypeError, ValueError) as error:  # older ones raise what they meet
        raise TypeError(
            f"JsonSchema got {kind!r}, which pydantic has no schema for: {error}"
        ) from error


@lru_cache(maxsize=1)
def _generator() -> Any:
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        """Says more than its base of what a class accepts, where that can be known early."""

        def int_schema(self, schema: Any) -> dict[str, Any]:
            return super().int_schema(schema) | {DIGITS: [None, 0]}

        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            return _decimal(schema)

        def literal_schema(self, schema: Any) -> dict[str, Any]:
            return _listed(super().literal_schema(schema))

        def enum_schema(self, schema: Any) -> dict[str, Any]:
            return _listed(super().enum_schema(schema))

        def date_schema(self, schema: Any) -> dict[str, Any]:
            return _text("date", {})

        def time_schema(self, schema: Any) -> dict[str, Any]:
            return _text("time", schema)

        def datetime_schema(self, schema: Any) -> dict[str, Any]:
            return _text("date-time", schema)

        def timedelta_schema(self, schema: Any) -> dict[str, Any]:
            return _text("duration", {})

        def model_schema(self, schema: Any) -> dict[str, Any]:
            found = super().model_schema(schema)
            return found if schema.get("root_model") else _closed(found)

        def dataclass_schema(self, schema: Any) -> dict[str, Any]:
            return _closed(super().dataclass_schema(schema))

        def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
            return _closed(super().typed_dict_schema(schema))

        def model_field_schema(self, schema: Any) -> dict[str, Any]:
            _require_name(schema)
            return super().model_field_schema(schema)

        def dataclass_field_schema(self, schema: Any) -> dict[str, Any]:
            _require_name(schema)
            return super().dataclass_field_schema(schema)

        def typed_dict_field_schema(self, schema: Any) -> dict[str, Any]:
            _require_name(schema)
            return super().typed_dict_field_schema(schema)

    return Generator


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    return {"additionalProperties": False, **schema} if "properties" in schema else schema


def _listed(schema: dict[str, Any]) -> dict[str, Any]:
    values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]
    numbers = [value for value in values if type(value) in (int, float)]
    if numbers and all(type(value) is int for value in numbers):
        return {**schema, DIGITS: [None, 0]}
    return schema


def _text(kind: str, schema: Any) -> dict[str, Any]:
    found = {"type": "string", "format": f"python-{kind}"}
    zone = schema.get("tz_constraint")
    if zone is not None:
        found["pattern"] = _NAIVE[kind] if zone == "naive" else _AWARE
    return found


def _decimal(schema: Any) -> dict[str, Any]:
    """A decimal: a number, or a string with one, in the digits that it can have."""
    most = [schema.get("max_digits"), schema.get("decimal_places")]
    number: dict[str, Any] = {"type": "number", DIGITS: most}
    for short, key in _BOUNDS.items():
        bound = schema.get(short)
        if bound is not None and Decimal(repr(float(bound))) == bound:  # others at the end
            number[key] = float(bound)
    texts = numerals([read(json.dumps(number))], whole=False)
    patterns = [{"pattern": f"^(?:{text})$"} for text in texts]
    return {"anyOf": [number, {"type": "string", "allOf": patterns}]}


_BOUNDS = {
    **{"ge": "minimum", "gt": "exclusiveMinimum"},
    **{"le": "maximum", "lt": "exclusiveMaximum", "multiple_of": "multipleOf"},
}


def _require_name(field: Any) -> None:
    """A field that is found by a path alone has no place in the schema."""
    alias = field.get("validation_alias")
    if isinstance(alias, list):
        paths = alias if isinstance(alias[0], list) else [alias]
        if not any(len(path) == 1 for path in paths):
            raise TypeError(f"a field is found by AliasPath{tuple(paths[0])} alone: give it a name")
