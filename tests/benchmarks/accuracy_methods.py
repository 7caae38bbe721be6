"""The methods of `accuracy.py`: each gives the outcome of one run on a problem."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from accuracy_lms import ByBatches
from accuracy_problems import Problem
from genlm.backend.tokenization import Token
from genlm.control import AWRS as GenlmAWRS
from genlm.control import SMC, PromptedLLM

from awrs_ppl import LM, Context, Posterior, ToyLM, exact, infer, rejection
from awrs_ppl.constraints.product import Target, product

__all__ = ["METHODS", "Method", "NotApplicable", "Outcome", "trouble"]


class NotApplicable(Exception):
    """A method that cannot run a problem; its text says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. `shares`: the probability of each class of values; empty without a survivor.

    `rows`, `passes`: of the language model; `seconds` by the clock; `alive` particles; `pairs`:
    distinct first two tokens of the first text among them, as the tokenizer spells it. `warning`:
    what the header warned of, if anything.
    """

    log_ml: float
    shares: dict[str, float]
    rows: int
    passes: int
    seconds: float
    alive: int
    pairs: int
    warning: str = ""

    def as_json(self) -> dict[str, Any]:
        """JSON has no infinity: `log_ml` is None without a survivor."""
        return asdict(self) | {"log_ml": None if self.log_ml == -math.inf else self.log_ml}


# Rows that children take for each particle, about, on the problems of known posterior; and
# after how many seconds a rejection that draws nothing is given up.
_ROWS, _MOST_SECONDS = 8, 120.0

# A value to the label of its class.
Label = Callable[[Hashable], str]


@dataclass(frozen=True, slots=True)
class Method:
    """Options of `infer`, and of how many runs the outcome is pooled; None: genlm-control.

    With an `algorithm` of another name, `options` are those of that function. What a population of
    so many particles is, is `_ROWS` rows a particle for a search, and as many draws for rejection.
    """

    options: dict[str, Any] | None
    runs: int = 1
    algorithm: str = "smc"

    def run(self, problem: Problem, lm: LM, label: Label, particles: int, seed: int) -> Outcome:
        """One run, from an empty cache. Raises `NotApplicable`."""
        if clear := getattr(lm.engine, "clear_cache", None):
            clear()
        if self.options is None:
            return asyncio.run(_genlm_control(problem.program(lm), label, particles, seed))
        if self.algorithm != "smc":
            settings = {"max_rows": _ROWS * particles, "tolerance": 0.0}
            if self.algorithm == "rejection":
                settings = {"n": particles, "timeout": _MOST_SECONDS, "seed": seed}
            settings |= self.options
            model = problem.program(lm)
            found = [asyncio.run(_timed(model, settings, None, seed, self.algorithm))]
        elif self.runs == 1 or _has_runs():
            more = {"runs": self.runs} if self.runs > 1 else {}
            found = [asyncio.run(_timed(problem.program(lm), self.options | more, particles, seed))]
        else:  # seeds of its own for each, and nothing shared but the cache
            seeds = range(seed * self.runs, (seed + 1) * self.runs)
            model = problem.program(lm)
            found = [asyncio.run(_timed(model, self.options, particles, one)) for one in seeds]
        return _pooled([_outcome(posterior, took, lm, label) for posterior, took in found])


METHODS = {
    "importance sampling": Method({"ess_threshold": 0.0}),
    "old SMC": Method({"resampling": "stratified", "ess_threshold": 0.5}),
    "genlm-control": Method(None),
    "children": Method({"resampling": "children"}),
    "auto": Method({"resampling": "auto"}),
    "old SMC, 4 runs": Method({"resampling": "stratified", "ess_threshold": 0.5}, runs=4),
    "children, 4 runs": Method({"resampling": "children"}, runs=4),
    "exact": Method({}, algorithm="exact"),
    "rejection, cold": Method({"prime_rows": 0}, algorithm="rejection"),
    "rejection, primed": Method({"prime_rows": 400}, algorithm="rejection"),
}


def trouble(method: Method) -> str:
    """Why this library cannot run a method; empty if it can."""
    if method.options is None or method.algorithm != "smc":
        return ""
    try:
        _try(**method.options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _has_runs() -> bool:
    """Whether `infer` pools runs itself."""
    try:
        _try(runs=2)
    except TypeError:
        return False
    return True


def _try(**options: Any) -> None:
    lm = ToyLM(["a", "b"], weights=lambda context: [1, 1, 2])

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a"), max_tokens=3)

    asyncio.run(cast(Any, infer)(model, n_particles=2, seed=0, progress=False, **options))


# --- ours -------------------------------------------------------------------------------------


async def _timed(
    model: Any, options: dict[str, Any], particles: int | None, seed: int, algorithm: str = "smc"
) -> tuple[Posterior, float]:
    started = time.perf_counter()
    infers: Any = {"smc": infer, "exact": exact, "rejection": rejection}[algorithm]
    settings = {} if particles is None else {"n_particles": particles, "seed": seed}
    posterior = await infers(model, progress=False, **settings, **options)
    return posterior, time.perf_counter() - started


def _outcome(posterior: Posterior, seconds: float, lm: LM, label: Label) -> Outcome:
    shares: dict[str, float] = defaultdict(float)
    for value, share in posterior.probabilities.items():
        shares[label(value)] += share
    alive = [trace for trace in posterior if trace.log_weight > -math.inf]
    texts = [next(v for v in trace.values() if isinstance(v, str)) for trace in alive]
    return Outcome(
        log_ml=posterior.log_ml,
        shares=dict(shares),
        rows=posterior.stats.lm_rows,
        passes=posterior.stats.lm_passes,
        seconds=seconds,
        alive=len(alive),
        pairs=len({lm.encode(text)[:2] for text in texts}),
        warning=_warning(posterior),
    )


def _warning(posterior: Any) -> str:
    """The first line that warns."""
    return next(iter(posterior.diagnose().warnings), "")


def _pooled(parts: list[Outcome]) -> Outcome:
    """Runs as one, by evidence. Pairs are those of the heaviest."""
    if len(parts) == 1:
        return parts[0]
    logs = np.array([part.log_ml for part in parts])
    log_ml = float(np.logaddexp.reduce(logs)) - math.log(len(parts))
    shares: dict[str, float] = defaultdict(float)
    if log_ml > -math.inf:
        for part, weight in zip(parts, np.exp(logs - np.logaddexp.reduce(logs)), strict=True):
            for name, share in part.shares.items():
                shares[name] += float(weight) * share
    return Outcome(
        log_ml=log_ml,
        shares=dict(shares),
        rows=sum(part.rows for part in parts),
        passes=sum(part.passes for part in parts),
        seconds=sum(part.seconds for part in parts),
        alive=sum(part.alive for part in parts),
        pairs=parts[int(np.argmax(logs))].pairs,
        warning=next((part.warning for part in parts if part.warning), ""),
    )


# --- genlm-control ----------------------------------------------------------------------------


class _Spy:
    """Stands for the context: what does the only `generate` of a program draw from?"""

    def __init__(self) -> None:
        self.asked: list[tuple[Target, int]] = []

    async def generate(self, potential: Any, *, max_tokens: int = 256, **_: Any) -> str:
        target = getattr(potential, "target", None) or product(potential).target
        self.asked.append((target, max_tokens))
        if len(self.asked) > 1:
            raise NotApplicable("genlm-control draws one text, and this is a program of several")
        return "  "

    def __getattr__(self, name: str) -> Any:
        raise NotApplicable(f"genlm-control draws one text, and this program has a {name}")


class _Counting(ByBatches):
    """An engine that notes the contexts it was asked for."""

    def __init__(self, engine: Any) -> None:
        # Not AsyncLM's own __init__, which decodes the tokenizer's vocabulary once more.
        self.engine, self.contexts = engine, set[tuple[int, ...]]()
        self.tokenizer = engine.tokenizer
        self.byte_vocab = [Token(i, bytes(data)) for i, data in enumerate(engine.byte_vocab)]
        self.str_vocab = [bytes(token).decode("utf-8", "replace") for token in self.byte_vocab]

    async def batch_next_token_logprobs(
        self, token_ids_list: Sequence[Sequence[int]], lora_name: str | None = None
    ) -> torch.Tensor:
        """Log-probabilities, shape `[len(token_ids_list), vocab_size]`."""
        contexts = [tuple(ids) for ids in token_ids_list]
        self.contexts.update(contexts)
        return torch.log_softmax(await self.engine.next_logits(contexts), dim=-1)


async def _genlm_control(model: Any, label: Label, particles: int, seed: int) -> Outcome:
    """SMC(AWRS) on the same engine. Tokens that begin with a stop end the text; those with text
    before one are rejected, as it has no such ends."""
    spy = _Spy()
    await model(spy)
    ((target, max_tokens),) = spy.asked
    (dense,) = target.dense
    lm = dense.lm
    if lm.tokenizer is None:
        raise NotApplicable("genlm-control needs a tokenizer")
    others = [factor for factor in target.factors if factor is not dense]
    if not others:
        raise NotApplicable("genlm-control's AWRS needs a constraint")
    tokens, counting = lm.vocabulary.tokens, _Counting(lm.engine)
    closing = [i for i in lm.vocabulary.text_ids.tolist() if tokens[i].startswith(target.stops)]
    ends = dict.fromkeys(bytes(tokens[i]) for i in [*lm.vocabulary.ends.tolist(), *closing])
    llm = PromptedLLM(counting, prompt_ids=list(dense.prompt), eos_byte_strings=list(ends))
    constraint = (others[0] if len(others) == 1 else product(*others)).coerce(
        llm, f=b"".join, prune=False
    )
    smc = SMC(GenlmAWRS(llm, constraint, seed=seed))
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - it resamples with numpy's global generator
    passes, started = lm.engine.stats.passes, time.perf_counter()
    found = await smc(n_particles=particles, ess_threshold=0.5, max_tokens=max_tokens)
    seconds = time.perf_counter() - started
    shares: dict[str, float] = defaultdict(float)
    weights = np.asarray(found.log_weights, float)
    alive = np.flatnonzero(weights > -math.inf)
    for i in alive:
        text = b"".join(bytes(token) for token in found.contexts[i][:-1])
        share = math.exp(weights[i] - found.log_total)
        shares[label(text.decode("utf-8", "surrogateescape"))] += share
    return Outcome(
        log_ml=float(found.log_ml),
        shares=dict(shares),
        rows=len(counting.contexts),
        passes=lm.engine.stats.passes - passes,
        seconds=seconds,
        alive=len(alive),
        pairs=len({tuple(map(bytes, found.contexts[i][:-1][:2])) for i in alive}),
    )
