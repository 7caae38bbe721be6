"""The rows of language models at many contexts, in as few passes as there are models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from awrs_ppl._concurrency import together
from awrs_ppl.errors import ContextLengthError

if TYPE_CHECKING:
    from awrs_ppl.proposals.token_step import TokenStep

__all__ = ["Rows", "rows_of", "stacked"]

# By step: of each language model all rows, and which of them is this context's.
Rows = dict["TokenStep", list[tuple[torch.Tensor, int]]]


async def rows_of(
    steps: Sequence[TokenStep],
) -> tuple[Rows, dict[TokenStep, ContextLengthError]]:
    """The logits over temperature at all steps, one batch for each language model.

    A step whose context is too long for one has no rows, and its error.
    """
    wanted: dict[Any, list[tuple[TokenStep, int, tuple[int, ...], float]]] = defaultdict(list)
    rows: Rows = {}
    for step in steps:
        dense = step.verdicts.target.dense
        rows[step] = [(torch.empty(0), 0)] * len(dense)
        for j, lm in enumerate(dense):
            context = lm.prompt + step.progress.text.tokens
            wanted[lm.lm].append((step, j, context, lm.temperature))
    failed: dict[TokenStep, ContextLengthError] = {}

    async def batch(lm: Any) -> None:
        requests = wanted[lm]
        try:
            found = await lm.logits([r[2] for r in requests], [r[3] for r in requests])
        except ContextLengthError:
            await together(one(lm, *each) for each in requests)  # the rest has its rows
            return
        for i, (step, j, _, _) in enumerate(requests):
            rows[step][j] = found, i

    async def one(
        lm: Any, step: TokenStep, j: int, context: tuple[int, ...], temperature: float
    ) -> None:
        try:
            rows[step][j] = await lm.logits([context], [temperature]), 0
        except ContextLengthError as error:
            failed[step] = error

    await together(map(batch, wanted))
    for step in failed:
        del rows[step]
    return rows, failed


def stacked(parts: Sequence[tuple[torch.Tensor, int]]) -> torch.Tensor:
    """Rows as one tensor; mostly they are all of one already, in order."""
    whole = parts[0][0]
    if len(whole) == len(parts) and all(r is whole and i == k for k, (r, i) in enumerate(parts)):
        return whole
    return torch.stack([rows[i] for rows, i in parts])
