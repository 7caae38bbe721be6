"""Checking texts again that potentials have allowed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from awrs_ppl._messages import show
from awrs_ppl.constraints.factor import Factor, evaluate, is_over_bytes
from awrs_ppl.errors import PotentialError
from awrs_ppl.program.log import Record
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.tokens.prefix_index import boundaries
from awrs_ppl.tokens.text import Text, as_bytes

__all__ = ["recheck"]

_PREFIXES = 32


async def recheck(records: Sequence[Record], seed: int) -> None:
    """Evaluate the Boolean potentials over bytes again on finished texts: on the whole, and on
    prefixes of it chosen by `seed`, each twice.

    All of these were allowed. Raises `PotentialError` where one is rejected now: then verdicts do
    not depend on the text alone, or a rejected text was continued.
    """
    rng = np.random.default_rng(seed)
    for record in records:
        statement = record.statement
        if not isinstance(statement, Generate) or record.error is not None:
            continue
        data = as_bytes(record.value)
        cuts = [0, *boundaries(data)]
        if len(cuts) > _PREFIXES:
            cuts = sorted(rng.choice(cuts, _PREFIXES, replace=False).tolist())
        for factor in statement.target.boolean:
            if is_over_bytes(factor):
                for cut in [*cuts, *cuts]:
                    state = await evaluate(factor, factor.begin(Text(data[:cut])), data[:cut])
                    if state is None:
                        raise _contradiction(factor, data[:cut], f"as a prefix of {show(data)}")
                state = await evaluate(factor, factor.begin(Text(data)), data)
                for _ in range(2):
                    if state is None or not await evaluate(factor, factor.accepts(state), data):
                        raise _contradiction(factor, data, "as a whole")


def _contradiction(factor: Factor, data: bytes, what: str) -> PotentialError:
    return PotentialError(
        f"{factor.potential!r} had allowed {show(data)} {what} and rejects it when checked again: "
        "its verdict must depend on the text alone (not on randomness, the time or a count), and a "
        "text with a rejected prefix must be rejected"
    )
