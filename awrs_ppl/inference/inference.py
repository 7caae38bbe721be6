"""Sequential Monte Carlo over programs: the loop of one inference.

1. *Advance programs*: every model runs until its next statement.
2. *Resample*, if the last step left an effective sample size that is low.
3. *Answer* statements that are not weighted; then continue with 1.
4. *Step*: a token of each text, or the whole of another weighted statement.
5. *Apply* what the step does to the particles.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from awrs_ppl._concurrency import together
from awrs_ppl._values import whole
from awrs_ppl.constraints.verdict_cache import VerdictCache
from awrs_ppl.errors import ModelError
from awrs_ppl.inference._progress import Bars
from awrs_ppl.inference.change import Change, Contest, Shared
from awrs_ppl.inference.competition import draw_only_from_pools, merge
from awrs_ppl.inference.failures import report
from awrs_ppl.inference.population import Particle, continued
from awrs_ppl.inference.recorder import Recorder
from awrs_ppl.inference.resampling import Resampling
from awrs_ppl.inference.samples import stratified
from awrs_ppl.inference.step import make_step
from awrs_ppl.log_weights import ess, log_sum, normalize
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.execution import Model, Run, require_model
from awrs_ppl.program.log import Log
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.rng import Purpose, RandomStreams

if TYPE_CHECKING:
    from awrs_ppl.constraints.factor import Factor

__all__ = ["Inference"]

MOST = 1_000_000  # particles: a typing error must not use up the memory


class Inference:
    """The state of one inference: particles, random streams, records."""

    def __init__(
        self,
        model: Model,
        args: Sequence[Any],
        n_particles: int,
        resampling: Resampling,
        streams: RandomStreams,
        bars: Bars,
        cache: VerdictCache,
        counts_rows: bool = True,
    ) -> None:
        require_model(model)
        n_particles = whole("n_particles", n_particles, least=1)
        if n_particles > MOST:
            raise ModelError(f"n_particles={n_particles!r}: it must be at most {MOST:,}")
        self.model, self.args = model, args
        self.particles = [Particle(slot) for slot in range(n_particles)]
        self.recorder = Recorder(bars.bar(streams.run, n_particles), counts_rows)
        self._streams = streams
        self._cache = cache
        self._resampling = resampling
        self._step_number = 0
        self._due = False
        self._lost: list[Run] = []
        # By the keys that they had when their texts began.
        self._constraints: dict[tuple[Hashable, ...], tuple[Factor, ...]] = {}
        self._wakeup = asyncio.Event()

    async def run(self) -> None:
        """Run until every particle has finished or has weight zero."""
        while active := await self._advance():
            # After the programs: particles that have just ended need no resampling.
            if self._due and self._resample(active):
                await self._unwind()
                continue
            unweighted = [p for p in active if p.statement and not p.statement.is_weighted]
            if unweighted:
                await self._answer(unweighted)
                continue
            self._step_number += 1
            self._apply(active, await self._step(active))
            await self._unwind()
            await asyncio.sleep(0)  # where nothing else suspends, a timeout is seen here
        self._sync()

    async def close(self) -> None:
        """Unwind all coroutines that are left."""
        for particle in self.particles:
            if particle.run is not None:
                self._lost.append(particle.run)
                particle.run = None
        await self._unwind()

    def posterior(self, *, stopped: str | None) -> Posterior:
        """The posterior of the particles as they are now, `stopped` if some are not done."""
        if not any(particle.is_live for particle in self.particles):
            stopped = None
        if self._due:
            self._sync()  # a timeout came between a step and its synchronization
        recorder = self.recorder
        recorder.weigh_forced(self.particles)
        return Posterior(
            [particle.trace() for particle in self.particles],
            history=recorder.history,
            kills=dict(recorder.kills),
            stats=recorder.stats(),
            seed=self._streams.seed,
            stopped=stopped,
            is_proper=recorder.is_proper,
            deaths=recorder.deaths,
            efforts=recorder.efforts,
            free=sum(particle.is_free for particle in self.particles),
            **recorder.bounds(self.particles),
        )

    def changed(self) -> list[str]:
        """The constraints whose keys have changed since their texts began, with what they name."""
        return list(
            dict.fromkeys(
                repr(factor.potential)
                for keys, factors in self._constraints.items()
                for factor, key in zip(factors, keys, strict=True)
                if key != factor.key
            )
        )

    # --- user code ------------------------------------------------------------------------

    async def _advance(self) -> list[Particle]:
        """Let models run until all particles that are furthest behind are at a statement.

        Those ahead wait in the population with their weight; those finished stay in it. A
        particle in I/O is waited for if it is among those: what happens next must not depend on
        when its I/O is done.
        """
        while True:
            self.collect()
            live = [p for p in self.particles if p.is_live]
            level = min((p.level for p in live), default=0)
            active = [p for p in live if p.level == level]
            for particle in active:
                if particle.statement is None and particle.run is None:
                    records = Log.records(particle.log)
                    particle.run = Run(self.model, self.args, records, self._wakeup.set)
            failed = [p for p in self.particles if p.run is not None and p.run.failure]
            if failed:
                raise report(failed)
            if all(p.statement is not None for p in active):
                return active
            self._wakeup.clear()
            await self._wakeup.wait()

    def collect(self) -> None:
        """See which models have come to a statement or to their end."""
        for particle in self.particles:
            run = particle.run
            if run is None or particle.finished or particle.statement is not None:
                continue
            if run.failure is None and run.finished:
                particle.finished, particle.value = True, run.value
            elif run.failure is None:
                particle.statement = run.statement

    async def _answer(self, unweighted: list[Particle]) -> None:
        """Serve `sample` and `call`; what they raise is raised in the model."""
        drawn = stratified(unweighted, self._stream)

        async def answer(particle: Particle) -> None:
            statement, run = particle.statement, particle.run
            assert statement is not None
            assert run is not None
            try:
                rng = functools.partial(self._stream, particle, Purpose.SAMPLE)
                given = particle.slot in drawn
                value = drawn[particle.slot] if given else await statement.answer(rng, run.context)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                particle.complete(None, error)  # something inside was cancelled, not this inference
            except Exception as error:
                particle.complete(None, error)
            else:
                particle.complete(value)

        await together(map(answer, unweighted))

    def _stream(self, particle: Particle, purpose: Purpose) -> np.random.Generator:
        index = particle.log.length if particle.log else 0
        return self._streams.at(self._step_number, particle.slot, purpose, index)

    # --- weights --------------------------------------------------------------------------

    async def _step(self, active: list[Particle]) -> list[Change]:
        """One step of each active particle's weighted statement; nothing is changed yet, but that
        equal particles are one where children compete."""
        contest = self._contest(active)
        active = [particle for particle in active if particle.is_live]
        for particle in active:
            if isinstance(particle.statement, Generate) and particle.progress is None:
                generate = particle.statement
                self._constraints[generate.keys] = generate.target.boolean
        self.recorder.begin(active)
        weights = [p.total for p in self.particles]
        steer = self._resampling.ess_threshold > 0
        shared = Shared(self._stream, self.recorder, self._cache, log_sum(weights), steer, contest)
        changes = await make_step(active, shared)
        self.recorder.note(weights, changes)
        return changes

    def _contest(self, active: list[Particle]) -> Contest | None:
        """What children compete for in this step, if they can; equal particles are merged."""
        texts = [p for p in active if isinstance(p.statement, Generate)]
        growing = [p for p in texts if p.progress is None or not p.progress.ended]
        if not self._resampling.of_children or not growing:
            return None
        if not draw_only_from_pools(growing):
            if self._resampling.name == "children":
                raise ModelError(
                    'resampling="children": only AWRS() knows the weights of all next tokens, and '
                    'another proposal was given; write resampling="auto", or leave it out'
                )
            return None
        self._lost += merge([p for p in growing if p.progress is None])
        spare = [p.slot for p in self.particles if p.log_weight == -math.inf]
        rng = functools.partial(self._streams.at, self._step_number, 0, Purpose.CHILDREN)
        return Contest(spare, self._resampling.of_children, rng)

    def _apply(self, active: Sequence[Particle], changes: Sequence[Change]) -> None:
        """Change the particles; those of weight zero are never resumed."""
        for change in changes:
            if change.new_slot is not None:
                change.particle = change.particle.branch(change.new_slot)
        for change in changes:
            change.apply()
        continued = {id(change.particle) for change in changes}
        for particle in active:
            waits = particle.progress is not None and particle.progress.ended
            if particle.is_live and not waits and id(particle) not in continued:
                self._lost += particle.leave()
        for particle in [*self.particles, *(c.particle for c in changes if c.new_slot is not None)]:
            if particle.log_weight == -math.inf and particle.killer is not None:
                self.recorder.kills[particle.killer] += 1
                particle.killer = None
            if particle.log_weight == -math.inf and particle.run is not None:
                self._lost.append(particle.run)
                particle.run = None
        for change in changes:
            if change.new_slot is not None:
                self.particles[change.new_slot] = change.particle
        self._due = True

    # --- the population -------------------------------------------------------------------

    def _resample(self, active: Sequence[Particle]) -> bool:
        """Resample if the effective sample size is low; whether that was done. Not before children
        compete: unequal weights of different particles tell more than equal weights of copies.

        While texts are growing, particles that are ahead of them keep their slot and weight: their
        weight says how a text has ended, which that of a growing text does not say yet.
        """
        if self._resampling.of_children and draw_only_from_pools(active):
            self._sync()
            return False
        growing = any(p.is_growing for p in self.particles)
        kept = {p.slot for p in self.particles if growing and p.is_ahead}
        slots = np.array([p.slot for p in self.particles if p.slot not in kept])
        weights = [self.particles[slot].total for slot in slots]
        # Slightly below the threshold: equal weights miss n by rounding.
        if not 0 < ess(weights) < self._resampling.ess_threshold * len(weights) * (1 - 1e-9):
            self._sync()
            return False
        rng = self._streams.at(self._step_number, 0, Purpose.RESAMPLE)
        ancestors = np.arange(len(self.particles))
        ancestors[slots] = slots[self._resampling.scheme(normalize(weights), rng)]
        self._sync(tuple(ancestors.tolist()), tuple(sorted(kept)))
        self.particles, lost = continued(self.particles, ancestors, kept)
        self._lost += lost
        return True

    async def _unwind(self) -> None:
        """Let coroutines that no particle continues run their `finally` clauses, all at once."""
        await asyncio.gather(*(run.drop() for run in self._lost))
        self._lost.clear()

    def _sync(self, *resampled: tuple[int, ...]) -> None:
        """Record the synchronization that ends a step: ancestors and kept slots, if any."""
        self._due = False
        finished = sum(p.finished and p.log_weight > -math.inf for p in self.particles)
        self.recorder.sync([p.total for p in self.particles], finished, *resampled)
