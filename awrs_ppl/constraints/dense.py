"""A language model, as constraints, products and proposals know it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from awrs_ppl._genlm import Potential, PromptedLLM
from awrs_ppl.constraints.potential import Multiplicative

__all__ = ["Dense", "adopted"]


class Dense(Multiplicative):
    """A potential that weighs all next tokens at once: a language model after a prompt.

    The model `lm` has a `vocabulary`, `shares_vocabulary(other)`, and coroutines over contexts,
    which are tuples of token ids: `logits(contexts, temperatures)` gives a tensor
    `[n, size]`, `log_probs` such an array, `scores(requests, temperature)` the log-probabilities
    of tokens after prompts.
    """

    lm: Any
    prompt: tuple[int, ...]
    stops: tuple[bytes, ...]
    temperature: float

    def encode(self, text: str | bytes) -> tuple[int, ...]:
        """The tokens that a text has after the prompt."""
        raise NotImplementedError


def adopted(potential: Potential) -> Potential:
    """A `PromptedLLM` of genlm-control as one of ours; any other potential as it is."""
    if not isinstance(potential, PromptedLLM):
        return potential
    # By its name, because `lm` imports this package: whoever multiplies one of genlm-control's has
    # not imported ours.
    return import_module("awrs_ppl.lm.prompted").PromptedLM.from_genlm(potential)
