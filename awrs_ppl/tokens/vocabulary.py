"""The tokens of a language model as bytes, and which of them end a text.

A text ends by one of the tokenizer's end tokens or before the first occurrence of a *stop*.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from awrs_ppl.errors import VocabularyError
from awrs_ppl.tokens.prefix_index import PrefixIndex
from awrs_ppl.tokens.stops import first_stop

if TYPE_CHECKING:
    import torch

    from awrs_ppl._genlm import Token, VocabTables

__all__ = ["SINGLE_BYTES", "Closing", "Closings", "Vocabulary"]


@dataclass(frozen=True, slots=True)
class Closing:
    """One way for a text to end: `drop` bytes are taken from its end, then `keep` is added.

    The end token is `Closing(0, b"")`. The token `".\\n"` under the stop `"\\n"` is
    `Closing(0, b".")`; a stop that began in earlier tokens is trimmed by `drop`.
    """

    drop: int
    keep: bytes

    def apply(self, text: bytes) -> bytes:
        """The finished text."""
        return text[: len(text) - self.drop] + self.keep


@dataclass(frozen=True, slots=True)
class Closings:
    """The ways to end at a context: `ends[i]` happens by any of the tokens `ids[i]`.

    `ends[0]` is always the plain end. `tokens` is the concatenation of all `ids`: tokens that
    close the text, and so do not continue it; the end tokens are its first. A text that need not
    end is not over `by_end` tokens, which weigh nothing then, nor by what is `barred`: it would be
    empty.
    """

    ends: tuple[Closing, ...]
    ids: tuple[np.ndarray, ...]
    tokens: np.ndarray
    by_end: bool = True
    barred: tuple[int, ...] = ()


class Vocabulary:
    """Tokens by their ids, as bytes.

    `tokens[i]` is the text of token `i`; `ends` are the ids of end tokens; `special` are the
    ids of control tokens, which never appear in a text. `size` is the length of the model's
    row of logits, which may be more or less than `len(tokens)`. Raises `VocabularyError` if
    there is no text token.

    >>> vocabulary = Vocabulary([b"a", b"b.", b".", b"<eos>"], ends=[3])
    >>> vocabulary.is_text.tolist()
    [True, True, True, False]
    >>> vocabulary.closings((b".",), b"").ends
    (Closing(drop=0, keep=b''), Closing(drop=0, keep=b'b'))
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        *,
        ends: Iterable[int],
        special: Iterable[int] = (),
        size: int | None = None,
    ) -> None:
        self.tokens = list(tokens)
        self.size = len(self.tokens) if size is None else size
        self.ends = np.array(
            sorted(i for i in set(ends) if 0 <= i < self.size),
            dtype=np.int64,
        )
        is_text = np.zeros(self.size, dtype=bool)
        known = min(self.size, len(self.tokens))
        # With a token of no bytes a text could grow for ever without changing.
        is_text[:known] = [len(token) > 0 for token in self.tokens[:known]]
        is_text[[i for i in special if 0 <= i < self.size]] = False
        is_text[self.ends] = False
        if not is_text.any():
            few = [bytes(token) for token in self.tokens[:5]]
            raise VocabularyError(
                "the vocabulary has no text token, all are empty or special: it begins with "
                f"{few!r}"
            )
        self.is_text = is_text
        self._closings: dict[tuple[tuple[bytes, ...], bytes, bool, bool], Closings] = {}
        self._hidden: dict[str, torch.Tensor] = {}
        self._same: WeakKeyDictionary[Vocabulary, bool] = WeakKeyDictionary()

    def same_tokens(self, other: Vocabulary) -> bool:
        """Whether token `i` of the one is token `i` of the other, and the ends are the same."""
        if other not in self._same:
            self._same[other] = (
                self.size == other.size
                and np.array_equal(self.ends, other.ends)
                and np.array_equal(self.is_text, other.is_text)
                and all(bytes(self.tokens[i]) == bytes(other.tokens[i]) for i in self.text_ids)
            )
        return self._same[other]

    @cached_property
    def text_ids(self) -> np.ndarray:
        """The ids of the tokens that are text, in order."""
        return np.flatnonzero(self.is_text)

    @cached_property
    def prefix_index(self) -> PrefixIndex:
        """The text tokens in byte order."""
        tokens = [*self.tokens, *[b""] * (self.size - len(self.tokens))][: self.size]
        return PrefixIndex(tokens, self.text_ids.tolist())

    def hidden_on(self, device: Any) -> torch.Tensor:
        """The ids that are no text, on a device of torch."""
        found = self._hidden.get(str(device))
        if found is None:
            import torch

            found = torch.from_numpy(np.flatnonzero(~self.is_text)).to(device)
            self._hidden[str(device)] = found
        return found

    @cached_property
    def text_tokens(self) -> list[Token]:
        """The text tokens as genlm-backend's `Token`s, in the order of their ids."""
        from awrs_ppl._genlm import Token

        return [Token(int(i), bytes(self.tokens[i])) for i in self.text_ids]

    @cached_property
    def tables(self) -> VocabTables:
        """genlm-control's tables of the text tokens, built once and shared by all potentials."""
        from awrs_ppl._genlm import Atomic, Potential, Token

        return Potential.build_tables(self.text_tokens, token_type=Atomic(Token))

    def closings(
        self, stops: tuple[bytes, ...], tail: bytes, *, by_end: bool = True, empty: bool = True
    ) -> Closings:
        """The ways to end a text that itself ends with `tail`, a prefix of a stop.

        Unless `by_end`, no end token ends it; unless `empty`, no more than `tail` is in the text,
        and it must not end empty.
        """
        key = (stops, tail, by_end, empty)
        found = self._closings.get(key)
        if found is None:
            if len(self._closings) >= 256:  # stops made by programs, never used again
                self._closings.clear()
            found = self._find_closings(stops, tail)
            barred = {j for j, end in enumerate(found.ends) if not empty and not end.apply(tail)}
            if not by_end and len(found.ids[0]) == len(self.ends):
                barred.add(0)
            found = replace(found, by_end=by_end, barred=tuple(sorted(barred)))
            self._closings[key] = found
        return found

    def _find_closings(self, stops: tuple[bytes, ...], tail: bytes) -> Closings:
        groups: dict[Closing, list[int]] = {Closing(0, b""): self.ends.tolist()}
        # The rests of the stops whose prefix is at the end of the tail.
        rests = {
            stop[len(prefix) :]
            for stop in stops
            for prefix in (tail[i:] for i in range(len(tail)))
            if stop.startswith(prefix)
        }
        if stops:
            for i in self.text_ids.tolist():
                token = self.tokens[i]
                if any(stop in token for stop in stops) or any(
                    token.startswith(rest) for rest in rests
                ):
                    where = first_stop(tail + token, stops)
                    if where is not None:
                        offset = where - len(tail)
                        closing = Closing(max(-offset, 0), token[: max(offset, 0)])
                        groups.setdefault(closing, []).append(i)
        ids = tuple(np.array(group, dtype=np.int64) for group in groups.values())
        return Closings(tuple(groups), ids, np.concatenate(ids))


# The 256 bytes as tokens, where a text is read byte by byte.
SINGLE_BYTES = Vocabulary([bytes([byte]) for byte in range(256)], ends=())
