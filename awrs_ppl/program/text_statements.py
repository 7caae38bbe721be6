"""The statements about texts: `Generate` draws one token by token, `Observe` weighs one."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

from awrs_ppl._genlm import Potential
from awrs_ppl.constraints.product import fingerprint
from awrs_ppl.constraints.scoring import score, weighed
from awrs_ppl.constraints.target import Target
from awrs_ppl.distributions import Distribution
from awrs_ppl.errors import ContextLengthError
from awrs_ppl.foreign import Foreign, kind_of
from awrs_ppl.program.arguments import log_prob
from awrs_ppl.program.statements import Rng, Statement
from awrs_ppl.program.text_arguments import (
    critic_of,
    ends_of,
    observed,
    proposal_of,
    text_target,
    token_limit,
)
from awrs_ppl.proposals import Proposal
from awrs_ppl.tokens.text import EMPTY, Text, as_bytes, as_str

__all__ = ["Generate", "Observe"]


class Generate(Statement):
    """`ctx.generate`: a text drawn from `target` by `proposal`, and weighed by `critic`.

    Keys follow what predicates name, which may change: they are computed once, when the
    statement is first served, and a replay needs none.
    """

    __slots__ = (
        *("_key", "critic", "ends", "filters", "fingerprint", "lms"),
        *("max_tokens", "proposal", "target"),
    )
    kind = "generate"
    gives = True
    is_random = True

    def __init__(
        self,
        name: str,
        potential: Potential,
        max_tokens: int = 256,
        proposal: Proposal | None = None,
        critic: Potential | None = None,
        ends: bool = True,
    ) -> None:
        super().__init__(name)
        self.ends = ends_of(ends)
        self.target = text_target(potential, ends=self.ends)
        self.max_tokens = token_limit(max_tokens)
        self.proposal = proposal_of(proposal)
        self.critic = critic_of(critic, self.target)
        self.lms = tuple(dense.lm for dense in self.target.dense)
        self.filters = len(self.lms) == 1 and not self.target.weighted and critic is None
        names = [fingerprint(factor) for factor in self.target.factors]
        if critic is not None:
            names.append(f"critic {fingerprint(critic)}")
        self.fingerprint = (
            " * ".join(names),
            f"max_tokens={self.max_tokens}" + ("" if self.ends else ", ends=False"),
            type(self.proposal).__qualname__,
        )
        self._key: tuple[Hashable, tuple[Hashable, ...], Hashable] | None = None

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
        return self.key[:2], self.proposal, self.ends


class Observe(Statement):
    """`ctx.observe`: the weight times the probability of `value` under a distribution, or of
    texts with this prefix under a product; with `ends` of this text and its end."""

    __slots__ = ("compared", "ends", "errors", "fingerprint", "lms", "source", "value")
    kind = "observe"

    def __init__(
        self,
        name: str,
        potential: Potential | Distribution | Foreign,
        value: Any,
        ends: bool = False,
    ) -> None:
        super().__init__(name)
        self.source = observed(potential, value, ends)
        self.value, self.ends = as_str(value) if isinstance(value, bytes) else value, ends
        shown = repr(value if isinstance(value, str | bytes | int) else type(value).__qualname__)
        if isinstance(self.source, Target):
            self.fingerprint = (fingerprint(potential), shown)
            self.compared = (None, value)
            self.lms = tuple(dense.lm for dense in self.source.dense)
            self.errors = ContextLengthError
        else:
            self.fingerprint = (kind_of(self.source), shown)
            self.compared = (self.source, value)
            self.lms = ()
            self.errors = Exception  # what a user's distribution raises

    async def weigh(self, rng: Rng) -> tuple[None, float]:
        """The log-weight of the value.

        Language models are evaluated in one pass for all observations that are scored side by
        side.
        """
        if not isinstance(self.source, Target):
            return None, log_prob(self.source, self.value)
        target = self.source
        tokens = target.dense[0].encode(self.value) if target.dense else ()
        text = Text(as_bytes(self.value), tokens)
        weight = await score(target, text, ends=self.ends)
        if not self.ends and weight > -math.inf:
            # The empty text weighs nothing only if every text does.
            weight -= await weighed(target, EMPTY, ends=False)
        return None, weight
