"""The engine for language models of `transformers`: one forward pass for many contexts, cached."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch

from awrs_ppl._genlm import AsyncLM, Token
from awrs_ppl._messages import quoted
from awrs_ppl.errors import AwrsError, ContextLengthError
from awrs_ppl.lm.acceptance import require_causal
from awrs_ppl.lm.arguments import byte_limit, device_of, dtype_of
from awrs_ppl.lm.checkpoint import load_checkpoint, load_tokenizer, require_found
from awrs_ppl.lm.jobs import Job
from awrs_ppl.lm.passes import Passes
from awrs_ppl.lm.runner import Runner
from awrs_ppl.lm.token_bytes import kept_token_bytes, token_bytes
from awrs_ppl.lm.trial_result import load_result, save_result

__all__ = ["TransformersEngine"]


class TransformersEngine(AsyncLM):
    """A causal language model of `transformers`, as an `AsyncLM` of genlm-backend.

    `vocab_size` is the length of a row of logits as the model gives it. A model may pad its
    vocabulary: then rows are longer than the tokenizer has tokens.

    `memory` bounds the keys, values and states that are kept, in bytes. A model whose cache cannot
    be driven is run without one, every context in full: see `is_cached`.
    In the `folder` of a model that nobody changes are kept the bytes of its tokens and what its
    trial came to. Whatever mode a model is in, it is evaluated without dropout; after a change of
    its weights call `clear_cache`. A forked process may continue with the engine, from an empty
    cache. Raises `ValueError` for a model that is no causal language model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        memory: float = 2 * 2**30,
        folder: Path | None = None,
    ) -> None:
        if isinstance(model, type) or not hasattr(model, "get_input_embeddings"):
            raise TypeError(f"{quoted(model)} is no language model of transformers")
        if isinstance(tokenizer, type) or not hasattr(tokenizer, "convert_ids_to_tokens"):
            raise TypeError(f"tokenizer={quoted(tokenizer)} is no tokenizer of transformers")
        memory = byte_limit(memory)
        require_causal(model)
        # Not AsyncLM's own __init__: it misreads some vocabularies, and reads fewer.
        self.tokenizer = tokenizer
        kept = None if folder is None else kept_token_bytes(tokenizer, folder)
        self.token_bytes = token_bytes(tokenizer) if kept is None else kept
        self.model = model.eval()
        self.device: torch.device = model.device
        self._known = int(model.get_input_embeddings().weight.shape[0])
        known = None if folder is None else load_result(folder, model)
        self._runner = Runner(self.model, memory, known)
        if folder is not None and known is None and self._runner.trial_result is not None:
            save_result(folder, model, self._runner.trial_result)
        self.vocab_size = self._runner.vocab_size
        self.stats = self._runner.stats
        self._passes = _passes_of(self._runner)

    @cached_property
    def byte_vocab(self) -> list[Token]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tokens by their ids, as genlm-backend has them; made when it asks for them."""
        return [Token(i, data) for i, data in enumerate(self.token_bytes)]

    @cached_property
    def str_vocab(self) -> list[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The same as texts."""
        return [data.decode("utf-8", "replace") for data in self.token_bytes]

    @property
    def is_cached(self) -> bool:
        """Whether keys, values or states are kept, so that only new tokens are fed."""
        return self._runner.store.keeps

    @classmethod
    def load(
        cls,
        name_or_path: str,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        memory: float = 2 * 2**30,
        kept: bool = False,
    ) -> Self:
        """Load a model by the name or the folder that `transformers` knows it by.

        `device="auto"` is the GPU if there is one; `dtype="auto"` is float32 on a CPU and bfloat16
        on a GPU. A `kept` folder is one that nobody changes.
        Only safetensors are read, and no code that comes with a model is run. Raises
        `ValueError` for a device or a dtype that cannot be used, for a model of another kind and
        for one with weights missing, and `OSError` for no model.
        """
        device = device_of(device)
        dtype, memory = dtype_of(dtype, device), byte_limit(memory)
        require_found(name_or_path)
        tokenizer = load_tokenizer(name_or_path, kept)
        model = load_checkpoint(name_or_path, dtype).to(device)
        return cls(model, tokenizer, memory=memory, folder=Path(name_or_path) if kept else None)

    def sibling(self, memory: float) -> Self:
        """An engine with the same weights and a cache of its own."""
        other = copy.copy(self)
        other._runner = self._runner.sibling(byte_limit(memory))
        other.stats = other._runner.stats
        other._passes = _passes_of(other._runner)
        return other

    async def next_logits(self, contexts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Next-token logits, `[len(contexts), vocab_size]`, float32, on the device.

        Raises `AwrsError` for an empty context and for a token that the model does not have, and
        `ContextLengthError` for a context too long for the model or for `memory`.
        """
        rows = await self._passes.answers([self._job(context) for context in contexts])
        return _stacked(rows) if rows else torch.empty(0, self.vocab_size, device=self.device)

    async def sequence_logprobs(
        self,
        requests: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
        temperature: float = 1.0,
    ) -> list[torch.Tensor]:
        """For each (context, continuation) the log-probability of every token of the continuation.

        Under softmax(logits / temperature) over the whole vocabulary; float32, on the device.
        """
        if not temperature > 0:
            raise AwrsError(f"the temperature must be positive, not {temperature!r}")
        pieces = [self._runner.pieces(self._job(*request, temperature)) for request in requests]
        answers = iter(await self._passes.answers([job for jobs in pieces for job in jobs]))
        empty = torch.empty(0, device=self.device)
        return [torch.cat([empty, *(next(answers) for _ in jobs)]) for jobs in pieces]

    async def next_token_logprobs(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, token_ids: Sequence[int], lora_name: str | None = None
    ) -> torch.Tensor:
        """Normalised next-token log-probabilities, `[vocab_size]`, float32."""
        return (await self.batch_next_token_logprobs([token_ids], lora_name))[0]

    async def batch_next_token_logprobs(
        self, token_ids_list: Sequence[Sequence[int]], lora_name: str | None = None
    ) -> torch.Tensor:
        """The same for many contexts, `[len(token_ids_list), vocab_size]`."""
        _require_no_adapter(lora_name)
        logits = await self.next_logits([tuple(ids) for ids in token_ids_list])
        return torch.log_softmax(logits, dim=-1)

    def next_token_logprobs_sync(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, token_ids: Sequence[int], lora_name: str | None = None
    ) -> torch.Tensor:
        """The same without an event loop; waits for the passes that are under way."""
        _require_no_adapter(lora_name)
        jobs = [self._job(token_ids)]
        return torch.log_softmax(self._passes.submit(self._runner.run, jobs).result()[0], dim=-1)

    def clear_cache(self) -> None:
        """Forget all contexts; waits for the passes that are under way."""
        self._passes.submit(self._runner.store.clear).result()

    def _job(
        self, context: Sequence[int], targets: Sequence[int] = (), temperature: float = 1.0
    ) -> Job:
        job = Job(tuple(context), tuple(targets), temperature)
        if not job.context:
            raise AwrsError(f"a language model needs at least one token of context, not {context}")
        # Here and not in the pass, where it would fail other callers too (and end a GPU's process).
        wrong = next((t for t in job.context + job.targets if not 0 <= t < self._known), None)
        if wrong is not None:
            raise AwrsError(f"the model has no token {wrong!r}: it has 0 to {self._known - 1}")
        self._runner.window.check(len(job.fed), self.model)
        if self._runner.store.limit < len(job.fed) <= self._runner.window.switch:
            raise ContextLengthError(
                f"a context of {len(job.fed)} tokens is more than the {self._runner.store.limit} "
                "that fit into the engine's memory; give it more with memory=..."
            )
        return job


def _passes_of(runner: Runner) -> Passes:
    return Passes(runner.run, lambda: runner.store.clear())  # whatever store it has then


def _stacked(rows: list[torch.Tensor]) -> torch.Tensor:
    """Rows as one tensor; without a copy where they are neighbours in one, as of one pass."""
    first = rows[0]
    step = rows[1].storage_offset() - first.storage_offset() if len(rows) > 1 else len(first)
    storage = first.untyped_storage().data_ptr()
    if step < len(first) or not all(
        row.untyped_storage().data_ptr() == storage
        and row.storage_offset() == first.storage_offset() + i * step
        and row.stride() == (1,)
        for i, row in enumerate(rows)
    ):
        return torch.stack(rows)
    return first.as_strided((len(rows), len(first)), (step, 1))


def _require_no_adapter(lora_name: str | None) -> None:
    if lora_name is not None:
        raise ValueError(f"this engine has no adapters, so lora_name must be None: {lora_name!r}")
