"""Ray: imported when it is needed, and started on this machine where nobody has."""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from awrs_ppl._extras import install
from awrs_ppl.errors import WorkerError

__all__ = ["imported", "start"]

_log = logging.getLogger(__name__)
# On a busy machine its processes may take longer to start than it waits for them.
_ATTEMPTS = 3


def imported() -> Any:
    """The module `ray`; raises `ImportError` that names the extra."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError(f"RayPool needs ray: {install('ray')}") from error


def start() -> bool:
    """Have Ray running; whether it was started here, and is to be shut down here.

    Where `ray.init` was called before, or `RAY_ADDRESS` names a cluster, that is used.
    """
    ray = imported()
    if ray.is_initialized():
        return False
    quiet = {"logging_level": logging.WARNING}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return True
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _on_loopback():
                ray.init(address="local", include_dashboard=False, **quiet)
        except Exception as error:
            ray.shutdown()
            if attempt == _ATTEMPTS:
                raise WorkerError(
                    f"Ray did not start ({type(error).__name__}: {error}): it needs some memory, "
                    "processes and space in /tmp/ray; or call ray.init(...) yourself, before"
                ) from error
            _log.warning("Ray did not start, trying again: %s", error)
            time.sleep(attempt)
        else:
            break
    return True


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have Ray listen on the loopback interface alone, as it does on macOS and Windows.

    `_node_ip_address="127.0.0.1"` does not: Ray replaces it by an address that others reach.
    """
    constants = importlib.import_module("ray._private.ray_constants")
    before = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    vars(constants)["ENABLE_RAY_CLUSTER"] = False
    # It warns that it protects its ports by a token, which is as it should be.
    tokens = logging.getLogger("ray._private.authentication.authentication_token_setup")
    level = tokens.level
    tokens.setLevel(logging.ERROR)
    try:
        yield
    finally:
        vars(constants)["ENABLE_RAY_CLUSTER"] = before
        tokens.setLevel(level)
