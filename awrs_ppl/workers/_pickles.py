"""Functions as bytes for another process, with what they need of the user's own module."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle

from awrs_ppl._recent import Recent
from awrs_ppl.constraints.function_key import function_key

__all__ = ["FUNCTIONS", "by_value", "pickled_by_value"]

# Functions kept pickled here, and unpickled in each worker.
FUNCTIONS = 64

_lock = threading.Lock()
_functions = Recent(FUNCTIONS)


def pickled_by_value(function: Callable[..., Any]) -> tuple[bytes, bytes]:
    """A function's pickle, after its digest; kept as long as its `function_key` is the same.

    Raises what `cloudpickle` raises.
    """
    key = function_key(function)
    found = _functions.get(key)
    if found is None:
        with by_value(function):
            data = cloudpickle.dumps(function)
        found = (hashlib.sha256(data).digest(), data)
        _functions.put(key, found)
    return found


@contextmanager
def by_value(function: Any) -> Iterator[None]:
    """Have what is in the function's module pickled by value, if that is the user's own.

    Imported in the worker it may not be what it is here, and brings along all that the module
    imports. One thread at a time.
    """
    with _lock, _by_value(function):
        yield


@contextmanager
def _by_value(function: Any) -> Iterator[None]:
    while isinstance(function, partial):
        function = function.func
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    installed = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    if (
        module is None
        or file is None
        or module.__name__ in cloudpickle.list_registry_pickle_by_value()
        or any(Path(file).is_relative_to(place) for place in installed)
    ):
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)
