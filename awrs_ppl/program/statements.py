"""The arguments of `generate` and `observe`, checked and sorted; and how `observe` scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from genlm.control.potential.base import Potential

from awrs_ppl._values import count_of, quoted
from awrs_ppl.constraints.adapters import Text, Weigher
from awrs_ppl.constraints.next_verdicts import ask, start
from awrs_ppl.constraints.product import (
    Product,
    Target,
    common_alphabet,
    dense_log_weight,
    fingerprint,
)
from awrs_ppl.distributions import Distribution, as_number
from awrs_ppl.errors import ModelError
from awrs_ppl.foreign import Foreign, adapted, kind_of
from awrs_ppl.proposals import AWRS, Proposal, is_proposal
from awrs_ppl.proposals.token_step import Generation, known, weigh

__all__ = ["Observation", "generation", "log_prob", "observation", "score"]

_AWRS = AWRS()


def target_of(potential: Potential) -> Target:
    """A potential's factors, sorted."""
    return potential.target if isinstance(potential, Product) else Target.of([potential])


def generation(
    potential: Potential, max_tokens: int, proposal: Proposal | None, critic: Potential | None
) -> tuple[Generation, tuple[Any, ...]]:
    """What a `generate` statement asks for, and its fingerprint. Raises `ModelError`."""
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
    _require_end(target, f"ctx.generate got {potential!r}")
    most = count_of(max_tokens, least=1)
    if most is None:
        raise ModelError(
            f"ctx.generate got max_tokens={max_tokens!r}: the end counts as a token, "
            "so it must be an int of at least 1"
        )
    if proposal is None:
        proposal = _AWRS
    elif not is_proposal(proposal):
        raise ModelError(
            f"ctx.generate got proposal={proposal!r}: give it AWRS(), LocalAWRS() or Prior()"
        )
    weigher = None
    if critic is not None:
        if not isinstance(critic, Potential):
            raise ModelError(
                f"ctx.generate got critic={critic!r}: a critic is a potential, such as Soft(f)"
            )
        weigher = Weigher(critic, common_alphabet(critic, target.vocabulary, target.stops))
    asked = Generation(target, most, proposal, weigher)
    names = [fingerprint(factor) for factor in target.factors]
    if critic is not None:
        names.append(f"critic {fingerprint(critic)}")
    return asked, (" * ".join(names), f"max_tokens={most}", type(proposal).__qualname__)


def _require_end(target: Target, got: str) -> None:
    if target.vocabulary is not None and not target.stops and not len(target.vocabulary.ends):
        raise ModelError(
            f"{got}: this language model has no end token, so that no text could ever end: name "
            "stops, as lm('a prompt', stop='\\n'), or give its tokenizer an eos_token"
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """What an `observe` statement asks for: a distribution or a sorted product, and a value."""

    distribution: Distribution | None
    target: Target | None
    value: Any
    ends: bool

    @property
    def compared(self) -> tuple[Any, ...]:
        """What `check_replay` compares."""
        return (self.distribution, self.value)


def observation(
    potential: Potential | Distribution | Foreign, value: Any, ends: bool
) -> tuple[Observation, tuple[Any, ...]]:
    """What an `observe` statement asks for, and its fingerprint. Raises `ModelError`."""
    shown = value if isinstance(value, str | bytes | int) else type(value).__qualname__
    if isinstance(potential, Potential):
        if not isinstance(value, str):
            raise ModelError(f"ctx.observe got the value {value!r}: potentials weigh a str")
        target = target_of(potential)
        if ends:
            _require_end(target, f"ctx.observe got ends=True and {potential!r}")
        asked = Observation(None, target, value, ends)
        return asked, (fingerprint(potential), repr(shown))
    potential = adapted(potential)
    if isinstance(potential, type) or not isinstance(potential, Distribution):
        raise ModelError(
            f"ctx.observe got {potential!r}: give it a potential, such as lm('a prompt'), or a "
            "distribution, such as Bernoulli(0.5) or scipy.stats.norm(0, 1)"
        )
    if ends:
        raise ModelError("ctx.observe got ends=True for a distribution: only texts have an end")
    return Observation(potential, None, value, ends), (
        kind_of(potential),
        repr(shown),
    )


async def score(asked: Observation) -> float:
    """The log-weight that a product gives to an observed text.

    Language models are asked in one pass for all observations that are scored side by side.
    """
    target = asked.target
    assert target is not None
    text = _spelled(target, asked.value)
    states = await start(target, text)
    if isinstance(states, str):
        return -math.inf
    if asked.ends:
        for factor, state in zip(target.boolean, states, strict=True):
            if not await ask(factor, factor.accepts(state), text.data):
                return -math.inf
    weight = await dense_log_weight(target, text, ends=asked.ends)
    if weight == -math.inf:
        return weight
    if asked.ends:
        return weight + sum(known(await weigh([(w, text, True) for w in target.weighted])))
    now = known(await weigh([(w, text, False) for w in target.weighted]))
    before = known(await weigh([(w, Text(), False) for w in target.weighted]))
    # The empty text weighs nothing only if every text does.
    return -math.inf if -math.inf in now else weight + sum(now) - sum(before)


def _spelled(target: Target, value: str) -> Text:
    tokens = target.dense[0].encode(value) if target.dense else ()
    return Text(value.encode("utf-8", "surrogateescape"), tokens)


def log_prob(distribution: Distribution, value: Any) -> float:
    """The checked log-probability of a value. Raises `ModelError` on NaN and +inf."""
    found = distribution.log_prob(value)
    number = as_number(found)
    if math.isnan(number) or number == math.inf:
        raise ModelError(
            f"{distribution!r}.log_prob({value!r}) is {quoted(found)}: it must be a number or -inf"
        )
    return number
