"""Sequential Monte Carlo over programs: `infer`, `run` and `check_replay`."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from awrs_ppl.engine import Model, Run
from awrs_ppl.errors import ModelError, ReplayError
from awrs_ppl.failures import report
from awrs_ppl.generation import Generation, Meter, Progress, begin, step, weigh
from awrs_ppl.lifting import Weigher
from awrs_ppl.population import Particle, Sync, continued
from awrs_ppl.potential import settle
from awrs_ppl.resampling import SCHEMES
from awrs_ppl.statements import score
from awrs_ppl.streams import Purpose, Streams
from awrs_ppl.tasks import together
from awrs_ppl.trace import Log
from awrs_ppl.weights import ess, normalize

if TYPE_CHECKING:
    from awrs_ppl.lm import LM
    from awrs_ppl.posterior import Posterior

__all__ = ["check_replay", "infer", "run"]


async def infer(
    model: Model,
    *args: Any,
    n_particles: int = 10,
    ess_threshold: float = 0.5,
    resampling: str = "stratified",
    seed: int | None = None,
    progress: bool = True,
    timeout: float | None = None,
) -> Posterior:
    """The posterior of `model(ctx, *args)`, by sequential Monte Carlo.

    Particles are synchronized after every token of a `generate` and after every weighted
    statement, and resampled by the scheme `resampling` ("multinomial", "stratified",
    "systematic" or "residual") when the effective sample size falls below `ess_threshold *
    n_particles`; with `ess_threshold=0` never, and then critics do not steer either
    (importance sampling). The same `seed` gives the same posterior. After `timeout` seconds
    the particles that have finished are returned, and the posterior says how much is missing.

    The evidence `exp(posterior.log_ml)` is unbiased. An exception in the model comes out as
    itself. Raises `ModelError` for wrong options, `PotentialError` for a broken potential.

    Source: Del Moral, Doucet, Jasra, "Sequential Monte Carlo samplers", 2006; Lew et al.,
    "Sequential Monte Carlo steering of large language models using probabilistic programs",
    2023.
    """
    inference = _Inference(
        model, args, n_particles, ess_threshold, resampling, _streams(seed), progress
    )
    timed_out = False
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            await inference.run()
    except TimeoutError:
        if not scope.expired():
            raise
        timed_out = True
    finally:
        await inference.close()
    return inference.posterior(timed_out=timed_out)


def run(model: Model, *args: Any, **options: Any) -> Posterior:
    """`infer` for scripts: starts an event loop of its own. Options are those of `infer`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(infer(model, *args, **options))
    raise ModelError(
        "run(...) was called where an event loop is running already (a notebook, or async "
        "code): write `posterior = await infer(...)`"
    )


async def check_replay(model: Model, *args: Any, seed: int = 0) -> None:
    """Run one particle of a model, then the model again on its record.

    Raises `ReplayError` if the second run makes other requests or weighs a `factor` or
    `condition` otherwise, as a model does that uses `random`, the time or the order of a set.
    """
    inference = _Inference(model, args, 1, 0.0, "stratified", _streams(seed), False)
    try:
        await inference.run()
    finally:
        await inference.close()
    records = Log.records(inference.particles[0].log)
    blocked = asyncio.Event()
    again = Run(model, args, records, blocked.set, strict=True)
    try:
        # After a death the model never ended: it blocks again at the statement that came next.
        while not again.finished and again.request is None:
            blocked.clear()
            await blocked.wait()
        if again.failure is not None:
            raise again.failure
        if again.request is not None and inference.particles[0].finished:
            raise ReplayError(
                f"run again, the model made {again.request.shows()} where it had ended"
            )
    finally:
        await again.drop()


def _streams(seed: int | None) -> Streams:
    if seed is None:
        return Streams.fresh()
    if not isinstance(seed, int) or seed < 0:
        raise ModelError(f"seed={seed!r}: it must be an int of at least 0, or None")
    return Streams(seed)


