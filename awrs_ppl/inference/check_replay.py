"""Asking potentials again about texts that they have allowed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from awrs_ppl._messages import show
from awrs_ppl.constraints.adapters import ByteFactor, Text
from awrs_ppl.constraints.evaluation import evaluate
from awrs_ppl.errors import PotentialError
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.program.trace import Record
from awrs_ppl.tokens.prefix_index import boundaries

__all__ = ["recheck"]

_BEGINNINGS = 32


async def recheck(records: Sequence[Record], seed: int) -> None:
    """Ask the Boolean potentials over bytes once more about finished texts: the whole, and
    beginnings of it chosen by `seed`, each twice.

    All of these were allowed. Raises `PotentialError` where one is refused now: then verdicts do
    not depend on the text alone, or a refused text was continued.
    """
    rng = np.random.default_rng(seed)
    for record in records:
        asked = record.statement
        if not isinstance(asked, Generate) or record.error is not None:
            continue
        data = record.value.encode("utf-8", "surrogateescape")
        cuts = [0, *boundaries(data)]
        if len(cuts) > _BEGINNINGS:
            cuts = sorted(rng.choice(cuts, _BEGINNINGS, replace=False).tolist())
        for factor in asked.target.boolean:
            if isinstance(factor, ByteFactor):
                for cut in [*cuts, *cuts]:
                    state = await evaluate(factor, factor.begin(Text(data[:cut])), data[:cut])
                    if state is None:
                        raise _contradiction(factor, data[:cut], f"as a beginning of {show(data)}")
                state = await evaluate(factor, factor.begin(Text(data)), data)
                for _ in range(2):
                    if state is None or not await evaluate(factor, factor.accepts(state), data):
                        raise _contradiction(factor, data, "as a whole")


def _contradiction(factor: ByteFactor, data: bytes, what: str) -> PotentialError:
    return PotentialError(
        f"{factor.potential!r} had allowed {show(data)} {what} and refuses it when asked again: "
        "its verdict must depend on the text alone (not on randomness, the time or a count), and a "
        "text whose beginning is refused must be refused"
    )
