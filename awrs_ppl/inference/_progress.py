"""The progress of an inference: a bar in terminals and notebooks, now and then a line in a log."""

from __future__ import annotations

import contextvars
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

__all__ = ["Bar", "tqdm_of"]

_EVERY = 10.0  # seconds between two lines in a log

# Whether an inference around this one, of which this is a part, shows its progress already.
_shown: contextvars.ContextVar[bool] = contextvars.ContextVar("awrs_ppl_shown", default=False)


class Bar:
    """The progress of `n_particles` on stderr; nothing unless `wanted`.

    Only the outermost of nested inferences shows itself.
    """

    def __init__(self, wanted: bool, n_particles: int) -> None:
        self._bar: Any = None
        self._survived = 1.0
        self._token: contextvars.Token[bool] | None = None
        if not wanted or _shown.get() or sys.stderr is None:
            return
        self._token = _shown.set(True)
        named = f"{n_particles} particle{'' if n_particles == 1 else 's'}"
        in_notebook = "ipykernel" in sys.modules
        if in_notebook or sys.stderr.isatty():
            self._bar = tqdm_of(in_notebook)(desc=named, unit=" steps", leave=False)
        else:
            self._bar = _Lines(named)

    def step(self, ess: float, alive: int, survived: float = 1.0) -> None:
        """One synchronization later; `survived` is the share of the weight that resampling has
        left up to now."""
        self._survived *= survived
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
        if self._token is not None:
            _shown.reset(self._token)
        self._bar = self._token = None


class _Lines:
    """For a log a bar that redraws itself would be one endless line."""

    def __init__(self, named: str) -> None:
        self._named, self._count, self._postfix = named, 0, ""
        self._started = self._last = time.monotonic()

    def set_postfix(self, shown: Mapping[str, str], *, refresh: bool) -> None:
        self._postfix = ", ".join(f"{name}={figure}" for name, figure in shown.items())

    def update(self) -> None:
        self._count += 1
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            line = f"{self._named}: {self._count} steps in {now - self._started:.0f} s"
            print(f"{line}, {self._postfix}", file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


def tqdm_of(in_notebook: bool) -> Any:
    """The bars of tqdm that can be shown here."""
    if not in_notebook:
        from tqdm import tqdm

        return tqdm
    with warnings.catch_warnings():
        # Without ipywidgets tqdm warns and draws the bar as text: that will do.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm
