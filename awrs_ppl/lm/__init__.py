"""Language models: `LM` loads one, and `lm(prompt)` is a potential."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch

from awrs_ppl._messages import quoted
from awrs_ppl.errors import PotentialError, VocabularyError
from awrs_ppl.lm.arguments import end_ids, ends_in_blank, stops_of, temperature_of, token_ids
from awrs_ppl.lm.conversation import chat_ids
from awrs_ppl.lm.embedded import MODELS
from awrs_ppl.lm.engine import Engine
from awrs_ppl.lm.loading import Loading
from awrs_ppl.lm.prompted import PromptedLM
from awrs_ppl.tokens.text import as_str

__all__ = ["LM", "Engine", "PromptedLM"]


class LM(Loading):
    """A causal language model, loaded by transformers.

    `name_or_model` is a name or folder that transformers loads, or a model object with its
    `tokenizer`. `device` is a torch device, by default CUDA if there is one; `dtype` a torch
    dtype or its name, by default float32 on the CPU and bfloat16 on a GPU; `memory` bounds
    the cache of past keys and values, in bytes. Raises `OSError` where transformers finds no
    model, and `ValueError` or `TypeError` for invalid options.

    >>> from awrs_ppl import ToyLM
    >>> lm = ToyLM(["a", "b"])
    >>> lm("ab", stop="b", temperature=0.5)
    lm('ab', stop='b', temperature=0.5)
    """

    def __init__(
        self,
        name_or_model: str | os.PathLike[str] | Any,
        *,
        tokenizer: Any = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        memory: float = 2 * 2**30,
    ) -> None:
        from awrs_ppl.lm.transformers import TransformersEngine

        if isinstance(name_or_model, str | os.PathLike):
            if tokenizer is not None:
                raise TypeError(
                    f"LM got tokenizer={quoted(tokenizer)} with the name {quoted(name_or_model)}, "
                    "which has its own: leave it out"
                )
            name = os.fspath(name_or_model)
            if name in MODELS and not os.path.isdir(name):
                self._load_embedded(name, device, dtype, memory)
                return
            engine = TransformersEngine.load(name, device=device, dtype=dtype, memory=memory)
        else:
            if tokenizer is None:
                raise TypeError(
                    f"LM got {quoted(name_or_model)} and tokenizer=None: give a name or a folder "
                    "as a text, or write LM(model, tokenizer=tokenizer)"
                )
            for option, given in (("device", device), ("dtype", dtype)):
                if not isinstance(given, str) or given != "auto":
                    raise TypeError(
                        f"LM got {option}={quoted(given)} with a model, which has its own: write "
                        "model.to(...) before"
                    )
            name = type(name_or_model).__name__
            engine = TransformersEngine(name_or_model, tokenizer, memory=memory)
        self._use(name, engine, end_ids(engine.tokenizer, engine.model), engine.vocab_size)

    def __call__(
        self,
        prompt: str | bytes | Sequence[int],
        *,
        stop: str | bytes | Sequence[str | bytes] | None = None,
        temperature: float = 1.0,
    ) -> PromptedLM:
        """The distribution of texts after `prompt`, a potential over this model's tokens.

        A text ends by an end token, or before the first occurrence of a `stop`. A prefix of a stop
        is held back from Boolean constraints: they read it when it is clear that the stop does not
        come. `temperature` divides the logits. Control tokens are never read out of a prompt given
        as text.

        A prompt that ends in a blank is warned of, once for each model: most tokenizers put the
        blank before a word into its token, so the model has seldom seen a blank alone there.
        """
        if isinstance(prompt, str | bytes) and not self._warned_of_blank:
            self._warned_of_blank = ends_in_blank(prompt, self.vocabulary)
        return PromptedLM(
            self, self.prompt_ids(prompt), stops_of(stop), temperature_of(temperature)
        )

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        stop: str | bytes | Sequence[str | bytes] | None = None,
        temperature: float = 1.0,
    ) -> PromptedLM:
        """The distribution of answers to a conversation, by the model's own chat template.

        `messages` are `{"role": ..., "content": ...}`, or one text of the user's. What they say is
        text: control tokens in it are spelled out. Raises `ValueError` for a model without a chat
        template, for messages that the template rejects, and where its own control tokens cannot
        be separated from those in a message; `TypeError` for what is no message.
        """
        ids = chat_ids(self.name, self.tokenizer, self._encoder, messages)
        return self(ids, stop=stop, temperature=temperature)

    def prompt_ids(self, prompt: str | bytes | Sequence[int]) -> tuple[int, ...]:
        """The tokens of a prompt, with those that the tokenizer puts before a text."""
        if isinstance(prompt, str | bytes):
            ids = self._encode(as_str(prompt), True)
        else:
            try:
                ids = token_ids("the prompt", prompt, self.vocabulary.size)
            except TypeError as error:
                raise TypeError(
                    f"the prompt {quoted(prompt)} is neither a str nor a sequence of token ids"
                ) from error
        if not ids:
            raise VocabularyError(
                f"the prompt {prompt!r} has no tokens, and this model needs at least one: "
                'begin with some text, for example lm("\\n")'
            )
        return ids

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens that a text has behind a prompt; `lm(prompt).encode(text)` behind that one.

        They spell the text, also where the tokenizer changes its input: SentencePiece's dummy
        space, Unicode normalization, lower case. Raises `VocabularyError` if no tokens spell it.
        """
        if not isinstance(text, str):
            raise TypeError(f"encode got {quoted(text)}: it needs a str")
        return self._encode(text, False)

    @cached_property
    def _encode(self) -> Callable[..., tuple[int, ...]]:
        # Models build their prompts anew in every particle and on every replay.
        return lru_cache(maxsize=4096)(self._tokenize)

    def _tokenize(self, text: str, prompt: bool, before: tuple[int, ...] = ()) -> tuple[int, ...]:
        return self._encoder.prompt(text) if prompt else self._encoder.behind(text, before)

    async def scores(
        self,
        requests: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
        temperature: float,
    ) -> list[float]:
        """The log-probability of each (context, continuation), in one batch.

        Raises `PotentialError` if the model gave NaN or infinity.
        """
        found = await self.engine.sequence_logprobs(requests, temperature)
        sums = [float(score.double().sum()) for score in found]
        for (context, text), number in zip(requests, sums, strict=True):
            if math.isnan(number) or number == math.inf:
                what = f"the log-probability {number} to {quoted(self.decode(text))}"
                raise self._broken(what, context)
        return sums

    def _broken(self, what: str, context: tuple[int, ...]) -> PotentialError:
        return PotentialError(
            f"{self!r} gave {what} after {quoted(self.decode(context))}: "
            "the model's weights are damaged, or its dtype is too narrow for them"
        )

    async def logits(
        self, contexts: Sequence[tuple[int, ...]], temperatures: Sequence[float]
    ) -> torch.Tensor:
        """Logits over temperature of every token after each context, shape `[n, size]`, one batch.

        On the model's device: float32, or float64 where the engine gives that. Raises
        `PotentialError` if the model gave NaN or infinity.
        """
        logits = await self.engine.next_logits(contexts)
        if logits.dtype not in (torch.float32, torch.float64):
            logits = logits.float()
        peaks = logits.amax(-1).tolist()
        broken = [i for i, peak in enumerate(peaks) if not math.isfinite(peak)]
        if broken:
            what = "NaN" if math.isnan(peaks[broken[0]]) else "infinity"
            raise self._broken(what, contexts[broken[0]])
        if any(temperature != 1.0 for temperature in temperatures):
            divisor = torch.tensor(temperatures, dtype=logits.dtype, device=logits.device)
            logits = logits / divisor[:, None]
        return logits

    async def log_probs(
        self, contexts: Sequence[tuple[int, ...]], temperatures: Sequence[float]
    ) -> np.ndarray:
        """The log-softmax of `logits`, on the host."""
        return torch.log_softmax(await self.logits(contexts, temperatures), -1).cpu().numpy()

    def __deepcopy__(self, memo: Any) -> LM:
        return self  # programs may draw and return models; their weights are not copied

    def shown(self, ids: tuple[int, ...]) -> str:
        """`decode`, cached: replays compare prompts by it."""
        return self._decoded(ids)

    @cached_property
    def _decoded(self) -> Callable[[tuple[int, ...]], str]:
        return lru_cache(maxsize=4096)(self.decode)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, control tokens included; bytes that are not UTF-8 escaped."""
        tokens = self.vocabulary.tokens
        # There may be fewer rows of logits than tokens, and more.
        ids = token_ids("the text to decode", ids, max(len(tokens), self.vocabulary.size))
        return as_str(b"".join(bytes(tokens[i]) for i in ids if i < len(tokens)))

    @property
    def lora_name(self) -> str | None:
        """The adapter that the engine runs with, if any."""
        return getattr(self.engine, "lora_name", None)

    def shares_vocabulary(self, other: LM) -> bool:
        """Whether token `i` of the one is token `i` of the other."""
        a, b = self.vocabulary, other.vocabulary
        return a is b or a.same_tokens(b)

    def __repr__(self) -> str:
        return f"LM({self.name!r})"
