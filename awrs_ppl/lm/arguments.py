"""The arguments of language models: what they may be, and errors that quote what they are."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch

from awrs_ppl._messages import quoted
from awrs_ppl._values import is_number
from awrs_ppl.errors import VocabularyError
from awrs_ppl.tokens.text import as_bytes, as_str
from awrs_ppl.tokens.vocabulary import Vocabulary

# Tokens that begin with a blank, from which on they are taken for the words of a vocabulary.
_WORDS = 256

__all__ = [
    "byte_limit",
    "device_of",
    "dtype_of",
    "end_ids",
    "ends_in_blank",
    "messages_of",
    "several_texts",
    "stops_of",
    "temperature_of",
    "texts_in",
    "token_ids",
]


def token_ids(what: str, ids: Any, size: int) -> tuple[int, ...]:
    """Ids of tokens, all below `size`."""
    try:
        found = tuple(operator.index(i) for i in ids)
    except TypeError:
        raise TypeError(f"{what}: {quoted(ids)} is no sequence of token ids") from None
    for i in found:
        if not 0 <= i < size:
            raise VocabularyError(f"{what} has the token id {i}: this model's ids are below {size}")
    return found


def end_ids(tokenizer: Any, model: Any) -> list[int]:
    """The tokenizer's end token, and those of the model's own settings: one or several ids."""
    config = getattr(model, "config", None)
    text = getattr(config, "get_text_config", lambda: config)()
    settings = (getattr(model, "generation_config", None), text, config)
    named = (getattr(holder, "eos_token_id", None) for holder in settings)
    # The settings of the generation come first, as in transformers' own `generate`.
    of_model = next((ids for ids in named if ids is not None), None)
    found: set[int] = set()
    for ids in (getattr(tokenizer, "eos_token_id", None), of_model):
        if ids is not None:
            found.update(operator.index(i) for i in np.atleast_1d(np.asarray(ids)).tolist())
    return sorted(found)


def stops_of(stop: str | bytes | Sequence[str | bytes] | None) -> tuple[bytes, ...]:
    """The stops, as bytes."""
    try:
        stops = () if stop is None else (stop,) if isinstance(stop, str | bytes) else tuple(stop)
    except TypeError as error:
        raise TypeError(f"stop={stop!r}: give a text, or several") from error
    if any(not isinstance(s, str | bytes) or not s for s in stops):
        raise ValueError(f"stop={stop!r}: a stop is a text of at least one character")
    return tuple(map(as_bytes, stops))


def ends_in_blank(prompt: str | bytes, vocabulary: Vocabulary) -> bool:
    """Whether a prompt cuts the tokens of a vocabulary, which a warning says then."""
    text = as_str(prompt)
    # Behind other scripts, as Chinese, words have no blank before them.
    cut = text.endswith(" ") and text.rstrip(" ")[-1:].isascii()
    first, last = vocabulary.prefix_index.range(b" ") if cut else (0, 0)
    if last - first < _WORDS:
        return False
    warnings.warn(
        f"the prompt {quoted(text)} ends in a blank. This model's tokens have the blank before a "
        "word in them, so that after a blank alone its words are other ones than after none: leave "
        "the blank out, and begin the text with it, as in lm('Answer:') * OneOf([' yes', ' no'])",
        stacklevel=3,
    )
    return True


def temperature_of(temperature: float) -> float:
    """The temperature; below a millionth, dividing by it leaves the range of float32."""
    if not is_number(temperature) or not 1e-6 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature!r}: it must be a number from 1e-6 up")
    return float(temperature)


def messages_of(messages: Any) -> list[dict[str, Any]]:
    """The messages of a conversation; their content is for the template to check."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    try:
        found = [dict(message) for message in messages]
    except (TypeError, ValueError):
        found = []
    if not found or not all(isinstance(m.get("role"), str) and "content" in m for m in found):
        raise TypeError(
            f"chat got {quoted(messages)}: give a text, or a list of messages, each "
            '{"role": "user", "content": "a text"}'
        )
    return found


def several_texts(texts: Any) -> list[str | bytes]:
    """Texts to be scored."""
    try:
        found = list(texts)
    except TypeError:
        found = [texts]
    for text in found:
        if not isinstance(text, str | bytes):
            raise TypeError(f"log_prob got {quoted(text)}: give a text, or a list of texts")
    return found


def texts_in(value: Any) -> Iterator[str]:
    """All texts in messages, wherever a template may find them."""
    if isinstance(value, Mapping):
        for one in value.values():
            yield from texts_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts_in(one)
    elif value is not None and not isinstance(value, Number):
        yield str(value)


def byte_limit(memory: Any) -> int:
    """The bytes that an engine may keep."""
    if not is_number(memory) or not 1 <= memory < math.inf:
        raise ValueError(f"memory={quoted(memory)}: it must be a positive number of bytes")
    return int(memory)


def device_of(device: Any) -> torch.device:
    """The device, if it can be used."""
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except Exception as error:  # torch raises many kinds, an AssertionError without CUDA
        reason = "" if isinstance(error, TypeError) else f" ({str(error).partition(chr(10))[0]})"
        raise ValueError(
            f"device={quoted(device)} cannot be used{reason}: give 'cpu', 'cuda', 'cuda:1', ..."
        ) from error
    return found


def dtype_of(dtype: Any, device: torch.device) -> torch.dtype:
    """The dtype of the weights."""
    if isinstance(dtype, str) and dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(
            f"dtype={quoted(dtype)}: give 'float32', 'bfloat16', 'float16', or torch's own"
        )
    return found
