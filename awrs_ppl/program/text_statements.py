"""The statements about texts: `Generate` draws one token by token, `Observe` weighs one."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

from genlm.control.potential.base import Potential

from awrs_ppl._values import count_of
from awrs_ppl.constraints.factor import evaluate
from awrs_ppl.constraints.product import (
    Product,
    Target,
    common_alphabet,
    dense_log_weight,
    fingerprint,
    start,
)
from awrs_ppl.constraints.weighing import Weigher, require_weights, weigh_texts
from awrs_ppl.distributions import Distribution
from awrs_ppl.errors import ContextLengthError, ModelError
from awrs_ppl.foreign import Foreign, adapted, kind_of
from awrs_ppl.program.statements import Rng, Statement, log_prob
from awrs_ppl.proposals import AWRS, Proposal, is_proposal
from awrs_ppl.tokens.text import Text

__all__ = ["Generate", "Observe", "target_of"]

_AWRS = AWRS()


def target_of(potential: Potential) -> Target:
    """A potential's factors, sorted."""
    return potential.target if isinstance(potential, Product) else Target.of([potential])


class Generate(Statement):
    """`ctx.generate`: a text drawn from `target` by `proposal`, and weighed by `critic`.

    Keys follow what predicates name, which may change: they are computed once, when the
    statement is first served, and a replay needs none.
    """

    __slots__ = ("_key", "critic", "fingerprint", "max_tokens", "proposal", "target")
    kind = "generate"
    gives = True

    def __init__(
        self,
        name: str,
        potential: Potential,
        max_tokens: int = 256,
        proposal: Proposal | None = None,
        critic: Potential | None = None,
    ) -> None:
        super().__init__(name)
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
                f"ctx.generate got proposal={proposal!r}: give it AWRS(), PaperAWRS(), LocalAWRS() "
                "or Prior()"
            )
        weigher = None
        if critic is not None:
            if not isinstance(critic, Potential):
                raise ModelError(
                    f"ctx.generate got critic={critic!r}: a critic is a potential, such as Soft(f)"
                )
            weigher = Weigher(critic, common_alphabet(critic, target.vocabulary, target.stops))
        self.target = target
        self.max_tokens = most
        self.proposal = proposal
        self.critic = weigher
        names = [fingerprint(factor) for factor in target.factors]
        if critic is not None:
            names.append(f"critic {fingerprint(critic)}")
        self.fingerprint = (
            " * ".join(names),
            f"max_tokens={most}",
            type(proposal).__qualname__,
        )
        self._key: tuple[Hashable, tuple[Hashable, ...], Hashable] | None = None

    @property
    def filters(self) -> bool:
        return len(self.target.dense) == 1 and not self.target.weighted and self.critic is None

    @property
    def lms(self) -> tuple[Any, ...]:
        return tuple(dense.lm for dense in self.target.dense)

    @property
    def key(self) -> tuple[Hashable, tuple[Hashable, ...], Hashable]:
        """Equal for statements whose products say the same of every text."""
        if self._key is None:
            self._key = self.target.key
        return self._key

    @property
    def keys(self) -> tuple[Hashable, ...]:
        """The keys of the Boolean factors."""
        return self.key[1]

    @property
    def draw_key(self) -> Hashable:
        """Equal for statements that draw alike, whatever weighs later."""
        return self.key[:2], self.proposal


class Observe(Statement):
    """`ctx.observe`: the weight times the probability of `value` under a distribution, or of
    texts with this prefix under a product; with `ends` of this text and its end."""

    __slots__ = ("distribution", "ends", "fingerprint", "target", "value")
    kind = "observe"

    def __init__(
        self,
        name: str,
        potential: Potential | Distribution | Foreign,
        value: Any,
        ends: bool = False,
    ) -> None:
        super().__init__(name)
        self.distribution: Distribution | None = None
        self.target: Target | None = None
        self.value, self.ends = value, ends
        shown = repr(value if isinstance(value, str | bytes | int) else type(value).__qualname__)
        if isinstance(potential, Potential):
            if not isinstance(value, str):
                raise ModelError(f"ctx.observe got the value {value!r}: potentials weigh a str")
            self.target = target_of(potential)
            if ends:
                _require_end(self.target, f"ctx.observe got ends=True and {potential!r}")
            self.fingerprint = (fingerprint(potential), shown)
            return
        potential = adapted(potential)
        if isinstance(potential, type) or not isinstance(potential, Distribution):
            raise ModelError(
                f"ctx.observe got {potential!r}: give it a potential, such as lm('a prompt'), or a "
                "distribution, such as Bernoulli(0.5) or scipy.stats.norm(0, 1)"
            )
        if ends:
            raise ModelError("ctx.observe got ends=True for a distribution: only texts have an end")
        self.distribution = potential
        self.fingerprint = (kind_of(potential), shown)

    @property
    def compared(self) -> tuple[Any, ...]:
        return (self.distribution, self.value)

    @property
    def lms(self) -> tuple[Any, ...]:
        return () if self.target is None else tuple(dense.lm for dense in self.target.dense)

    @property
    def errors(self) -> type[Exception]:
        # What a user's distribution raises; of potentials a text that is too long.
        return Exception if self.target is None else ContextLengthError

    async def weigh(self, rng: Rng) -> tuple[None, float]:
        """The log-weight of the value.

        Language models are evaluated in one pass for all observations that are scored side by
        side.
        """
        if self.distribution is not None:
            return None, log_prob(self.distribution, self.value)
        assert self.target is not None
        return None, await _score(self.target, self.value, self.ends)


async def _score(target: Target, value: str, ends: bool) -> float:
    """The log-weight that a product gives to a text."""
    text = _spelled(target, value)
    states = await start(target, text)
    if isinstance(states, str):
        return -math.inf
    if ends:
        for factor, state in zip(target.boolean, states, strict=True):
            if not await evaluate(factor, factor.accepts(state), text.data):
                return -math.inf
    weight = await dense_log_weight(target, text, ends=ends)
    if weight == -math.inf:
        return weight
    if ends:
        return weight + sum(
            require_weights(await weigh_texts([(w, text, True) for w in target.weighted]))
        )
    now = require_weights(await weigh_texts([(w, text, False) for w in target.weighted]))
    before = require_weights(await weigh_texts([(w, Text(), False) for w in target.weighted]))
    # The empty text weighs nothing only if every text does.
    return -math.inf if -math.inf in now else weight + sum(now) - sum(before)


def _spelled(target: Target, value: str) -> Text:
    tokens = target.dense[0].encode(value) if target.dense else ()
    return Text(value.encode("utf-8", "surrogateescape"), tokens)


def _require_end(target: Target, got: str) -> None:
    if target.vocabulary is not None and not target.stops and not len(target.vocabulary.ends):
        raise ModelError(
            f"{got}: this language model has no end token, so that no text could ever end: name "
            "stops, as lm('a prompt', stop='\\n'), or give its tokenizer an eos_token"
        )
