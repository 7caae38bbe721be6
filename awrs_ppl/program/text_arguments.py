"""What the statements about texts may be given.

A first reading can skip it, as `arguments`: each function gives its argument as the statement
uses it, and raises a `ModelError` that says what to write where that cannot be.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from awrs_ppl._genlm import Potential
from awrs_ppl._messages import quoted
from awrs_ppl._values import count_of
from awrs_ppl.constraints.genlm_factor import common_alphabet
from awrs_ppl.constraints.product import target_of
from awrs_ppl.constraints.target import Target
from awrs_ppl.constraints.weighing import Weigher
from awrs_ppl.distributions import Distribution
from awrs_ppl.errors import ModelError
from awrs_ppl.foreign import adapted
from awrs_ppl.proposals import AWRS, Proposal, is_proposal

__all__ = ["critic_of", "ends_of", "observed", "proposal_of", "text_target", "token_limit"]

_AWRS = AWRS()


def ends_of(ends: Any) -> bool:
    """Whether the model is to end the text."""
    if not isinstance(ends, bool | np.bool_):
        raise ModelError(f"ctx.generate got ends={ends!r}: give it True or False")
    return bool(ends)


def text_target(potential: Any, *, ends: bool = True) -> Target:
    """The factors of what a text is drawn from: there is a language model, and an end if the text
    `ends`."""
    if not isinstance(potential, Potential):
        raise ModelError(
            f"ctx.generate got {potential!r}: give it a potential, such as lm('a prompt') or "
            "lm('a prompt') * Regex('[a-z]+')"
        )
    target = target_of(potential)
    if not target.dense:
        raise ModelError(
            f"ctx.generate got {potential!r}: there is no language model in it to draw from; "
            "multiply it by one, as lm('a prompt') * ..."
        )
    if ends:
        _require_end(target, f"ctx.generate got {potential!r}")
    return target


def token_limit(max_tokens: Any) -> int:
    """How many tokens a text has at most, its end among them."""
    most = count_of(max_tokens, least=1)
    if most is None:
        raise ModelError(
            f"ctx.generate got max_tokens={max_tokens!r}: the end counts as a token, "
            "so it must be an int of at least 1"
        )
    return most


def proposal_of(proposal: Any) -> Proposal:
    """What draws the tokens: `AWRS()` where nothing is given."""
    if proposal is None:
        return _AWRS
    if not is_proposal(proposal):
        raise ModelError(
            f"ctx.generate got proposal={proposal!r}: give it AWRS(), PaperAWRS(), LocalAWRS() "
            "or Prior()"
        )
    return proposal


def critic_of(critic: Any, target: Target) -> Weigher | None:
    """What weighs the texts of a product beside it, if there is a critic."""
    if critic is None:
        return None
    if not isinstance(critic, Potential):
        raise ModelError(
            f"ctx.generate got critic={critic!r}: a critic is a potential, such as Soft(f)"
        )
    return Weigher(critic, common_alphabet(critic, target.vocabulary, target.stops))


def observed(potential: Any, value: Any, ends: bool) -> Target | Distribution:
    """What gives an observed value its probability."""
    if isinstance(potential, Potential):
        if not isinstance(value, str | bytes):
            raise ModelError(
                f"ctx.observe got the value {quoted(value)}: potentials weigh a text, a str or "
                "bytes; for another value give a distribution, such as Categorical"
            )
        target = target_of(potential)
        if ends:
            _require_end(target, f"ctx.observe got ends=True and {potential!r}")
        return target
    distribution = adapted(potential)
    if isinstance(distribution, type) or not isinstance(distribution, Distribution):
        raise ModelError(
            f"ctx.observe got {distribution!r}: give it a potential, such as lm('a prompt'), or a "
            "distribution, such as Bernoulli(0.5) or scipy.stats.norm(0, 1)"
        )
    if ends:
        raise ModelError("ctx.observe got ends=True for a distribution: only texts have an end")
    return distribution


def _require_end(target: Target, got: str) -> None:
    if target.vocabulary is not None and not target.stops and not len(target.vocabulary.ends):
        raise ModelError(
            f"{got}: this language model has no end token, so that no text could ever end: name "
            "stops, as lm('a prompt', stop='\\n'), or give its tokenizer an eos_token"
        )
