"""The history of an inference as inline SVG: the ESS over the steps, and the genealogy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from awrs_ppl.posterior._style import plural

if TYPE_CHECKING:
    from awrs_ppl.posterior.records import Sync

__all__ = ["Genealogy", "ess_svg", "genealogy_svg"]

_POINTS = 300
_LINEAGES = 64
_GENERATIONS = 100
_WIDE, _HIGH = 3000, 1000


def ess_svg(history: Sequence[Sync], n: int) -> str:
    """The ESS of `n` particles at each synchronization, with resamplings marked.

    Of a long history each point is the lowest ESS of several steps.
    """
    if not history:
        return ""
    each = -(-len(history) // _POINTS)
    groups = [history[i : i + each] for i in range(0, len(history), each)]
    step = _WIDE / max(1, len(groups) - 1)
    heights = [round(_HIGH - _HIGH * min(sync.ess for sync in group) / n) for group in groups]
    line = "L".join(f"{round(i * step)} {y}" for i, y in enumerate(heights))
    line = f"M{line}" + (f"H{_WIDE}" if len(heights) == 1 else "")
    marks = "".join(
        f"M{round(i * step)} {_HIGH}v-{_HIGH // 6}"
        for i, group in enumerate(groups)
        if any(sync.ancestors is not None for sync in group)
    )
    count = sum(sync.ancestors is not None for sync in history)
    caption = f"Effective sample size over {_steps(len(history))}, from 0 to {n:,}; " + (
        f"resampled at {count:,} (ticks)" if count else "never resampled"
    )
    if each > 1:
        caption += f"; each point is the lowest of {each} steps"
    return _figure(caption, {"awrs-mark": marks, "awrs-line": line}, 110)


@dataclass(frozen=True, slots=True)
class Genealogy:
    """Who descends from whom, in generations: the populations between two resamplings.

    `ends` are the steps between which the generations live, one more than there are
    generations; `parents` the ancestors of each generation's slots in the one before; `shown`
    and `bold` the slots of each generation that are drawn, and those that lead to weight.
    Of many generations every few are kept (one in `each`): those between are composed, exactly.
    """

    ends: list[int]
    parents: list[list[int]]
    shown: list[set[int]]
    bold: list[set[int]]
    each: int

    @classmethod
    def of(cls, history: Sequence[Sync], weighs: Sequence[bool]) -> Genealogy:
        """Of a history; `weighs` says which particles of the last population have weight."""
        n = len(weighs)
        resampled = [
            (time, sync.ancestors)
            for time, sync in enumerate(history, 1)
            if sync.ancestors is not None
        ]
        each = max(1, -(-len(resampled) // _GENERATIONS))
        groups = [resampled[i : i + each] for i in range(0, len(resampled), each)]
        parents = [_composed([ancestors for _, ancestors in group]) for group in groups]
        ends = [0, *(group[-1][0] for group in groups), len(history) + 1]
        weighty = [slot for slot in range(n) if weighs[slot]]
        bold = _ancestry(set(weighty), parents)
        shown = [set(range(n))] * (len(parents) + 1)
        if n > _LINEAGES:
            shown = _ancestry(_spread(weighty or list(range(n))), parents)
        return cls(ends, parents, shown, bold, each)


def genealogy_svg(history: Sequence[Sync], weighs: Sequence[bool]) -> str:
    """Who descends from whom: a line for each particle, forking where it was resampled.

    `weighs`: which particles of the last population have weight; lines that lead to them are
    bold. Of more than 64 particles the ancestry of 64 is shown. Nothing if never resampled.
    """
    n = len(weighs)
    tree = Genealogy.of(history, weighs)
    if not tree.parents:
        return ""
    xs = [round(_WIDE * time / tree.ends[-1]) for time in tree.ends]
    ys = [round(_HIGH * slot / max(1, n - 1)) for slot in range(n)]
    paths = {"awrs-lost": [], "awrs-line": []}
    for generation, slots in enumerate(tree.shown):
        start, end = xs[generation], xs[generation + 1]
        last = generation == len(tree.parents)
        # The fork is drawn in the last stretch before the resampling.
        fork = 0 if last else min((end - start) // 2, 40)
        for slot in sorted(slots):
            name = "awrs-line" if slot in tree.bold[generation] else "awrs-lost"
            paths[name].append(f"M{start} {ys[slot]}h{end - start - fork}")
        for child in () if last else sorted(tree.shown[generation + 1]):
            name = "awrs-line" if child in tree.bold[generation + 1] else "awrs-lost"
            y = ys[tree.parents[generation][child]]
            paths[name].append(f"M{end - fork} {y}l{fork} {ys[child] - y}")

    caption = f"{n:,} particle{plural(n)} over {_steps(len(history))}; " + (
        "bold: the ancestors of those that have weight at the end"
    )
    if n > _LINEAGES:
        caption += f"; shown is the ancestry of {len(tree.shown[-1])}"
    if tree.each > 1:
        count = sum(sync.ancestors is not None for sync in history)
        caption += f"; {tree.each} of the {count:,} resamplings are drawn as one"
    height = min(320, 40 + 10 * n)
    return _figure(caption, {name: "".join(path) for name, path in paths.items()}, height)


def _composed(maps: Sequence[Sequence[int]]) -> list[int]:
    """The ancestor of each slot through several resamplings, the earliest first."""
    slots = list(maps[-1])
    for earlier in maps[-2::-1]:
        slots = [earlier[slot] for slot in slots]
    return slots


def _ancestry(last: set[int], parents: Sequence[Sequence[int]]) -> list[set[int]]:
    """For each generation the slots that lead to one of `last`."""
    found = [last]
    for ancestors in reversed(parents):
        found.append({ancestors[slot] for slot in found[-1]})
    return found[::-1]


def _spread(slots: Sequence[int]) -> set[int]:
    """At most 64 of the slots, evenly spread."""
    count = min(_LINEAGES, len(slots))
    return {slots[i * len(slots) // count] for i in range(count)}


def _steps(count: int) -> str:
    return f"{count:,} step{plural(count)}"


def _figure(caption: str, paths: dict[str, str], height: int) -> str:
    drawn = "".join(f'<path class="{name}" d="{d}"/>' for name, d in paths.items() if d)
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<svg role="img" aria-label="{caption}" viewBox="-20 -30 {_WIDE + 40} {_HIGH + 60}" '
        f'preserveAspectRatio="none" style="height:{height}px">{drawn}</svg></figure>'
    )
