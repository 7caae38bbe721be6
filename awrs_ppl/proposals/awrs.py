"""Adaptive weighted rejection sampling: learn the head, draw from the tail."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from itertools import islice
from typing import Any, Self, cast

import numpy as np

from awrs_ppl._messages import quoted
from awrs_ppl._values import count_of, is_number
from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.constraints.prefix_propagation import propagate
from awrs_ppl.proposals.head import Head
from awrs_ppl.proposals.paper import PaperAWRS
from awrs_ppl.proposals.pool import Pool, masked_pool
from awrs_ppl.proposals.proposal import Draw
from awrs_ppl.tokens.next_token import Outcomes
from awrs_ppl.tokens.underflow import require_digits

__all__ = ["AWRS"]

_MAX_DRAWS = 4  # draws from the tail for one particle
_MAX_VISIT_WEIGHT = 4.0
_LASTING_PRICE = 0.5  # the price where later runs profit: at it runs cost half as many checks
# After so many rejections and nothing accepted the ends are checked, however unlikely: a constraint
# that is fulfilled often allows nothing else, and an end may be behind thousands of tokens.
_UNTIL_ENDS = 16
_FEW_REMOVED = 8  # up to this many outcomes are removed faster one by one


@dataclass(frozen=True, slots=True)
class AWRS:
    """Draw from the LM restricted to a black-box constraint, with few checks.

    1. *Learn the head*: check the likeliest outcomes while that pays.
    2. *Freeze* what is known, before the first random number: A are the outcomes known to be
       accepted, U the unknown ones.
    3. *Draw the tail*: k outcomes of U by their weights; an accepted one weighs T = p(U)/(rho k),
       where rho is the probability that the tail is visited at all.
    4. *Combine*: W = p(A) + sum T, and the outcome is one of A with probability p(A)/W, else one
       of the accepted draws. Where children compete, each of these is a child instead.

    Given what is known at the freeze, E[W 1{x = v}] = p(v) c(v). Particles at one context learn
    once and share the k draws and W; the positions at which they look up their outcome are
    stratified. Each draw keeps its distribution.

    A token that ends in a multi-byte character, which a constraint over text accepts because it
    cannot judge it yet, is drawn by its weight times a guess of its verdict, the allowed share of
    all other outcomes there, and W is divided by it. The guess is the draw's twist: a resampling
    before the next token multiplies the weight by it.

    `effort` is the price of variance in checks; by default 1/sqrt(cost), with the `cost` of the
    dearest constraint that is checked: 32 for a plain predicate, 4 for one with `workers`, 1 for
    one that is awaited. For each particle rho k = effort sd/E[W], with sd the standard deviation
    that one draw leaves, by a guess of the share of U that is allowed: of all ways to spend as many
    checks this leaves the least variance. An outcome is checked, or the prefix of a rejected token
    for all tokens with this prefix, while that saves more than it costs (while nothing is accepted,
    what is likeliest is checked next). With `remember=True` the price is half of that: runs that
    know what others learned take about half of the checks, and the price at which checks times
    variance is least falls with them. Raises `ValueError` unless it is positive and finite.

    Source: Lipkin et al., "Fast Controlled Generation from Language Models with Adaptive Weighted
    Rejection Sampling", COLM 2025; its own estimators are `PaperAWRS`.

    >>> AWRS(effort=8.0)
    AWRS(effort=8.0)
    """

    effort: float | None = None
    # Bounds of the learning, which decide few results; tests set them to see every case. Where
    # nothing is accepted, it ends when what is left of the particle's weight is this small beside
    # the other particles'.
    _negligible: float = field(default=1e-4, repr=False)
    # Outcomes and prefixes checked in the head, per context: where a constraint rejects all that
    # is likely, a step ends nevertheless, by draws from the tail.
    _max_checks: int = field(default=512, repr=False)
    estimator: InitVar[str | None] = field(default=None, kw_only=True)

    uses_masks = True
    uses_verdicts = True
    is_proper = True

    def __new__(cls, *args: Any, estimator: str | None = None, **options: Any) -> Self:
        """An `AWRS`; with an estimator of the paper's, which is deprecated, its `PaperAWRS`."""
        if estimator is None and args and isinstance(args[0], str):
            estimator, args = args[0], args[1:]
        if estimator is None:
            return object.__new__(cls)
        paper = estimator != "head-tail"
        warnings.warn(
            f"AWRS(estimator={quoted(estimator)}) is deprecated: write "
            + (f"PaperAWRS({quoted(estimator)})" if paper else "AWRS()"),
            DeprecationWarning,
            stacklevel=2,
        )
        if not paper:
            return object.__new__(cls)
        if options or args:
            raise ValueError(
                f"AWRS got estimator={quoted(estimator)} and another option, which the paper's "
                f"estimators do not have: write PaperAWRS({quoted(estimator)})"
            )
        return cast(Any, PaperAWRS(cast(Any, estimator)))

    def __post_init__(self, estimator: str | None) -> None:
        effort = self.effort
        if effort is not None and not (is_number(effort) and 0 < effort < math.inf):
            raise ValueError(
                f"AWRS got effort={quoted(effort)}: it must be a number, positive and finite, or "
                "None, for the effort that follows from what a check costs"
            )
        if not (is_number(self._negligible) and 0 <= self._negligible < 1):
            raise ValueError(
                f"AWRS got _negligible={quoted(self._negligible)}: it must be in [0, 1)"
            )
        if count_of(self._max_checks, least=1) is None:
            raise ValueError(
                f"AWRS got _max_checks={quoted(self._max_checks)}: it must be an int of at least 1"
            )

    async def draw(
        self, outcomes: Outcomes, verdicts: NextVerdicts, rngs: Sequence[np.random.Generator]
    ) -> list[Draw]:
        """One draw for each generator; see `Proposal`."""
        pool = await self.pool(outcomes, verdicts, rngs[0], len(rngs))
        return pool.draw(len(rngs), rngs[0])

    async def pool(
        self,
        outcomes: Outcomes,
        verdicts: NextVerdicts,
        rng: np.random.Generator,
        members: int,
    ) -> Pool:
        """The outcomes for as many draws as there are `members`: the head, and the accepted draws
        from the tail."""
        if verdicts.is_masked:
            return await masked_pool(outcomes, verdicts)
        head = await self._learn(outcomes, verdicts, members)
        try:
            require_digits(head.mass + head.unknown.mass)
            self._plan(head, members)
            return await self._draw_tail(head, outcomes, verdicts, rng)
        finally:
            # Results must not depend on how much was checked ahead.
            if verdicts.ahead is not None:
                verdicts.ahead.drop()

    async def _learn(self, outcomes: Outcomes, verdicts: NextVerdicts, members: int) -> Head:
        """Check the likeliest outcomes while it pays. No random number is used here."""
        unknown = outcomes.urn()
        head = Head(unknown, outcomes, verdicts)
        # Others that came to the same state may have learned meanwhile.
        accepted, rejected = verdicts.learned_since(outcomes.restriction.version)
        for token in accepted:
            head.accept(token)
        if len(rejected) > _FEW_REMOVED:
            unknown.remove_all(np.array(rejected))
        else:
            for token in rejected:
                unknown.remove(token)
        learned, before, speculation = 0, verdicts.prefix_checks, verdicts.speculation
        ranked = unknown.ranked()
        ahead: list[int] = []
        while learned + verdicts.prefix_checks - before < self._max_checks:
            rest = unknown.mass
            if rest == 0.0:
                break
            if head.mass == 0.0 and outcomes.is_negligible(rest, self._negligible):
                break
            ahead = [outcome for outcome in ahead if unknown.weight(outcome) > 0.0]
            if len(ahead) <= 1:
                ahead += islice(ranked, speculation - len(ahead))
                if verdicts.ahead is not None:
                    await verdicts.ahead.fetch(verdicts, ahead)
            if not ahead:
                break
            threshold = self._threshold(head, members)
            if head.mass > 0.0 and unknown.weight(ahead[0]) < threshold:
                break
            if head.mass == 0.0 and learned == _UNTIL_ENDS:
                size = verdicts.vocabulary.size
                ends = range(size, size + len(verdicts.closings.ends))
                ahead = [*(end for end in ends if unknown.weight(end) > 0.0), *ahead]
            outcome = ahead.pop(0)
            allowed = await verdicts.check(outcome)
            learned += 1
            if allowed:
                head.accept(outcome)
            else:
                unknown.remove(outcome)
            ahead += islice(ranked, 0 if ahead else 1)
            # Of a prefix: what it could decide, beside what the next likeliest token would.
            threshold = self._threshold(head, members)
            if head.mass == 0.0 and ahead:
                threshold = unknown.weight(ahead[0])
            for token in await propagate(verdicts, outcome, allowed, unknown, threshold):
                head.accept(token)
        return head

    def _threshold(self, head: Head, members: int) -> float:
        """The weight that pays for a check.

        Checks and variance of each member's tail come to 2 effort sd(W)/E[W] checks, and sd(W)
        is in proportion to the tail's weight.
        """
        share = head.allowed_share()
        return head.mean(share) / (2.0 * self._price(head) * math.sqrt(share) * members)

    def _price(self, head: Head) -> float:
        """The price of variance in checks: their ratio where their product is least. Verdicts that
        last save about half of the checks."""
        # A particle's variance is v + a/n after n checks, v from the LM's own draws and the rest
        # of the step, and the step takes 1 + cost n rows' worth: where v is of the order of 1,
        # variance times time is least at an n in proportion to 1/sqrt(cost).
        effort = 1.0 / math.sqrt(head.cost) if self.effort is None else self.effort
        return effort * (_LASTING_PRICE if head.lasts else 1.0)

    def _plan(self, head: Head, members: int) -> None:
        """How many draws from the tail, and with what probability it is visited at all."""
        rest = head.unknown.mass
        if rest == 0.0:
            return
        share = head.allowed_share()
        # Of n draws W has the variance rest^2 share (1/n - share) if n <= 1, and rest^2 share
        # (1 - share)/n if n >= 1.
        mean = head.mean(share)
        wanted = self._price(head) * members * rest * math.sqrt(share) / mean
        # However low the effort, no visit weighs many times what W is expected to be.
        wanted = max(wanted, rest / (_MAX_VISIT_WEIGHT * mean))
        head.visits = min(wanted, 1.0)
        head.draws = min(_MAX_DRAWS * members, max(1, round(wanted * math.sqrt(1.0 - share))))

    async def _draw_tail(
        self, head: Head, outcomes: Outcomes, verdicts: NextVerdicts, rng: np.random.Generator
    ) -> Pool:
        """The head with the draws from the tail, which are all made before any verdict is used."""
        # Nothing is accepted into the head from here on: a token whose verdict is known because
        # it was drawn would count by its own weight and by that of its draw.
        twist = head.twist()
        ids, weights, twists = head.frozen()
        if head.draws and (head.visits == 1.0 or rng.random() < head.visits):
            weight = head.unknown.mass / (head.visits * head.draws)
            tail = [head.unknown.draw(rng) for _ in range(head.draws)]
            answers = await verdicts.check_all(tail)
            # Repeated draws count again: merging them would halve the weight of their sum.
            found = [outcome for outcome, allowed in zip(tail, answers, strict=True) if allowed]
            waiting = [outcome in verdicts.waiting for outcome in found]
            verdicts.note_drawn(len(tail), len(found) - sum(waiting))
            ids = np.concatenate([ids, np.array(found, ids.dtype)])
            weights = np.concatenate([weights, [weight] * len(found)])
            twists = np.concatenate([twists, np.where(waiting, twist, 1.0)])
        return Pool(outcomes.log_scale, ids, weights, twists)
