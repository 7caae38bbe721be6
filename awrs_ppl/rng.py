"""Random streams: made from keys, never copied, so that no two clones share a number."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

__all__ = ["Purpose", "RandomStreams"]


class Purpose(IntEnum):
    """What a stream is for: a part of its key."""

    RESAMPLE = 0
    TOKEN = 1
    SAMPLE = 2
    CHILDREN = 3


@dataclass(frozen=True, slots=True)
class RandomStreams:
    """Generators keyed by the seed, the `entropy`, the number of the `run`, that of the step, the
    slot and the purpose.

    >>> streams = RandomStreams(seed=0)
    >>> streams.at(3, 1, Purpose.TOKEN).random() == streams.at(3, 1, Purpose.TOKEN).random()
    True
    """

    seed: int
    entropy: int = 0
    run: int = 0

    @classmethod
    def fresh(cls) -> RandomStreams:
        """Streams of a seed taken from the system."""
        return cls(int(np.random.SeedSequence().generate_state(1, np.uint64)[0]))

    def at(self, step: int, slot: int, purpose: Purpose, index: int = 0) -> np.random.Generator:
        """The generator of a key; `index` separates what one slot does in one step."""
        entropy: int | list[int] = [self.seed, self.entropy] if self.entropy else self.seed
        if self.run:
            entropy = [self.seed, self.entropy, self.run]
        key = np.random.SeedSequence(entropy, spawn_key=(step, slot, int(purpose), index))
        return np.random.Generator(np.random.PCG64(key))
