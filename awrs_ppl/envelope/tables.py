"""The next outcomes of texts, many texts in one forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from awrs_ppl.constraints.verdict_cache import VerdictCache
from awrs_ppl.envelope.node import Node, Table
from awrs_ppl.errors import ContextLengthError
from awrs_ppl.log_weights import log_sum
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.proposals.rows import rows_of
from awrs_ppl.proposals.token_step import TokenStep
from awrs_ppl.tokens.next_token import Restriction
from awrs_ppl.tokens.underflow import outcome_log_weights

__all__ = ["tabulate"]

# Outcomes of a table, at first and with what has been used up: most of the weight is on few of
# the tokens, and a node should not take more memory than its text.
_AT_FIRST, _MORE = 64, 8


async def tabulate(
    nodes: Sequence[Node], cache: VerdictCache
) -> list[tuple[Node, ContextLengthError]]:
    """Give nodes their tables, or longer ones if they have some; those whose context is too long
    are returned, with the error.

    Weights are the LMs' probabilities, in float64; what a mask rejects, or is known to be
    rejected, is left out.
    """
    steps = {_step(node, cache): node for node in nodes}
    rows, failed = await rows_of(list(steps))
    for step, parts in rows.items():
        node = steps[step]
        logs = [torch.log_softmax(tensor[i].double(), -1).cpu().numpy() for tensor, i in parts]
        _fill(node, step, logs)
    return [(steps[step], error) for step, error in failed.items()]


def _step(node: Node, cache: VerdictCache) -> TokenStep:
    generate, progress = node.statement, node.progress
    assert isinstance(generate, Generate)
    assert progress is not None
    return TokenStep.at(
        generate.target,
        progress,
        cache,
        generate.proposal,
        last=len(progress.text.tokens) >= generate.max_tokens - 1,
        ends=generate.ends,
        keys=generate.keys,
    )


def _fill(node: Node, step: TokenStep, logs: list[np.ndarray]) -> None:
    verdicts = step.verdicts
    restriction = Restriction(verdicts.closings, verdicts.allowed, step.forced)
    weights = outcome_log_weights(logs, verdicts.vocabulary, restriction)
    weights[verdicts.known_outcomes()[1]] = -math.inf
    verdicts.allowed = None  # as long as the vocabulary, and looked at: the rest is small
    before = node.table
    count = _AT_FIRST
    if before is not None:
        count = _MORE * len(before.outcomes)
        weights[before.outcomes] = -math.inf
    possible = np.flatnonzero(weights > -math.inf)
    if len(possible) > count:
        of = weights[possible]
        taken = possible[np.argpartition(-of, count - 1)[:count]]
    else:
        taken = possible
    # The ends always: to follow them takes no row.
    ends = np.arange(verdicts.vocabulary.size, len(weights))
    taken = np.union1d(taken, ends[weights[ends] > -math.inf])
    taken = taken[np.argsort(-weights[taken], kind="stable")]
    heaviest = weights[taken]
    weights[taken] = -math.inf
    rest = log_sum(weights)
    if before is None:
        node.table = Table(taken.tolist(), heaviest, rest, step)
        return
    before.outcomes += taken.tolist()
    before.weights = np.append(before.weights, heaviest)
    before.rest = rest
