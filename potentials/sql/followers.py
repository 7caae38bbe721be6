"""Tokens that may follow a place of a statement, by what that depends on."""

from __future__ import annotations

import numpy as np

from awrs_ppl.potentials.sql.pieces import Ids, Node

__all__ = ["Event", "Found"]

# What SQLite has to judge: the text without its last token, or all of it; what closes it.
Event = tuple[bool, bytes]


class Found:
    """What may follow a place: tokens allowed, those that depend on what SQLite says of the text
    so far, and those that depend on what they say themselves."""

    def __init__(self, mask: np.ndarray) -> None:
        self.mask = mask
        self.depend: dict[frozenset[Event], list[int]] = {}
        self.each: list[int] = []
        self.plain: list[int] = []

    def add(self, ids: Ids, events: frozenset[Event] | None) -> None:
        """Allow tokens, by their numbers or as a mask, if SQLite has nothing against any of the
        events (None: against each)."""
        if isinstance(ids, np.ndarray):
            if events == frozenset():
                np.logical_or(self.mask, ids, out=self.mask)
                return
            ids = np.flatnonzero(ids).tolist()
        if events is None:
            self.each.extend(ids)
        elif events:
            self.depend.setdefault(events, []).extend(ids)
        else:
            self.plain.extend(ids)

    def add_words(self, node: Node, events: frozenset[Event] | None) -> None:
        """Add all words of a node."""
        if node.every_word is None:
            for ids in node.words.values():
                self.add(ids, events)
        else:
            self.add(node.every_word, events)

    def finish(self) -> None:
        """Make the mask."""
        self.mask[self.plain] = True
        self.mask.flags.writeable = False
        self.plain = []
