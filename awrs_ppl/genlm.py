"""The head-tail proposal as a token sampler of genlm-control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from genlm.control.potential.autobatch import autobatched
from genlm.control.sampler.token import TokenSampler

from awrs_ppl._genlm import Potential, Product
from awrs_ppl._messages import quoted
from awrs_ppl._recent import Recent
from awrs_ppl._values import whole
from awrs_ppl.constraints.factor import ByteFactor
from awrs_ppl.constraints.genlm_factor import TokenFactor, common_alphabet
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.constraints.target import Target, start
from awrs_ppl.constraints.verdict_cache import VerdictCache
from awrs_ppl.proposals import AWRS, Proposal, is_proposal
from awrs_ppl.proposals.token_step import Progress, TokenStep, weigh
from awrs_ppl.tokens.text import Text
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["HeadTailSampler"]

_CONTEXTS = 65_536


class HeadTailSampler(TokenSampler):
    """Draws tokens of `potential` that `condition` allows, for genlm-control's `SMC`.

    `potential` is any of its potentials; `condition` a Boolean one, over the same tokens or over
    bytes, ours or genlm-control's. What is learned about the condition is kept as long as the
    sampler. The target is the product of the two, the weights are proper. `seed` fixes the draws
    as long as the particles draw in the same order.

    >>> import asyncio
    >>> from genlm.control import SMC, BoolFSA
    >>> from awrs_ppl import ToyLM
    >>> sampler = HeadTailSampler(ToyLM(["a", "b"])("a"), BoolFSA.from_regex("a+"), seed=0)
    >>> sequences = asyncio.run(SMC(sampler)(n_particles=4, ess_threshold=0.5, max_tokens=5))
    >>> {b"".join(sequence[:-1])[:1] for sequence in sequences.contexts}
    {b'a'}
    """

    def __init__(
        self,
        potential: Potential,
        condition: Potential,
        *,
        seed: int | None = None,
        proposal: Proposal | None = None,
    ) -> None:
        for name, given in (("potential", potential), ("condition", condition)):
            if not isinstance(given, Potential):
                raise TypeError(f"HeadTailSampler got {name}={quoted(given)}: it needs a potential")
        if proposal is not None and not is_proposal(proposal):
            raise TypeError(
                f"HeadTailSampler got proposal={quoted(proposal)}: give AWRS(), or another"
            )
        if seed is not None:
            seed = whole("seed", seed, least=0)
        tokens = [_bytes(symbol) for symbol in potential.vocab]
        # By genlm-backend's own numbers, where it has some: conditions over tokens read them.
        ids: list[int] = [
            getattr(symbol, "token_id", i) for i, symbol in enumerate(potential.vocab)
        ]
        self._end = max(ids) + 1
        spelled = [b""] * self._end
        for i, token in zip(ids, tokens, strict=True):
            spelled[i] = token
        self._vocabulary = Vocabulary([*spelled, b""], ends=[self._end])
        self._ids = np.array([*ids, self._end])
        self._symbols = dict(zip(ids, potential.vocab, strict=True))
        self._numbers = {symbol: i for i, symbol in self._symbols.items()}
        boolean = isinstance(condition, BooleanPotential)
        factor = (
            ByteFactor(condition)
            if boolean
            else TokenFactor(condition, common_alphabet(condition, self._vocabulary, ()))
        )
        self._factors = Target((condition,), (), (factor,), (), self._vocabulary, ())
        if condition.token_type != potential.token_type:
            condition = condition.coerce(potential, f=b"".join, prune=False)
        self.potential = autobatched(potential)
        super().__init__(target=Product(self.potential, condition))
        self._proposal = AWRS() if proposal is None else proposal
        self._rng = np.random.default_rng(seed)
        self._cache = VerdictCache()
        self._progress = Recent(_CONTEXTS)
        self.checks = 0

    async def sample(self, context: Sequence[Any], draw: Any = None) -> tuple[Any, float, float]:
        """A token or the end, its log-weight, and NaN for its log-probability.

        Raises `ValueError` if `draw` is given: there is no categorical draw to replace.
        """
        if draw is not None:
            raise ValueError(f"{type(self).__name__} has no categorical draw for draw={draw!r}")
        ids = tuple(self._numbers[symbol] for symbol in context)
        text = Text(b"".join(map(_bytes, context)), ids)
        progress = await self._reach(text)
        if progress is None:
            return self.target.eos, -np.inf, np.nan
        weights = torch.as_tensor((await self.potential.logw_next(context)).weights)
        row = torch.full((1, self._vocabulary.size), -torch.inf, dtype=weights.dtype)
        row = row.to(weights.device)
        row[0, torch.from_numpy(self._ids).to(weights.device)] = weights
        total = float(weights.double().logsumexp(0))
        if total == -np.inf:
            return self.target.eos, -np.inf, np.nan
        # genlm-control's SMC knows nothing of twists.
        step = TokenStep.at(self._factors, progress, self._cache, self._proposal, twisted=False)
        weigh([step], [row])
        (drawn,) = await step.draw([self._rng])
        (after,) = await step.commit([drawn])
        if after is None or after.ended:
            token = self.target.eos
        else:
            token = self._symbols[drawn.outcome]
            self._progress.put(after.text.tokens, after)
        self.checks += step.verdicts.n_checks
        return token, drawn.log_weight + total, np.nan

    async def _reach(self, text: Text) -> Progress | None:
        progress = self._progress.get(text.tokens)
        if progress is None:
            states = await start(self._factors, text)
            if isinstance(states, str):
                return None
            progress = Progress(text, states, ())
            self._progress.put(text.tokens, progress)
        return progress


def _bytes(symbol: Any) -> bytes:
    if isinstance(symbol, int):
        return bytes([symbol])
    return symbol.encode() if isinstance(symbol, str) else bytes(symbol)
