"""What stands in a GGUF file before its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["COMPUTED", "GgufFile", "Tensor", "read_gguf"]

_MAGIC = b"GGUF"
# Tensors that llama.cpp computes from the settings: a configuration holds these instead.
COMPUTED = ("rope_freqs.weight",)


class Tensor(NamedTuple):
    """Where a tensor of a file lies, and how; `packed` is the dtype of its blocks."""

    name: str
    shape: tuple[int, ...]  # as torch has it
    kind: Any
    offset: int
    nbytes: int
    packed: np.dtype


class GgufFile(NamedTuple):
    """What a file says of its model; `splitting` names how its tokenizer splits a text."""

    path: Path
    architecture: str
    splitting: str
    tensors: tuple[Tensor, ...]


def read_gguf(path: Path) -> GgufFile:
    """Read what stands before the weights. Raises `ValueError` for a file that is not whole."""
    from gguf import GGUFReader  # pyright: ignore[reportMissingImports]

    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{str(path)!r} is no GGUF file: it does not begin with GGUF")
    try:
        # It keeps an object for each token of the vocabulary, half a gigabyte: it is let go.
        reader = GGUFReader(path)
        architecture = reader.fields["general.architecture"].contents()
        rule = reader.fields.get("tokenizer.ggml.pre")
        tensors = tuple(
            Tensor(
                found.name,
                tuple(int(size) for size in reversed(found.shape)),
                found.tensor_type,
                int(found.data_offset),
                int(found.n_bytes),
                found.data.dtype,
            )
            for found in reader.tensors
        )
    except Exception as error:  # numpy's and the reader's own, of many kinds
        raise ValueError(
            f"{str(path)!r} is damaged or not whole ({type(error).__name__}: {error}): copy or "
            "download it again"
        ) from error
    return GgufFile(path, architecture, rule.contents() if rule else "", tensors)
