"""What an envelope trie has found, as a posterior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from awrs_ppl._messages import quoted
from awrs_ppl._values import is_number
from awrs_ppl.envelope.node import Node
from awrs_ppl.envelope.trie import Trie
from awrs_ppl.errors import ModelError
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.log import Log
from awrs_ppl.program.trace import Trace

__all__ = ["drawn_posterior", "found_posterior", "most"]


def found_posterior(trie: Trie, seed: int, stopped: str | None) -> Posterior:
    """The executions that were found, each once; their mean weight is the evidence found."""
    ends = sorted(trie.ends(), key=lambda end: -end[1])
    scale = math.log(len(ends)) if ends else 0.0
    weighed = [(node, mass + scale) for node, mass in ends]
    return _posterior("exact", trie, weighed, seed, stopped)


def drawn_posterior(
    trie: Trie, ends: Sequence[Node], log_ml: float, seed: int, stopped: str | None
) -> Posterior:
    """Independent draws, each of the weight of the evidence."""
    return _posterior("rejection", trie, [(node, log_ml) for node in ends], seed, stopped)


def _posterior(
    method: str,
    trie: Trie,
    ends: Sequence[tuple[Node, float]],
    seed: int,
    stopped: str | None,
) -> Posterior:
    bounded = not trie.unbounded or trie.max_factor is not None
    return Posterior(
        [Trace(node.value, weight, Log.records(node.log)) for node, weight in ends],
        history=(),
        kills={},
        stats=trie.costs.stats(),
        seed=seed,
        stopped=stopped,
        is_proper=True,
        method=method,
        log_ml_bounds=(trie.log_low, trie.log_high) if bounded else None,
        unbounded="" if bounded else trie.unbounded,
    )


def most(given: Any) -> float | None:
    """A bound that was given. Raises `ModelError` for what is none."""
    if given is None:
        return None
    if not is_number(given) or not 0 < given < math.inf:
        raise ModelError(
            f"max_factor={quoted(given)}: it must be a number above 0, what the factors of an "
            "execution multiply its weight by at most"
        )
    return float(given)
