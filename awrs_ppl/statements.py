"""The arguments of `generate` and `observe`, checked and sorted; and how `observe` scores."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from genlm.control.potential.base import Potential

from awrs_ppl.distributions import Distribution
from awrs_ppl.errors import ModelError
from awrs_ppl.generation import Generation, weigh
from awrs_ppl.knowledge import start
from awrs_ppl.lifting import Text, Weigher
from awrs_ppl.lm.prompted import PromptedLM
from awrs_ppl.products import Product, Target, common_alphabet, fingerprint
from awrs_ppl.proposals import AWRS, Proposal
from awrs_ppl.tasks import together

__all__ = ["Observation", "generation", "observation", "score"]

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
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise ModelError(
            f"ctx.generate got max_tokens={max_tokens!r}: the end counts as a token, "
            "so it must be an int of at least 1"
        )
    if proposal is None:
        proposal = _AWRS
    elif not hasattr(proposal, "draw"):
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
    asked = Generation(target, max_tokens, proposal, weigher)
    names = [fingerprint(factor) for factor in target.factors]
    if critic is not None:
        names.append(f"critic {fingerprint(critic)}")
    return asked, (" * ".join(names), f"max_tokens={max_tokens}", repr(proposal))


@dataclass(frozen=True, slots=True)
class Observation:
    """What an `observe` statement asks for: a distribution or a sorted product, and a value."""

    distribution: Distribution | None
    target: Target | None
    value: Any
    ends: bool


def observation(
    potential: Potential | Distribution, value: Any, ends: bool
) -> tuple[Observation, tuple[Any, ...]]:
    """What an `observe` statement asks for, and its fingerprint. Raises `ModelError`."""
    shown = value if isinstance(value, str | bytes | int) else type(value).__qualname__
    if isinstance(potential, Potential):
        if not isinstance(value, str):
            raise ModelError(f"ctx.observe got the value {value!r}: potentials weigh a str")
        asked = Observation(None, target_of(potential), value, ends)
        return asked, (fingerprint(potential), repr(shown))
    if not isinstance(potential, Distribution):
        raise ModelError(
            f"ctx.observe got {potential!r}: give it a potential, such as lm('a prompt'), or a "
            "distribution, such as Bernoulli(0.5)"
        )
    if ends:
        raise ModelError("ctx.observe got ends=True for a distribution: only texts have an end")
    return Observation(potential, None, value, ends), (
        type(potential).__qualname__,
        repr(shown),
    )


# Who is scored, by which model, and the tokens of the value.
_Scoring: TypeAlias = tuple[int, PromptedLM, tuple[int, ...]]


async def score(observations: Sequence[Observation]) -> list[float]:
    """The log-weights of observations, language models in batches."""
    weights = [0.0] * len(observations)
    # Weighing factors: the question, and for whom it counts with which sign.
    questions: list[tuple[Weigher, Text, bool]] = []
    askers: list[tuple[int, float]] = []
    batches: dict[tuple[Any, ...], list[tuple[int, PromptedLM, tuple[int, ...]]]] = defaultdict(
        list
    )
    for i, asked in enumerate(observations):
        if asked.distribution is not None:
            weights[i] = _checked(asked.distribution.log_prob(asked.value), asked)
            continue
        assert asked.target is not None
        text = _spelled(asked.target, asked.value)
        weights[i] = await _allowed(asked.target, text, asked.ends)
        if weights[i] == -math.inf:
            continue
        for lm in asked.target.dense:
            key = (lm.lm, lm.temperature, lm.stops, asked.ends)
            batches[key].append((i, lm, text.tokens))
        for weigher in asked.target.weighted:
            questions.append((weigher, text, asked.ends))
            askers.append((i, 1.0))
            if not asked.ends:
                questions.append((weigher, Text(), False))
                askers.append((i, -1.0))

    async def ask(members: list[_Scoring], ends: bool) -> None:
        requests = [(lm.prompt, tokens) for _, lm, tokens in members]
        scored = await members[0][1].score_after(requests, ends=ends)
        for (i, _, _), weight in zip(members, scored, strict=True):
            weights[i] += weight

    await together(ask(members, key[-1]) for key, members in batches.items())
    for (i, sign), weight in zip(askers, await weigh(questions), strict=True):
        # The empty text weighs nothing only if every text does.
        weights[i] = -math.inf if weight == -math.inf else weights[i] + sign * weight
    return weights


def _spelled(target: Target, value: str) -> Text:
    tokens = target.dense[0].lm.encode(value) if target.dense else ()
    return Text(value.encode("utf-8", "surrogateescape"), tokens)


async def _allowed(target: Target, text: Text, ends: bool) -> float:
    states = await start(target, text)
    if states is None:
        return -math.inf
    if ends:
        for factor, state in zip(target.boolean, states, strict=True):
            if not await factor.accepts(state):
                return -math.inf
    return 0.0


def _checked(weight: Any, asked: Observation) -> float:
    assert asked.distribution is not None
    number = float(np.asarray(weight))
    if math.isnan(number) or number == math.inf:
        raise ModelError(
            f"{asked.distribution!r}.log_prob({asked.value!r}) is {number}: it must be a number "
            "or -inf"
        )
    return number