class _Inference:
    """The state of one inference: particles, random streams, history, costs."""

    def __init__(
        self,
        model: Model,
        args: Sequence[Any],
        n_particles: int,
        ess_threshold: float,
        resampling: str,
        streams: Streams,
        progress: bool,
    ) -> None:
        if not isinstance(n_particles, int) or n_particles < 1:
            raise ModelError(f"n_particles={n_particles!r}: it must be an int of at least 1")
        if not 0 <= ess_threshold <= 1:
            raise ModelError(f"ess_threshold={ess_threshold!r}: it must be between 0 and 1")
        if resampling not in SCHEMES:
            raise ModelError(f"resampling={resampling!r}: choose one of {sorted(SCHEMES)}")
        self.model, self.args = model, args
        self.particles = [Particle() for _ in range(n_particles)]
        self.history: list[Sync] = []
        self.meter = Meter()
        self.kills: Counter[str] = Counter()
        self.is_proper = True
        self.lms: dict[LM, dict[str, float]] = {}
        self._streams = streams
        self._ess_threshold = ess_threshold
        self._scheme = SCHEMES[resampling]
        self._round = 0
        self._due = False
        self._wakeup = asyncio.Event()
        self._started = time.perf_counter()
        self._bar = _bar(progress, n_particles)

    async def run(self) -> None:
        """Go on until every particle has finished or has weight zero."""
        while active := await self._settle():
            if self._due:
                # After settling: particles that have just ended need no resampling.
                self._due = False
                if await self._synchronize():
                    continue
            asking = [p for p in active if p.request and not p.request.is_weighted]
            if asking:
                await self._answer(asking)
                continue
            self._round += 1
            await self._weigh(active)
            self._due = True
            await self._bury()
        self._record(None)

    async def close(self) -> None:
        """Unwind all coroutines that are left."""
        self._bar.close()
        for particle in self.particles:
            if particle.run is not None:
                await particle.run.drop()
                particle.run = None

    def posterior(self, *, timed_out: bool) -> Posterior:
        """What the particles are now."""
        from awrs_ppl.posterior import Posterior, Stats

        used = {lm: _difference(lm, before) for lm, before in self.lms.items()}
        total = time.perf_counter() - self._started
        seconds = dict(self.meter.seconds)
        seconds["model and engine"] = max(0.0, total - sum(seconds.values()))
        stats = Stats(
            tokens=self.meter.tokens,
            lm_rows=int(sum(use["rows"] for use in used.values())),
            lm_passes=int(sum(use["passes"] for use in used.values())),
            checks=dict(self.meter.checks),
            seconds=seconds,
        )
        return Posterior(
            [particle.trace() for particle in self.particles],
            history=self.history,
            kills=dict(self.kills),
            stats=stats,
            seed=self._streams.seed,
            timed_out=timed_out,
            is_proper=self.is_proper,
        )

    # --- user code ------------------------------------------------------------------------

    async def _settle(self) -> list[Particle]:
        """Let models run until all particles that are least far are at a statement.

        Those ahead wait in the population with their weight; those finished stay in it.
        """
        while True:
            live = [p for p in self.particles if p.is_live]
            level = min((p.level for p in live), default=0)
            active = [p for p in live if p.level == level]
            for particle in active:
                self._look(particle)
            waiting = [p for p in active if p.request is None and not p.finished]
            failed = [p for p in active if p.finished and p.run and p.run.failure]
            if waiting:
                self._wakeup.clear()
                await self._wakeup.wait()
            elif failed:
                raise report(self.particles, failed)
            elif all(not p.finished for p in active):
                return active

    def _look(self, particle: Particle) -> None:
        if particle.run is not None and particle.run.failure is not None:
            particle.finished = True
        elif particle.request is not None:
            pass
        elif particle.run is None:
            records = Log.records(particle.log)
            particle.run = Run(self.model, self.args, records, self._wakeup.set)
        elif particle.run.finished:
            particle.finished, particle.value = True, particle.run.value
        else:
            particle.request = particle.run.request

    async def _answer(self, asking: list[Particle]) -> None:
        """Serve `sample` and `call`; what they raise is raised in the model."""

        async def answer(slot: int, particle: Particle) -> None:
            request = particle.request
            assert request is not None
            try:
                if request.kind == "call":
                    function, args = request.arguments
                    value = await settle(function(*args))
                else:
                    rng = self._rng(slot, particle)
                    value = request.arguments[0].sample(rng)
            except Exception as error:
                particle.complete(None, error)
            else:
                particle.complete(value)

        slots = {id(p): i for i, p in enumerate(self.particles)}
        await together(answer(slots[id(p)], p) for p in asking)

    def _rng(self, slot: int, particle: Particle) -> Any:
        index = particle.log.length if particle.log else 0
        return self._streams.at(self._round, slot, Purpose.SAMPLE, index)

    # --- weights --------------------------------------------------------------------------

    async def _weigh(self, active: list[Particle]) -> None:
        """One step of each active particle's weighted statement: a token, or all of it.

        Everything is computed before anything is changed, so that a timeout or an exception
        leaves whole rounds.
        """
        texts = [p for p in active if p.request and p.request.kind == "generate"]
        growing = [p for p in texts if p.progress is None or not p.progress.ended]
        others = [p for p in active if p.request and p.request.kind != "generate"]
        if growing or others:
            await self._grow(growing)
            await self._judge(others)
        else:
            await self._end(texts)

    async def _grow(self, growing: list[Particle]) -> None:
        """One token of each text, and the twists of critics that steer."""
        if not growing:
            return
        slots = {id(p): i for i, p in enumerate(self.particles)}
        asked = [_generation(p) for p in growing]
        for generation in asked:
            self.is_proper &= generation.proposal.is_proper
            for lm in generation.target.dense:
                self._use(lm.lm)
        fresh = [i for i, p in enumerate(growing) if p.progress is None]
        starts = dict(zip(fresh, await begin([asked[i] for i in fresh]), strict=True))
        gone = {i for i in fresh if starts[i].progress is None}
        going = [i for i in range(len(growing)) if i not in gone]
        items = []
        for i in going:
            progress = starts[i].progress if i in starts else growing[i].progress
            rng = self._streams.at(self._round, slots[id(growing[i])], Purpose.TOKEN)
            items.append((asked[i], progress, rng))
        advances = await step(items, self.meter) if items else []
        started = time.perf_counter()
        steering = [
            (i, advance.progress)
            for i, advance in zip(going, advances, strict=True)
            if advance.progress is not None and self._steers(asked[i])
        ]
        questions = [(_critic(asked[i]), progress.text, False) for i, progress in steering]
        twists = dict(zip((i for i, _ in steering), await weigh(questions), strict=True))
        self.meter.lap("critic", started)
        for i in gone:
            growing[i].weigh(-math.inf, 0.0, starts[i].killer)
        for i, advance in zip(going, advances, strict=True):
            log_weight = advance.log_weight + (starts[i].log_weight if i in starts else 0.0)
            twist = twists.get(i, 0.0)
            critic = asked[i].critic
            killer = f"critic {critic.potential!r}" if twist == -math.inf and critic else None
            growing[i].weigh(log_weight, twist, killer or advance.killer)
            growing[i].progress = advance.progress

    def _steers(self, generation: Generation) -> bool:
        critic = generation.critic
        return (
            critic is not None
            and self._ess_threshold > 0
            and not critic.potential.is_terminal_only()
        )

    async def _end(self, texts: list[Particle]) -> None:
        """All have ended their text: critics weigh it for good, and the models go on."""
        started = time.perf_counter()
        judged = [p for p in texts if _generation(p).critic is not None]
        questions = [(_critic(_generation(p)), _progress(p).text, True) for p in judged]
        weights = await weigh(questions)
        self.meter.lap("critic", started)
        for particle, weight in zip(judged, weights, strict=True):
            critic = _generation(particle).critic
            killer = f"critic {critic.potential!r}" if critic else None
            particle.weigh(weight, 0.0, killer)
        for particle in texts:
            if particle.is_live:
                text = _progress(particle).text.data
                particle.complete(text.decode("utf-8", "surrogateescape"))

    async def _judge(self, others: list[Particle]) -> None:
        """The statements that are weighed at once: observe, factor, condition."""
        started = time.perf_counter()
        observing = [p for p in others if p.request and p.request.kind == "observe"]
        observations = [p.request.arguments for p in observing if p.request]
        for observation in observations:
            for lm in observation.target.dense if observation.target else ():
                self._use(lm.lm)
        scores = dict(zip(map(id, observing), await score(observations), strict=True))
        slots = {id(p): i for i, p in enumerate(self.particles)}
        drawn = {}
        for particle in others:
            request = particle.request
            assert request is not None
            if request.kind == "sample":
                distribution, proposal = request.arguments
                value = proposal.sample(self._rng(slots[id(particle)], particle))
                ratio = distribution.log_prob(value) - proposal.log_prob(value)
                drawn[id(particle)] = value, float(ratio)
        self.meter.lap("observe", started)
        for particle in others:
            request = particle.request
            assert request is not None
            value, weight = drawn.get(id(particle), (None, 0.0))
            if request.kind == "observe":
                weight = scores[id(particle)]
            elif request.kind == "factor":
                weight = request.arguments
            elif request.kind == "condition":
                weight = 0.0 if request.arguments else -math.inf
            particle.weigh(weight, 0.0, f"{request.kind} {request.name!r}")
            if particle.is_live:
                particle.complete(value)

    def _use(self, lm: LM) -> None:
        if lm not in self.lms:
            self.lms[lm] = _counts(lm)

    # --- the population -------------------------------------------------------------------

    async def _bury(self) -> None:
        """A particle of weight zero is never resumed."""
        for particle in self.particles:
            if particle.log_weight == -math.inf and particle.killer is not None:
                self.kills[particle.killer] += 1
                particle.killer = None
            if particle.log_weight == -math.inf and particle.run is not None:
                await particle.run.drop()
                particle.run = None

    async def _synchronize(self) -> bool:
        """Resample if the effective sample size is low; whether that was done."""
        weights = [p.total for p in self.particles]
        n = len(weights)
        # A hair below the threshold: equal weights miss n by rounding.
        if not 0 < ess(weights) < self._ess_threshold * n * (1 - 1e-9):
            self._record(None)
            return False
        rng = self._streams.at(self._round, 0, Purpose.RESAMPLE)
        ancestors = self._scheme(normalize(weights), rng)
        self._record(tuple(ancestors.tolist()))
        self.particles, dropped = continued(self.particles, ancestors)
        for lost in dropped:
            await lost.drop()
        return True

    def _record(self, ancestors: tuple[int, ...] | None) -> None:
        weights = [p.total for p in self.particles]
        alive = sum(weight > -math.inf for weight in weights)
        self.history.append(Sync(ess(weights), alive, ancestors))
        self._bar.set_postfix(ess=f"{self.history[-1].ess:.1f}", alive=alive, refresh=False)
        self._bar.update()


def _generation(particle: Particle) -> Generation:
    assert particle.request is not None
    return particle.request.arguments


def _critic(generation: Generation) -> Weigher:
    assert generation.critic is not None
    return generation.critic


def _progress(particle: Particle) -> Progress:
    assert particle.progress is not None
    return particle.progress


def _counts(lm: LM) -> dict[str, float]:
    stats = lm.engine.stats
    return {"rows": stats.rows, "passes": stats.passes, "tokens": stats.tokens}


def _difference(lm: LM, before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in _counts(lm).items()}


def _bar(progress: bool, n_particles: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(disable=not progress, desc=f"{n_particles} particles", unit="step", leave=False)
