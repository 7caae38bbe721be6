"""JSON documents that a schema allows.

`json_schema` has the potential: a mask by llguidance of what `outline` says of the schema (with
`numerals`, `strings`, `alternatives`), and a check that reads a text as a `document` and judges
each value that closes by `rules` (`keywords`, `unevaluated`, `formats`, `numbers`, in `limits`).
`classes` has the schemas of pydantic and its verdict on a whole document, `form` what is demanded
of how a document is written (`members`: the same, for the outline).
`inspection` says whether a schema can be used. `patterns` reads regular expressions of ECMA 262,
with `pattern_nodes`, `backreferences` and sets of `characters`.
"""

from awrs_ppl.potentials.json.json_schema import JsonSchema

__all__ = ["JsonSchema"]
