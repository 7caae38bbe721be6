"""One draw of the next token at one context, for all particles there.

1. `TokenStep.at`: what is known of the outcomes, the masks evaluated.
2. `weigh`: the language models' weights on them, for many contexts at once.
3. `TokenStep.draw`: outcomes and their weights, by a proposal; or `TokenStep.pool`: all of them.
4. `TokenStep.commit`: the texts that follow; a dead end is noted, and the cache charged for what
   was learned.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from awrs_ppl._concurrency import together
from awrs_ppl.constraints.dead_ends import joint_state, note_dead_end
from awrs_ppl.constraints.ends import is_over
from awrs_ppl.constraints.last_token import key_after_last, with_last
from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.constraints.potential import State
from awrs_ppl.constraints.target import Target
from awrs_ppl.constraints.verdict_cache import VerdictCache
from awrs_ppl.proposals import DEAD, Draw, Pool, Proposal, has_pool, room
from awrs_ppl.proposals.room import Room
from awrs_ppl.tokens.next_token import NOTHING, Outcomes, Restriction, weigh_outcomes
from awrs_ppl.tokens.stops import stop_prefix
from awrs_ppl.tokens.text import Text
from awrs_ppl.tokens.underflow import Underflow, rescaled

__all__ = ["Progress", "TokenStep", "side_by_side", "weigh"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Progress:
    """A partial text: immutable, so that clones share it.

    `states` are those of the Boolean factors; `weights` the log-weights that the weighing
    factors give to the text as a prefix. Of an ended text only `text` is used. `origin` is the
    joint state where the last token was drawn, and this token; `twist` is that of its draw. `room`
    is what is known of an end in time, near `max_tokens`.
    """

    text: Text
    states: tuple[State, ...]
    weights: tuple[float, ...]
    ended: bool = False
    origin: tuple[Hashable, int] | None = None
    twist: float = 0.0
    room: Room | None = None

    def lasting(self, stops: tuple[bytes, ...]) -> Text:
        """The part of the text that no stop can take away: what it ends as has this prefix."""
        return self.text if self.ended else self.text.without_pending(stops)


class TokenStep:
    """A context, what is known of the outcomes there, and their weights once they were weighed.

    `last`: `max_tokens` allows one token more. If the text `ends`, only the plain end is left
    then, and it is `forced`; a text that need not end is over by its last token. `left` are the
    outcomes that it allows where it is near; `room` and `leads` come from `look` then.
    """

    __slots__ = (
        *("ends", "last", "leads", "left", "outcomes", "progress", "proposal", "room", "verdicts"),
    )

    def __init__(
        self,
        progress: Progress,
        proposal: Proposal,
        verdicts: NextVerdicts,
        last: bool = False,
        ends: bool = True,
        left: int | None = None,
    ) -> None:
        self.progress, self.proposal, self.verdicts = progress, proposal, verdicts
        self.last, self.ends, self.left = last, ends, left
        self.outcomes: Outcomes | None = None
        self.room: Room | None = None
        self.leads: dict[int, bytes] = {}

    @classmethod
    def at(
        cls,
        target: Target,
        progress: Progress,
        cache: VerdictCache,
        proposal: Proposal,
        *,
        last: bool = False,
        ends: bool = True,
        keys: tuple[Hashable, ...] | None = None,
        twisted: bool = True,
        left: int | None = None,
    ) -> TokenStep:
        """The step of a product after a partial text. `keys` are those of its Boolean factors;
        `twisted`: what follows the draw looks at its twist."""
        assert target.vocabulary is not None
        text = progress.text
        tail = stop_prefix(text.data, target.stops)
        empty = ends or len(text.data) > len(tail)
        closings = target.vocabulary.closings(target.stops, tail, by_end=ends, empty=empty)
        states = progress.states
        if last and not ends:
            target, states = with_last(target), (*states, *states)
            keys = None if keys is None else (*keys, *map(key_after_last, keys))
        verdicts = NextVerdicts.at(target, text, states, closings, cache, keys, progress.twist)
        if not twisted:
            verdicts.waiting = {}
        return cls(progress, proposal, verdicts, last, ends, left)

    @property
    def forced(self) -> bool:
        """Whether only the plain end is left."""
        return self.last and self.ends

    def restriction(self, share: float = 1.0) -> Restriction:
        """What the outcomes are restricted by, as far as the proposal uses it. `share` is the
        part of the population's weight that is here."""
        verdicts = self.verdicts
        allowed = verdicts.allowed if self.proposal.uses_masks else None
        restriction = Restriction(verdicts.closings, allowed, self.forced, share=share)
        if not self.proposal.uses_verdicts:
            return restriction
        accepted, rejected = verdicts.known_outcomes()
        version = verdicts.version
        return replace(restriction, accepted=accepted, rejected=rejected, version=version)

    async def draw(self, rngs: Sequence[np.random.Generator]) -> list[Draw]:
        """One draw for each generator; the outcomes must have been weighed."""
        draws = await self._found(lambda o: self.proposal.draw(o, self.verdicts, rngs))
        return [DEAD] * len(rngs) if draws is None else draws

    async def pool(self, rng: np.random.Generator, members: int) -> Pool:
        """All outcomes, learned and drawn for so many draws, of a proposal that has a pool."""
        proposal = self.proposal
        assert has_pool(proposal)
        pool = await self._found(lambda o: proposal.pool(o, self.verdicts, rng, members))
        return Pool(0.0) if pool is None else pool

    def must_end(self, pool: Pool) -> bool:
        """Whether all that is in the pool ends the text, as far as that is known at once."""
        if self.forced:
            return True
        if pool.urn is None:
            return len(pool.ids) > 0 and bool((pool.ids >= self.verdicts.vocabulary.size).all())
        return self.verdicts.allowed is not None and not self.verdicts.allowed.any()

    async def _found(self, find: Callable[[Outcomes], Awaitable[_T]]) -> _T | None:
        """What is found in the outcomes, on a scale that has digits; None if nothing is left."""
        outcomes = self.outcomes
        while outcomes is not None:
            try:
                return await find(outcomes)
            except Underflow:
                # What looks at the constraint draws no more from what it rejects.
                uses_masks = self.proposal.uses_masks
                rejected = self.verdicts.known_outcomes()[1] if uses_masks else NOTHING
                outcomes = rescaled(outcomes, rejected)
        return None

    async def commit(self, draws: Sequence[Draw]) -> list[Progress | None]:
        """The text after each draw, None where its weight is 0; what was learned is kept."""
        verdicts = self.verdicts
        found: dict[Draw, Progress | None] = {}
        for draw in draws:
            if draw not in found:
                found[draw] = await self.after(draw)
        after = [found[draw] for draw in draws]
        # Now and not before: what others find must not depend on who is done first.
        # What the last token makes impossible is no dead end for others.
        if not self.last and any(draw.log_weight == -math.inf for draw in draws):
            await note_dead_end(verdicts, self.progress.origin)
        verdicts.charge()
        return after

    async def after(self, draw: Draw) -> Progress | None:
        """The text after one draw; None if its weight is 0."""
        if draw.log_weight == -math.inf:
            return None
        verdicts, text = self.verdicts, self.progress.text
        size = verdicts.vocabulary.size
        if draw.outcome < size:
            data = bytes(verdicts.vocabulary.tokens[draw.outcome])
            states = await verdicts.states_after(draw.outcome)
            longer = text.then(draw.outcome, data)
            if not self.ends and (self.last or await is_over(verdicts, states, longer.data)):
                return Progress(longer, states, self.progress.weights, ended=True)
            return Progress(
                longer,
                states,
                self.progress.weights,
                origin=(joint_state(verdicts), draw.outcome),
                twist=draw.twist,
                room=room.after(self, draw.outcome),
            )
        closing = verdicts.closings.ends[draw.outcome - size]
        ended = Text(closing.apply(text.data), text.tokens)
        return replace(self.progress, text=ended, ended=True, twist=0.0)


