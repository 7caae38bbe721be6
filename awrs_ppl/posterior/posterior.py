"""The result of an inference: weighted values, the evidence, and what they cost."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from awrs_ppl.log_weights import ess, log_sum
from awrs_ppl.posterior import _arviz, _display, _exports, _plots, _record, saving
from awrs_ppl.posterior.diagnosis import Diagnosis, diagnose
from awrs_ppl.posterior.explanation import Explanation, explain
from awrs_ppl.posterior.pooling import heaviest, pooled
from awrs_ppl.posterior.values import Values
from awrs_ppl.stats import Stats

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from awrs_ppl.posterior.records import Death, Effort, Sync
    from awrs_ppl.program.trace import Trace

__all__ = ["Posterior", "Stats"]


class Posterior(Values):
    """Weighted results of a model, by `infer`.

    `values` and `log_weights` run in parallel over the particles that finished with a weight
    above zero: they are what `probabilities`, `mode`, `top`, `sample`, `expect`, `probability`,
    `map` and `ess` look at. Nothing else is hidden: `len` and indexing are over all particles, each
    a `Trace`; `dead` counts those of weight zero, and `unfinished` is the share of the weight
    that a timeout or an interrupt left in particles that had not finished (`stopped` says
    which; None after a whole run).

    `history` has the ESS of each synchronization and the ancestors of each resampling;
    `kills` says how many particles each potential took to weight zero, those replaced included;
    `deaths` has each of them, and `efforts` what each statement took (`explain()` reads them for
    you); `stats` what it cost; `seed` what to pass to get it again; `parts` the runs, if several.
    `free` counts the places of particles that were equal to others and are one with them.

    `method` is "smc", or "exact" for results of `exact`; `log_ml_bounds` is `(low, high)`, between
    which `log_ml` is for certain, or None, and `unbounded` names the statement that prevents it.

    It is data: it can be pickled and sent between processes if the values can, and keeps no
    language model or potential alive unless the model returned one.

    >>> from awrs_ppl import Bernoulli, run
    >>> async def two_coins(ctx):
    ...     heads = await ctx.sample(Bernoulli(0.5)) + await ctx.sample(Bernoulli(0.5))
    ...     await ctx.condition(heads > 0)
    ...     return heads
    >>> posterior = run(two_coins, n_particles=1000, seed=0, progress=False)
    >>> posterior.mode(), len(posterior), posterior.alive + posterior.dead
    (1, 1000, 1000)
    >>> abs(posterior.probability(lambda heads: heads == 2) - 1 / 3) < 0.05
    True
    >>> abs(posterior.log_ml - math.log(3 / 4)) < 0.05
    True
    """

    def __init__(
        self,
        traces: Sequence[Trace],
        *,
        history: Sequence[Sync],
        kills: Mapping[str, int],
        stats: Stats,
        seed: int,
        stopped: str | None = None,
        is_proper: bool,
        deaths: Sequence[Death] = (),
        efforts: Mapping[str, Effort] | None = None,
        free: int = 0,
        parts: Sequence[Posterior] = (),
        method: str = "smc",
        log_ml_bounds: tuple[float, float] | None = None,
        unbounded: str = "",
    ) -> None:
        self._traces, self.parts = list(traces), list(parts)
        self.history, self.deaths, self.kills = list(history), list(deaths), dict(kills)
        self.stats, self.seed, self.stopped, self.is_proper = stats, seed, stopped, is_proper
        self.efforts = dict(efforts or {})
        self.method, self.log_ml_bounds, self.unbounded = method, log_ml_bounds, unbounded
        weighted = [trace for trace in self._traces if trace.log_weight > -math.inf]
        self.alive, self.free = len(weighted), free
        self.dead = len(self._traces) - self.alive - free
        finished = [trace for trace in weighted if trace.finished]
        self.values = [trace.value for trace in finished]
        self.log_weights = np.array([trace.log_weight for trace in finished], dtype=np.float64)
        rest = log_sum([trace.log_weight for trace in weighted if not trace.finished])
        total = log_sum([rest, log_sum(self.log_weights)])
        self.unfinished = math.exp(rest - total) if rest > -math.inf else 0.0

    @classmethod
    def pool(cls, posteriors: Iterable[Posterior]) -> Posterior:
        """One posterior of independent runs of one program, as `infer(..., runs=k)` gives it.

        Each run's particles weigh by its evidence, which is unbiased as the mean of theirs.
        `parts` has the runs; costs add up; plots, `history` and `explain()` are those of the
        `heaviest`. Raises `ValueError` for none, and for a run without evidence.

        >>> from awrs_ppl import Bernoulli, run
        >>> async def coin(ctx):
        ...     return await ctx.sample(Bernoulli(0.5))
        >>> Posterior.pool([run(coin, seed=seed, progress=False) for seed in range(3)])
        <Posterior: 48 particles in 3 runs, 2 values, ESS 48.0, log_ml 0.00>
        """
        return cls(**pooled(posteriors))

    @property
    def heaviest(self) -> Posterior:
        """Of several runs the one with the most evidence; else the posterior itself."""
        return heaviest(self.parts) if self.parts else self

    def __len__(self) -> int:
        return len(self._traces)

    def __iter__(self) -> Iterator[Trace]:
        return iter(self._traces)

    def __getitem__(self, index: int) -> Trace:
        return self._traces[index]

    @property
    def log_ml(self) -> float:
        """The logarithm of the evidence: of the mean weight over all particles.

        Dead particles count as zero, and so do unfinished ones after a timeout (`exp(log_ml)` is
        then too low in expectation, else unbiased). `-inf` if nothing survived; NaN if a
        proposal was used whose weights are not proper.
        """
        if not self.is_proper:
            return math.nan
        return log_sum(self.log_weights) - math.log(len(self) or 1)

    @property
    def ess(self) -> float:
        """The effective sample size of the values: (sum w)^2 / sum w^2."""
        return ess(self.log_weights)

    def to_dataframe(self) -> pd.DataFrame:
        """One row for each particle: value, log_weight, probability, finished, and its choices.

        What a particle has not chosen is None; the dead and the unfinished have probability 0.
        A choice named like one of the four columns gets the name with " (choice)". Needs the extra
        `display`, as the plots do.
        """
        return _exports.data_frame(self)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Everything as strict JSON in ASCII, also written to the file `path` if given.

        Values that JSON has no word for stand as their `repr`; so do NaN and infinities
        ("nan", "-inf": `float` reads them), and lone surrogates are escaped.
        """
        return _exports.written(_exports.everything(self), path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that a posterior shows to one file, which `Posterior.load` reads: JSON without
        code, compressed where the name ends in `.json.gz`. A file that was there is replaced, once
        the new one is whole.

        Values come back equal and of the same types if they are None, booleans, numbers (numpy's
        too), `str`, `bytes`, lists, tuples, sets or dicts of these. A dataclass or Pydantic object
        comes back as a dict of its fields, with the name of its type first, as `"__type__"`:
        `Point(x=1, y=2)` as `{"__type__": "Point", "x": 1, "y": 2}`, so that `marginal(field="x")`
        finds the same. A value of another type raises `TypeError`: save `posterior.map(f)` with an
        `f` that gives plain data. Choices that a program did not return never fail: one of another
        type comes back as `{"__type__": name, "repr": text}`, and a warning says so.

        Raises `OSError` where the file cannot be written.

        >>> import tempfile
        >>> from awrs_ppl import Bernoulli, run
        >>> async def coin(ctx):
        ...     return await ctx.sample(Bernoulli(0.5)), math.inf
        >>> posterior = run(coin, n_particles=4, runs=3, seed=0, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     posterior.save(f"{folder}/coin.json.gz")
        ...     again = Posterior.load(f"{folder}/coin.json.gz")
        >>> again.values == posterior.values, str(again) == str(posterior), len(again.parts)
        (True, True, 3)
        """
        saving.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Posterior:
        """The posterior that `save` wrote to a file, equal to what it was. It runs no code from it.

        Raises `SavedFileError` for a file that is damaged, not a posterior's, or of a newer
        version, and `OSError` for one that cannot be read.
        """
        return saving.load(path, cls)

    def to_genlm_record(self, path: str | os.PathLike[str] | None = None) -> str:
        """The run as genlm-control's SMC records it, as JSON, also written to `path` if given.

        Its `InferenceVisualizer().visualize(path)` shows each particle at each step. Beside tokens
        the texts have the statements, as "[observe 2]", and "EOS" where a `generate` has ended. The
        weights are those before resampling, and the increments those of the step alone.
        """
        of = self.heaviest
        return _exports.written(_record.genlm_record(of.history, len(of)), path)

    def to_arviz(self, draws: int = 1000, seed: int | None = 0) -> Any:
        """Draws for ArviZ: an `InferenceData`, of ArviZ 1 a `DataTree`. Needs the extra `arviz`.

        ArviZ takes draws as equally likely, so they are `draws` particles resampled by their
        weights, in one chain; the same `seed` gives the same. The group `posterior` has numbers:
        the returned one as `value`, and named choices. Texts are in the group `texts`, as
        `az.summary` and plots take none; `sample_stats` has the particle that each draw is, and its
        `log_weight`. What is neither for every particle is left out with a warning.

        ArviZ's `ess` and errors are those of independent draws, and say nothing of the inference:
        ask for `az.summary(data, kind="stats")`, and `diagnose()` for the rest.

        Raises `NoSurvivors` if there are no values, and `ValueError` if there is nothing to give.
        """
        return _arviz.arviz_of(self, draws, seed)

    def explain(self) -> Explanation:
        """Where the weight went: what each statement and potential cost in evidence, how many
        particles it killed and where, checks and seconds, and how well importance sampling
        would have done. It is text in a terminal, a table in a notebook, and data.

        >>> from awrs_ppl import Bernoulli, run
        >>> async def model(ctx):
        ...     await ctx.condition(await ctx.sample(Bernoulli(0.5)), name="heads")
        >>> explanation = run(model, n_particles=1000, seed=0, progress=False).explain()
        >>> 400 < explanation.deaths[0].count < 600
        True
        """
        return explain(self.heaviest)

    def diagnose(self) -> Diagnosis:
        """What is known about how far to rely on this: the weight that survived resampling, what
        runs disagree about, standard errors, and warnings with remedies. Shown as `explain()` is.

        >>> from awrs_ppl import Bernoulli, run
        >>> async def coin(ctx):
        ...     return await ctx.sample(Bernoulli(0.5))
        >>> run(coin, n_particles=50, runs=4, seed=0, progress=False).diagnose().warnings
        []
        """
        return diagnose(self)

    def plot_ess(self, ax: Axes | None = None) -> Axes:
        """The effective sample size at each step, resamplings marked; the matplotlib axes.

        Draws into `ax`, or a figure of its own; needs the extra `display`, as all plots do."""
        return _plots.plot_ess(self.heaviest, ax)

    def plot_genealogy(self, ax: Axes | None = None) -> Axes:
        """Who descends from whom: a line for each particle over the steps, forking where it was
        resampled; of more than 64 the ancestry of 64."""
        return _plots.plot_genealogy(self.heaviest, ax)

    def plot_weights(self, ax: Axes | None = None) -> Axes:
        """The share of the weight of each particle, the largest first; the even share dashed."""
        return _plots.plot_weights(self, ax)

    def full(self) -> _display.Full:
        """All values in full, where the posterior shows the most probable and cuts long ones:
        a table in a notebook, and text to print, `print(posterior.full())`."""
        return _display.Full(self)

    def __repr__(self) -> str:
        return _display.line(self)

    def __str__(self) -> str:
        return _display.table(self)

    def _repr_html_(self) -> str:
        return _display.html(self)

    def __getstate__(self) -> dict[str, Any]:
        _exports.require_picklable(self)
        return self._state()

    # What cannot be pickled can still be copied.
    def __copy__(self, state: dict[str, Any] | None = None) -> Posterior:
        made = object.__new__(type(self))
        vars(made).update(self._state() if state is None else state)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Posterior:
        return self.__copy__(copy.deepcopy(self._state(), memo))

    def _state(self) -> dict[str, Any]:
        """All but what is computed from the rest."""
        return {k: v for k, v in vars(self).items() if k not in ("_shares", "_results")}
