"""What the trial of a model came to, kept beside its weights for the next time it is loaded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from awrs_ppl.lm.context_window import ContextWindow

__all__ = ["TrialResult", "load_result", "save_result"]

_FORMAT = 2  # raise when the trial or what it decides changes


class TrialResult(NamedTuple):
    """A model that passed: with a cache it gives what it gives alone.

    `tokens` is how many the cache held in the trial, `layout` the number of the way it is kept.
    """

    vocab_size: int
    window: ContextWindow
    tokens: int
    layout: int


def _path(folder: Path, model: Any) -> Path:
    """The file of a result: another one for all that may change what a model computes."""
    import transformers

    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.__config__.show()
    attention = getattr(model.config, "_attn_implementation", None)
    parts = (_FORMAT, torch.__version__, transformers.__version__, str(model.dtype), device.type)
    key = repr((*parts, name, attention, type(model).__name__))
    return folder / f"trial-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def load_result(folder: Path, model: Any) -> TrialResult | None:
    """The result of an earlier load of this folder, on such a machine, if it passed."""
    try:
        found = json.loads(_path(folder, model).read_text(encoding="utf-8"))
        limit, source, switch = found["window"]
        window = ContextWindow(limit or math.inf, source, switch or math.inf)
        return TrialResult(
            int(found["vocab_size"]), window, int(found["tokens"]), int(found["layout"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_result(folder: Path, model: Any, result: TrialResult) -> None:
    """Keep a result, if the folder can be written."""
    window = result.window
    lengths = [None if math.isinf(x) else x for x in (window.limit, window.switch)]
    text = json.dumps(
        {
            "vocab_size": result.vocab_size,
            "window": [lengths[0], window.source, lengths[1]],
            "tokens": result.tokens,
            "layout": result.layout,
        }
    )
    path = _path(folder, model)
    fresh = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
