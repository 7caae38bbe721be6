"""The envelope trie of a program: it is grown outcome by outcome, and bounds the evidence."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from awrs_ppl._concurrency import together
from awrs_ppl._messages import quoted
from awrs_ppl._values import same
from awrs_ppl.constraints.target import start
from awrs_ppl.constraints.verdict_cache import VerdictCache
from awrs_ppl.constraints.weighing import require_weights, weigh_texts
from awrs_ppl.envelope.bounds import masses
from awrs_ppl.envelope.node import Node, Table
from awrs_ppl.envelope.programs import Stop, run_on, support
from awrs_ppl.envelope.tables import tabulate
from awrs_ppl.errors import ContextLengthError, ModelError
from awrs_ppl.program.execution import Model
from awrs_ppl.program.log import Log, Record, copied
from awrs_ppl.program.statements import Call, Sample
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.proposals import Draw
from awrs_ppl.proposals.costs import Costs
from awrs_ppl.proposals.token_step import Progress
from awrs_ppl.tokens.text import EMPTY, as_str

__all__ = ["Trie"]

# Rounding, of a sum of logarithms that should not be above a bound.
_ROUNDING = 1e-9

# Where an outcome leads: nowhere, or to a node, which what comes between gives a log-weight.
_Arrival = tuple[Node | None, float]


class Trie:
    """All that was met of the executions of `model(ctx, *args)`.

    Every node has bounds of the logarithm of the weight of all that can follow; those of the
    program are `log_low` and `log_high`. They hold if no execution weighs more than `max_factor`
    by its `factor`s, critics, weighing potentials and observed densities together; conditions and
    probabilities cannot be above 1. Without a `max_factor` that is 1, and `unbounded` names the
    first statement that may break it. Raises `ModelError` for an execution that breaks a
    `max_factor` that was given, and if `strict` that of 1, too.
    """

    def __init__(
        self,
        model: Model,
        args: Sequence[Any],
        costs: Costs,
        max_factor: float | None = None,
        *,
        strict: bool = False,
    ) -> None:
        self.model, self.args, self.costs = model, args, costs
        self.cache = VerdictCache()
        self.unbounded = ""
        self.root: Node | None = None
        self.max_factor, self._strict = max_factor, strict or max_factor is not None
        self._log_most = 0.0 if max_factor is None else math.log(max_factor)
        self._arrivals: dict[Any, tuple[Stop, _Arrival]] = {}
        # Each as long as somebody is there.
        self._arriving: WeakValueDictionary[Any, asyncio.Lock] = WeakValueDictionary()
        self._compared: set[Any] = set()
        self._costly: set[str] = set()
        self._before = 0.0  # what the program did to the weight before its first draw

    @property
    def log_low(self) -> float:
        """A lower bound of the log evidence: the weight of all ends that were found."""
        return self._of_program(-math.inf if self.root is None else self.root.low)

    @property
    def log_high(self) -> float:
        """An upper bound of the log evidence."""
        return self._of_program(-math.inf if self.root is None else self.root.high)

    def _of_program(self, bound: float) -> float:
        return self._before + self._log_most + bound

    @property
    def unexplored(self) -> float:
        """Which share of the evidence may be missing in what was found: 1 - low/high."""
        low, high = self.log_low, self.log_high
        return 1.0 - math.exp(min(low - high, 0.0)) if high > -math.inf else 0.0

    def ends(self) -> list[tuple[Node, float]]:
        """The ends that were found, and the log-weight of each."""
        if self.root is None:
            return []
        return masses(self.root, self._before + self._log_most)

    async def begin(self) -> Node | None:
        """The node of the program's first draw; None if nothing is possible."""
        self.root, self._before = await self._arrive(None, 0.0)
        if self.root is not None:
            self.root.path = self._before
        return self.root

    # --- growing --------------------------------------------------------------------------

    async def tabulate(self, nodes: Sequence[Node]) -> None:
        """Give nodes their tables, or more of them, in one forward pass."""
        for node in nodes:
            assert node.statement is not None
            self.costs.use(node.statement.lms)
        with self.costs.part("language model"):
            failed = await tabulate(nodes, self.cache)
        for node, error in failed:
            # As in `infer`: the program gets the error at its statement, and may catch it.
            assert node.statement is not None
            record = Record(node.statement, None, 0.0, error)
            child, weight = await self._arrive(Log.append(node.log, record), node.factor)
            node.table = Table([None], np.zeros(1))
            self._link(node, 0, child, weight)

    def takes_row(self, node: Node, place: int) -> bool:
        """Whether a language model weighs what comes behind an outcome, as far as is known."""
        statement, table = node.statement, node.table
        assert statement is not None
        assert table is not None
        return statement.name in self._costly and table.is_last(place)

    async def follow(self, node: Node, places: Sequence[int]) -> list[Node | None]:
        """The nodes to which outcomes of a table lead, by their places; None for those that are
        rejected, or whose program comes to weight zero."""
        table = node.table
        assert table is not None
        new = [place for place in places if place not in table.high]
        if isinstance(node.statement, Sample):
            arrivals = await together(
                self._arrive(self._chosen(node, table.outcomes[place]), node.factor)
                for place in new
            )
        else:
            arrivals = await self._longer(node, new)
        for place, (child, weight) in zip(new, arrivals, strict=True):
            self._link(node, place, child, weight)
        found = [node.children.get(place) for place in places]
        return [None if one is None else one[0] for one in found]

    async def sampled(self, node: Node, rng: np.random.Generator) -> _Arrival:
        """Where a value leads that is drawn from what cannot be enumerated; nothing is kept."""
        assert isinstance(node.statement, Sample)
        value = node.statement.distribution.sample(rng)
        stop = await run_on(self.model, self.args, self._chosen(node, value))
        self.unbounded = self.unbounded or stop.unbounded
        return await self._node(replace(stop, factor=stop.factor + node.factor))

    def _link(self, node: Node, place: int, child: Node | None, weight: float) -> None:
        if child is None:
            node.note(place, -math.inf, -math.inf)
        else:
            node.link(place, child, weight)

    def _chosen(self, node: Node, value: Any) -> Log:
        assert node.statement is not None
        return Log.append(node.log, Record(node.statement, copied(value), 0.0))

    async def _longer(self, node: Node, places: Sequence[int]) -> list[_Arrival]:
        """Where the outcomes of a text lead."""
        table, generate = node.table, node.statement
        assert table is not None
        assert isinstance(generate, Generate)
        step = table.step
        assert step is not None
        with self.costs.part("potentials"):
            verdicts = await step.verdicts.check_all([table.outcomes[place] for place in places])
        texts: list[Progress | None] = []
        for place, verdict in zip(places, verdicts, strict=True):
            draw = Draw(table.outcomes[place], 0.0 if verdict else -math.inf)
            texts.append(await step.after(draw))
        step.verdicts.charge()
        self.costs.take([step.verdicts])
        return await together(self._text(node, generate, text) for text in texts)

    async def _text(self, node: Node, generate: Generate, text: Progress | None) -> _Arrival:
        """Where a text leads: to a longer one, or if it has ended on with the program."""
        if text is None:
            return None, -math.inf
        weighed = await self._weighed(generate, text)
        if isinstance(weighed, ContextLengthError):
            record = Record(generate, None, 0.0, weighed)
            return await self._arrive(Log.append(node.log, record), node.factor)
        if weighed == -math.inf:
            return None, -math.inf
        if not text.ended:
            return Node(node.log, generate, node.factor, text, written=node.written), 0.0
        log = self._chosen(node, as_str(text.text.data))
        return await self._arrive(log, node.factor + weighed)

    async def _weighed(self, generate: Generate, text: Progress) -> float | ContextLengthError:
        """What factors that weigh, and the critic, give to a text that has ended; of a partial text
        whether they allow it."""
        target, ended = generate.target, text.ended
        weighers = list(target.weighted)
        if generate.critic is not None and ended:
            weighers.append(generate.critic)
        if not weighers:
            return 0.0
        self.unbounded = self.unbounded or f"{weighers[0].potential!r}"
        of = text.lasting(target.stops)
        try:
            weights = require_weights(await weigh_texts([(one, of, ended) for one in weighers]))
        except ContextLengthError as error:
            return error
        if -math.inf in weights:
            return -math.inf
        return sum(weights) if ended else 0.0

    async def _arrive(self, log: Log | None, factor: float) -> _Arrival:
        """Run the program on from its choices, once for equal ones."""
        choices = tuple([record.chosen for record in Log.records(log)]), factor
        # Texts that are spelled by different tokens may come here side by side.
        async with self._arriving.setdefault(choices, asyncio.Lock()):
            known = self._arrivals.get(choices)
            if known is not None:
                await self._compare(choices, known[0], log)
                return known[1]
            stop = await run_on(self.model, self.args, log)
            self.unbounded = self.unbounded or stop.unbounded
            if stop.rows and log is not None:
                self._costly.add(log.record.statement.name)
            arrival = await self._node(replace(stop, factor=stop.factor + factor))
            self._arrivals[choices] = stop, arrival
            return arrival

    async def _node(self, stop: Stop) -> _Arrival:
        nothing = None, -math.inf
        if -math.inf in (stop.log_weight, stop.factor):
            return nothing
        texts = (r.value for r in Log.records(stop.log) if isinstance(r.statement, Generate))
        written = sum(len(text) for text in texts if text is not None)
        node = Node(stop.log, stop.statement, stop.factor, written=written)
        if stop.statement is None:
            above = stop.factor - self._log_most
            if above > _ROUNDING and self._strict:
                raise ModelError(
                    f"an execution with the value {quoted(stop.value)} weighs "
                    f"exp({stop.factor:.4g}) by its factors, and max_factor="
                    f"{self.max_factor or 1.0!r}: give a larger one"
                )
            node.value = stop.value
            node.low = node.high = above
        elif isinstance(stop.statement, Sample):
            pairs = support(stop.statement)
            if pairs is None:
                node.opaque = True
            else:
                values, weights = zip(*pairs, strict=True)
                node.table = Table(list(values), np.array(weights))
        else:
            assert isinstance(stop.statement, Generate)
            target = stop.statement.target
            states = await start(target)
            if isinstance(states, str):
                return nothing
            node.progress = Progress(EMPTY, states, ())
            if target.weighted and await self._weighed(stop.statement, node.progress) == -math.inf:
                return nothing
        return node, stop.log_weight

    async def _compare(self, choices: Any, stop: Stop, log: Log | None) -> None:
        """Raise `ModelError` if a `call` between gives something else than it gave at equal
        choices; that is looked at once."""
        start_at = log.length if log else 0
        calls = [
            (i, record)
            for i, record in enumerate(Log.records(stop.log))
            if i >= start_at and isinstance(record.statement, Call)
        ]
        if not calls or choices in self._compared:
            return
        self._compared.add(choices)
        again = Log.records((await run_on(self.model, self.args, log)).log)
        for i, record in calls:
            now = again[i] if i < len(again) else record
            if not same(now.value, record.value):
                raise ModelError(
                    f"{record.statement.shows()} gave {quoted(record.value)} and then "
                    f"{quoted(now.value)} after equal choices: an exact result needs functions "
                    "that give the same for the same; or use infer"
                )
