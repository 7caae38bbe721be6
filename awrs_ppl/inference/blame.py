"""Who killed a particle at a token: the constraints that rejected what could have come next."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from awrs_ppl._messages import joined
from awrs_ppl.constraints.dead_ends import blame_dead_end, blamed_by_token
from awrs_ppl.constraints.ends import check_acceptance
from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.log_weights import log_sum
from awrs_ppl.proposals.token_step import TokenStep
from awrs_ppl.tokens.next_token import Outcomes

__all__ = ["NEGLIGIBLE", "killer"]

_LM = "the language model"
# Nothing likely was found in the checks that such a weight is worth.
NEGLIGIBLE = "too little weight beside the other particles"
# What weighs less than this beside the rest names no factor: where a predicate rejects nearly all,
# the end that a pattern rejects there would hardly have been drawn.
_LITTLE = 0.1
_TRIED = 4  # outcomes that the masks reject

# By factors, as their places in the target: the outcomes that they reject, one alone or together.
_Rejected = dict[tuple[int, ...], np.ndarray]


async def killer(step: TokenStep, max_tokens: int) -> str:
    """What is to blame where nothing could be drawn.

    The candidates are the outcomes that the masks leave, by the weights that the language model
    gives them; all its outcomes, where the masks leave none or the proposal does not use them.
    Blamed is the factor that rejected most of their weight, no matter which was checked last:
    verdicts of earlier steps count. If all is rejected, and by no factor alone, those that reject
    it together "allow nothing together". So do masks and the factor that rejects what they leave,
    if it allows something likely that they reject; that takes a few checks more, which are not
    made where checks are dear.

    Where `max_tokens` allows no more, the name says so; and where the first token would hold a
    stop, so that the text would be empty; and where a text that need not end is accepted, and no
    factor says that it is over.
    """
    names = await _names(step)
    if not names:
        return NEGLIGIBLE
    found = names[0] if len(names) == 1 else f"{joined(names)} allow nothing together"
    if _begins_with_stop(step):
        return f"{found} (at a first token that holds the stop)"
    if not step.last:
        unsaid = not step.ends and step.progress.text.tokens
        if unsaid and await check_acceptance(step.verdicts, step.verdicts.vocabulary.size):
            return f"{found} (at an accepted text that is not over)"
        return found
    over = "ends" if step.ends else "is over"
    return f"{found} (no text that {over} within {max_tokens:,} token{'s' * (max_tokens > 1)})"


async def _names(step: TokenStep) -> list[str]:
    verdicts = step.verdicts
    weights = _weights(step)
    possible = weights > 0.0
    masks = await _by_masks(verdicts)
    left = possible & ~_any(masks, possible) if step.proposal.uses_masks else possible
    rejected = _by_checks(verdicts)
    of_masks = not left.any() or not step.proposal.uses_masks
    if of_masks:
        left, rejected = possible, rejected | masks
    rest = np.where(left, weights, 0.0)
    whole = float(rest.sum())
    everything = whole > 0.0 and not rest[~_any(rejected, left)].any()
    # Of masks all is known, and the weights of tokens decide nothing.
    little = 0.0 if of_masks else _LITTLE
    blamed = _cover(rejected, rest, little) if everything else _heaviest(rejected, rest)
    if everything and not of_masks:
        outside = np.where(_any(masks, possible), weights, 0.0)
        for outcome in outside.argsort()[: -_TRIED - 1 : -1].tolist():
            if len(blamed) == 1 and outside[outcome] >= _LITTLE * whole:
                blamed |= await _in_conflict(verdicts, *blamed, masks, outcome)
    if everything:
        blame_dead_end(verdicts, tuple(sorted(blamed)))
    # At the last token of a text that need not end, each stands there twice.
    potentials = [verdicts.target.boolean[i].potential for i in sorted(blamed)]
    names = list({id(potential): repr(potential) for potential in potentials}.values())
    if not step.forced and of_masks and everything and _masks_leave_tokens(verdicts):
        return [*names, _LM]  # what they leave has no weight
    return names if names or whole > 0.0 else [_LM]


def _begins_with_stop(step: TokenStep) -> bool:
    """Whether the model would mostly begin an empty text with a token that ends it by a stop, or
    the masks would let it begin with one."""
    verdicts, outcomes = step.verdicts, step.outcomes
    if step.progress.text.tokens or outcomes is None or not verdicts.target.stops:
        return False
    weights = np.exp(_log_weights_of_tokens(outcomes)) * verdicts.vocabulary.is_text
    ids = [
        ids
        for end, ids in zip(verdicts.closings.ends, verdicts.closings.ids, strict=True)
        if not end.keep
    ]
    stop = np.concatenate(ids)
    if verdicts.allowed is not None and (weights[stop] * verdicts.allowed[stop]).any():
        return True
    return float(weights[stop].sum()) > 0.5 * float(weights.sum())


def _cover(rejected: _Rejected, weights: np.ndarray, little: float) -> set[int]:
    """The factors that reject most, until what is left of the weight is little."""
    rest, blamed = weights.copy(), set[int]()
    while float(rest.sum()) > little * float(weights.sum()):
        group = max(rejected, key=lambda group: float(rest[rejected[group]].sum()))
        rest[rejected[group]] = 0.0
        blamed.update(group)
    return blamed


def _heaviest(rejected: _Rejected, weights: np.ndarray) -> set[int]:
    shares = {group: float(weights[where].sum()) for group, where in rejected.items()}
    group = max(shares, key=shares.__getitem__, default=())
    return set(group) if shares.get(group) else set()


def _any(rejected: Mapping[tuple[int, ...], np.ndarray], like: np.ndarray) -> np.ndarray:
    found = np.zeros_like(like)
    for where in rejected.values():
        found |= where
    return found


def _log_weights_of_tokens(outcomes: Outcomes) -> np.ndarray:
    """What the language models give the tokens, whatever is allowed."""
    rows = [row[outcomes.row].double().log_softmax(-1) for row in outcomes.batch.rows]
    return torch.stack(rows).sum(0).cpu().numpy()


def _weights(step: TokenStep) -> np.ndarray:
    """What the language model gives the outcomes, whatever is allowed, the heaviest 1."""
    verdicts, outcomes = step.verdicts, step.outcomes
    closings, size = verdicts.closings, verdicts.vocabulary.size
    logs = np.full(size + len(closings.ends), -math.inf)
    if outcomes is not None:
        tokens = _log_weights_of_tokens(outcomes)
        for j, ids in enumerate(closings.ids):
            if j not in closings.barred:
                by_stop = ids[len(verdicts.vocabulary.ends) :]
                logs[size + j] = log_sum(tokens[by_stop if j == 0 and not closings.by_end else ids])
        logs[:size] = np.where(verdicts.vocabulary.is_text, tokens, -math.inf)
        logs[closings.tokens] = -math.inf
    if step.forced:
        logs[:size], logs[size + 1 :] = -math.inf, -math.inf
    peak = float(logs.max())
    return np.exp(logs - peak) if peak > -math.inf else np.zeros_like(logs)


async def _by_masks(verdicts: NextVerdicts) -> _Rejected:
    found = {}
    for i in verdicts.masked:
        factor, state = verdicts.target.boolean[i], verdicts.states[i]
        mask = factor.mask(state, verdicts.vocabulary)
        assert mask is not None
        ends = _ends(verdicts, i)
        # Masks are cheap, and another may have rejected the end before this was evaluated.
        ends[0] = not await verdicts.timed(i, factor.accepts(state), verdicts.text.data)
        found[(i,)] = np.concatenate([~mask, ends])
    return found


def _by_checks(verdicts: NextVerdicts) -> _Rejected:
    """What is known to be rejected without a mask, or to lead to a dead end: that is rejected by
    what is to blame there."""
    found: _Rejected = {}
    for i, known in verdicts.known.items():
        tokens = np.zeros(verdicts.vocabulary.size, dtype=bool)
        tokens[known.arrays(verdicts.vocabulary)[1]] = True
        found[(i,)] = np.concatenate([tokens, _ends(verdicts, i)])
    nothing = np.zeros(verdicts.vocabulary.size + len(verdicts.closings.ends), dtype=bool)
    for token, factors in blamed_by_token(verdicts).items():
        found.setdefault(factors, nothing.copy())[token] = True
    return found


def _ends(verdicts: NextVerdicts, i: int) -> np.ndarray:
    """Which ways to end a factor is known to reject."""
    known = verdicts.known.get(i)
    return np.array(
        [
            verdicts.rejected_ends.get(end) == i
            or (known is not None and not end.drop and known.ends.get(end.keep) is False)
            for end in verdicts.closings.ends
        ]
    )


def _masks_leave_tokens(verdicts: NextVerdicts) -> bool:
    allowed = verdicts.allowed
    return allowed is not None and bool((allowed & verdicts.vocabulary.is_text).any())


async def _in_conflict(verdicts: NextVerdicts, i: int, masks: _Rejected, outcome: int) -> set[int]:
    """The factors whose masks reject an outcome that factor `i`, which is to blame, allows."""
    size, vocabulary = verdicts.vocabulary.size, verdicts.vocabulary
    factor = verdicts.target.boolean[i]
    if i not in verdicts.known or factor.cost > BooleanPotential.cost:
        return set()
    verdict: bool | None = None
    if outcome == size:
        allows = await verdicts.timed(i, factor.accepts(verdicts.states[i]), verdicts.text.data)
    elif outcome > size:
        return set()
    else:
        verdict = verdicts.known[i].verdict(outcome, vocabulary)
        allows = bool(verdict)
        if verdict is None:
            data = bytes(vocabulary.tokens[outcome])
            allows = await verdicts.advance(i, outcome, data) is not None
    # It is counted, and not learned: what is drawn later must not depend on a death.
    verdicts.checks[i] += verdict is None
    return {j for (j,), where in masks.items() if allows and where[outcome]}
