"""A posterior in a file: versioned JSON with a checksum, written at once or not at all."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import uuid
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from awrs_ppl import __version__
from awrs_ppl.errors import SavedFileError
from awrs_ppl.posterior._saved import content_of, posterior_of

if TYPE_CHECKING:
    from awrs_ppl.posterior.posterior import Posterior

__all__ = ["VERSION", "load", "save"]

# What is written changes its meaning: another version. A field more needs none; see `_saved`.
VERSION = 1
_FORMAT = "awrs_ppl posterior"
_GZIP = b"\x1f\x8b"


def save(posterior: Posterior, path: str | os.PathLike[str]) -> None:
    """See `Posterior.save`."""
    # Of a symbolic link what it leads to is replaced.
    target = Path(os.path.realpath(path))
    content = _canonical(content_of(posterior))
    start = {
        "format": _FORMAT,
        "version": VERSION,
        "written_by": f"awrs_ppl {__version__}",
        "sha256": _checksum(VERSION, content),
    }
    data = f'{_canonical(start)[:-1]}, "content": {content}}}\n'.encode("ascii")
    if target.name.endswith(".json.gz"):
        data = gzip.compress(data, mtime=0)
    _replace(target, data, str(path))


def load(path: str | os.PathLike[str], kind: type[Posterior]) -> Posterior:
    """See `Posterior.load`."""
    path = str(Path(path))
    data = _bytes_of(path)
    try:
        text = _uncompressed(data).decode("ascii")
        found = json.loads(text)
    except (ValueError, EOFError, OSError, zlib.error, RecursionError) as error:
        if _FORMAT.encode() in _start(data):
            _damaged(path, "it is cut, or not JSON", error)
        _not_ours(path, error)
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        _not_ours(path)
    version = found.get("version")
    if type(version) is int and version > VERSION:
        by = found.get("written_by")
        raise SavedFileError(
            f"{path!r} has version {version} of the format{f' ({by})' if by else ''}, and awrs_ppl "
            f"{__version__} reads version {VERSION}: update awrs_ppl"
        )
    try:
        content = found["content"]
        wanted = _checksum(version, _canonical(content))
    except (KeyError, ValueError, RecursionError) as error:
        _damaged(path, "its content cannot be read", error)
    if type(version) is not int or version < 1 or found.get("sha256") != wanted:
        _damaged(path, "its content does not have its checksum")
    try:
        return posterior_of(content, kind)
    except Exception as error:  # whatever comes of a file that is made up
        _damaged(path, f"{type(error).__name__}: {error}", error)


def _canonical(data: Any) -> str:
    """The same text for the same data, however a file writes it."""
    return json.dumps(data, allow_nan=False)


def _checksum(version: Any, content: str) -> str:
    return hashlib.sha256(f"{_FORMAT} {version!r} {content}".encode("ascii")).hexdigest()


def _replace(target: Path, data: bytes, path: str) -> None:
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "a posterior is saved to a file, and this is none", path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, f"there is no folder {str(target.parent)!r}: make it first, to save", path
        )
    beside = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except OSError as error:
        raise OSError(error.errno, f"cannot be saved: {error.strerror}", path) from error
    finally:
        beside.unlink(missing_ok=True)


def _bytes_of(path: str) -> bytes:
    if os.path.isdir(path):
        raise IsADirectoryError(
            errno.EISDIR, "a folder: give the file that posterior.save wrote", path
        )
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        folder = os.path.dirname(path)
        missing = "such file" if os.path.isdir(folder or ".") else f"folder {folder!r}"
        raise FileNotFoundError(
            errno.ENOENT, f"there is no {missing}: give a file that posterior.save wrote", path
        ) from error


def _uncompressed(data: bytes) -> bytes:
    # By what it is, so that a file can be renamed.
    return gzip.decompress(data) if data.startswith(_GZIP) else data


def _start(data: bytes) -> bytes:
    """The first bytes of a file, also of a compressed one that is cut."""
    if not data.startswith(_GZIP):
        return data[:100]
    try:
        return zlib.decompressobj(wbits=31).decompress(data, 100)
    except zlib.error:
        return b""


def _damaged(path: str, why: str, error: BaseException | None = None) -> NoReturn:
    raise SavedFileError(
        f"{path!r} is damaged ({why}): it was cut or changed after posterior.save wrote it; save "
        "it again, or take another copy"
    ) from error


def _not_ours(path: str, error: BaseException | None = None) -> NoReturn:
    raise SavedFileError(
        f"{path!r} is no posterior that posterior.save wrote, or nothing is left of it: "
        "Posterior.load reads no other file, pickles and what to_json writes included"
    ) from error
