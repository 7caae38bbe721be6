"""Rules over tokens, as one deterministic automaton with a stack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

__all__ = ["OUT", "Automaton", "Edge", "automaton"]

_TOKEN = re.compile(r"'[^']+'|\w+|[\[\]{}<>()|*+?]")

# The target of what ends a frame: on to where the frame was entered for.
OUT = -1


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a token leads: on to `target`, or into `frame` and from its end to `target`."""

    target: int
    frame: str | None = None


@dataclass(frozen=True, slots=True)
class Automaton:
    """A token is a keyword in lower case, a terminal in upper case, or an operator.

    `edges[state][token]` is where it leads. What leads nowhere there may begin the frame of the
    state in `calls`, and behind a state of `ends` what follows the frame, or nothing at the end
    of the statement. `starts` are the states that frames begin in, `frames` those of the states.
    """

    edges: tuple[Mapping[str, Edge], ...]
    calls: Mapping[int, Edge]
    starts: Mapping[str, int]
    ends: frozenset[int]
    frames: tuple[str, ...]


def automaton(rules: Mapping[str, str], terminals: frozenset[str]) -> Automaton:
    """The automaton of the rule `statement`.

    >>> found = automaton({"statement": "A [more]", "more": "B*"}, frozenset("AB"))
    >>> found.edges[found.starts["statement"]]
    {'A': Edge(target=1, frame=None)}
    """
    return _automaton(tuple(sorted(rules.items())), terminals)


@lru_cache(maxsize=8)
def _automaton(rules: tuple[tuple[str, str], ...], terminals: frozenset[str]) -> Automaton:
    nets = _Nets(dict(rules), terminals)
    edges: list[dict[str, Edge]] = []
    calls: dict[int, Edge] = {}
    starts: dict[str, int] = {}
    ends: set[int] = set()
    frames: list[str] = []
    waiting = ["statement"]
    while waiting:
        frame = waiting.pop()
        if frame in starts:
            continue
        first, last, close = nets.frame(frame)
        starts[frame] = len(edges)
        numbers = {nets.closure({first}): len(edges)}
        todo = list(numbers)
        while todo:
            states = todo.pop(0)
            number, own = len(edges), {}
            edges.append(own)
            frames.append(frame)
            assert numbers[states] == number
            for (token, inner), targets in nets.leaving(states).items():
                after = nets.closure(targets)
                if after not in numbers:
                    numbers[after] = number + len(todo) + 1
                    todo.append(after)
                edge = Edge(numbers[after], inner)
                if token is None:
                    assert number not in calls
                    calls[number] = edge
                else:
                    assert token not in own
                    own[token] = edge
                waiting += [inner] if inner else []
            if last in states:
                ends.add(number)
                if close is not None:
                    own[close] = Edge(OUT)
    return Automaton(tuple(edges), calls, starts, frozenset(ends), tuple(frames))


# What a token leads to; without a token, a frame that begins without one.
_Label = tuple[str | None, str | None]


@dataclass
class _Nets:
    """Nondeterministic automata of the rules, built by Thompson's construction."""

    rules: dict[str, str]
    terminals: frozenset[str]
    free: list[set[int]] = field(default_factory=list)
    moves: list[list[tuple[_Label, int]]] = field(default_factory=list)
    closes: dict[str, str | None] = field(default_factory=dict)

    def frame(self, rule: str) -> tuple[int, int, str | None]:
        """The first and last state of a rule, and the token that ends it as a frame."""
        return (*self._rule(rule), self.closes.get(rule))

    def closure(self, states: set[int]) -> frozenset[int]:
        found, todo = set(states), list(states)
        while todo:
            for state in self.free[todo.pop()] - found:
                found.add(state)
                todo.append(state)
        return frozenset(found)

    def leaving(self, states: frozenset[int]) -> dict[_Label, set[int]]:
        found: dict[_Label, set[int]] = {}
        for state in sorted(states):
            for label, target in self.moves[state]:
                found.setdefault(label, set()).add(target)
        return found

    def _rule(self, rule: str) -> tuple[int, int]:
        words = _TOKEN.findall(self.rules[rule])[::-1]
        found = self._either(words)
        assert not words, words
        return found

    def _new(self) -> int:
        self.free.append(set())
        self.moves.append([])
        return len(self.free) - 1

    def _either(self, words: list[str]) -> tuple[int, int]:
        first, last = self._new(), self._new()
        while True:
            begin, end = self._row(words)
            self.free[first].add(begin)
            self.free[end].add(last)
            if not words or words[-1] != "|":
                return first, last
            words.pop()

    def _row(self, words: list[str]) -> tuple[int, int]:
        first = last = self._new()
        while words and words[-1] not in ("|", ")"):
            begin, end = self._one(words)
            if words and words[-1] in ("*", "+", "?"):
                repeat = words.pop()
                if repeat != "?":
                    self.free[end].add(begin)
                if repeat != "+":
                    self.free[begin].add(end)
                # So that what is around does not enter the loop again.
                after = self._new()
                self.free[end].add(after)
                end = after
            self.free[last].add(begin)
            last = end
        return first, last

    def _one(self, words: list[str]) -> tuple[int, int]:
        word = words.pop()
        if word == "(":
            found = self._either(words)
            words.pop()
            return found
        if word in self.rules:
            return self._rule(word)
        label: _Label = (word if word in self.terminals else word.strip("'").lower(), None)
        if word in ("[", "{", "<"):
            frame = words.pop()
            words.pop()
            opened, closed = {"[": ("(", ")"), "{": ("case", "end"), "<": (None, None)}[word]
            label = (opened, frame)
            self.closes[frame] = closed
        first, last = self._new(), self._new()
        self.moves[first].append((label, last))
        return first, last