def weigh(
    steps: Sequence[TokenStep], rows: list[torch.Tensor], shares: Sequence[float] | None = None
) -> None:
    """Weigh the outcomes of steps over one vocabulary.

    `rows` are the logits over temperature of each of a product's language models, `[n, size]`
    with a row for each step; `shares` the parts of the population's weight, 1 if not given.
    """
    if shares is None:
        shares = [1.0] * len(steps)
    restrictions = [step.restriction(share) for step, share in zip(steps, shares, strict=True)]
    vocabulary = steps[0].verdicts.vocabulary
    for step, outcomes in zip(steps, weigh_outcomes(rows, vocabulary, restrictions), strict=True):
        step.outcomes = outcomes


async def side_by_side(
    steps: Sequence[TokenStep], find: Callable[[TokenStep], Awaitable[Any]]
) -> None:
    """Find something for all steps. Those that learn about the same state come one after the
    other, so that what they know does not depend on whose checks are done first."""

    async def in_turn(chain: list[TokenStep]) -> None:
        for step in chain:
            await find(step)

    await together(map(in_turn, _chains(steps)))


def _chains(steps: Sequence[TokenStep]) -> list[list[TokenStep]]:
    chains: list[tuple[set[int], list[TokenStep]]] = []
    for step in steps:
        states = {id(known) for known in step.verdicts.known.values()}
        alike = [chain for chain in chains if chain[0] & states]
        merged = set[int]().union(states, *(chain[0] for chain in alike))
        links = [link for chain in alike for link in chain[1]]
        chains = [chain for chain in chains if not chain[0] & states]
        chains.append((merged, [*links, step]))
    return [links for _, links in chains]
