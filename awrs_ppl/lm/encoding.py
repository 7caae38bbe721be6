"""How text becomes tokens: those of a prompt, and those that a text has behind one."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from awrs_ppl._messages import quoted
from awrs_ppl.errors import VocabularyError
from awrs_ppl.tokens.text import as_bytes, as_str
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["Encoder", "special_ids"]

# Python's spelling of a byte that is no UTF-8.
_LONE_BYTE = re.compile("([\udc80-\udcff])")

# Texts to put before another, so that it is not at the start, which tokenizers change.
# Several, because each may be joined with what follows.
_ANCHORS = ("\n", ".", "a", "0", "*")

# Longer than any word, so that what comes before does not matter to the tokens behind.
_TAIL = 64


class Encoder:
    """A tokenizer as the language model needs it: it reads no control tokens out of a text.

    The tokens of a text spell its bytes, whatever the tokenizer does to its input (a dummy space
    before it, Unicode normalization, lower case): tokens that spell others are never given.
    """

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary

    def prompt(self, text: str) -> tuple[int, ...]:
        """The tokenizer's own tokens of a whole text, with those that it puts before a text.

        An end token that it puts behind is left out: the text continues there.
        """
        _require_unicode(text)
        # Bytes that are no UTF-8, as `generate` gives them at times, have tokens of their own.
        head, *rest = re.split("(?=[\udc80-\udcff])", text, maxsplit=1)
        ids = self._ids(head, special=True)
        ids = ids[: len(ids) - self._ends_added]
        return ids + self.behind(rest[0], ids) if rest else ids

    def behind(self, text: str, prompt: Sequence[int]) -> tuple[int, ...]:
        """The tokens that a text has behind the tokens of a prompt.

        Where the tokenizer joins the two, or changes the text, the text's own tokens, or as many
        of them as spell it. Raises `VocabularyError` if no tokens do.
        """
        _require_unicode(text)
        ids: tuple[int, ...] = ()
        for i, piece in enumerate(_LONE_BYTE.split(text)):
            if piece:
                before = (*prompt, *ids)
                ids += self._piece(piece, before, text) if i % 2 == 0 else self._cover(piece, text)
        return ids

    def text(self, text: str) -> tuple[int, ...]:
        """The tokenizer's own tokens of a text, which may spell another."""
        return self._ids(text)

    def with_controls(self, text: str) -> tuple[int, ...]:
        """The tokens of a text in which control tokens are read."""
        if self._with_controls is None:
            return tuple(self._tokenizer.encode(text, add_special_tokens=False))
        return tuple(self._with_controls.encode(text, add_special_tokens=False).ids)

    def spelled(self, ids: Sequence[int]) -> bytes:
        """The bytes of tokens."""
        tokens = self._vocabulary.tokens
        return b"".join(bytes(tokens[i]) for i in ids if i < len(tokens))

    def _ids(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        if self._plain is None:
            ids = self._tokenizer.encode(
                text, add_special_tokens=special, split_special_tokens=True
            )
            return tuple(ids)
        return tuple(self._plain.encode(text, add_special_tokens=special).ids)

    # Whether control tokens are read is a switch on the tokenizer, and others use it at the same
    # time, in other threads: so two copies, one for each position.
    @cached_property
    def _plain(self) -> Tokenizer | None:
        return _copied(self._tokenizer, split=True)

    @cached_property
    def _with_controls(self) -> Tokenizer | None:
        return _copied(self._tokenizer, split=False)

    @cached_property
    def _ends_added(self) -> int:
        """How many tokens that end a text the tokenizer puts behind each."""
        bare, full = self._ids("a"), self._ids("a", special=True)
        starts = [i for i in range(len(full)) if full[i : i + len(bare)] == bare]
        if not bare or not starts:
            return 0
        named = ("eos_token_id", "sep_token_id")  # BERT's kind ends a text by a separator
        ends = {
            *self._vocabulary.ends.tolist(),
            *(getattr(self._tokenizer, n, None) for n in named),
        }
        count = 0
        while count < len(full) - starts[0] - len(bare) and full[-1 - count] in ends:
            count += 1
        return count

    def _piece(self, text: str, prompt: tuple[int, ...], whole: str) -> tuple[int, ...]:
        """The tokens of a piece of a text, between bytes that are no UTF-8."""
        ids: tuple[int, ...] = ()
        while text:
            found, same = self._attempts(text, (*prompt, *ids))
            if found is not None:
                return ids + found
            if len(text) == 1:
                return ids + self._cover(text, whole)
            # The tokenizer changes the character there. What comes before stays as it is; the
            # character and what follows are spelled separately.
            k = min(len(text.encode()[:same].decode("utf-8", "ignore")), len(text) - 1)
            for part in (text[:k], text[k]):
                ids += self._piece(part, (*prompt, *ids), whole)
            text = text[k + 1 :]
        return ids

    def _attempts(self, text: str, prompt: tuple[int, ...]) -> tuple[tuple[int, ...] | None, int]:
        """The tokens that spell a text, behind the prompt or another text; else None and how many
        of its bytes came out right."""
        data, most = text.encode(), 0
        for before in dict.fromkeys((self._tail(prompt), "", *_ANCHORS)):
            base = self._ids(before) if before else ()
            joined = self._ids(before + text)
            if joined[: len(base)] != base:
                continue  # the two are joined into a token
            ids = joined[len(base) :]
            right = self._right(ids, data)
            if right == len(data) == len(self.spelled(ids)):
                return ids, right
            most = max(most, right)
        return None, most

    def _right(self, ids: tuple[int, ...], data: bytes) -> int:
        """How many bytes tokens spell as in `data` before they differ, or one is no text."""
        right = 0
        for i in ids:
            if i >= self._vocabulary.size or not self._vocabulary.is_text[i]:
                break
            token = bytes(self._vocabulary.tokens[i])
            if not data.startswith(token, right):
                while token[:1] == data[right : right + 1] != b"":
                    token, right = token[1:], right + 1
                break
            right += len(token)
        return right

    def _tail(self, prompt: tuple[int, ...]) -> str:
        """The text at the end of a prompt, up to a control token or a byte that is no UTF-8."""
        ids: list[int] = []
        for i in reversed(prompt[-_TAIL:]):
            if i >= self._vocabulary.size or not self._vocabulary.is_text[i]:
                break
            ids.append(i)
        text = as_str(self.spelled(ids[::-1]))
        return _LONE_BYTE.split(text)[-1]

    def _cover(self, char: str, whole: str) -> tuple[int, ...]:
        """The fewest tokens that spell one character, or one byte that is no UTF-8."""
        data = as_bytes(char)
        covers: list[tuple[int, ...] | None] = [()]
        for end in range(1, len(data) + 1):
            found = [
                (*cover, self._by_bytes[data[start:end]])
                for start, cover in enumerate(covers)
                if cover is not None and data[start:end] in self._by_bytes
            ]
            covers.append(min(found, key=len, default=None))
        if covers[-1] is None:
            shown = repr(char) if len(data) > 1 or data.isascii() else f"the byte {data!r}"
            raise VocabularyError(
                f"the text {quoted(whole)} has {shown}, and this model has no tokens that spell "
                "it: leave it out, or write it in another way"
            )
        return covers[-1]

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        # The last of equal ones: SentencePiece's tokens of single bytes come first, and are for
        # characters without a token of their own.
        tokens = self._vocabulary.tokens
        return {bytes(tokens[i]): i for i in self._vocabulary.text_ids.tolist()}


def special_ids(tokenizer: Any) -> list[int]:
    """Tokens flagged special; other added tokens are text."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    flagged = {int(i) for i, token in added.items() if token.special}
    return sorted(flagged | set(tokenizer.all_special_ids))


def _copied(tokenizer: Any, *, split: bool) -> Tokenizer | None:
    """A tokenizer of `tokenizers` that does the same, reading control tokens or not.

    None for a tokenizer in Python: there the switch is an argument.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    found = Tokenizer(backend.model)  # shared: to copy the model takes seconds
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(backend, part) is not None:
            setattr(found, part, getattr(backend, part))
    added = backend.get_added_tokens_decoder()
    found.add_tokens([token for _, token in sorted(added.items())])
    if repr(found.get_added_tokens_decoder()) != repr(added):
        found = copy.deepcopy(backend)  # ids with gaps: added anew, they would close up
        found.no_truncation()
        found.no_padding()
    found.encode_special_tokens = split
    return found


def _require_unicode(text: str) -> None:
    try:
        as_bytes(text)
    except UnicodeEncodeError as error:
        raise VocabularyError(
            f"the text {quoted(text)} has a lone surrogate: it is no Unicode text"
        ) from error
