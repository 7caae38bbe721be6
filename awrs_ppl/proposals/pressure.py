"""Pressure to end: near `max_tokens` outcomes are drawn by how likely a text still ends after them.

A refinement, of which a text far from `max_tokens` sees nothing. Where to stay in a string is
free and to close it has a price, nobody would have ended at the limit, and all would die there.
So outcomes are drawn by p(v) c(v) psi(v): psi guesses which part of the weight of the text after v
will have ended in time. Whatever psi is, the distribution of results is the same: the weight is
divided by psi(v), which is carried as a twist until the next draw, and an ended text has none.
For that psi is fixed before the first random number of the step; it depends on what was drawn and
on the rows of the language models up to here.

The guess: a *completion* (`constraints/completion.py`) of n tokens, its end among them, is a chain
of n steps. At each the text takes the next one with probability h, and else stays where it is, so
that V_n(t) = h V_(n-1)(t-1) + (1 - h) V_n(t-1) is the probability that it has ended in t tokens;
V_0 is 1. A token that begins the completion, or ends with its beginning, has psi = V of what
remains. Where V of the whole is low, the heaviest others are tested: some may end the text too.
What is left has the mean psi of those tested, at least V of the whole, and together at least
`_FLOOR` of the weight of what leads to the end. h is the mean of what the tokens that lead on
weighed at earlier contexts with the same completion.

The fact: where the masks leave so few texts that all can be listed, a token after which none of
them fits has weight 0.

Source: the lookahead of Zhang et al., "Tractable Control for Autoregressive Language Generation"
(GeLaTo), ICML 2023, with the completion in place of an automaton.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from awrs_ppl._concurrency import together
from awrs_ppl.constraints.completion import find_completions, is_searchable
from awrs_ppl.proposals.chain import Chain, Values, chain_of
from awrs_ppl.proposals.leading import leading, tested_heaviest
from awrs_ppl.proposals.proposal import has_pool
from awrs_ppl.tokens.twisted import keep, twist, weights_of

if TYPE_CHECKING:
    from awrs_ppl.proposals.token_step import TokenStep

__all__ = ["Pressure", "left_near", "press"]

# Completions are looked for at every 16th token of the second half, at every eighth of the last
# 48, and at all of the last four; once there is pressure, at each. It begins when the longest
# completion has so few tokens less than are left.
_NEAR, _VERY_NEAR, _SLACK = 48, 4, 24
_LEAST = 16  # of fewer tokens all are near
# What all other tokens weigh at least, of the weight of those that lead to the end: a guess may be
# wrong.
_FLOOR = 3e-3
# What contexts where no text is expected to end in time weigh together, of what the others do. They
# have paid no price yet, and would have most of the weight for it; but that they are too late is a
# guess, and what is too seldom drawn is missing in every result.
_LATE = 0.05
# Unless the others surely end in time, the heaviest of them are tested.
_SURE = 0.9


@dataclass(slots=True)
class Pressure:
    """What a step is drawn by: psi of the outcomes `ids`, and of all others `rest`, as logarithms.

    `completion` is that of the text, None where none is known; with `lacks` there is certainly
    none that fits.
    """

    completion: bytes | None = None
    rest: float = 0.0
    logs: dict[int, float] = field(default_factory=dict)
    lacks: bool = False

    def log_twist(self, outcome: int) -> float:
        """The logarithm of psi."""
        return self.logs.get(outcome, self.rest)

    def after(self, token: bytes) -> bytes | None:
        """What remains of the completion after a token; all of it, where the token is none."""
        if self.completion is not None and self.completion.startswith(token):
            return self.completion[len(token) :]
        return self.completion


def left_near(max_tokens: int, tokens: int) -> int | None:
    """The tokens that are left, the end among them, where `max_tokens` is near; else None."""
    left = max_tokens - tokens
    return left if left <= max(max_tokens // 2, _LEAST) else None


async def press(steps: Iterable[TokenStep]) -> None:
    """Twist the outcomes of the steps that are near the end; they must have been weighed."""
    groups: dict[Hashable, list[TokenStep]] = defaultdict(list)
    for step in steps:
        if _is_looked_at(step):
            groups[step.verdicts.keys, step.left].append(step)
    for group in groups.values():
        await together(_look(step) for step in group)
        await _press_alike(group)


def _is_looked_at(step: TokenStep) -> bool:
    left = step.left
    if left is None or left <= 1 or step.outcomes is None or not has_pool(step.proposal):
        return False
    begun = step.progress.completion is not None or not step.progress.text.tokens
    often = begun or left <= _VERY_NEAR or left % (8 if left <= _NEAR else 16) == 0
    return often and is_searchable(step.verdicts.target)


async def _look(step: TokenStep) -> None:
    """Find the completions of a step's text."""
    verdicts, progress = step.verdicts, step.progress
    known, guesses = progress.completion, list[bytes]()
    if known is not None:
        guesses.append(known)
        last = bytes(verdicts.vocabulary.tokens[progress.text.tokens[-1]])
        guesses += [known[n:] for n in range(1, len(known) + 1) if last.endswith(known[:n])]
    at = verdicts.target, step.progress.states, progress.text.data
    found = await find_completions(*at, guesses)
    if found and guesses and not found.is_all and not _fits(step, found.texts[0]):
        again = await find_completions(*at)
        found = again if again and _fits(step, again.texts[0]) else found
    step.completions = found


def _fits(step: TokenStep, text: bytes) -> bool:
    assert step.left is not None
    return chain_of(step.verdicts.vocabulary, text).counts[0] + step.ends <= step.left


