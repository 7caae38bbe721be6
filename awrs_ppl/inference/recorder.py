"""What is written down in each round: which part of which statement cost how much, and who died.

The evidence is a product over rounds: each changes the mean weight of the population by a
factor, and resampling leaves the mean as it is. Where several parts act in one round, their
factors are told apart by letting them act one after the other; they multiply to that of the round.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from awrs_ppl._messages import escape
from awrs_ppl.constraints.next_verdicts import Knowledge
from awrs_ppl.inference.population import Loss, Sync
from awrs_ppl.log_weights import ess, log_sum
from awrs_ppl.program.text_statements import Generate

if TYPE_CHECKING:
    from awrs_ppl.inference.change import Change

__all__ = ["Death", "Effort", "Ledger", "Meter"]

_TAIL = 120  # so many bytes of a text are kept of a death

# Parts of a `generate` beside its weighing factors, which are numbered from 0.
_CONSTRAINT, _FORCED, _CRITIC = -1, -2, -3


@dataclass(frozen=True, slots=True)
class Death:
    """A particle's way to weight zero.

    At which synchronization (from 1), in which slot, statement and token of its text (from 1; 0
    where it was no token), by what, and the end of the text before.
    """

    step: int
    slot: int
    statement: str
    token: int
    killer: str
    text: str


@dataclass(slots=True)
class Effort:
    """What a statement took, over all particles and dropped lineages: tokens, checks, seconds.

    `filters`: it only lets through or stops, as a `condition` or a product of one language model
    and Boolean potentials.
    """

    kind: str
    filters: bool
    tokens: int = 0
    checks: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class Meter:
    """What an inference has cost: `seconds` by part, the rest by potential."""

    tokens: int = 0
    checks: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    check_seconds: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def count(self, questions: Iterable[Knowledge]) -> None:
        """Charge what was asked to the potentials, which are named once: names may be long."""
        names: dict[int, str] = {}
        for knowledge in questions:
            # Whoever was asked has taken time.
            for i, seconds in knowledge.seconds.items():
                potential = knowledge.target.boolean[i].potential
                name = names.get(id(potential))
                if name is None:
                    name = names[id(potential)] = repr(potential)
                self.check_seconds[name] = self.check_seconds.get(name, 0.0) + seconds
                for asked, total in (
                    (knowledge.checks, self.checks),
                    (knowledge.rejections, self.refusals),
                ):
                    if i in asked:
                        total[name] += asked[i]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charge the time inside to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + spent


class Ledger:
    """The books of one inference."""

    def __init__(self) -> None:
        self.deaths: list[Death] = []
        self.efforts: dict[str, Effort] = {}
        self._added: list[str] = []
        self._losses: list[Loss] = []
        self._labels: dict[tuple[str, int], str] = {}
        # Texts come again and again: each is kept once.
        self._shown: dict[tuple[str, bytes, bool], str] = {}

    def note(
        self,
        step: int,
        before: Sequence[float],
        changes: Sequence[Change],
        *,
        seconds: float,
        checks: int,
    ) -> None:
        """Write down a round, before its changes are made.

        `before` are the log-weights of all slots with their twists.
        """
        pieces: dict[tuple[str, int], tuple[list[int], list[float]]] = {}
        self._added = [""] * len(before)
        names: Counter[str] = Counter()
        drawn: Counter[str] = Counter()
        for change in changes:
            particle, statement = change.particle, change.particle.statement
            assert statement is not None
            name, slot = statement.name, particle.slot
            names[name] += 1
            if name not in self.efforts:
                self.efforts[name] = Effort(statement.kind, statement.filters)
            if not isinstance(statement, Generate):
                parts: Any = ((0, change.log_weight),)
                self._labels.setdefault((name, 0), "")
                self._added[slot] = f"[{name}]"
            else:
                if particle.progress is None:
                    self._begin(name, statement)
                parts = _parts(change)
                self._added[slot] = self._unit(change)
                drawn[name] += not change.completes
            for part, log_weight in parts:
                slots, weights = pieces.setdefault((name, part), ([], []))
                slots.append(slot)
                weights.append(log_weight)
            if change.log_weight == -math.inf or change.twist == -math.inf:
                self.deaths.append(_death(step, change))
        self._losses = list(self._lost(before, pieces))
        for name, count in names.items():
            effort = self.efforts[name]
            effort.seconds += seconds * count / len(changes)
            effort.tokens += drawn[name]
            # Only tokens are checked.
            effort.checks += checks * drawn[name] / (drawn.total() or 1)

    def sync(
        self,
        weights: Sequence[float],
        ancestors: tuple[int, ...] | None,
        kept: tuple[int, ...] = (),
    ) -> Sync:
        """Close the round: the synchronization that ends it."""
        alive = sum(weight > -math.inf for weight in weights)
        added, losses = tuple(self._added), tuple(self._losses)
        self._added, self._losses = [], []
        return Sync(ess(weights), alive, ancestors, tuple(weights), added, losses, kept)

    def _lost(self, before: Sequence[float], pieces: Any) -> Iterator[Loss]:
        weights = np.array(before)
        total = log_sum(weights)
        for (name, part), (slots, log_weights) in pieces.items():
            weights[slots] += log_weights
            left = log_sum(weights)
            yield Loss(name, self._labels[name, part], left - total)
            if left == -math.inf:
                return
            total = left

    def _begin(self, name: str, asked: Generate) -> None:
        target = asked.target
        factors = [factor.potential for factor in target.boolean]
        models = ""
        if len(target.dense) > 1:
            models = f"{len(target.dense)} language models"
        elif not factors:
            models = "the language model"
        self._label(name, _CONSTRAINT, factors, models)
        self._labels[name, _FORCED] = "max_tokens"
        for i, weigher in enumerate(target.weighted):
            self._label(name, i, [weigher.potential])
        if asked.critic is not None:
            self._label(name, _CRITIC, [asked.critic.potential], before="critic ")

    def _label(
        self, name: str, part: int, factors: list[Any], models: str = "", before: str = ""
    ) -> None:
        more = [models] if models else []
        label = before + " * ".join([*map(repr, factors), *more])
        if self._labels.setdefault((name, part), label) != label:
            # A statement whose potentials differ between particles: their kinds do not.
            kinds = [type(factor).__name__ for factor in factors]
            self._labels[name, part] = before + " * ".join([*kinds, *more])

    def _unit(self, change: Change) -> str:
        before, after = change.particle.progress, change.progress
        if change.completes or after is None:
            return ""
        mark = ""
        if before is None and change.particle.level and change.particle.statement is not None:
            mark = f"[{change.particle.statement.name}]"
        done = b"" if before is None else before.text.data
        data = after.text.data
        key = mark, data[len(done) :] if data.startswith(done) else b"", after.ended
        shown = self._shown.get(key)
        if shown is None:
            text = escape(key[1].decode("utf-8", "backslashreplace")).replace(" ", "␣")
            parts = [mark, text, "EOS" if after.ended else ""]
            shown = self._shown[key] = "|".join(part for part in parts if part)
        return shown


def _parts(change: Change) -> Sequence[tuple[int, float]]:
    """What a step of a `generate` did to the weight with its twist, by parts."""
    particle, asked = change.particle, change.particle.statement
    assert isinstance(asked, Generate)
    weighted, critic = asked.target.weighted, asked.critic
    if change.error is not None:
        return ((_CONSTRAINT, change.log_weight + change.twist - particle.twist),)
    if change.completes:
        judged = change.log_weight + change.twist - particle.twist
        return ((_CRITIC, judged),) if critic is not None else ()
    before, after = particle.progress, change.progress
    tokens = 0 if before is None else len(before.text.tokens)
    main = _FORCED if tokens >= asked.max_tokens - 1 else _CONSTRAINT
    # The token's own twist is a guess of what its constraints will say.
    twist = 0.0 if after is None else after.twist - (0.0 if before is None else before.twist)
    if not weighted and critic is None:
        return ((main, change.log_weight + twist),)
    if after is None:
        killer = (change.killer or "").removesuffix(" (at the empty text)")
        names = [repr(weigher.potential) for weigher in weighted]
        return ((names.index(killer) if killer in names else main, -math.inf),)
    were = (0.0,) * len(weighted) if before is None else before.weights
    soft = [(i, after.weights[i] - were[i]) for i in range(len(weighted))]
    parts = [(main, change.log_weight + twist - sum(weight for _, weight in soft)), *soft]
    if critic is not None:
        parts.append((_CRITIC, change.twist - particle.twist - twist))
    return parts


def _death(step: int, change: Change) -> Death:
    particle, statement = change.particle, change.particle.statement
    assert statement is not None
    text, token = b"", 0
    if isinstance(statement, Generate):
        if particle.progress is not None:
            text = particle.progress.text.data
            token = len(particle.progress.text.tokens)
        token = 0 if change.completes else token + 1
    shown = text[-_TAIL:].decode("utf-8", "ignore" if len(text) > _TAIL else "backslashreplace")
    killer = change.killer or "the language model"
    return Death(step, particle.slot, statement.name, token, killer, shown)
