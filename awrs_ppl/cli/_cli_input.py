"""What the command line reads: files, functions by their names; and how it rejects them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from awrs_ppl.errors import AwrsError

__all__ = [
    "BadInput",
    "find",
    "line_in",
    "one_line",
    "read_file",
    "read_schema",
    "read_stdin",
    "reading",
    "report",
]


class BadInput(Exception):
    """Bad input: the message quotes it and says what to do."""


def one_line(error: BaseException) -> str:
    """The message and the notes of an exception; its type where the message needs it."""
    from awrs_ppl._messages import escape

    lines = [*str(error).splitlines(), *getattr(error, "__notes__", ())]
    text = " ".join(line.strip() for line in lines if line.strip())
    if not isinstance(error, BadInput | AwrsError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return escape(text)


@contextmanager
def reading(what: str, remedy: str) -> Iterator[None]:
    """Reject, in one line, what cannot be read or built."""
    try:
        yield
    except (AwrsError, ImportError, OSError, RecursionError, TypeError, ValueError) as error:
        # What follows on further lines is a picture of the position.
        reason = str(error).partition("\n")[0].rstrip(" :")
        remedy = "install what is missing" if isinstance(error, ImportError) else remedy
        raise BadInput(f"{what}: {reason}; {remedy}") from error


def read_stdin() -> str:
    with reading("the prompt on stdin", "give it as UTF-8"):
        text = sys.stdin.buffer.read().decode()
    return text.removesuffix("\n").removesuffix("\r")


def read_file(option: str, file: str) -> str:
    with reading(f"{option} {file!r}", "name a text file in UTF-8"):
        return Path(file).read_text(encoding="utf-8-sig")


def read_schema(file: str) -> Any:
    text = read_file("--json-schema", file)
    with reading(f"--json-schema {file!r} is no JSON", "mend the file"):
        return json.loads(text)


def find(target: str) -> Any:
    """What `package.module:name` or `path/to/file.py:name` names."""
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise BadInput(
            f"{target!r} names no function: write path/to/file.py:function or "
            "package.module:function"
        )
    module = _module(place)
    try:
        return getattr(module, name)
    except AttributeError:
        defined = [
            known
            for known, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__ and not known.startswith("_")
        ]
        there = f"choose one of {', '.join(defined)}" if defined else "it defines none"
        raise BadInput(f"{target!r}: there is no {name!r} in {place!r}; {there}") from None


def _module(place: str) -> ModuleType:
    """Import a file, or a module that is found from the current folder."""
    path = Path(place).expanduser().resolve()
    is_file = place.endswith(".py") or "/" in place or os.sep in place
    if is_file and not path.is_file():
        raise BadInput(f"there is no file {place!r}: name a Python file, as haiku.py:model")
    # As `python file.py` and `python -m module` do.
    folder = str(path.parent if is_file else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        if not is_file:
            return importlib.import_module(place)
        # A name that no other module has: the file may be called like one.
        name = "awrs_ppl_file_" + re.sub(r"\W", "_", path.stem)
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError("it is no Python file")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        where = line_in(str(path), error) if is_file else ""
        raise BadInput(
            f"{place!r} cannot be imported: {one_line(error)}{where}; mend it, or name another "
            "path/to/file.py:function or package.module:function"
        ) from error
    return module


def line_in(file: str | None, error: BaseException) -> str:
    """The line of a file that an exception went through last."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f" at {file}:{lines[-1]}" if lines else ""


def report(text: str) -> None:
    """Say something on stderr."""
    print(f"awrs-ppl: {text}", file=sys.stderr, flush=True)
