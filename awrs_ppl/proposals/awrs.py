"""Adaptive weighted rejection sampling: learn the head, draw from the tail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, cast

import numpy as np

from awrs_ppl._messages import quoted
from awrs_ppl._values import count_of, is_number
from awrs_ppl.constraints.ends import settle_ends
from awrs_ppl.constraints.next_verdicts import Knowledge
from awrs_ppl.constraints.prefix_propagation import follow
from awrs_ppl.proposals.head import Head
from awrs_ppl.proposals.paper import ESTIMATORS
from awrs_ppl.proposals.proposal import DEAD, Draw
from awrs_ppl.tokens.next_token import Outcomes
from awrs_ppl.tokens.urn import Urn, pick

__all__ = ["AWRS"]

_MOST = 4  # draws from the tail for one particle
_HEAVIEST = 4.0
_LASTING = 0.5  # the price where later runs profit: at it runs cost half as many checks
_DEFAULTS = {"effort": 4.0, "trifle": 1e-4, "max_checks": 512}
_FEW = 8  # so many outcomes are removed faster one by one


@dataclass(frozen=True, slots=True)
class AWRS:
    """Draw from the LM restricted to a black-box constraint, with few checks.

    `estimator="head-tail"` (the default) learns the verdicts on the likeliest outcomes and
    then draws from the rest. With A the outcomes known to be accepted and U the unknown ones,
    frozen before the first random number, an accepted one of k draws from U weighs
    T = p(U)/(rho k); W = p(A) + sum T, and the outcome is one of A with probability p(A)/W,
    else one of the accepted draws. Given the knowledge at the freeze, E[W 1{x = v}] = p(v)c(v).
    Particles at one context learn once and share the k draws and W; the places where they look
    up their outcome are stratified. Each draw keeps its law.

    A token that ends inside a character, which a constraint over text accepts because it cannot
    judge it yet, is drawn by its weight times a guess of its verdict, the allowed share of all
    other outcomes there, and W is divided by it. The guess is the draw's twist: a resampling
    before the next token multiplies the weight by it.

    - `effort`: the price of variance in checks. For each particle rho k = effort sd/E[W], with sd
      the standard deviation that one draw leaves, by a guess of the share of U that is allowed:
      of all ways to spend so many checks that leaves the least variance. An outcome is checked,
      or the beginning of a rejected token for all tokens that begin so, while that saves more
      than it costs (while nothing is accepted, what is likeliest is checked next). With
      `remember=True` it is half of that, for runs that know what others learned take about half
      of the checks, and the price that makes checks times variance least falls with them;
    - `trifle`: where nothing is accepted, learning ends when what is left of the particle's
      weight is this small beside the other particles';
    - `max_checks`: outcomes and beginnings checked in the head, per context.

    These are 4.0, 1e-4 and 512 by default; they are the head and tail's alone, and an error for
    the other estimators, where they are None.

    The others are the paper's: `"two-loop"` (Definition 2 of Lipkin et al., "Fast Controlled
    Generation from Language Models with Adaptive Weighted Rejection Sampling", COLM 2025),
    and its later refinements `"recursive"` and `"geometric"`, without a cut-off at small mass.

    >>> AWRS(estimator="geometric").estimator
    'geometric'
    """

    estimator: Literal["head-tail", "two-loop", "recursive", "geometric"] = "head-tail"
    effort: float = cast(float, None)
    trifle: float = cast(float, None)
    max_checks: int = cast(int, None)

    uses_masks = True
    is_proper = True

    def __post_init__(self) -> None:
        names = ["head-tail", *ESTIMATORS]
        if not isinstance(self.estimator, str) or self.estimator not in names:
            hint = ", and give a number by its name" if is_number(self.estimator) else ""
            raise ValueError(f"AWRS got estimator={self.estimator!r}: choose one of {names}{hint}")
        for name, default in _DEFAULTS.items():
            given = getattr(self, name)
            if self.estimator != "head-tail" and given is not None:
                raise ValueError(
                    f"AWRS got {name}={quoted(given)} for estimator={self.estimator!r}, which has "
                    f"no {name}: leave it out, or take the estimator 'head-tail'"
                )
            if self.estimator == "head-tail" and given is None:
                object.__setattr__(self, name, default)
        if self.estimator != "head-tail":
            return
        if not (
            is_number(self.effort)
            and is_number(self.trifle)
            and count_of(self.max_checks, least=1) is not None
            and (0 < self.effort < math.inf and 0 <= self.trifle < 1)
        ):
            raise ValueError(
                f"AWRS got effort={self.effort!r}, trifle={self.trifle!r}, "
                f"max_checks={self.max_checks!r}: they must be positive and finite, in [0, 1), "
                "and an int of at least 1"
            )

    @property
    def uses_knowledge(self) -> bool:
        """Head and tail begin with what is known; the paper's estimators know nothing."""
        return self.estimator == "head-tail"

    async def draw(
        self, outcomes: Outcomes, knowledge: Knowledge, rngs: Sequence[np.random.Generator]
    ) -> list[Draw]:
        """One draw for each generator; see `Proposal`."""
        if knowledge.is_masked:
            urn = outcomes.urn()
            await settle_ends(knowledge, urn)
            left = urn.mass
            draws = _draw_known(outcomes, urn, len(rngs), rngs[0])
        elif self.estimator == "head-tail":
            head = await self._learn(outcomes, knowledge, len(rngs))
            left, draws = head.mass + head.unknown.mass, [DEAD] * len(rngs)
            if not outcomes.is_faint(left):
                self._plan(head, len(rngs))
                draws = await self._draw(head, outcomes, knowledge, rngs)
            # Results must not depend on how much was asked ahead.
            knowledge.ahead.drop()
        else:
            estimate = ESTIMATORS[self.estimator]
            draws = [await estimate(outcomes, knowledge, rng) for rng in rngs]
            # These give up only when all that has mass on this scale is rejected.
            left = 0.0 if all(draw is DEAD for draw in draws) else outcomes.mass
        if outcomes.is_faint(left):
            rescaled = outcomes.rescaled(knowledge.rejected())
            if rescaled is not None:
                return await self.draw(rescaled, knowledge, rngs)
        return draws

    async def _learn(self, outcomes: Outcomes, knowledge: Knowledge, members: int) -> Head:
        """Check the likeliest outcomes while it pays. No random number is used here."""
        unknown = outcomes.urn()
        head = Head(unknown, outcomes, knowledge)
        # Others that came to the same state may have learned meanwhile.
        accepted, rejected = knowledge.news(outcomes.place.version)
        for token in accepted:
            head.accept(token)
        if len(rejected) > _FEW:
            unknown.remove_all(np.array(rejected))
        else:
            for token in rejected:
                unknown.remove(token)
        learned, before, speculation = 0, knowledge.beginnings, knowledge.ahead.speculation
        ranked = unknown.ranked()
        ahead: list[int] = []
        while learned + knowledge.beginnings - before < self.max_checks:
            rest = unknown.mass
            if rest == 0.0:
                break
            if head.mass == 0.0 and outcomes.is_trifle(rest, self.trifle):
                break
            ahead = [outcome for outcome in ahead if unknown.weight(outcome) > 0.0]
            if len(ahead) <= 1:
                ahead += islice(ranked, speculation - len(ahead))
                await knowledge.fetch(ahead)
            if not ahead:
                break
            fair = self._fair(head, members)
            if head.mass > 0.0 and unknown.weight(ahead[0]) < fair:
                break
            outcome = ahead.pop(0)
            allowed = await knowledge.check(outcome)
            learned += 1
            if allowed:
                head.accept(outcome)
            else:
                unknown.remove(outcome)
            ahead += islice(ranked, 0 if ahead else 1)
            # Of a beginning: what it could settle, beside what the next likeliest token would.
            fair = self._fair(head, members)
            worth = fair if head.mass > 0.0 or not ahead else unknown.weight(ahead[0])
            for token in await follow(knowledge, outcome, allowed, unknown, worth):
                head.accept(token)
        return head

    def _fair(self, head: Head, members: int) -> float:
        """The weight that pays for a check.

        Checks and variance of each member's tail come to 2 effort sd(W)/E[W] checks, and sd(W)
        is in proportion to the tail's weight.
        """
        share = head.share()
        return head.mean(share) / (2.0 * self._price(head) * math.sqrt(share) * members)

    def _price(self, head: Head) -> float:
        """What variance is worth in checks: where their product is least, their ratio. Knowledge
        that lasts takes about half of the checks away."""
        return self.effort * (_LASTING if head.lasts else 1.0)

    def _plan(self, head: Head, members: int) -> None:
        """How many draws from the tail, and with what probability it is visited at all."""
        rest = head.unknown.mass
        if rest == 0.0:
            return
        share = head.share()
        # Of n draws W has the variance rest^2 share (1/n - share) if n <= 1, and rest^2 share
        # (1 - share)/n if n >= 1.
        mean = head.mean(share)
        wanted = self._price(head) * members * rest * math.sqrt(share) / mean
        # However low the effort, no visit weighs many times what W is expected to be.
        wanted = max(wanted, rest / (_HEAVIEST * mean))
        head.visits = min(wanted, 1.0)
        head.draws = min(_MOST * members, max(1, round(wanted * math.sqrt(1.0 - share))))

    async def _draw(
        self,
        head: Head,
        outcomes: Outcomes,
        knowledge: Knowledge,
        rngs: Sequence[np.random.Generator],
    ) -> list[Draw]:
        """The draws from the tail, all made before any verdict is used, and then the outcomes of
        all particles from what was found."""
        # Nothing is accepted into the head from here on: a token whose verdict is known because
        # it was drawn would count by its own weight and by that of its draw.
        rng, found, worth = rngs[0], [], 0.0
        twist = head.twist()
        known, weights, twists = head.frozen()
        if head.draws and (head.visits == 1.0 or rng.random() < head.visits):
            worth = head.unknown.mass / (head.visits * head.draws)
            tail = [head.unknown.draw(rng) for _ in range(head.draws)]
            verdicts = await knowledge.check_all(tail)
            # Repeated draws count again: merging them would halve the weight of their sum.
            found = [outcome for outcome, allowed in zip(tail, verdicts, strict=True) if allowed]
            waiting = list(map(knowledge.undecided.is_waiting, found))
            knowledge.note_drawn(len(tail), len(found) - sum(waiting))
            weights = np.concatenate([weights, [worth] * len(found)])
            twists = np.concatenate([twists, np.where(waiting, twist, 1.0)])
        cumulative = np.cumsum(weights * twists)
        if len(cumulative) == 0 or cumulative[-1] <= 0.0:
            return [DEAD] * len(rngs)
        total = float(cumulative[-1])
        log_weight = outcomes.log_scale + math.log(total)
        draws = []
        for reach in _strata(len(rngs), rng) * total:
            place = pick(cumulative, reach)
            outcome = int(known[place]) if place < len(known) else found[place - len(known)]
            log_twist = math.log(twists[place])
            draws.append(Draw(outcome, log_weight - log_twist, log_twist))
        return draws


def _draw_known(outcomes: Outcomes, urn: Urn, members: int, rng: np.random.Generator) -> list[Draw]:
    """All verdicts are known: W is the mass, without noise."""
    mass = urn.mass
    if mass == 0.0:
        return [DEAD] * members
    log_weight = outcomes.log_scale + math.log(mass)
    return [Draw(urn.at(place), log_weight) for place in _strata(members, rng)]


def _strata(members: int, rng: np.random.Generator) -> np.ndarray:
    """Places in [0, 1), one in each of `members` equal parts, in random order.

    Each alone is uniform; together they spread the outcomes as evenly as their weights.
    """
    if members == 1:
        return rng.random(1)
    return (rng.permutation(members) + rng.random(members)) / members
