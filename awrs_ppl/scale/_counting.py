"""One bar for many inferences: a bar in terminals and notebooks, now and then a line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from awrs_ppl.inference._progress import tqdm_of

__all__ = ["counting"]

_EVERY = 10.0  # seconds between two lines in a log


@contextmanager
def counting(what: str, total: int | None, wanted: bool) -> Iterator[Callable[[], None]]:
    """A function to call for each that is done; nothing is shown unless `wanted`."""
    if not wanted or sys.stderr is None:
        yield lambda: None
        return
    in_notebook = "ipykernel" in sys.modules
    if in_notebook or sys.stderr.isatty():
        with tqdm_of(in_notebook)(desc=what, total=total, leave=False) as bar:
            yield bar.update
        return
    done, started = 0, time.monotonic()
    last = started

    def line() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last >= _EVERY:
            last = now
            of = "" if total is None else f" of {total}"
            print(f"{done}{of} {what} in {now - started:.0f} s", file=sys.stderr, flush=True)

    yield line
