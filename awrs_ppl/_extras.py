"""How an extra is installed, as it works here: from an index, a checkout or a file."""

from __future__ import annotations

import json
import shlex
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import urlsplit
from urllib.request import url2pathname

__all__ = ["install", "requirement"]

_NAME = "awrs-ppl"


def install(extra: str) -> str:
    """The command that installs an extra.

    A checkout is named by its folder: the index knows nothing of it.
    """
    return f"pip install {requirement(extra)}"


@cache
def requirement(extra: str) -> str:
    """An extra as pip is given it, quoted for a shell."""
    try:
        found = json.loads(distribution(_NAME).read_text("direct_url.json") or "{}")
        url = found.get("url", "")
    except (PackageNotFoundError, ValueError):
        return f'"{_NAME}[{extra}]"'
    if not url:
        return f'"{_NAME}[{extra}]"'
    if "dir_info" not in found:
        return shlex.quote(f"{_NAME}[{extra}] @ {url}")
    folder = shlex.quote(f"{url2pathname(urlsplit(url).path)}[{extra}]")
    return f"-e {folder}" if found["dir_info"].get("editable") else folder
