"""Broken versions of parts of the library, for `planted_faults.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from awrs_ppl import AWRS, ToyLM
from awrs_ppl.constraints import prefix_propagation, weighing
from awrs_ppl.constraints.dead_ends import tokens_to_dead_ends
from awrs_ppl.constraints.next_verdicts import NextVerdicts
from awrs_ppl.constraints.target import Target
from awrs_ppl.inference import inference, text_step
from awrs_ppl.inference.inference import Inference
from awrs_ppl.inference.population import Particle, continued
from awrs_ppl.lm.prompted import PromptedLM
from awrs_ppl.log_weights import log_mean
from awrs_ppl.potentials.predicates import Predicate
from awrs_ppl.program.log import Log
from awrs_ppl.program.statements import Condition
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.proposals import DEAD, Draw, paper
from awrs_ppl.tokens.urn import pick
from awrs_ppl.tokens.vocabulary import Vocabulary

# --- the proposal -------------------------------------------------------------------------


def proposal_that(fault: str) -> Callable[[], AbstractContextManager[Any]]:
    """Head and tail in short, with one thing wrong."""

    async def one(head: Any, outcomes: Any, verdicts: NextVerdicts, rng: Any) -> Draw:
        rest, mass = head.unknown.mass, head.mass
        visit = rng.random()
        position = visit if fault == "shares" else rng.random()
        tail = [head.unknown.draw(rng) for _ in range(head.draws) if visit < head.visits]
        weight = rest / max(head.draws, 1) / (1.0 if fault == "visits" else head.visits)
        found = [outcome for outcome in tail if await verdicts.check(outcome)]
        while fault == "insists" and tail and not found and not mass:
            found = [v for v in [head.unknown.draw(rng)] if await verdicts.check(v)]
        if fault == "merges":
            found = list(dict.fromkeys(found))
        early = sum(head.unknown.weight(v) for v in set(found)) if fault == "looks" else 0.0
        total = mass + early + weight * len(found)
        if total <= 0.0:
            return DEAD
        if position * total < mass or not found:
            known, weights, twists = head.frozen()
            reach = min(position * total, mass * (1 - 1e-9))
            outcome = int(known[pick(np.cumsum(weights * twists), reach)])
        else:
            outcome = found[int((position * total - mass) / (total - mass) * len(found))]
        return Draw(outcome, outcomes.log_scale + math.log(total))

    async def draw(self: Any, outcomes: Any, verdicts: Any, rngs: Any) -> list[Draw]:
        if verdicts.is_masked:
            return await right_draw(self, outcomes, verdicts, rngs)
        head = await self._learn(outcomes, verdicts, len(rngs))
        self._plan(head, len(rngs))
        return [await one(head, outcomes, verdicts, rng) for rng in rngs]

    return lambda: patch.object(AWRS, "draw", draw)


right_plan = AWRS._plan


def weighed_alone(self: Any, head: Any, members: int) -> None:
    """The draws that particles pool, weighed as if each had made only its own."""
    right_plan(self, head, members)
    urn = head.unknown
    head.unknown = SimpleNamespace(mass=urn.mass * members, draw=urn.draw)


def unpermuted(members: int, rng: np.random.Generator) -> np.ndarray:
    return (np.arange(members) + rng.random(members)) / members


def undivided_guess(outcome: int, log_weight: float, twist: float) -> Draw:
    """The weight of a token that waits, without the guess that it was drawn by."""
    return Draw(outcome, log_weight + twist, twist)


right_draw = AWRS.draw


async def free_end(self: Any, outcomes: Any, verdicts: Any, rngs: Any) -> list[Draw]:
    draws = await right_draw(self, outcomes, verdicts, rngs)
    if not outcomes.restriction.forced:
        return draws
    return [draw if draw is DEAD else Draw(draw.outcome, 0.0) for draw in draws]


right_closings = Vocabulary.closings


def by_any_end(self: Any, stops: Any, tail: bytes, **options: Any) -> Any:
    """An end token ends a text that need not end, and it may be empty."""
    return right_closings(self, stops, tail)


async def over_by_one(verdicts: Any, states: Any, data: bytes) -> bool:
    """Not all factors are asked."""
    factors = zip(verdicts.target.boolean, states, strict=True)
    return any([await factor.is_over(state) for factor, state in factors])


async def only_what_lasts(self: Any, state: Any) -> bool:
    """What may become a stop is left out, although it did not."""
    return await self.factor.accepts(state[0])


async def one_loop(outcomes: Any, verdicts: Any, rng: Any) -> Draw:
    """The second loop is left out."""
    urn = outcomes.urn().copy()
    accepted, rejections = await paper._until_accepted(urn, verdicts, rng)
    if accepted is None:
        return DEAD
    return Draw(accepted, outcomes.log_scale + math.log(urn.mass) - math.log1p(rejections))


async def put_back(outcomes: Any, verdicts: Any, rng: Any) -> Draw:
    """The further draw is made with the accepted outcome still in the urn."""
    urn = outcomes.urn().copy()
    accepted, _ = await paper._until_accepted(urn, verdicts, rng)
    if accepted is None:
        return DEAD
    allowed = await verdicts.check(urn.draw(rng))
    weight = urn.mass if allowed else urn.weight(accepted)
    return Draw(accepted, outcomes.log_scale + math.log(weight))


async def one_success(outcomes: Any, verdicts: Any, rng: Any) -> Draw:
    """One over the number of trials until the first success."""
    urn = outcomes.urn().copy()
    mass, trials = urn.mass, 0
    while mass > 0.0:
        trials += 1
        outcome = urn.draw(rng)
        if await verdicts.check(outcome):
            return Draw(outcome, outcomes.log_scale + math.log(mass / trials))
    return DEAD


# --- verdicts -----------------------------------------------------------------------------


async def across_characters(
    verdicts: Any, i: int, data: bytes, urn: Any, threshold: float
) -> list[int]:
    prefix_index = verdicts.vocabulary.prefix_index
    first, last = prefix_index.range(data[:1])
    verdicts.known[i].reject_range(first, last)
    urn.remove_all(prefix_index.ids[first:last])
    return []


right_prefixes = prefix_propagation._accept_prefixes


def accepted_for_all(verdicts: Any, factors: Any, data: bytes, urn: Any) -> list[int]:
    """Every factor gets a state, too, so that none is checked when the token is drawn."""
    prefix_index, tokens = verdicts.vocabulary.prefix_index, verdicts.vocabulary.tokens
    for known in verdicts.known.values():
        for token in prefix_index.within(data):
            known.accept(token, verdicts.text.data + bytes(tokens[token]))
    return right_prefixes(verdicts, factors, data, urn)


def longer_accepted(verdicts: Any, factors: Any, data: bytes, urn: Any) -> list[int]:
    prefix_index, tokens = verdicts.vocabulary.prefix_index, verdicts.vocabulary.tokens
    longer = prefix_index.ids[slice(*prefix_index.range(data))].tolist()
    for known in verdicts.known.values():
        for token in longer:
            known.accept(token, verdicts.text.data + bytes(tokens[token]))
    return [token for token in longer if urn.weight(token) > 0.0]


right_outcomes = NextVerdicts.known_outcomes


def dead_prefix(self: NextVerdicts) -> tuple[np.ndarray, np.ndarray]:
    prefix_index = self.vocabulary.prefix_index
    for token in tokens_to_dead_ends(self):
        first, last = prefix_index.range(bytes(self.vocabulary.tokens[token]))
        for verdicts in self.known.values():
            for longer in prefix_index.ids[first:last].tolist():
                verdicts.accepted.pop(longer, None)
            verdicts.reject_range(first, last)
    return right_outcomes(self)


right_state = Predicate._state


def stale(self: Any, data: bytes, text: str, pending: bytes) -> Any:
    return replace(right_state(self, data, text, pending), future="")  # pyright: ignore


async def any_end(self: Any, end: Any) -> bool:
    return True


@property
def by_constraint(self: Generate) -> Any:
    return self.keys, self.proposal


# --- options of one particle given to others ----------------------------------------------

right_steps = text_step._steps


def first_limit(growing: Any, shared: Any) -> Any:
    """Of particles at one context, the `max_tokens` of the first."""
    firsts: dict[Any, int] = {}
    for change in growing:
        own = change.generate
        here = own.draw_key, change.progress.text.tokens
        own.max_tokens = firsts.setdefault(here, own.max_tokens)
    return right_steps(growing, shared)


def key_without(option: str) -> property:
    """The key of a prompt without one of its options, so that a group has that of its first."""

    def key(self: PromptedLM) -> Any:
        options = {"stop": self.stops, "temperature": self.temperature}
        return self.lm, self.prompt, *(v for name, v in options.items() if name != option)

    return property(key)


right_logits = ToyLM.logits


async def first_temperature(self: Any, contexts: Any, temperatures: Any) -> Any:
    """Of a batch, the temperature of its first context."""
    return await right_logits(self, contexts, [temperatures[0]] * len(contexts))


right_weights = weighing.weigh_texts


async def first_weigher(requests: Any) -> Any:
    """Of all that are weighed at once, the first's potential weighs each."""
    return await right_weights([(requests[0][0], text, ends) for _, text, ends in requests])


