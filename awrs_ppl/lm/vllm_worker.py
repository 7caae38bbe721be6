"""What runs inside vLLM's workers: it keeps the rows of logits that a step is about to draw from.

vLLM makes `RowWorker` a base of its worker class (its option `worker_extension_cls`), in each of
its processes. Only names that its version 1 model runner has are used here.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["RowSampler", "RowWorker"]


class RowSampler:
    """In place of the sampler of a model runner: it keeps the logits and draws nothing.

    The logits are those of the model, before penalties, temperature and processors. A request of
    which only a part of the prompt was computed in this step has a row, too: the runner discards
    what is drawn from it, and so do we.
    """

    def __init__(self, runner: Any) -> None:
        self._runner, self._sampler = runner, runner.sampler
        self.rows: tuple[list[str], torch.Tensor] = [], torch.empty(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)

    def __call__(self, logits: torch.Tensor, sampling_metadata: Any, **more: Any) -> Any:
        from vllm.v1.outputs import SamplerOutput  # pyright: ignore[reportMissingImports]

        names = self._runner.input_batch.req_ids
        if len(logits) != len(names):
            raise RuntimeError(f"vLLM gave {len(logits)} rows of logits for {len(names)} requests")
        partial = self._runner.discard_request_mask.np[: len(names)].tolist()
        whole = [i for i, discarded in enumerate(partial) if not discarded]
        # A copy: the next step may write into the same memory.
        rows = logits[torch.tensor(whole, dtype=torch.long, device=logits.device)].float().cpu()
        self.rows = [names[i] for i in whole], rows
        drawn = torch.zeros((len(names), 1), dtype=torch.int32, device=logits.device)
        return SamplerOutput(sampled_token_ids=drawn, logprobs_tensors=None)


class RowWorker:
    """The methods that every worker gets."""

    model_runner: Any

    def awrs_ppl_start(self) -> None:
        """Keep rows from now on. Raises `RuntimeError` for a model runner of another kind."""
        runner = self.model_runner
        lacking = [
            name
            for name in ("sampler", "input_batch", "discard_request_mask")
            if not hasattr(runner, name)
        ]
        if lacking:
            raise RuntimeError(f"{type(runner).__qualname__} of vLLM has no {', '.join(lacking)}")
        runner.sampler = RowSampler(runner)

    def awrs_ppl_rows(self, _rank: int = 0) -> tuple[list[str], torch.Tensor] | None:
        """The requests of the last step and their logits, `[n, size]`, float32, on the host.

        None from all workers but the first: they have the same.
        """
        sampler = self.model_runner.sampler
        rows, sampler.rows = sampler.rows, ([], torch.empty(0))
        return rows if getattr(self, "rank", 0) == 0 else None
