"""The progress of an inference: bars in terminals and notebooks, now and then a line in a log, or
what a function of the user's makes of it."""

from __future__ import annotations

import contextvars
import inspect
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from awrs_ppl._messages import quoted
from awrs_ppl.errors import ModelError

__all__ = ["Bar", "Bars", "SearchInfo", "StepInfo", "bar_on_stderr"]

_EVERY = 10.0  # seconds between two lines in a log
_MOST = 8  # bars at once: more would fill the screen

# Whether an inference around this one, of which this is a part, shows its progress already.
_shown: contextvars.ContextVar[bool] = contextvars.ContextVar("awrs_ppl_shown", default=False)


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What the `progress` function of an inference gets after each step.

    The `step` from 1, and of which `run`, from 1; the effective sample size before resampling;
    how many particles are `alive`, and of these `finished`; the tokens drawn up to now, over
    all particles and dropped lineages.
    """

    step: int
    ess: float
    alive: int
    finished: int
    tokens: int
    run: int


@dataclass(frozen=True, slots=True)
class SearchInfo:
    """What the `progress` function of a search gets after each forward pass.

    The `step` from 1, the `rows` of the language model so far, and the bounds of the log evidence,
    which hold where the posterior gives them.
    """

    step: int
    rows: int
    log_ml_bounds: tuple[float, float]


class Bars:
    """The progress of `runs` side by side, as long as it is entered: on stderr if `progress` is
    true, by its calls if it is a function, and nowhere if it is false.

    Of nested inferences only the outermost shows itself. Raises `ModelError` for what is neither.
    """

    def __init__(self, progress: bool | Callable[[Any], object], runs: int) -> None:
        if not isinstance(progress, bool) and not callable(progress):
            raise ModelError(
                f"progress={quoted(progress)}: it must be True, False, or a function of one "
                "argument, called after each step"
            )
        if inspect.iscoroutinefunction(progress):
            raise ModelError(
                f"progress={quoted(progress)}: nothing awaits it; give a plain function"
            )
        self._progress, self._runs = progress, runs
        self._token: contextvars.Token[bool] | None = None
        self._bars: list[Bar] = []

    def __enter__(self) -> Self:
        if self._progress is not False and not _shown.get() and sys.stderr is not None:
            self._token = _shown.set(True)
        return self

    def __exit__(self, *_: object) -> None:
        for bar in reversed(self._bars):  # from below, so that none of them moves up
            bar.close()
        if self._token is not None:
            _shown.reset(self._token)

    def search(self, named: str) -> Bar:
        """The progress of a search."""
        bar = Bar(0, None if isinstance(self._progress, bool) else self._progress)
        if self._token is not None and isinstance(self._progress, bool):
            bar.show(named, " passes")
        self._bars.append(bar)
        return bar

    def bar(self, run: int, n_particles: int) -> Bar:
        """The progress of one run, from 0."""
        if not isinstance(self._progress, bool):
            return Bar(run, self._progress)
        bar = Bar(run, None)
        if self._token is not None and run < _MOST:
            named = f"{n_particles} particle{'' if n_particles == 1 else 's'}"
            bar.show(f"run {run + 1}/{self._runs}, {named}" if self._runs > 1 else named)
        self._bars.append(bar)
        return bar


class Bar:
    """The progress of one run, shown or given to a function."""

    def __init__(self, run: int, function: Callable[[Any], object] | None) -> None:
        self.run, self._function = run, function
        self._bar: Any = None
        self._survived, self._step = 1.0, 0

    def show(self, named: str, unit: str = " steps") -> None:
        """Show it on stderr."""
        self._bar = bar_on_stderr(named, unit)

    def grown(self, rows: int, low: float, high: float) -> None:
        """One pass of a search later."""
        self._step += 1
        if self._function is not None:
            self._function(SearchInfo(self._step, rows, (low, high)))
        if self._bar is not None:
            shown = {"rows": f"{rows:,}", "log evidence": f"{low:.2f} to {high:.2f}"}
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update()

    def step(self, ess: float, alive: int, finished: int, tokens: int, survived: float) -> None:
        """One synchronization later; `survived` is the share of the weight that resampling has
        left in it."""
        self._survived *= survived
        self._step += 1
        if self._function is not None:
            self._function(StepInfo(self._step, ess, alive, finished, tokens, self.run + 1))
        if self._bar is not None:
            shown = {"ess": f"{ess:.1f}", "alive": str(alive)}
            if self._survived < 0.9995:
                shown["survived"] = f"{100 * self._survived:.1f} %"
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Lines:
    """For a log a bar that redraws itself would be one endless line."""

    def __init__(self, named: str, unit: str, total: int | None) -> None:
        self._named, self._count, self._postfix = named, 0, ""
        self._unit = unit if total is None else f" of {total:,}{unit}"
        self._started = self._last = time.monotonic()

    def set_postfix(self, shown: Mapping[str, str], *, refresh: bool) -> None:
        self._postfix = "".join(f", {name}={figure}" for name, figure in shown.items())

    def update(self) -> None:
        self._count += 1
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            line = f"{self._named}: {self._count}{self._unit} in {now - self._started:.0f} s"
            print(f"{line}{self._postfix}", file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


def bar_on_stderr(named: str, unit: str, total: int | None = None) -> Any:
    """A bar in terminals and notebooks, now and then a line in a log, to `update` and `close`."""
    in_notebook = "ipykernel" in sys.modules
    if in_notebook or sys.stderr.isatty():
        return _tqdm(in_notebook)(desc=named, unit=unit, total=total, leave=False)
    return _Lines(named, unit, total)


def _tqdm(in_notebook: bool) -> Any:
    if not in_notebook:
        from tqdm import tqdm

        return tqdm
    with warnings.catch_warnings():
        # Without ipywidgets tqdm warns and draws the bar as text: that will do.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm
