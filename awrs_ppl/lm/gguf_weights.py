"""The weights of a GGUF file as safetensors, one tensor at a time."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from awrs_ppl.lm.gguf_file import COMPUTED, GgufFile, Tensor

__all__ = ["unpacked", "write_weights"]

_CHUNK = 1 << 22  # weights unpacked at once, so that the steps between need little memory
_SHARD = 1 << 28  # bytes of a file of weights, unless one tensor has more


def write_weights(source: GgufFile, model: Any, folder: Path) -> None:
    """Write all tensors of the file that the model has. Raises `ValueError` if they do not match:
    weights would be random, or what the file has would be left out."""
    from tqdm.auto import tqdm
    from transformers import modeling_gguf_pytorch_utils as theirs

    kind = theirs.TENSOR_PROCESSORS.get(source.architecture, theirs.TensorProcessor)
    processor = kind(config=model.config.to_dict())
    target = theirs.get_gguf_hf_weights_map(model, processor)
    for name in [tensor.name for tensor in source.tensors]:
        bare = name.removesuffix(".weight")  # experts: the model's name has no such end
        if name not in target and bare in target:
            target[name] = target[bare]
    present = [tensor for tensor in source.tensors if tensor.name in target]
    unknown = {tensor.name for tensor in source.tensors} - {*target, *COMPUTED}
    left = Counter(target[tensor.name] for tensor in present)
    _require_all(source.path, model, left, sorted(unknown))
    merged: dict[str, dict[str, torch.Tensor]] = {"tensors": {}}  # experts, of several tensors
    shards = _Shards(model, folder)
    for tensor in tqdm(present, desc=f"converting {source.path.name}", leave=False, disable=None):
        name = target[tensor.name]
        left[name] -= 1
        shards.make_room(name)
        if tensor.name in ("token_embd.weight", "output.weight"):  # never rearranged
            shards.add(name, unpacked(source.path, tensor, model.dtype))
            continue
        found = processor.process(
            weights=unpacked(source.path, tensor, torch.float32).numpy(),
            name=tensor.name,
            tensor_key_mapping=target,
            parsed_parameters=merged,
        )
        if found.name is not None:
            shards.add(name, torch.from_numpy(np.ascontiguousarray(found.weights)))
        elif not left[name]:
            shards.add(name, merged["tensors"].pop(name))
    shards.close()


def _require_all(gguf: Path, model: Any, sources: Mapping[str, int], unknown: list[str]) -> None:
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise ValueError(
            f"{str(gguf)!r} has the tensor {unknown[0]!r}{more}, which transformers does not read: "
            "the model would be another one"
        )
    # Tied weights are one object under several names.
    groups: dict[int, list[str]] = {}
    for name, weight in model.state_dict(keep_vars=True).items():
        groups.setdefault(id(weight), []).append(name)
    lacking = [names[0] for names in groups.values() if not any(n in sources for n in names)]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ValueError(
            f"{str(gguf)!r} lacks weights of {type(model).__name__}: {lacking[0]}{more}, which "
            "would be random numbers"
        )


def unpacked(gguf: Path, tensor: Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of the file, read and unpacked a few rows at a time.

    Read, not mapped: pages of a map count as memory of the process.
    """
    from gguf import dequantize  # pyright: ignore[reportMissingImports]

    width = tensor.shape[-1]
    rows = math.prod(tensor.shape) // width
    stride = tensor.nbytes // rows
    found = torch.empty((rows, width), dtype=dtype)
    step = max(1, _CHUNK // width)
    with gguf.open("rb") as file:
        file.seek(tensor.offset)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            raw = np.frombuffer(file.read(count * stride), dtype=tensor.packed).reshape(count, -1)
            values = np.array(dequantize(raw, tensor.kind), dtype=np.float32)
            found[start : start + count] = torch.from_numpy(values)
    return found.reshape(tensor.shape)


class _Shards:
    """Files of some size with the tensors of a model, and the index that transformers reads."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
        self.where: dict[str, str] = {}
        self.waiting: dict[str, torch.Tensor] = {}

    def make_room(self, name: str) -> None:
        """Write what waits, if this tensor would be too much beside it."""
        size = math.prod(self.shapes[name]) * self.model.dtype.itemsize
        if self.waiting and size + sum(t.nbytes for t in self.waiting.values()) > _SHARD:
            self._write()

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Keep a tensor. Raises `ValueError` for one of another shape than the model's."""
        if tuple(tensor.shape) != self.shapes[name]:
            raise ValueError(
                f"the tensor {name!r} of the file has the shape {tuple(tensor.shape)}, not "
                f"{self.shapes[name]} as its settings say"
            )
        self.waiting[name] = tensor.to(self.model.dtype)

    def _write(self) -> None:
        from safetensors.torch import save_file

        file = f"model-{len({*self.where.values()}) + 1:05}.safetensors"
        save_file(self.waiting, self.folder / file, metadata={"format": "pt"})
        self.where.update(dict.fromkeys(self.waiting, file))
        self.waiting.clear()

    def close(self) -> None:
        """Write the rest and the index."""
        self._write()
        weights = sum(math.prod(self.shapes[name]) for name in self.where)
        index = {
            "metadata": {"total_size": weights * self.model.dtype.itemsize},
            "weight_map": self.where,
        }
        path = self.folder / "model.safetensors.index.json"
        path.write_text(json.dumps(index), encoding="utf-8")
