"""The saved weights of a causal language model of `transformers`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as theirs

from awrs_ppl._messages import quoted

__all__ = ["load_checkpoint", "load_tokenizer", "require_found"]

_log = logging.getLogger(__name__)


def require_found(name_or_path: str) -> None:
    """Raise `OSError` for a name that is no folder, not in the hub's cache, and whose hub cannot be
    reached; one attempt, where transformers makes many."""
    if os.path.isdir(name_or_path) or isinstance(
        try_to_load_from_cache(name_or_path, "config.json"), str
    ):
        return
    try:
        get_hf_file_metadata(hf_hub_url(name_or_path, "config.json"), timeout=10)
    except (HfHubHTTPError, HFValidationError, EntryNotFoundError):
        return  # it answers: what is wrong, transformers says
    except Exception as error:  # of whatever client the hub's library uses
        raise OSError(
            f"LM got {quoted(name_or_path)}: there is no folder of that name, no copy in the cache "
            f"of transformers,\nand the hub of models cannot be reached ({error}).\n"
            "LM.embedded(...) needs no network: see awrs-ppl models"
        ) from None


def load_tokenizer(name_or_path: str, kept: bool = False) -> Any:
    """The tokenizer; of a `kept` folder, which transformers saved, without reading it thrice.

    For 262,144 tokens transformers takes three seconds, of which the file itself takes one: it
    parses it in Python as well, to see of what kind it is.
    """
    if not kept:
        return AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False)
    folder = Path(name_or_path)
    options = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    for name in ("tokenizer_class", "backend", "is_local", "local_files_only"):
        options.pop(name, None)
    template = folder / "chat_template.jinja"
    if template.exists():
        options["chat_template"] = template.read_text(encoding="utf-8")
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **options)


def load_checkpoint(name_or_path: str, dtype: torch.dtype) -> Any:
    """The model, on the CPU. Raises `ValueError` for one of another kind, or with weights missing,
    and `OSError` if there is none."""
    start = time.perf_counter()
    with _no_bar_of_weights():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                name_or_path,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            raise ValueError(
                f"{quoted(name_or_path)} is no causal language model: transformers loads none of "
                "its kind with AutoModelForCausalLM"
            ) from error
    model, info = loaded
    _require_weights(name_or_path, model, info["missing_keys"])
    kind, seconds = type(model).__name__, time.perf_counter() - start
    _log.info("loaded %s from %s, %s, in %.1f s", kind, name_or_path, dtype, seconds)
    return model


def _require_weights(name: str, model: Any, missing: Collection[str]) -> None:
    lacking = sorted({*missing} & {parameter for parameter, _ in model.named_parameters()})
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ValueError(
            f"{quoted(name)} lacks weights of {type(model).__name__}: {lacking[0]}{more}, which "
            "would be random numbers; give a checkpoint that was saved with its language-model head"
        )


@contextlib.contextmanager
def _no_bar_of_weights() -> Iterator[None]:
    """Keep transformers from drawing a bar for the seconds that it loads weights.

    Its switch also turns off the bars of downloads: these are wanted, and turned on again.
    """
    downloads = not are_progress_bars_disabled()
    if not theirs.is_progress_bar_enabled():
        yield
        return
    theirs.disable_progress_bar()
    if downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        theirs.enable_progress_bar()
        if not downloads:
            disable_progress_bars()