def key_without_weighers(self: Target) -> Any:
    return (tuple(lm.key for lm in self.dense), self.keys, ())


# --- weights and particles ----------------------------------------------------------------


def of_survivors(log_weights: list[float]) -> float:
    return log_mean([weight for weight in log_weights if weight > -math.inf])


def children_that(change: Callable[[Particle, Particle, bool], None]) -> Any:
    """Children changed after a resampling: (child, parent, whether it is a further child)."""

    def wrong(particles: list[Particle], ancestors: np.ndarray, kept: set[int]) -> Any:
        children, lost = continued(particles, ancestors, kept)
        for i, (child, ancestor) in enumerate(zip(children, ancestors, strict=True)):
            change(child, particles[ancestor], ancestor in ancestors[:i])
        return children, lost

    return lambda: patch.object(inference, "continued", wrong)


def everyone_weighs_the_mean() -> Any:
    """Those that keep their slot, too."""

    def wrong(particles: list[Particle], ancestors: np.ndarray, kept: set[int]) -> Any:
        mean = log_mean([p.total for p in particles if p.slot not in kept])
        children, lost = continued(particles, ancestors, kept)
        for child in children:
            child.log_weight = mean - child.twist
        return children, lost

    return patch.object(inference, "continued", wrong)


def keep_weight(child: Particle, parent: Particle, further: bool) -> None:
    child.log_weight = parent.log_weight