async def _press_alike(steps: Sequence[TokenStep]) -> None:
    """Twist the outcomes at contexts of one constraint, with as many tokens left."""
    left, ended, keys = steps[0].left, int(steps[0].ends), steps[0].verdicts.keys
    assert left is not None
    hazards = steps[0].verdicts.cache.hazards
    chains: list[tuple[TokenStep, Chain]] = []
    unknown: list[TokenStep] = []
    for step in steps:
        if step.completions is None:
            unknown.append(step)
        elif step.completions.is_all:
            _keep_what_fits(step, step.completions.texts, left - ended)
        else:
            chain = chain_of(step.verdicts.vocabulary, step.completions.texts[0])
            chains.append((step, chain)) if chain.counts[0] < math.inf else unknown.append(step)
    # All begin together: one that is pressed alone would lose its place to those that are not yet.
    longest = max((chain.counts[0] + ended for _, chain in chains), default=0)
    was = any(step.progress.completion is not None for step, _ in chains)
    if not chains or not (was or left <= longest + _SLACK):
        return
    values = Values(hazards, keys, left, ended)
    masses, near = list[float](), 0.0
    late: list[TokenStep] = []
    for step, chain in chains:
        mass = await _twist(step, chain, values)
        if mass > 0.0:
            masses.append(mass)
            near += _share(step) * mass
        else:
            late.append(step)
    # What has no completion that was found may have one.
    rest = math.log(max(_FLOOR * float(np.mean(masses)), 1e-300)) if masses else 0.0
    lost = [*late, *(unknown if left <= _LEAST else ())]
    weighs = math.fsum(_plain_share(step) for step in lost)
    log_late = min(math.log(_LATE * near / weighs), 0.0) if near > 0.0 and weighs > 0.0 else rest
    for step in [*late, *unknown]:
        completion = step.completions.texts[0] if step.completions else None
        _set(step, Pressure(completion, log_late if step in lost else rest))
    values.learn(hazards)


def _keep_what_fits(step: TokenStep, texts: Sequence[bytes], room: int) -> None:
    """Leave only tokens after which one of all texts that there are fits in the room."""
    verdicts, outcomes = step.verdicts, step.outcomes
    assert verdicts.allowed is not None
    assert outcomes is not None
    fits = np.zeros(verdicts.vocabulary.size, bool)
    for text in texts:
        counts = chain_of(verdicts.vocabulary, text).counts
        for token in verdicts.vocabulary.prefix_index.within(text):
            fits[token] |= counts[len(verdicts.vocabulary.tokens[token])] + 1 <= room
    if all(len(text) <= room for text in texts):
        return  # whatever is drawn
    # The next tokens are looked at, too.
    step.pressure = Pressure(completion=texts[0] if texts else b"", lacks=not fits.any())
    if (verdicts.allowed & verdicts.vocabulary.is_text & ~fits).any():
        keep(outcomes, fits)


async def _twist(step: TokenStep, chain: Chain, values: Values) -> float:
    """Twist the outcomes of a step; what they weigh then, in probabilities. Where no text is
    expected to end in time, that is 0 and nothing is changed."""
    outcomes = step.outcomes
    assert outcomes is not None
    found = await leading(step, chain)
    stay, typical = values.of(chain, 0), 0.0
    if stay < _SURE:
        tested = await tested_heaviest(step, chain, found)
        heavy = weights_of(outcomes, np.array([*tested], np.int64))
        psi = np.array([values.of(chain, at) if at is not None else 0.0 for at in tested.values()])
        # The others are taken to be like those that were tested.
        typical = float(heavy @ psi) / float(heavy.sum()) if len(heavy) else 0.0
        found.update((token, (chain, at)) for token, at in tested.items() if at is not None)
    ids, remain = np.array([*found], np.int64), [*found.values()]
    weights = weights_of(outcomes, ids)
    psi = np.array([values.of(*at) for at in remain])
    whole, near = outcomes.mass, float(weights @ psi)
    end = step.verdicts.vocabulary.size
    if chain.text:  # else it may end here
        whole -= float(weights_of(outcomes, np.array([end]))[0])
    off = max(whole - float(weights.sum()), 0.0)
    values.note(chain.text, float(weights.sum()) / whole if whole > 0.0 else 0.0)
    rest = max(stay, typical, _FLOOR * near / off if off > 0.0 else 0.0)
    if near + rest * off <= 0.0:
        return 0.0
    rest = rest or near  # there are no others
    # Those that lead to the end too late may lead to another, as all others may.
    logs = np.log(np.maximum(psi, rest))
    pressure = Pressure(
        chain.text, math.log(rest), dict(zip(ids.tolist(), logs.tolist(), strict=True))
    )
    _set(step, pressure)
    return (near + rest * off) * math.exp(outcomes.log_scale - pressure.rest)


def _share(step: TokenStep) -> float:
    assert step.outcomes is not None
    return step.outcomes.restriction.share


def _plain_share(step: TokenStep) -> float:
    """The part of the population's weight that is here, by all that is allowed next."""
    assert step.outcomes is not None
    return _share(step) * step.outcomes.mass * math.exp(step.outcomes.log_scale)


def _set(step: TokenStep, pressure: Pressure) -> None:
    assert step.outcomes is not None
    ids = np.array([*pressure.logs], dtype=np.int64)
    step.pressure = pressure
    twist(step.outcomes, ids, np.array([*pressure.logs.values()]) - pressure.rest, pressure.rest)
