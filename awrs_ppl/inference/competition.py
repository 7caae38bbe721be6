"""The competition of children in one step: who takes part, and which slots the chosen get."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from awrs_ppl.inference.change import Change, Contest, Parent, Shared
from awrs_ppl.inference.children import Child
from awrs_ppl.inference.in_time import Entry, choose_apart
from awrs_ppl.inference.population import Particle
from awrs_ppl.log_weights import ess, log_sum, normalize
from awrs_ppl.program.execution import Run
from awrs_ppl.program.log import Log
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.proposals import DEAD, Draw, Pool, has_pool
from awrs_ppl.proposals.room import divided, look
from awrs_ppl.proposals.token_step import TokenStep, side_by_side
from awrs_ppl.rng import Purpose

__all__ = ["Drawn", "compete", "draw_only_from_pools", "merge"]

# By context: what happens to particles there, and the draw of each.
Drawn = dict[TokenStep, tuple[list[Change], list[Draw]]]


def draw_only_from_pools(particles: Iterable[Particle]) -> bool:
    """Whether the statements of particles draw no random numbers but for tokens from pools."""
    statements = [particle.statement for particle in particles]
    return all(
        has_pool(statement.proposal)
        if isinstance(statement, Generate)
        else statement is not None and not statement.is_random
        for statement in statements
    )


# --- equal particles ----------------------------------------------------------------------


def merge(particles: Sequence[Particle]) -> list[Run]:
    """Make one of particles that begin a text behind the same choices: the first has the sum of
    their weights, and the slots of the others are free. Returns their runs, to be unwound.

    To drop the others' weights would bias the result; as many copies would each have the same
    children.
    """
    firsts: dict[Any, Particle] = {}
    known: dict[int, Any] = {}
    lost = []
    for particle in particles:
        first = firsts.setdefault((_choices(particle.log, known), particle.twist), particle)
        if first is not particle:
            first.log_weight = log_sum([first.log_weight, particle.log_weight])
            lost += particle.leave()
    return lost


def _choices(log: Log | None, known: dict[int, Any]) -> Any:
    """Equal for logs of equal values; what is `known` of logs that others share is used."""
    rest = []
    while log is not None and id(log) not in known:
        rest.append(log)
        log = log.before
    found = None if log is None else known[id(log)]
    for one in reversed(rest):
        found = known[id(one)] = (found, one.record.chosen)
    return found


# --- the competition ----------------------------------------------------------------------


async def compete(
    steps: dict[TokenStep, list[Change]], spare: Sequence[int], shared: Shared
) -> Drawn:
    """Draw one outcome for each particle, or where their weights differ much, choose among the
    children of all.

    Each parent's pool is learned, and its tail drawn, for as many draws as its weight is worth
    slots. Children are chosen where the effective sample size of the parents, by what their pools
    weigh, is below the threshold: on long texts of which nearly all is allowed every choice would
    cost more than it gains. That may look at the pools, tails included: given these a child's
    weight is right. `spare` are the slots of particles that died in this step.

    Near `max_tokens` children that can end in time compete apart from those that are late.

    A text that must end here has the price of its end set aside: the others will pay theirs, and
    by present weight they would take its place for that. It costs the slot that it had.
    """
    contest = shared.contest
    assert contest is not None
    # In the order of slots, with which the systematic sample keeps lineages apart.
    parents = sorted(
        (Parent(c, step, c.progress, _log_weight(c)) for step in steps for c in steps[step]),
        key=lambda parent: parent.change.slot,
    )
    count = len(parents) + len(contest.spare) + len(spare)
    worth: dict[TokenStep, float] = defaultdict(float)
    shares = normalize([parent.log_weight for parent in parents]).tolist()
    for parent, share in zip(parents, shares, strict=True):
        worth[parent.step] += share
    rngs = {step: shared.stream(steps[step][0].particle, Purpose.TOKEN) for step in steps}
    pools: dict[TokenStep, Pool] = {}

    async def find(step: TokenStep) -> None:
        await look(step)
        pools[step] = await step.pool(rngs[step], max(1, round(count * worth[step])))

    await side_by_side(list(steps), find)
    for parent in parents:
        parent.log_mass = pools[parent.step].log_mass
        if parent.log_mass > -math.inf and parent.step.must_end(pools[parent.step]):
            parent.aside = parent.log_mass
    effective = ess([p.log_weight + p.log_mass - p.aside for p in parents])
    in_time, late = _apart(parents, pools, count)
    is_low = 0.0 < effective < contest.ess_threshold * count * (1 - 1e-9)
    if not is_low and not (in_time and late):
        return {
            step: (changes, pools[step].draw(len(changes), rngs[step]))
            for step, changes in steps.items()
        }
    children, survived = choose_apart(in_time, late, count, contest.rng())
    shared.recorder.compete(parents, survived)
    chosen = []
    for child in children:
        parent = parents[child.parent]
        chosen.append((parent, child._replace(log_weight=child.log_weight + parent.aside)))
    return _placed(parents, chosen, spare, contest)


def _apart(
    parents: Sequence[Parent], pools: dict[TokenStep, Pool], count: int
) -> tuple[list[Entry], list[Entry]]:
    """What competes in time, and what is late; of one place all is in time.

    Dividing uses pools up. Where nothing competes apart, of each the part that has weight is all of
    it, and takes its place in `pools`.
    """
    if count < 2:
        parts = {step: (pool, None) for step, pool in pools.items()}
    else:
        parts = {step: divided(step, pool) for step, pool in pools.items()}
    both: tuple[list[Entry], list[Entry]] = [], []
    for i, parent in enumerate(parents):
        for entries, part in zip(both, parts[parent.step], strict=True):
            if part is not None and part.log_mass > -math.inf:
                entries.append((i, parent.log_weight - parent.aside, part))
    if not both[0] or not both[1]:
        for step, (one, other) in parts.items():
            pools[step] = one or other or pools[step]
    return both


def _placed(
    parents: Sequence[Parent],
    children: Sequence[tuple[Parent, Child]],
    spare: Sequence[int],
    contest: Contest,
) -> Drawn:
    """The children in slots: the first of each parent in the parent's, the others in free ones."""
    drawn: Drawn = {parent.step: ([], []) for parent in parents}
    first = {id(parent): child for parent, child in reversed(children)}
    left = [parent.change.slot for parent in parents if id(parent) not in first]
    slots = iter(sorted([*left, *contest.spare, *spare]))
    for parent in parents:
        if parent.log_mass == -math.inf:
            members, draws = drawn[parent.step]
            members.append(parent.change)
            draws.append(DEAD)
    for parent, child in children:
        members, draws = drawn[parent.step]
        new_slot = None if child is first[id(parent)] else next(slots)
        members.append(parent.child(new_slot, child.log_weight))
        log_weight = child.log_weight - parent.log_weight - child.log_twist
        draws.append(Draw(child.outcome, log_weight, child.log_twist))
    return drawn


def _log_weight(change: Change) -> float:
    """The weight of a parent, with the twist of its critic: its children's have that, too, until
    the critic has seen them. That of its last token is undone by what the pool weighs."""
    assert change.progress is not None
    critic = change.particle.twist - change.progress.twist
    return change.particle.log_weight + change.log_weight + critic