def weigh_again(child: Particle, parent: Particle, further: bool) -> None:
    if further:
        child.log_weight += sum(record.log_weight for record in Log.records(child.log))


def ignore_condition(child: Particle, parent: Particle, further: bool) -> None:
    if further and isinstance(child.statement, Condition):
        child.statement = Condition(child.statement.name, True)


right_weigh = Particle.weigh


def keep_twist(
    self: Particle, log_weight: float, twist: float, killer: str | None, chosen: float = 0.0
) -> None:
    right_weigh(self, log_weight + twist, 0.0, killer)


def largest_rests(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(weights)
    copies = np.floor(n * weights + 1e-12).astype(int)
    copies[np.argsort(copies - n * weights)[: n - copies.sum()]] += 1
    return np.repeat(np.arange(n), copies)


right_weigh_step = text_step._weigh


async def undivided(growing: Any, before: Any) -> None:
    bare = [replace(was, weights=(0.0,) * len(was.weights)) for was in before]
    await right_weigh_step(growing, bare)


async def by_prefix(requests: Any) -> Any:
    return await right_weights([(weigher, text, False) for weigher, text, _ in requests])


async def unweighed(self: Any, rng: Any) -> tuple[Any, float]:
    return self.proposal.sample(rng()), 0.0


def streams_by(*kept: str) -> Callable[[], AbstractContextManager[Any]]:
    """Random streams that leave out a part of the key: the step, the slot or the index."""

    def stream(self: Any, particle: Particle, purpose: Any) -> np.random.Generator:
        key = {"step": self._step_number, "slot": particle.slot, "index": 0}
        key["index"] = particle.log.length if particle.log else 0
        step, slot, index = (key[part] * (part in kept) for part in ("step", "slot", "index"))
        return self._streams.at(step, slot, purpose, index)

    return lambda: patch.object(Inference, "_stream", stream)
