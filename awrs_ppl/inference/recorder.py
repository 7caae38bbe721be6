"""What is recorded of an inference: its costs, its deaths, and each synchronization."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from awrs_ppl._messages import escape
from awrs_ppl.inference import logger
from awrs_ppl.inference._progress import Bar
from awrs_ppl.inference.losses import Losses
from awrs_ppl.inference.met import Met
from awrs_ppl.inference.population import Particle, is_forced
from awrs_ppl.log_weights import ess, normalize
from awrs_ppl.posterior.records import Death, Effort, Loss, Sync
from awrs_ppl.program.log import Log
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.proposals.costs import Costs

if TYPE_CHECKING:
    from awrs_ppl.inference.change import Change, Parent

__all__ = ["Recorder"]

_TAIL = 120  # at most this many bytes of a text are kept of a death


class Recorder(Costs):
    """The records of one inference, and its progress.

    `history` has each synchronization,
    `kills` counts deaths by what is to blame, `deaths` describes each. `is_proper`: all
    proposals so far give proper weights. Of several runs side by side one `counts_rows` of the
    language model, for they share its passes.
    """

    def __init__(self, bar: Bar, counts_rows: bool = True) -> None:
        super().__init__()
        self.history: list[Sync] = []
        self.kills: Counter[str] = Counter()
        self.deaths: list[Death] = []
        self.efforts: dict[str, Effort] = {}
        self.is_proper = True
        self.met = Met()
        self._losses = Losses()
        # Of the step that has no synchronization yet.
        self._added: tuple[str, ...] = ()
        self._lost: tuple[Loss, ...] = ()
        self._parents: Sequence[Parent] = ()
        # Texts come again and again: each is kept once.
        self._shown: dict[tuple[str, bytes, bool], str] = {}
        self._mark = (0.0, 0)
        self._survived, self._chosen = 1.0, False
        self._counts_rows = counts_rows
        self._bar = bar

    # --- steps ----------------------------------------------------------------------------

    def begin(self, active: Sequence[Particle]) -> None:
        """A step of these particles begins."""
        for particle in active:
            statement = particle.statement
            assert statement is not None
            if isinstance(statement, Generate):
                self.is_proper &= statement.proposal.is_proper
            if self._counts_rows:
                self.use(statement.lms)
        self._mark = time.perf_counter(), self._checks.total()

    def compete(self, parents: Sequence[Parent], survived: float) -> None:
        """The children of these compete in this step; those chosen have a share of the weight."""
        self._parents, self._survived, self._chosen = parents, survived, True

    def note(self, before: Sequence[float], changes: Sequence[Change]) -> None:
        """Record a step, before its changes are made.

        `before` are the log-weights of all slots with their twists.
        """
        seconds = time.perf_counter() - self._mark[0]
        checks = self._checks.total() - self._mark[1]
        self.met.judge(changes)
        added = [""] * len(before)
        names: Counter[str] = Counter()
        drawn: Counter[str] = Counter()
        for change in changes:
            particle, statement = change.particle, change.particle.statement
            assert statement is not None
            name = statement.name
            names[name] += 1
            if name not in self.efforts:
                self.efforts[name] = Effort(statement.kind, statement.filters)
            if isinstance(statement, Generate):
                added[change.slot] = self._unit(change) or added[change.slot]
                drawn[name] += not change.completes
                forced = is_forced(statement, particle.progress) and not change.completes
                self.efforts[name].forced += forced
            else:
                added[particle.slot] = f"[{name}]"
            if change.log_weight == -math.inf or change.twist == -math.inf:
                self.deaths.append(_death(len(self.history) + 1, change))
        self._added = tuple(added)
        self._lost = self._losses.of(before, changes, self._parents)
        if self._parents and self.history:
            # The choice comes before the step: it is the resampling that ended the last one.
            slots = list(range(len(before)))
            for change in changes:
                slots[change.slot] = change.particle.slot
            self.history[-1] = replace(self.history[-1], ancestors=tuple(slots))
        self._parents = ()
        for name, count in names.items():
            effort = self.efforts[name]
            effort.seconds += seconds * count / len(changes)
            effort.tokens += drawn[name]
            # Only tokens are checked.
            effort.checks += checks * drawn[name] / (drawn.total() or 1)

    def sync(
        self,
        weights: Sequence[float],
        finished: int,
        ancestors: tuple[int, ...] | None = None,
        kept: tuple[int, ...] = (),
    ) -> None:
        """The synchronization that ends a step; `weights` are those of all slots with twists,
        `finished` counts the particles whose programs have returned."""
        alive = sum(weight > -math.inf for weight in weights)
        survived = self._survived
        if ancestors is not None:
            survived *= float(normalize(weights)[sorted({*ancestors, *kept})].sum())
        sync = Sync(
            ess(weights),
            alive,
            ancestors,
            tuple(weights),
            self._added,
            self._lost,
            kept,
            self._chosen,
            survived,
        )
        self._added, self._lost, self._survived, self._chosen = (), (), 1.0, False
        self.history.append(sync)
        if ancestors is not None or sync.chosen:
            logger.resamples(len(self.history), sync, self._bar.run + 1)
        self._bar.step(sync.ess, alive, finished, self.tokens, sync.survived)

    def bounds(self, particles: Sequence[Particle]) -> dict[str, Any]:
        """What is certain of the evidence, as a posterior has it."""
        for particle in particles:
            if particle.finished:
                self.met.end(particle.log)
        return {"log_ml_bounds": self.met.bounds(), "unbounded": self.met.unbounded}

    def weigh_forced(self, particles: Sequence[Particle]) -> None:
        """Note what the texts whose ends were forced have of the weight of the particles."""
        for effort in self.efforts.values():
            effort.forced_share = 0.0
        shares = normalize([particle.log_weight for particle in particles]).tolist()
        for particle, share in zip(particles, shares, strict=True):
            for record in Log.records(particle.log) if share else ():
                if record.forced:
                    self.efforts[record.statement.name].forced_share += share

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
