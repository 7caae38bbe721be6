"""The cache of converted models: folders of safetensors, whole or not there.

They lie in `$AWRS_PPL_CACHE`, else in `awrs_ppl` within `$XDG_CACHE_HOME` or `~/.cache`, each under
its name, the hash of the GGUF file that it comes from, its dtype unless float32, and the format.
Processes that convert at the same time do not disturb each other, and an interrupted conversion
leaves nothing that would be used; what one that was killed left is deleted after an hour.
"""

from __future__ import annotations

import contextlib
import glob
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
from pathlib import Path

import torch

from awrs_ppl.errors import EmbeddedModelError
from awrs_ppl.lm.gguf import convert

__all__ = [
    "cache_folder",
    "converted",
    "find_converted",
    "folder_of",
    "hash_of",
    "is_complete",
    "remembered_hash_of",
]

_log = logging.getLogger(__name__)

_FORMAT = 3  # raise when the conversion changes, so that older folders are not used
_MARK = "awrs_ppl.json"  # written last: a folder without it is no conversion
_ABANDONED = 3600.0  # seconds after which a conversion that takes a minute is surely dead
_HASHES = "gguf-hashes.json"


def cache_folder() -> Path:
    """Where converted models lie; it need not exist."""
    own = os.environ.get("AWRS_PPL_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "awrs_ppl"


def folder_of(name: str, sha256: str, dtype: torch.dtype) -> Path:
    """The folder of a conversion."""
    kind = "" if dtype == torch.float32 else f"{str(dtype).removeprefix('torch.')}-"
    return cache_folder() / f"{name}-{sha256[:8]}-{kind}{_FORMAT}"


def find_converted(name: str, sha256: str) -> list[Path]:
    """The finished conversions of a file, one for each dtype."""
    found = sorted(cache_folder().glob(f"{glob.escape(name)}-{sha256[:8]}-*"))
    return [folder for folder in found if is_complete(folder, sha256)]


def is_complete(folder: Path, sha256: str) -> bool:
    """Whether a folder holds a finished conversion, every file of the size it was written with."""
    try:
        mark = json.loads((folder / _MARK).read_text(encoding="utf-8"))
        sizes = {file: (folder / file).stat().st_size for file in mark["sizes"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return mark.get("sha256") == sha256 and sizes == mark["sizes"]


def converted(name: str, sha256: str, dtype: torch.dtype, file_in: Callable[[Path], Path]) -> Path:
    """The folder of a GGUF file's conversion, made if it is not there.

    `file_in` gets a folder for files that it makes and returns the path of the GGUF file, whose
    hash it has compared. Raises `EmbeddedModelError` where the package `gguf` is missing or the
    cache cannot be written, and what `file_in` and `convert` raise.
    """
    target = folder_of(name, sha256, dtype)
    if is_complete(target, sha256):
        return target
    if importlib.util.find_spec("gguf") is None:
        raise EmbeddedModelError(
            f"converting {name!r} needs the package gguf, which is not installed; pip install gguf"
        )
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _install(name, sha256, dtype, target, file_in)
    except OSError as error:
        raise EmbeddedModelError(
            f"could not write the converted model {name!r} to {str(target.parent)!r} ({error}); "
            "make room there, or set AWRS_PPL_CACHE to another folder"
        ) from error
    return target


def _install(
    name: str, sha256: str, dtype: torch.dtype, target: Path, file_in: Callable[[Path], Path]
) -> None:
    """Convert into a folder beside `target` and rename it: the target is whole or not there."""
    _remove_abandoned(name, target.parent)
    spare = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))  # 0o700 by contract
    try:
        fresh = spare / "model"
        fresh.mkdir(mode=0o700)
        gguf = file_in(spare)
        _log.warning("awrs_ppl: converting %s, once; this takes about a minute", name)
        start = time.perf_counter()
        with _system_errors():
            convert(gguf, fresh, dtype)
        _log.info("converted %s into %s in %.0f s", name, target, time.perf_counter() - start)
        sizes = {file.name: file.stat().st_size for file in sorted(fresh.iterdir())}
        mark = json.dumps({"sha256": sha256, "sizes": sizes}, indent=1)
        (fresh / _MARK).write_text(mark, encoding="utf-8")
        if not is_complete(target, sha256):
            # Whatever is there is damaged. Moved away rather than deleted in place, so that
            # another process sees all of it or nothing.
            with contextlib.suppress(FileNotFoundError):
                target.replace(spare / "damaged")
            try:
                fresh.replace(target)
            except OSError:
                if not is_complete(target, sha256):  # else another process was faster
                    raise
    finally:
        shutil.rmtree(spare, ignore_errors=True)


def _remove_abandoned(name: str, cache: Path) -> None:
    """Delete what conversions left that were killed: a gigabyte that nobody would find."""
    for folder in cache.glob(f".{glob.escape(name)}-*"):
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


def hash_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_hash_of(path: Path) -> str:
    """The same, kept in the cache as long as the file's size and time of change are the same.

    A gigabyte takes seconds.
    """
    state = path.stat()
    key = [str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ino]
    index = cache_folder() / _HASHES
    try:
        known = json.loads(index.read_text(encoding="utf-8"))
        for *found, sha256 in known:
            if found == key:
                return sha256
    except (OSError, ValueError, TypeError):
        known = []
    sha256 = hash_of(path)
    others = [entry for entry in known if entry[0] != key[0] and Path(entry[0]).exists()]
    with contextlib.suppress(OSError):  # the next load hashes again
        index.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = index.with_name(f".{index.name}-{os.getpid()}")
        fresh.write_text(json.dumps([*others, [*key, sha256]]), encoding="utf-8")
        fresh.replace(index)
    return sha256
