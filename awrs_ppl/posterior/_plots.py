"""The plots of a posterior, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from awrs_ppl._extras import install
from awrs_ppl.log_weights import normalize
from awrs_ppl.posterior._certain import require_particles
from awrs_ppl.posterior._style import plural
from awrs_ppl.posterior._svg import Genealogy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from awrs_ppl.posterior.posterior import Posterior

__all__ = ["plot_ess", "plot_genealogy", "plot_weights"]

_BLUE, _GREY, _ORANGE = "#3b7ddd", "#b0b0b0", "#d98a00"


def plot_ess(posterior: Posterior, ax: Axes | None) -> Axes:
    """The ESS over the steps, resamplings marked."""
    require_particles(posterior, "plot_ess")
    ax = _axes("plot_ess", ax)
    ess = [sync.ess for sync in posterior.history]
    steps = np.arange(1, len(ess) + 1)
    marks = [i for i, sync in enumerate(posterior.history) if sync.ancestors is not None]
    ax.plot(steps, ess, color=_BLUE, marker="o" if len(ess) == 1 else "")
    if marks:
        at, low = steps[marks], [ess[i] for i in marks]
        ax.plot(at, low, "v", color=_ORANGE, markersize=5, label=f"resampled ({len(marks):,})")
        ax.legend(loc="best", frameon=False)
    ax.set(xlabel="step", ylabel="effective sample size", ylim=(0, 1.05 * len(posterior)))
    return ax


def plot_genealogy(posterior: Posterior, ax: Axes | None) -> Axes:
    """A line for each particle, forking where it was resampled; bold what leads to weight."""
    require_particles(posterior, "plot_genealogy")
    ax = _axes("plot_genealogy", ax)
    from matplotlib.collections import LineCollection

    weighs = [trace.log_weight > -np.inf for trace in posterior]
    tree = Genealogy.of(posterior.history, weighs)
    lines: dict[bool, list[Sequence[tuple[float, float]]]] = {False: [], True: []}
    for generation, slots in enumerate(tree.shown):
        start, end = tree.ends[generation], tree.ends[generation + 1]
        last = generation == len(tree.parents)
        fork = end if last else max(start, end - max(0.5, (tree.ends[-1] / 40)))
        for slot in slots:
            lines[slot in tree.bold[generation]].append([(start, slot), (fork, slot)])
        for child in () if last else tree.shown[generation + 1]:
            parent = tree.parents[generation][child]
            lines[child in tree.bold[generation + 1]].append([(fork, parent), (end, child)])
    for is_bold, segments in lines.items():
        color, width = (_BLUE, 1.4) if is_bold else (_GREY, 0.8)
        ax.add_collection(LineCollection(segments, colors=color, linewidths=width))
    n = len(posterior)
    title = "in colour: the ancestors of those that have weight at the end"
    if len(tree.shown[-1]) < n:
        title += f"\nthe ancestry of {len(tree.shown[-1])} of {n:,} particles"
    if tree.each > 1:
        title += f"\n{tree.each} resamplings drawn as one"
    ax.set_title(title, fontsize="small")
    ax.set(xlabel="step", ylabel="particle", xlim=(0, tree.ends[-1]), ylim=(n - 0.5, -0.5))
    return ax


def plot_weights(posterior: Posterior, ax: Axes | None) -> Axes:
    """The share of each particle, the largest first."""
    ax = _axes("plot_weights", ax)
    n = len(posterior)
    traces = sorted(posterior, key=lambda trace: -trace.log_weight)
    shares = normalize([trace.log_weight for trace in traces])
    done = np.array([trace.finished for trace in traces])
    # Steps rather than bars: thousands of bars would take minutes.
    ranks = np.arange(n)
    for is_done, color in ((True, _BLUE), (False, _ORANGE)):
        heights = np.where(done == is_done, shares, 0.0)
        if heights.any():
            label = None if done.all() or is_done else "unfinished"
            ax.fill_between(
                np.repeat(np.append(ranks, n), 2)[1:-1],
                np.repeat(heights, 2),
                color=color,
                linewidth=0,
                label=label,
            )
    ax.axhline(1 / n, color=_GREY, linestyle="--", linewidth=1, label="equal shares")
    ax.legend(loc="upper right", frameon=False)
    title = f"ESS {posterior.ess:,.1f} of {n:,}, {posterior.dead:,} dead"
    ax.set_title(title, fontsize="small")
    ax.set(xlabel=f"particle{plural(n)} by weight", ylabel="share of the weight", xlim=(0, n))
    ax.set_ylim(bottom=0, auto=True)  # shared axes must still grow with other plots
    return ax


def _axes(name: str, ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{name} needs matplotlib: {install('display')}; in notebooks the posterior "
            "shows itself without it"
        ) from error
    return pyplot.subplots(figsize=(7, 3), layout="constrained")[1]
