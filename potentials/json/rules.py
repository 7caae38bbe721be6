"""What a JSON schema demands of a document, and of the values inside it.

Judged by the package `jsonschema`, in the draft that `$schema` names, formats included. Nothing
is fetched, and neither a schema nor a document can make a check run without limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from awrs_ppl._messages import show
from awrs_ppl.errors import PotentialError
from awrs_ppl.potentials.json import limits
from awrs_ppl.potentials.json.form import Form, Order
from awrs_ppl.potentials.json.inspection import Inspection, draft_of, parse, separate
from awrs_ppl.potentials.json.keywords import draft_number, full, in_outline
from awrs_ppl.potentials.json.numbers import read_digits

__all__ = ["Place", "Rules"]

# Where the schema lies for references that do not say; never fetched.
_BASE = "https://schema.invalid/"
# A sub-schema that a value must satisfy, as a JSON pointer into the schema.
Place = str
# Some bytes of a text that has a number with an exponent.
_EXPONENT = re.compile(rb"[0-9][eE]")
_USUAL = Form()


class Rules:
    """A schema that was checked. Raises `ValueError` for one that cannot be used.

    `holds` judges a value that is complete. The other methods say what is surely demanded of
    values inside a document that is still being written: by `properties`, `items` and the like,
    through `allOf` and `$ref`, but not by alternatives, which are judged from outside.
    """

    def __init__(self, text: str, name: str, form: Form = _USUAL) -> None:
        from referencing import Registry

        self.name = name
        self.form = form
        self.schema = parse(text, name)
        validator, self.specification = draft_of(text, name)
        self.is_legacy = "prefixItems" not in validator.VALIDATORS
        # Before 2019 nothing beside a `$ref` counts.
        self.ref_alone = "dependentSchemas" not in validator.VALIDATORS
        self.is_draft4 = draft_number(validator) == 4
        resource = self.specification.create_resource(self.schema)
        _separate_all(resource, is_old=self.ref_alone)
        base = resource.id() or _BASE
        registry: Any = Registry().with_resource(base, resource).crawl()
        self.resolver: Any = registry.resolver(base)
        # Sub-schemas with names of their own, and dynamic references, are judged from outside.
        inspection = Inspection(self.schema, self.specification, name, is_old=self.ref_alone)
        inspection.run(self.resolver)
        self._is_plain = inspection.is_plain
        self._full = full(validator, ordered=form.ordered)(self.schema, registry=registry)
        self._outline = in_outline(validator)(self.schema, registry=registry)
        self.root: tuple[Place, ...] = ("",)
        self._validators: dict[tuple[bool, Place], Any] = {}
        self._expansions: dict[Place, list[tuple[Place, dict[str, Any]]]] = {}
        self._orders: dict[Place, Order] = {}

    # --- complete values ------------------------------------------------------------------

    def holds(self, places: tuple[Place, ...], value: Any, text: bytes) -> bool:
        """Whether a value satisfies the sub-schemas. `PotentialError` if that takes too long."""
        limits.start_clock()
        try:
            values = [(self._full, value)]
            if _EXPONENT.search(text):
                # What an outline says of a number is said of the digits before its exponent.
                values.append((self._outline, read_digits(text)))
            return all(
                self._at(validator, place).is_valid(read)
                for validator, read in values
                for place in places
            )
        except (TimeoutError, RecursionError) as error:
            why = "recursed too deep" if isinstance(error, RecursionError) else "took too long"
            raise PotentialError(
                f"{self.name}: the check {why} (the limit is {limits.TIME_LIMIT:g} s) on the value "
                f"{show(text)}: write a schema with fewer alternatives or simpler patterns"
            ) from error

    def _at(self, validator: Any, place: Place) -> Any:
        key = (validator is self._full, place)
        found = self._validators.get(key)
        if found is None:
            found = self._validators[key] = validator.evolve(schema=_follow(self.schema, place))
        return found

    # --- partial values -------------------------------------------------------------------

    def member(self, places: tuple[Place, ...], key: str) -> tuple[Place, ...] | None:
        """What must hold for the value of a key; None if there can be no such key."""
        found: list[Place] = []
        for place, schema in self._expanded(places):
            own = [_under(place, "properties", key)] if key in schema.get("properties", ()) else []
            own += [
                _under(place, "patternProperties", pattern)
                for pattern in schema.get("patternProperties", ())
                if self.matches(pattern, key)
            ]
            if not own and "additionalProperties" in schema:
                own = [_under(place, "additionalProperties")]
            found += own
        return self._demanded(found)

    def item(self, places: tuple[Place, ...], index: int) -> tuple[Place, ...] | None:
        """What must hold for an item of an array; None if there can be no such item."""
        found: list[Place] = []
        for place, schema in self._expanded(places):
            first, rest = "prefixItems", "items"
            if self.is_legacy:
                first, rest = "items", "additionalItems"
                if not isinstance(schema.get("items", []), list):
                    found.append(_under(place, "items"))
                    continue
            if index < len(schema.get(first, ())):
                found.append(_under(place, first, str(index)))
            elif rest in schema and (first in schema or not self.is_legacy):
                found.append(_under(place, rest))
        return self._demanded(found)

    def _demanded(self, places: list[Place]) -> tuple[Place, ...] | None:
        schemas = {place: _follow(self.schema, place) for place in places}
        if any(schema is False for schema in schemas.values()):
            return None
        return tuple(place for place, schema in schemas.items() if schema is not True)

    def names(
        self, places: tuple[Place, ...], keys: frozenset[str] = frozenset()
    ) -> frozenset[str] | None:
        """The only keys that can come after these; None if they are not so few."""
        names: frozenset[str] | None = None
        for _, schema in self._expanded(places):
            if schema.get("additionalProperties") is False and not schema.get("patternProperties"):
                own = frozenset(schema.get("properties", ()))
                names = own if names is None else names & own
        return None if names is None else self.following(places, keys, names - keys)

    def following(
        self, places: tuple[Place, ...], keys: frozenset[str], names: frozenset[str]
    ) -> frozenset[str]:
        """Those of the names that can come after these keys, by the order of the keys alone."""
        for place, schema in self._expanded(places) if self.form.ordered else ():
            if "properties" in schema:
                order = self._orders.get(place)
                if order is None:
                    order = self._orders[place] = Order(schema)
                names = order.following(keys, names)
        return names

    def room(self, places: tuple[Place, ...], kind: str) -> float:
        """The most members (`"Properties"`) or items (`"Items"`) that a value can have."""
        limits = [schema.get(f"max{kind}") for _, schema in self._expanded(places)]
        return min((limit for limit in limits if limit is not None), default=float("inf"))

    def matches(self, pattern: str, key: str) -> bool:
        """Whether a pattern is found in a key. `PotentialError` if that takes too long."""
        limits.start_clock()
        try:
            return limits.search(pattern, key)
        except TimeoutError as error:
            raise PotentialError(
                f"{self.name}: the pattern {pattern!r} took more than {limits.TIME_LIMIT:g} s on "
                f"the key {show(key)}: write it with fewer nested repetitions"
            ) from error

    def _expanded(self, places: tuple[Place, ...]) -> Iterator[tuple[Place, dict[str, Any]]]:
        for place in places if self._is_plain else ():
            found = self._expansions.get(place)
            if found is None:
                found = self._expansions[place] = list(self._expand(place, set()))
            yield from found

    def _expand(self, place: Place, seen: set[Place]) -> Iterator[tuple[Place, dict[str, Any]]]:
        """The schema at a place, and those that it names for the same value."""
        schema = _follow(self.schema, place)
        if place in seen or not isinstance(schema, dict):
            return
        seen.add(place)
        ref = schema.get("$ref")
        if isinstance(ref, str) and (ref == "#" or ref.startswith("#/")):
            yield from self._expand(unquote(ref[1:]), seen)
        if isinstance(ref, str) and self.ref_alone:
            return
        yield place, schema
        for i in range(len(schema.get("allOf", ()))):
            yield from self._expand(_under(place, "allOf", str(i)), seen)


def _separate_all(resource: Any, *, is_old: bool) -> None:
    waiting = [resource]
    while waiting:
        resource = waiting.pop()
        if isinstance(resource.contents, dict):
            separate(resource.contents, is_old=is_old)
            waiting += resource.subresources()


def _under(place: Place, *steps: str) -> Place:
    return "/".join([place, *(step.replace("~", "~0").replace("/", "~1") for step in steps)])


def _follow(schema: Any, place: Place) -> Any:
    for step in place.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        schema = schema[int(step)] if isinstance(schema, list) else schema[step]
    return schema
