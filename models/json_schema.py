"""JSON documents that a schema allows, on one line."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

from awrs_ppl import LM, Context
from awrs_ppl.potentials import JsonSchema, Regex


async def json_schema(
    ctx: Context,
    lm: LM,
    schema: dict[str, Any],
    *,
    allowed: Any = None,
    max_tokens: int = 450,
    **options: Any,
) -> str:
    """A document that is valid for `schema`."""
    return await ctx.generate(
        lm(f"JSON schema:\n{json.dumps(schema)}\n\nA document that is valid:\n", stop="\n")
        * (allowed or JsonSchema(schema) * Regex(r"[^\n]*")),
        max_tokens=max_tokens,
        **options,
    )


def score(schema: dict[str, Any], text: str) -> float:
    """1 for a document that is valid by Draft 2020-12, formats included, else 0."""
    from jsonschema import Draft202012Validator

    try:
        document = json.loads(text)
    except ValueError:
        return 0.0
    checker = Draft202012Validator.FORMAT_CHECKER
    return float(Draft202012Validator(schema, format_checker=checker).is_valid(document))


def load(path: str | PathLike[str]) -> list[dict[str, Any]]:
    """The schemas of a file with one a line, each in the field `schema`."""
    return [json.loads(line)["schema"] for line in Path(path).read_text().splitlines()]
