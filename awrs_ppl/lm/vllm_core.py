"""vLLM's engine in this process, as far as rows of logits need it: requests in, rows out."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sys
import time
import warnings
import weakref
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from awrs_ppl.errors import AwrsError
from awrs_ppl.lm.jobs import Job
from awrs_ppl.lm.stats import Stats

__all__ = ["Core", "surroundings"]

_WORKER = "awrs_ppl.lm.vllm_worker.RowWorker"


# Read by vLLM when an engine is made: the model runner whose rows are read, in this process.
_SETTINGS = {"VLLM_USE_V2_MODEL_RUNNER": "0", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}

# On a CPU vLLM looks at `vars` of whatever any module has, and those of this one's `lib` are none.
_UNREADABLE = "llvmlite.binding.ffi"

_LIVING: weakref.WeakSet[Core] = weakref.WeakSet()


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """What vLLM should see of this process while it loads, and what it should leave as it was.

    It logs its whole configuration unless `VLLM_LOGGING_LEVEL` says so, seeds the generators of
    Python, numpy and torch, and on a CPU takes `torch.set_num_threads` away.
    """
    settings = {"VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"), **_SETTINGS}
    before = {name: os.environ.get(name) for name in settings}
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    set_num_threads = torch.set_num_threads
    hidden = sys.modules.pop(_UNREADABLE, None)
    os.environ.update(settings)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if hidden is not None:
            sys.modules[_UNREADABLE] = hidden
        torch.set_num_threads = set_num_threads
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _shut_down(engine_core: Any) -> None:
    """Free what an engine holds; what all of a process share, with the last of them."""
    if _LIVING:
        engine_core.model_executor.shutdown()
        engine_core.scheduler.shutdown()
    else:
        engine_core.shutdown()


class Core:
    """The scheduler, the cache and the model of vLLM. All its methods are for one thread.

    A context is a request for one token. What would be drawn is never looked at: `vllm_worker`
    keeps the logits. The context's blocks stay in vLLM's prefix cache, so that the next context,
    longer by a token, computes only its last block.
    """

    def __init__(self) -> None:
        self.stats = Stats()
        self.vocab_size = 0
        self.longest = 0  # tokens of a context; vLLM wants room for one more
        self.config: Any = None
        self._client: Any = None
        self._numbers = itertools.count()
        self._broken: BaseException | None = None
        self._process = os.getpid()

    def start(self, options: dict[str, Any]) -> None:
        """Load a model by `options` of vLLM's `EngineArgs`, within `surroundings`."""
        # Functions of vLLM are looked up here, so that one that a version lacks is an error now.
        from vllm import EngineArgs  # pyright: ignore[reportMissingImports]
        from vllm.sampling_params import SamplingParams  # pyright: ignore[reportMissingImports]
        from vllm.v1.engine import EngineCoreRequest  # pyright: ignore[reportMissingImports]
        from vllm.v1.engine.core_client import (  # pyright: ignore[reportMissingImports]
            EngineCoreClient,
        )
        from vllm.v1.executor import Executor  # pyright: ignore[reportMissingImports]

        config = EngineArgs(**options, worker_extension_cls=_WORKER).create_engine_config()
        if config.use_v2_model_runner:
            raise AwrsError(
                "vLLM has chosen its model runner V2 for this process, from which LM.vllm "
                "cannot read logits: set VLLM_USE_V2_MODEL_RUNNER=0 before vLLM is used"
            )
        self._client = EngineCoreClient.make_client(
            multiprocess_mode=False,
            asyncio_mode=False,
            vllm_config=config,
            executor_class=Executor.get_class(config),
            log_stats=False,
        )
        # In place of vLLM's own, which ends the process groups that other engines use, too.
        self._client._finalizer.detach()
        weakref.finalize(self, _shut_down, self._client.engine_core)
        _LIVING.add(self)
        self._client.collective_rpc("awrs_ppl_start")
        self.config = config
        self.vocab_size = config.model_config.get_vocab_size()
        self.longest = config.model_config.max_model_len - 1
        self._sampling = SamplingParams(
            max_tokens=1, temperature=0.0, ignore_eos=True, detokenize=False
        )
        self._request = EngineCoreRequest

    def run(self, jobs: Sequence[Job]) -> list[torch.Tensor]:
        """The answers of jobs, each of one row; equal contexts are one request."""
        if self._process != os.getpid():
            raise AwrsError(
                "this process was forked from the one that loaded the model with LM.vllm, and vLLM "
                "runs only there: load the model here, or start the process by 'spawn'"
            )
        if self._broken is not None:
            raise AwrsError(
                "vLLM did not recover from an earlier error: load the model anew"
            ) from self._broken
        started = time.perf_counter()
        askers: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, job in enumerate(jobs):
            askers[job.fed].append(i)
        waiting: dict[str, list[int]] = {}
        answers: list[Any] = [None] * len(jobs)
        try:
            for context, indices in askers.items():
                name = f"awrs_ppl-{next(self._numbers)}"
                waiting[name] = indices
                self._client.add_request(self._new_request(name, context))
            while waiting:
                for name, row in self._step(waiting):
                    for i in waiting.pop(name):
                        answers[i] = jobs[i].answer(row[None])
        except BaseException as error:
            self._abort(list(waiting), error)
            raise
        self.stats.rows += len(jobs)
        self.stats.seconds += time.perf_counter() - started
        return answers

    def _new_request(self, name: str, context: tuple[int, ...]) -> Any:
        return self._request(
            request_id=name,
            prompt_token_ids=list(context),
            mm_features=None,
            sampling_params=self._sampling,
            pooling_params=None,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )

    def _step(self, waiting: dict[str, list[int]]) -> Iterator[tuple[str, torch.Tensor]]:
        """One forward pass: the requests whose whole context it has computed, and their rows."""
        outputs = self._client.get_output().outputs
        names, rows = next(
            found for found in self._client.collective_rpc("awrs_ppl_rows") if found is not None
        )
        self.stats.passes += 1
        for output in outputs:
            if output.prefill_stats is not None:
                self.stats.tokens += output.prefill_stats.num_computed_tokens
        ended = {output.request_id: output.finish_reason for output in outputs if output.finished}
        if set(names) != set(ended) or not set(names) <= set(waiting):
            raise AwrsError(
                f"vLLM ended {len(ended)} requests ({', '.join(sorted(map(str, ended.values())))}) "
                f"and gave rows for {len(names)}"
            )
        if not names and not self._client.engine_core.scheduler.has_unfinished_requests():
            raise AwrsError(f"vLLM lost {len(waiting)} requests")
        return zip(names, rows, strict=True)

    def _abort(self, names: list[str], error: BaseException) -> None:
        """Leave no request behind, and no block: a failed pass has not written all it reserved."""
        try:
            self._client.abort_requests(names)
            self._client.collective_rpc("awrs_ppl_rows")
            if not self._client.reset_prefix_cache():
                self._broken = error
        except Exception:
            self._broken = error

    @property
    def unfinished(self) -> int:
        """How many requests vLLM's scheduler holds."""
        return len(self._client.engine_core.scheduler.requests)
