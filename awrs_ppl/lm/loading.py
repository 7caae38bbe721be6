"""Where language models come from: packages, GGUF files, engines of genlm-backend."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from weakref import WeakSet

import torch

from awrs_ppl._messages import quoted
from awrs_ppl.lm.arguments import device_of, dtype_of, end_ids, token_ids
from awrs_ppl.lm.embedded import default_dtype, embedded_model, embedded_path
from awrs_ppl.lm.encoding import Encoder, special_ids
from awrs_ppl.lm.engine import Engine
from awrs_ppl.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from awrs_ppl._genlm import AsyncLM

__all__ = ["EmbeddedName", "Loading"]

EmbeddedName = Literal["gemma3-270m", "smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]

# Those of conversions in use, by folder, device and dtype: of any of them the weights are shared.
_LOADED: defaultdict[tuple[str, str, torch.dtype], WeakSet[Any]] = defaultdict(WeakSet)


class Loading:
    """The part of `LM` that loads it."""

    name: str
    engine: Engine
    vocabulary: Vocabulary
    tokenizer: Any
    _encoder: Any = None  # of a tokenizer, where there is one
    _warned_of_blank = False

    def _use(self, name: str, engine: Any, ends: Sequence[int], size: int) -> None:
        self.name = name
        self.engine = engine
        self.tokenizer = engine.tokenizer
        self.vocabulary = Vocabulary(
            engine.token_bytes, ends=ends, special=special_ids(engine.tokenizer), size=size
        )
        self._encoder = Encoder(engine.tokenizer, self.vocabulary)

    @classmethod
    def embedded(
        cls,
        name: EmbeddedName = "gemma3-270m",
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        memory: float = 2 * 2**30,
    ) -> Self:
        """A model whose weights come as Python packages, so that no hub is needed.

        `"gemma3-270m"` (262,144 tokens, a base model; Google's Gemma terms of use apply),
        `"smollm2-135m"` (49,152 tokens, instruction-tuned), `"qwen2.5-coder-0.5b"` or
        `"qwen2.5-coder-1.5b"` (151,936 tokens, instruction-tuned). The command `awrs-ppl models`
        lists them, and `awrs-ppl models get NAME` gets one. Converted once into the user's cache,
        which takes about a minute. Loaded again in one process, it shares its weights. The options
        are those of `LM`, but that the largest is in bfloat16 by default where the processor
        computes in it, .01 from float32 in total variation a token. Raises `EmbeddedModelError` if
        the weights are missing or damaged.
        """
        lm = cls.__new__(cls)
        lm._load_embedded(name, device, dtype, memory)
        return lm

    def _load_embedded(self, name: str, device: Any, dtype: Any, memory: float) -> None:
        device = device_of(device)
        embedded_model(name)
        automatic = isinstance(dtype, str) and dtype == "auto" and device.type == "cpu"
        dtype = default_dtype(name) if automatic else dtype_of(dtype, device)
        self._load(name, embedded_path(name, dtype), device, dtype, memory)

    def _load(
        self, name: str, folder: Path, device: torch.device, dtype: torch.dtype, memory: float
    ) -> None:
        """Load a conversion, which nobody changes: the weights of one in use are shared."""
        from awrs_ppl.lm.transformers import TransformersEngine

        alive = _LOADED[str(folder), str(device), dtype]
        first = next(iter(alive), None)
        if first is not None:
            self.name, self.engine = name, first.engine.sibling(memory)
            self.tokenizer, self.vocabulary = first.tokenizer, first.vocabulary
            self._encoder = first._encoder
        else:
            options: Any = {"device": device, "dtype": dtype, "memory": memory}
            engine = TransformersEngine.load(str(folder), kept=True, **options)
            self._use(name, engine, end_ids(engine.tokenizer, engine.model), engine.vocab_size)
        alive.add(self)  # whole now, also for other threads

    @classmethod
    def gguf(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        memory: float = 2 * 2**30,
    ) -> Self:
        """A model out of a GGUF file, of an architecture that transformers can convert.

        Its weights are unpacked once, tensor by tensor, and kept in the user's cache under the
        hash of the file, in float32 or bfloat16 as asked by `dtype`. The options are those of `LM`.
        Needs the package `gguf`. Raises `OSError` for no file, and `ValueError` for one that is no
        GGUF file, not whole, of another architecture or with tensors that the model does not have.
        """
        from awrs_ppl.lm.conversions import converted, remembered_hash_of

        device = device_of(device)
        dtype = dtype_of(dtype, device)
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"LM.gguf got {quoted(os.fspath(path))}: there is no such file")
        name = re.sub(r"[^\w.-]", "_", file.stem)
        folder = converted(name, remembered_hash_of(file), dtype, lambda _: file)
        lm = cls.__new__(cls)
        lm._load(file.stem, folder, device, dtype, memory)
        return lm

    @classmethod
    def vllm(cls, name: str | os.PathLike[str], **options: Any) -> Self:
        """A model run by vLLM in this process: on a large GPU, or several.

        `name` is a name or folder that vLLM loads, or an embedded model's. `options` are those of
        vLLM's `EngineArgs`, such as `dtype`, `gpu_memory_utilization`, `tensor_parallel_size`,
        `max_model_len` or `quantization`; what would draw tokens otherwise than one by one is
        rejected. On a CPU the default is float32 and a cache of 2 GiB (`kv_cache_memory_bytes`).
        Rows of logits are float32, on the host. Contexts have fewer tokens than `max_model_len`.
        Tested with vLLM 0.32 on a CPU; other versions warn. Raises `ImportError` where vLLM is
        missing, `TypeError` or `ValueError` for options, and what vLLM raises.
        """
        from awrs_ppl.lm.vllm_engine import VLLMEngine

        if not isinstance(name, str | os.PathLike):
            raise TypeError(f"LM.vllm got {quoted(name)}: give the name or the folder of a model")
        name = os.fspath(name)
        engine = VLLMEngine.load(name, **options)
        lm = cls.__new__(cls)
        lm._use(name, engine, end_ids(engine.tokenizer, engine), engine.vocab_size)
        return lm

    @classmethod
    def from_backend(
        cls,
        async_lm: AsyncLM,
        *,
        ends: Sequence[int] | None = None,
        lora_name: str | None = None,
    ) -> Self:
        """An LM on another engine of genlm-backend (vLLM, SGLang, MLX, ...).

        `ends` are the ids of the tokens that end a text, by default the tokenizer's and the
        model's; `lora_name` is that of an adapter that the engine has.
        """
        from awrs_ppl.lm.backends import BackendEngine

        if isinstance(async_lm, type) or not hasattr(async_lm, "batch_next_token_logprobs"):
            raise TypeError(
                f"LM.from_backend got {quoted(async_lm)}: give an AsyncLM of genlm-backend"
            )
        if lora_name is not None and not isinstance(lora_name, str):
            raise TypeError(f"LM.from_backend got lora_name={quoted(lora_name)}: give a name")
        given = None if ends is None else token_ids("ends", ends, len(async_lm.byte_vocab))
        cache: dict[Any, Self] = vars(async_lm).setdefault("_awrs_ppl_lms", {})
        lm = cache.get((given, lora_name))
        if lm is None:
            lm = cls.__new__(cls)
            engine = BackendEngine(async_lm, lora_name)
            model = getattr(async_lm, "model", None)
            found = end_ids(engine.tokenizer, model) if given is None else given
            lm._use(type(async_lm).__name__, engine, found, engine.vocab_size)
            cache[given, lora_name] = lm
        return lm
