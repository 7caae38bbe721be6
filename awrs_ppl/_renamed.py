"""Old public names, which still work and say the new one."""

from __future__ import annotations

import warnings
from typing import Any

__all__ = ["renamed"]


def renamed(old: str, new: str) -> Any:
    """A property that gives the attribute `new`, with a `DeprecationWarning`."""

    def get(self: Any) -> Any:
        name = type(self).__name__
        message = f"{name}.{old} is deprecated: write {name}.{new}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(self, new)

    return property(get, doc=f"The old name of `{new}`.")
