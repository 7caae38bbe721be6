"""The tokens of a conversation, by a model's own chat template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

from jinja2 import TemplateError

from awrs_ppl._messages import quoted
from awrs_ppl.errors import VocabularyError
from awrs_ppl.lm.arguments import messages_of, texts_in
from awrs_ppl.lm.encoding import Encoder, special_ids

__all__ = ["chat_ids"]

# Where a template finds what to do rather than what to say: these texts must stay as they are.
_NAMES = ("role", "type")


def chat_ids(
    name: str, tokenizer: Any, encoder: Encoder, messages: str | Sequence[Mapping[str, Any]]
) -> tuple[int, ...]:
    """The tokens of a conversation and of the generation prompt behind it.

    Control tokens are read where the template writes them. What the messages say is text: a
    control token in it, or one that forms where texts meet, is spelled out.
    """
    template = getattr(tokenizer, "chat_template", None)
    if template is None:
        raise ValueError(
            f"{name!r} has no chat template (it is a base model): "
            "write the prompt yourself, as lm('User: ...\\nAssistant:')"
        )
    if isinstance(template, dict) and "default" not in template:
        raise ValueError(
            f"{name!r} has the chat templates {quoted(sorted(template))} and no 'default': "
            "choose one, as lm.tokenizer.chat_template = lm.tokenizer.chat_template[name]"
        )
    said = messages_of(messages)
    controls = _Controls(tokenizer)
    controls.require_names(said)
    try:
        shown = _render(tokenizer, said)
    except (TemplateError, TypeError) as error:
        raise ValueError(
            f"the chat template of {name!r} rejects {quoted(messages)}: {error}"
        ) from error
    try:
        shown.encode()
    except UnicodeEncodeError as error:
        raise VocabularyError(
            f"{quoted(messages)} has a lone surrogate: it is no Unicode text"
        ) from error
    try:
        marked = _render(tokenizer, controls.marked(said))
    except (TemplateError, TypeError):
        marked = None
    ids = controls.read(shown, marked, [*texts_in(said)], encoder)
    if ids is None:
        raise ValueError(
            f"the messages {quoted(messages)} hold a control token, or parts of one, which cannot "
            f"be separated from those of the chat template of {name!r}: take it out"
        )
    return ids


def _render(tokenizer: Any, messages: Any) -> str:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


class _Controls:
    """The control tokens of a tokenizer, and where a rendered conversation has them."""

    def __init__(self, tokenizer: Any) -> None:
        ids = special_ids(tokenizer)
        self._ids = dict(zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True))
        self._added = getattr(tokenizer, "added_tokens_decoder", {})
        self._unknown = getattr(tokenizer, "unk_token_id", None)
        # The longest first, as tokenizers look for them.
        longest = sorted(filter(None, self._ids), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest)) or "(?!)")
        # Characters for private use instead of those of control tokens, one for one; blanks and
        # what JSON escapes stay, so that the template treats the text the same.
        letters = sorted({c for token in longest for c in token if not c.isspace()} - {'"', "\\"})
        self._marks = str.maketrans({c: chr(0xF0000 + i) for i, c in enumerate(letters)})
        self._signs = {c for t in longest for c in (t[0], t[-1]) if not c.isalnum()} - {"_"}

    def marked(self, value: Any, key: Any = None) -> Any:
        """Messages whose texts have no character of a control token, each as long as before."""
        if value is None or isinstance(value, Number) or key in _NAMES:
            return value
        if isinstance(value, Mapping):
            return {k: self.marked(v, k) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.marked(v) for v in value]
        return str(value).translate(self._marks)

    def require_names(self, messages: list[dict[str, Any]]) -> None:
        """Raise `ValueError` if a role or a key could be part of a control token."""
        for text in _names_in(messages):
            sign = next((c for c in text if c in self._signs), None)
            if sign is not None:
                raise ValueError(
                    f"{quoted(text)} is a role or a name of a field and has {sign!r}, of which "
                    "control tokens are made: write a plain name, such as 'user'"
                )

    def read(
        self, shown: str, marked: str | None, texts: list[str], encoder: Encoder
    ) -> tuple[int, ...] | None:
        """The tokens of a rendered conversation, in which only control tokens of the template are
        read: those that stand in `marked` too. None if it is unknown which these are."""
        if marked is None:  # the template accepts the real texts alone
            return None if any(map(self._may_join, texts)) else encoder.with_controls(shown)
        own = [(m.start(), m.end()) for m in self._pattern.finditer(marked)]
        there = [(m.start(), m.end()) for m in self._pattern.finditer(shown)]
        names = [marked[a:b] for a, b in own]
        aligned = len(shown) == len(marked) and names == [shown[a:b] for a, b in own]
        if aligned:
            plain = own == there
        else:
            # The template treats these texts differently, and positions cannot be compared.
            plain = names == [shown[a:b] for a, b in there] and not any(
                map(self._pattern.search, texts)
            )
        if plain:
            ids = encoder.with_controls(shown)
            expected = iter([self._ids[name] for name in names])
            read = {*self._ids.values()} - {self._unknown}
            if all(i in expected for i in ids if i in read):
                return ids
        return self._spelled(shown, own, encoder) if aligned else None

    def _may_join(self, text: str) -> bool:
        """Whether a text has a control token, or could be part of one."""
        return self._pattern.search(text) is not None or any(
            text.endswith(token[:n]) or text.startswith(token[n:])
            for token in self._ids
            for n in range(1, len(token))
        )

    def _spelled(self, shown: str, own: list[tuple[int, int]], encoder: Encoder) -> tuple[int, ...]:
        """The tokens where some control tokens are text: texts and control tokens in turn."""
        ids: tuple[int, ...] = ()
        start, last = 0, ""
        for begin, end in [*own, (len(shown), len(shown))]:
            text, control = shown[start:begin], shown[begin:end]
            if self._strips(last, "rstrip"):
                text = text.lstrip()
            if self._strips(control, "lstrip"):
                text = text.rstrip()
            ids += self._text(text, last, encoder)
            if control:
                ids += (self._ids[control],)
            start, last = end, control
        return ids

    def _strips(self, control: str, side: str) -> bool:
        return getattr(self._added.get(self._ids.get(control)), side, False)

    def _text(self, text: str, control: str, encoder: Encoder) -> tuple[int, ...]:
        """A text behind a control token: with the dummy space that some tokenizers put there."""
        if control and text and not text[0].isspace():
            probe = encoder.with_controls(control + "a")
            if encoder.spelled(probe[1:]) == b"a":
                return encoder.behind(text, ())
        return encoder.text(text)


def _names_in(value: Any, key: str = "") -> Iterator[str]:
    """The roles, kinds and keys in messages."""
    if key in _NAMES:
        yield from texts_in(value)
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from texts_in(k)
            yield from _names_in(v, k)
    elif isinstance(value, list | tuple):
        for v in value:
            yield from _names_in(v)
