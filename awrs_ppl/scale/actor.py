"""What a worker of `RayPool` does: it holds a language model, and infers what it is sent."""

from __future__ import annotations

import asyncio
import functools
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import cloudpickle

from awrs_ppl._concurrency import resolve
from awrs_ppl._messages import quoted
from awrs_ppl._recent import Recent
from awrs_ppl.errors import ModelError, WorkerError
from awrs_ppl.inference.failures import without_engine
from awrs_ppl.inference.keywords import with_keywords
from awrs_ppl.inference.runs import side_by_side
from awrs_ppl.inference.smc import infer
from awrs_ppl.posterior._exports import name_unpicklable
from awrs_ppl.posterior.posterior import Posterior
from awrs_ppl.program.execution import Model, name_of_model
from awrs_ppl.scale.lm_parameter import with_lm
from awrs_ppl.workers._answers import Answer, failed, returned

__all__ = ["Actor"]

# Models kept, so that each is unpickled once and not for each input.
_MODELS = 16


class Actor:
    """An actor of Ray, whose calls run side by side in one event loop.

    Each gives an `Answer`: with an exception of its own Ray would wrap what the user's code raises.
    """

    def __init__(self) -> None:
        self._lm: Any = None
        self._models = Recent(_MODELS)
        self._tasks: dict[int, asyncio.Task[Answer]] = {}
        self._stopped: set[int] = set()

    async def begin(self, load: bytes, threads: int) -> Answer:
        """Make the language model, by the pickled function `load`."""
        try:
            import torch

            torch.set_num_threads(threads)
            self._lm = await resolve(_unpickled(load, "load")())
            if self._lm is None:
                raise ModelError("load() returned None: have it return the language model")
            return returned(None)
        except (Exception, SystemExit) as error:
            return failed(error)

    async def wait(self) -> None:
        """Never returns: who awaits it learns when this process dies."""
        await asyncio.Event().wait()

    async def infer(
        self, key: int, numbers: list[int], seed: int, args: bytes, digest: bytes, model: list[Any]
    ) -> Answer:
        """The posteriors of the runs of these numbers of a model, which comes by a reference."""
        if key in self._stopped:
            self._stopped.discard(key)
            return failed(RuntimeError("stopped"))
        task = asyncio.ensure_future(self._infer(numbers, seed, args, digest, model))
        self._tasks[key] = task
        try:
            return await task
        except asyncio.CancelledError:
            return failed(RuntimeError("stopped"))
        finally:
            del self._tasks[key]

    async def stop(self, key: int) -> None:
        """Cancel what is done for the call `key`, and wait until it has ended."""
        task = self._tasks.get(key)
        if task is None:
            self._stopped.add(key)
            return
        task.cancel()
        await asyncio.wait([task])

    async def _infer(
        self, numbers: list[int], seed: int, args: bytes, digest: bytes, sent: list[Any]
    ) -> Answer:
        try:
            model, options = await self._model(digest, sent)
            placed, lm = with_lm(model, self._lm, _unpickled(args, "the input"))
            found = await _runs(numbers, model, placed, {**options, **lm, "seed": seed})
            try:
                return returned(found)
            except Exception:
                for posterior in found:
                    name_unpicklable(posterior, cloudpickle.dumps)
                raise
        except Exception as error:
            return failed(without_engine(error))

    async def _model(self, digest: bytes, sent: list[Any]) -> tuple[Model, Mapping[str, Any]]:
        found = self._models.get(digest)
        if found is None:
            model, options = _unpickled(await sent[0], "the model")
            found = _without_exits(model), options
            self._models.put(digest, found)
        return found


async def _runs(
    numbers: Sequence[int], model: Model, args: Sequence[Any], given: Mapping[str, Any]
) -> list[Posterior]:
    """Of the runs that `infer` would do those of these numbers."""
    options: dict[str, Any] = dict(infer.__kwdefaults__ or {})
    keywords = {name: value for name, value in given.items() if name not in options}
    options |= {name: value for name, value in given.items() if name in options}
    options["progress"] = False
    del options["runs"]
    model = with_keywords(infer, model, args, keywords)
    return await side_by_side(numbers, model, args, **options)


def _unpickled(data: bytes, what: str) -> Any:
    try:
        return pickle.loads(data)
    except Exception as error:
        raise WorkerError(
            f"{what} cannot be loaded in a worker process ({type(error).__name__}: {error}): "
            "modules of your own must be there too, by an installation on every machine or by "
            "actor_options={'runtime_env': {'working_dir': '.'}}"
        ) from error


def _without_exits(model: Model) -> Model:
    """The model, with `sys.exit` an error: it would end the event loop of the worker."""

    if isinstance(model, functools.partial):
        return functools.partial(_without_exits(model.func), *model.args, **model.keywords)

    @functools.wraps(model)
    def guarded(*args: Any, **keywords: Any) -> Any:
        coroutine = model(*args, **keywords)
        return _guarded(coroutine) if hasattr(coroutine, "__await__") else coroutine

    guarded.__qualname__ = name_of_model(model)
    return guarded


async def _guarded(coroutine: Any) -> Any:
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise ModelError(
            f"the model raised {quoted(error)}, which would end its worker: return, or raise an "
            "exception"
        ) from error
