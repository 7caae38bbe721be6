"""What to write instead of something that stands in a product and is no potential."""

from __future__ import annotations

import re
from typing import Any

from awrs_ppl._genlm import Potential
from awrs_ppl._messages import quoted

__all__ = ["not_a_potential"]


def not_a_potential(thing: Any) -> TypeError:
    """The error that quotes it and names the remedy."""
    return TypeError(f"a product got {quoted(thing)}, which is no potential: {_instead(thing)}")


def _instead(thing: Any) -> str:
    name = getattr(thing, "__name__", "f")
    if isinstance(thing, str | bytes):
        text = thing if isinstance(thing, str) else thing.decode("utf-8", "replace")
        return f"write Regex({quoted(text)}) for a pattern, OneOf([{quoted(text)}]) for this text"
    if isinstance(getattr(thing, "pattern", None), str):  # of `re` or of `regex`
        return f"write Regex({quoted(thing.pattern)})"
    if isinstance(thing, type) and issubclass(thing, Potential):
        return f"write {name}(...)"
    if isinstance(thing, type) and (
        hasattr(thing, "model_json_schema") or hasattr(thing, "__dataclass_fields__")
    ):
        return f"write JsonSchema({name})"
    if isinstance(thing, dict):
        return "write JsonSchema(...) for a schema"
    if hasattr(thing, "prompt_ids") and hasattr(thing, "vocabulary"):
        return "a language model stands there with a prompt, as lm('...')"
    if isinstance(thing, list | tuple | set | frozenset):
        return "write OneOf(...) for texts, product(*...) for potentials"
    if callable(thing) and not isinstance(thing, type):
        name = name if re.fullmatch(r"\w+", name) else "f"  # a lambda has none
        return f"write predicate({name}), if it says whether a text can still be allowed"
    return "factors are potentials, such as Regex('a+') or predicate(f)"
