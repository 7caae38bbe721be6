"""The bytes that each token of a tokenizer adds to a text, behind a prompt."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from awrs_ppl._genlm import ByteVocabError, get_byte_vocab
from awrs_ppl._messages import quoted
from awrs_ppl.errors import VocabularyError

__all__ = ["kept_token_bytes", "token_bytes"]

_FORMAT = 1  # raise when the bytes of a token change, so that older files are not used

# What a step of a decoder makes of one token: a text, or bytes, which no later step changes.
_Step = Callable[[str], str | bytes]


def token_bytes(tokenizer: Any) -> list[bytes]:
    """The bytes of each token by its id; ids that no token has are empty.

    Read from the tokenizer's decoder, token by token. What it does to the first token of a text
    alone (SentencePiece's dummy space is taken off there) is left out: a prompt stands before.
    Raises `VocabularyError` where a token's bytes depend on the tokens around it, or are unknown.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    steps = None if backend is None else _steps(backend)
    if backend is None or steps is None:
        try:
            return get_byte_vocab(tokenizer)
        except (ByteVocabError, TypeError) as error:
            raise VocabularyError(
                f"tokenizer={quoted(tokenizer)} does not say which bytes its tokens stand for: "
                f"{error.__cause__ or error}"
            ) from error
    added = backend.get_added_tokens_decoder()
    vocabulary = backend.get_vocab(with_added_tokens=True)
    found = [b""] * (max(vocabulary.values(), default=-1) + 1)
    # An added token is text as it stands: its characters are no bytes in disguise.
    as_text = [step for step in steps if step not in (_from_byte_level, _from_byte_fallback)]
    for token, i in vocabulary.items():
        found[i] = _applied(as_text if i in added else steps, token)
    return found


def kept_token_bytes(tokenizer: Any, folder: Path) -> list[bytes]:
    """The same for the tokenizer of a folder that nobody changes, kept in it for the next time."""
    path = folder / f"tokens-{_FORMAT}.npz"
    try:
        with path.open("rb") as file, np.load(file) as kept:
            data, ends = kept["data"].tobytes(), kept["ends"].tolist()
        return [data[start:end] for start, end in pairwise([0, *ends])]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        found = token_bytes(tokenizer)
    fresh = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    data = np.frombuffer(b"".join(found), dtype=np.uint8)
    with contextlib.suppress(OSError):
        np.savez(fresh, data=data, ends=np.cumsum([len(token) for token in found]))
        fresh.replace(path)
    return found


def _applied(steps: list[_Step], token: str) -> bytes:
    for step in steps:
        changed = step(token)
        if isinstance(changed, bytes):
            return changed
        token = changed
    return token.encode()


def _steps(backend: Any) -> list[_Step] | None:
    """What the decoder does to a token that is not the first; None if there is no decoder."""
    if backend.decoder is None:
        # GPT-2's alphabet of bytes is then known from the pre-tokenizer.
        kinds = [part["type"] for part in _parts(backend.pre_tokenizer, "pretokenizers")]
        return [_from_byte_level] if "ByteLevel" in kinds else None
    steps: list[_Step] = []
    fused = False
    for part in _parts(backend.decoder, "decoders"):
        kind = part["type"]
        if kind == "ByteLevel":
            steps.append(_from_byte_level)
        elif kind == "ByteFallback":
            steps.append(_from_byte_fallback)
        elif kind == "Metaspace":
            steps.append(_replacing({"String": part["replacement"]}, " "))
        elif kind == "Replace":
            steps.append(_replacing(part["pattern"], part["content"]))
        elif kind == "WordPiece":
            steps.append(_from_word_piece(backend.decoder, part["prefix"]))
        elif kind == "Fuse":
            fused = True
        elif kind != "Strip" or not fused:  # of a whole text it strips the ends alone
            raise VocabularyError(
                f"the tokenizer's decoder has the step {kind!r}: what a token adds to a text then "
                "depends on the tokens around it, so it cannot be generated token by token"
            )
    return steps


def _parts(component: Any, name: str) -> Iterator[dict[str, Any]]:
    """The parts of a component of `tokenizers`, however sequences of them are nested."""
    if component is None:
        return
    waiting = [json.loads(component.__getstate__())]
    while waiting:
        part = waiting.pop(0)
        if part["type"] == "Sequence":
            waiting[:0] = part[name]
        else:
            yield part


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's characters for the 256 bytes: printable ones for themselves, others from 256 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {chr(byte): byte for byte in printable}
    return characters | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_LEVEL = _byte_level_alphabet()


def _from_byte_level(token: str) -> str | bytes:
    try:
        return bytes([_BYTE_LEVEL[character] for character in token])
    except KeyError:  # the decoder takes such a token as it stands
        return token


def _from_byte_fallback(token: str) -> str | bytes:
    if not token.startswith("<0x"):  # nearly all
        return token
    match = re.fullmatch("<0x([0-9A-Fa-f]{2})>", token)
    return bytes.fromhex(match[1]) if match else token


def _replacing(pattern: dict[str, str], content: str) -> _Step:
    if "String" in pattern:
        return lambda token: token.replace(pattern["String"], content)
    found = re.compile(pattern["Regex"])
    return lambda token: found.sub(lambda _: content, token)


def _from_word_piece(decoder: Any, prefix: str) -> _Step:
    """A word behind another brings a space, unless it continues it or is punctuation."""
    anchor = "x"
    return lambda token: decoder.decode([anchor, token]).removeprefix(anchor)
