"""Best-first search over the executions of a program: its posterior and evidence, with bounds.

Heaviest prefixes first, many in one forward pass. What has been found is a lower bound of the
evidence, and with all that is still open, an upper one: no later statement weighs above 1. Texts
must be drawn under masks, so that every allowed next token is known; the other statements are
those that `awrs_ppl.testing.enumeration` can enumerate.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch

from awrs_ppl._values import key
from awrs_ppl.constraints.product import Target
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.program.trace import Record
from awrs_ppl.testing.enumeration import _choices, _run_on
from awrs_ppl.tokens.stops import first_stop
from awrs_ppl.tokens.text import Text
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["BATCH", "Found", "search"]

BATCH = 24  # prefixes a forward pass


@dataclass(slots=True)
class Found:
    """What a search has found.

    `masses`: the weight of each value, not normalized. `open`: that of all that was not walked.
    `depths[t]`: the weight of all texts of `t` tokens, and of those in `branch`; a text that has
    ended counts at all later depths too.
    """

    masses: dict[Any, float] = field(default_factory=lambda: defaultdict(float))
    open: float = 1.0
    rows: int = 0
    passes: int = 0
    depths: dict[int, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))

    @property
    def low(self) -> float:
        """A lower bound of the log evidence."""
        return _log(sum(self.masses.values()))

    @property
    def high(self) -> float:
        """An upper bound of the log evidence."""
        return _log(sum(self.masses.values()) + self.open)

    @property
    def probabilities(self) -> dict[Any, float]:
        """The posterior of what was found, the likeliest value first."""
        whole = sum(self.masses.values())
        ranked = sorted(self.masses.items(), key=lambda item: -item[1])
        return {value: mass / whole for value, mass in ranked if mass > 0.0}


@dataclass(slots=True)
class _Node:
    """A prefix of the text that `statement` draws, after `records`."""

    records: tuple[Record, ...]
    statement: Generate
    ids: tuple[int, ...]
    data: bytes
    states: tuple[Any, ...]


# Minus the weight, the order of arrival, and the prefix.
_Entry = tuple[float, int, _Node]


async def search(
    model: Any,
    *,
    gap: float = 1e-3,
    max_rows: int = 4000,
    batch: int = BATCH,
    branch: Callable[[str], bool] | None = None,
    spread: bool = False,
) -> Found:
    """Walk a model until the bounds of the log evidence differ by at most `gap`.

    Stops after `max_rows` rows of the language model at the latest, and where nothing is open.
    Raises `ValueError` for a text that is drawn without masks. `branch` is a property of texts
    whose weight is noted at every depth. With `spread` a pass takes the heaviest of every length in
    bytes: where most weight is lost at late tokens, short prefixes would else come before all that
    could end soon.
    """
    found = Found()
    heaps: dict[int, list[_Entry]] = defaultdict(list)
    order = itertools.count()
    answers: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def push(mass: float, node: _Node) -> None:
        if mass > 0.0:
            found.open += mass
            heap = heaps[len(node.data) if spread else 0]
            heapq.heappush(heap, (-mass, next(order), node))

    async def proceed(records: tuple[Record, ...], mass: float) -> None:
        """Go on to the next text, or to the end of the program."""
        if mass <= 0.0:
            return
        known = tuple(key(record.value) for record in records)
        if known not in answers:
            statement, value = await _run_on(model, (), list(records))
            if statement is None or isinstance(statement, Generate):
                answers[known] = statement, value
            else:
                answers[known] = statement, await _choices(statement)
        statement, value = answers[known]
        if statement is None:
            found.masses[key(value)] += mass
        elif isinstance(statement, Generate):
            states = await _begin(statement.target)
            if states is not None:
                push(mass, _Node(records, statement, (), b"", states))
        else:
            for choice, weight in value:
                record = Record(statement, choice, weight)
                await proceed((*records, record), mass * math.exp(weight))

    def note(node: _Node, text: bytes, mass: float, ended: bool) -> None:
        if branch is not None:
            depths = range(len(node.ids) + 1, 65 if ended else len(node.ids) + 2)
            for depth in depths:
                found.depths[depth][0] += mass
                found.depths[depth][1] += mass * branch(text.decode("utf-8", "replace"))

    found.open = 0.0
    await proceed((), 1.0)
    while any(heaps.values()) and found.rows < max_rows and found.high - found.low > gap:
        taken = _take(heaps, batch)
        rows = await _rows([node for _, _, node in taken])
        found.rows, found.passes = found.rows + len(taken), found.passes + 1
        for (negative, _, node), row in zip(taken, rows, strict=True):
            mass = -negative
            ends, longer = await _next(node, row)
            for text, weight in ends.items():
                note(node, text, mass * weight, ended=True)
                record = Record(node.statement, text.decode("utf-8", "surrogateescape"), 0.0)
                await proceed((*node.records, record), mass * weight)
            for child, weight in longer:
                note(node, child.data, mass * weight, ended=False)
                push(mass * weight, child)
        # Summed anew: differences of large numbers would leave rounding in place of what is open.
        found.open = math.fsum(-entry[0] for heap in heaps.values() for entry in heap)
    return found


def _take(heaps: dict[int, list[_Entry]], count: int) -> list[_Entry]:
    """The heaviest, evenly from all heaps that are not empty."""
    taken: list[_Entry] = []
    while len(taken) < count and (left := [heap for heap in heaps.values() if heap]):
        taken += [heapq.heappop(heap) for heap in left[: count - len(taken)]]
    return taken


def _log(mass: float) -> float:
    return math.log(mass) if mass > 0.0 else -math.inf


async def _begin(target: Target) -> tuple[Any, ...] | None:
    if target.weighted or any(factor.potential.mask is None for factor in target.boolean):  # pyright: ignore
        raise ValueError(f"{target.factors!r}: a search needs masks for all factors")
    states = [await factor.begin(Text()) for factor in target.boolean]
    return None if any(state is None for state in states) else tuple(states)


async def _rows(nodes: list[_Node]) -> np.ndarray:
    """The log-probabilities of the next tokens, shape `[len(nodes), size]`."""
    rows = []
    for node in nodes:
        assert node.statement.critic is None, "a search knows no critics"
        rows.append(node.statement.target.dense)
    requests = defaultdict(list)
    for i, dense in enumerate(rows):
        for lm in dense:
            requests[id(lm.lm.engine)].append((i, lm))
    whole: Any = 0.0
    for asked in requests.values():
        engine = asked[0][1].lm.engine
        logits = await engine.next_logits([lm.prompt + nodes[i].ids for i, lm in asked])
        scales = torch.tensor([lm.temperature for _, lm in asked], dtype=torch.float64)
        logs = (logits.double().cpu() / scales[:, None]).log_softmax(-1).numpy()
        if isinstance(whole, float):
            whole = np.zeros((len(nodes), logs.shape[1]))
        np.add.at(whole, [i for i, _ in asked], logs)
    return whole


async def _next(node: _Node, row: np.ndarray) -> tuple[dict[bytes, float], list[Any]]:
    """The texts that may end here, and the longer prefixes, each with its probability."""
    target = node.statement.target
    vocabulary: Any = target.vocabulary
    forced = len(node.ids) == node.statement.max_tokens - 1
    ends: dict[bytes, float] = defaultdict(float)
    ends[node.data] += float(np.exp(np.logaddexp.reduce(row[vocabulary.ends])))
    allowed = vocabulary.is_text.copy()
    for token in _closing(vocabulary, target.stops):
        text = node.data + bytes(vocabulary.tokens[token])
        stop = first_stop(text, target.stops)
        if stop is not None:
            allowed[token] = False
            if not forced or text[:stop] == node.data:
                ends[text[:stop]] += float(np.exp(row[token]))
    ends = {text: p for text, p in ends.items() if p > 0.0 and await _accepts(target, text)}
    longer: list[Any] = []
    if forced:
        return ends, longer
    for factor, state in zip(target.boolean, node.states, strict=True):
        allowed &= factor.mask(state, vocabulary)
    for token in np.flatnonzero(allowed).tolist():
        data = bytes(vocabulary.tokens[token])
        pairs = zip(target.boolean, node.states, strict=True)
        states = tuple([await factor.advance(state, token, data) for factor, state in pairs])
        child = _Node(node.records, node.statement, (*node.ids, token), node.data + data, states)
        longer.append((child, math.exp(row[token])))
    return ends, longer


@cache
def _closing(vocabulary: Vocabulary, stops: tuple[bytes, ...]) -> list[int]:
    """The tokens that can complete a stop: those with the last byte of one."""
    last = {stop[-1] for stop in stops}
    tokens = vocabulary.tokens
    return [i for i in vocabulary.text_ids.tolist() if not last.isdisjoint(bytes(tokens[i]))]


async def _accepts(target: Target, text: bytes) -> bool:
    for factor in target.boolean:
        state = await factor.begin(Text(text))
        if state is None or not await factor.accepts(state):
            return False
    return True
