"""JsonSchema gives the documents of the JSON Schema Test Suite the suite's verdicts."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from awrs_ppl.potentials import JsonSchema

GROUPS = Path(__file__).parents[2] / "data" / "json_schema_test_suite" / "groups.jsonl"
NAMES = {
    "4": "http://json-schema.org/draft-04/schema#",
    "6": "http://json-schema.org/draft-06/schema#",
    "7": "http://json-schema.org/draft-07/schema#",
    "2019-09": "https://json-schema.org/draft/2019-09/schema",
    "2020-12": "https://json-schema.org/draft/2020-12/schema",
}

# Groups whose schemas refer to others that lie on a server, those of the drafts included.
REMOTE = {
    ("definitions", "validate definition against metaschema"),
    ("defs", "validate definition against metaschema"),
    ("ref", "remote ref, containing refs itself"),
    ("dynamicRef", "strict-tree schema, guards against misspelled properties"),
    ("dynamicRef", "tests for implementation dynamic anchor and reference link"),
    ("dynamicRef", "$ref and $dynamicAnchor are independent of order - $defs first"),
    ("dynamicRef", "$ref and $dynamicAnchor are independent of order - $ref first"),
    ("dynamicRef", "$ref to $dynamicRef finds detached $dynamicAnchor"),
    ("optional/cross-draft", "refs to future drafts are processed as future drafts"),
    ("optional/cross-draft", "refs to historic drafts are processed as historic drafts"),
}
# Documents with other verdicts, each for a reason that the docstring of JsonSchema gives.
OTHERWISE = {
    # `format` is always checked. (These groups say that in 2020-12 by default it is not.)
    ("format", '"2962"', "email"),
    ("format", '"2962"', "idn-email"),
    ("format", '"^(abc]"', "regex"),
    ("format", '"127.0.0.0.1"', "ipv4"),
    ("format", '"12345::"', "ipv6"),
    ("format", '"\\u302e\\uc2e4\\ub840.\\ud14c\\uc2a4\\ud2b8"', "idn-hostname"),
    ("format", '"-a-host-name-that-starts-with--"', "hostname"),
    ("format", '"06/19/1963"', "date"),
    ("format", '"1990-02-31T15:59:60.123-08:00"', "date-time"),
    ("format", '"08:30:06 PST"', "time"),
    ("format", '"/foo/bar~"', "json-pointer"),
    ("format", '"/foo/bar"', "relative-json-pointer"),
    ("format", '"http://2001:0db8:85a3:0000:0000:8a2e:0370:7334"', "iri"),
    ("format", '"\\\\\\\\WINDOWS\\\\fil\\u00eb\\u00df\\u00e5r\\u00e9"', "iri-reference"),
    ("format", '"//foo.bar/?baz=qux#quux"', "uri"),
    ("format", '"\\\\\\\\WINDOWS\\\\fileshare"', "uri-reference"),
    ("format", '"http://example.com/dictionary/{term:1}/{term"', "uri-template"),
    ("format", '"2eb8aa08-aa98-11ea-b4aa-73b441d1638"', "uuid"),
    ("format", '"PT1D"', "duration"),
    # `contentMediaType` and `contentEncoding` are not checked, in no draft.
    ("optional/content", '"{:}"', None),
    ("optional/content", '"eyJmb28iOi%iYmFyIn0K"', None),
    ("optional/content", '"ezp9Cg=="', None),
    ("optional/content", '"{}"', None),
    # A `$schema` of one's own is not read: all keywords count.
    ("vocabulary", '{"numberProperty": 1}', None),
}


class Written(float):
    """A number that keeps its digits."""

    text: str


def number(text: str) -> Written:
    written = Written(text)
    written.text = text
    return written


def spelled(value: Any, *, ascii_only: bool) -> str:
    if isinstance(value, Written):
        return value.text
    if isinstance(value, list):
        return f"[{', '.join(spelled(item, ascii_only=ascii_only) for item in value)}]"
    if isinstance(value, dict):
        members = (
            f"{json.dumps(key, ensure_ascii=ascii_only)}: {spelled(item, ascii_only=ascii_only)}"
            for key, item in value.items()
        )
        return f"{{{', '.join(members)}}}"
    return json.dumps(value, ensure_ascii=ascii_only)


def parts(potential: JsonSchema) -> list[Any]:
    return [factor.potential for factor in potential.target.boolean]  # pyright: ignore


def accepted(potential: JsonSchema, data: bytes) -> bool:
    """Whether it is allowed, read byte by byte: so no prefix of it may be rejected."""
    states = [(part, part.start()) for part in parts(potential)]
    for i in range(len(data)):
        states = [(part, part.advance(state, data[i : i + 1])) for part, state in states]
        if any(state is None for _, state in states):
            return False
    return all(part.accepts(state) for part, state in states)


@pytest.mark.slow
@pytest.mark.parametrize("draft", NAMES)
def test_documents_of_the_suite_get_its_verdicts_at_every_prefix(draft: str, fuzz: Any):
    # Groups of several drafts: by default each with one of them, by the seed.
    rng = next(fuzz.rngs(1))
    met, wrong, checks = set(), [], 0
    for line in GROUPS.read_text().splitlines():
        drafts, file, description, schema, tests = json.loads(line, parse_float=number)
        if draft != rng.choice(drafts) and (fuzz.times == 1 or draft not in drafts):
            continue
        if isinstance(schema, dict):
            schema = {"$schema": NAMES[draft], **schema}
        if (file, description) in REMOTE:
            with pytest.raises(ValueError, match="references are local and nothing is fetched"):
                JsonSchema(schema)
            continue
        for engine in ("auto", "check"):
            potential = JsonSchema(schema, engine=engine)
            assert potential.engine == {"auto": "mask"}.get(engine, engine)
            for is_valid, document in tests:
                text = spelled(document, ascii_only=True)
                for data in {text, spelled(document, ascii_only=False)}:
                    checks += 1
                    if accepted(potential, data.encode()) == is_valid:
                        continue
                    about = schema.get("format") if file == "format" else None
                    met.add((file, text, about))
                    if (file, text, about) not in OTHERWISE:
                        wrong.append((file, description, engine, data, is_valid))
    assert wrong == []
    assert checks > 300
    if fuzz.times > 1 and draft == "2020-12":
        assert met == {entry for entry in OTHERWISE if entry[0] != "optional/content"}


def test_numbers_of_the_suite_keep_their_digits():
    lines = GROUPS.read_text()
    assert "972783798187987123879878123.188781371" in lines
    read = json.loads("[1.0, 1e308]", parse_float=number)
    assert spelled(read, ascii_only=True) == "[1.0, 1e308]"
    assert Decimal("1e308") == Decimal(read[1].text)
