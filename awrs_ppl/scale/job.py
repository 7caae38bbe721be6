"""A program on many inputs, as it was requested: checked, with a seed for each input, and with
the folder that keeps what is done."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from awrs_ppl._messages import quoted
from awrs_ppl._values import whole
from awrs_ppl.errors import ModelError
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.execution import Model, name_of_model, require_model
from awrs_ppl.rng import RandomStreams
from awrs_ppl.scale.folder import Folder

__all__ = ["Job"]


@dataclass(frozen=True, slots=True)
class Job:
    """The inputs, `total` of them if that is known, and what else was given."""

    inputs: Iterator[Any]
    total: int | None
    concurrency: int
    raises: bool
    base: int
    folder: Folder | None

    @classmethod
    def of(
        cls,
        called: str,
        model: Model,
        inputs: Iterable[Any],
        options: Mapping[str, Any],
        *,
        concurrency: int,
        on_error: str,
        save: str | os.PathLike[str] | None,
        seed: int | None,
    ) -> Job:
        """Raises `ModelError` for what is wrong, and in the name of the function `called`."""
        require_model(model)
        concurrency = whole("concurrency", concurrency, least=1)
        if on_error not in ("raise", "return"):
            raise ModelError(f"on_error={on_error!r}: choose 'raise' or 'return'")
        if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
            raise ModelError(f"{called} got the inputs {quoted(inputs)}: give a list of inputs")
        if options.get("partial"):
            raise ModelError(
                f"{called} got partial=True: leave it out; with save= what is finished is kept"
            )
        if seed is not None:
            seed = whole("seed", seed, least=0)
        folder = None if save is None else Folder(save)
        fresh = RandomStreams.fresh().seed
        if folder is not None:
            # Without its module: a script is `__main__`, and another name where it is imported.
            seed = folder.begin(name_of_model(model), seed, options, fresh)
        total = len(inputs) if hasattr(inputs, "__len__") else None  # pyright: ignore
        base = fresh if seed is None else seed
        return cls(iter(inputs), total, concurrency, on_error == "raise", base, folder)

    async def posterior(
        self, number: int, value: Any, infer: Callable[[Any, int], Awaitable[Posterior]]
    ) -> Posterior:
        """The posterior of an input: from the folder, or by `infer(value, seed)` and then kept."""
        found = None if self.folder is None else self.folder.load(number, value)
        if found is not None:
            return found
        posterior = await infer(value, _seed(self.base, number))
        if self.folder is None:
            return posterior
        self.folder.save(number, value, posterior)
        # As it comes from there the next time: a dataclass is a dict in a file.
        return Posterior.load(self.folder.path_of(number))


def _seed(base: int, number: int) -> int:
    """The seed of an input: from its number, so that it does not depend on what others do."""
    return int(np.random.SeedSequence((base, number)).generate_state(1, np.uint64)[0])
