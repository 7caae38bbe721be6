"""Checks of a black-box constraint, and the error of the evidence, against genlm-control's AWRS.

The task is the paper's pattern matching: a language model is shown a regular expression and
asked for a string that matches it; the constraint is partial matching by `regex`, a Boolean
function over text of which nothing else is known. Both systems sample from the same target:
the same rows of one cached engine in float32, the same text tokens, the same tokens that end a
text (those of the model, and all that begin with a newline), and no newline within a text. The
seeds of a pattern run side by side and ask for rows that are kept, so the language model is not
timed here: `seconds` are those of the main thread, all but the forward passes.

    python tests/benchmarks/checks.py [--quick] [--check] [--raw FILE] [--json FILE]
        [--set tune|report] [--model NAME] [--method NAME] [--seeds N] [--limit N]
        [--patterns FILE] [--option effort=4]

The bars are those of "ours" at `effort=4`, which is what `--option` says if it says nothing, and
resampled as genlm-control does; "ours, by cost" is `AWRS()`, whose effort follows from the cost of
a check, and "ours, by default" has competing children besides.

With `--raw` every run is kept, and a run that was stopped continues where it was; a change of
the library needs a new file. See the README here for the patterns and their evidence.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import csv
import inspect
import json
import math
import sys
import time
from bisect import bisect_left
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple, cast

import numpy as np
import regex
import torch
from genlm.backend.llm.base import AsyncLM
from genlm.control import AWRS as GenlmAWRS
from genlm.control import SMC, PromptedLLM
from genlm.control.potential.built_in.llm import TokenMappings

from awrs_ppl import AWRS, LM, Context, PaperAWRS, infer
from awrs_ppl.potentials import BooleanPotential, predicate

PARTICLES, MAX_TOKENS, SEEDS = 5, 32, 100
ESS_THRESHOLD = 0.5

# The bars, ours against genlm-control: mean checks and median product, so many times smaller.
BARS = {
    "smollm2-135m": {"checks": 6.0, "product": 10.0},
    "gemma3-270m": {"checks": 2.0, "product": 5.0},
}
# The share of patterns with more checks and more error; there are no more dead runs.
MAX_WORSE = 0.1
# Checks of five runs that remember, over those of five that do not.
MAX_REMEMBERED = 0.5

# Runs side by side; of a remembering method, so many in a row.
CHUNK, IN_A_ROW = 20, 5
# What is kept at most, so that both models can be run side by side in 16 GB.
ROW_BYTES, MASK_BYTES = 2 * 2**30, 2**29
# A reference scans vocabularies up to this size, and asks for about so many rows at most.
MOST_SCANNED, REFERENCE_ROWS = 100_000, 8000
# Seconds of a run on two cores, until there are some from the run itself.
EXPECTED = {"smollm2-135m": 0.5, "gemma3-270m": 1.5}

QUICK = {
    "seeds": 20,
    "limit": 4,
    "methods": ("genlm-control", "ours", "ours, remembered", "ours, by cost"),
}

SHOTS = {"(ab)+": "ab", "(ab|cd)+": "cd", "[a-z]+": "hello"}
SYSTEM = (
    "You generate strings that match regular expressions. You are given a regular expression; "
    "only output the exact string, without quotes or explanations."
)


# --- what a run costs ------------------------------------------------------------------------


@dataclass(slots=True)
class Cost:
    """What one run has cost so far.

    All particles of a run have the same number of tokens, so the distinct contexts of all
    steps are those of each step, added up.
    """

    checks: int = 0
    steps: int = 0
    contexts: set[tuple[int, ...]] = field(default_factory=set)


# Runs go side by side and share engine and samplers: a context variable separates them.
COST: ContextVar[Cost] = ContextVar("COST")


class RowCache(AsyncLM):
    """An engine whose rows are kept, least recently used out first."""

    def __init__(self, engine: Any, limit: int) -> None:
        # Not AsyncLM's own __init__, which decodes the tokenizer's vocabulary once more.
        self.tokenizer = engine.tokenizer
        self.byte_vocab, self.str_vocab = engine.byte_vocab, engine.str_vocab
        self.engine = engine
        self.rows: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()
        self.limit = limit // (4 * engine.vocab_size)

    async def batch_next_token_logprobs(
        self, token_ids_list: Sequence[Sequence[int]], lora_name: str | None = None
    ) -> torch.Tensor:
        """Log-probabilities, shape `[len(token_ids_list), vocab_size]`."""
        contexts = [tuple(ids) for ids in token_ids_list]
        COST.get().contexts.update(contexts)
        found = {context: self.rows[context] for context in contexts if context in self.rows}
        missing = [context for context in dict.fromkeys(contexts) if context not in found]
        if missing:
            new = torch.log_softmax(await self.engine.next_logits(missing), dim=-1)
            # A row that is a view would keep its whole batch.
            found |= {context: row.clone() for context, row in zip(missing, new, strict=True)}
        for context, row in found.items():
            self.rows[context] = row
            self.rows.move_to_end(context)
        while len(self.rows) > self.limit:
            self.rows.popitem(last=False)
        return torch.stack([found[context] for context in contexts])

    async def next_token_logprobs(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, token_ids: Sequence[int], lora_name: str | None = None
    ) -> torch.Tensor:
        """One row, shape `[vocab_size]`."""
        return (await self.batch_next_token_logprobs([token_ids]))[0]

    def next_token_logprobs_sync(self, token_ids: Any, lora_name: str | None = None) -> Any:
        # Called once, at load, where nothing is counted.
        (row,) = asyncio.run(self.engine.next_logits([tuple(token_ids)]))
        return torch.log_softmax(row, dim=-1)


class CountingAWRS(GenlmAWRS):
    """genlm-control's sampler; one check is one evaluation on a token or an end.

    It keeps what it accepted at a context itself, and checks that once.
    """

    async def sample(self, context: Any, draw: Any = None, verbosity: int = 0) -> Any:
        COST.get().steps += 1
        return await super().sample(context, draw, verbosity)

    async def logw_eos(self, context: Any) -> Any:
        COST.get().steps += 1
        COST.get().checks += 1
        return await super().logw_eos(context)

    async def _accept(self, context: Any, token: Any, verbosity: int = 0) -> bool:
        COST.get().checks += 1
        return await super()._accept(context, token, verbosity)


# --- the problem, as both systems see it -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bench:
    """A model with the tokens that end a text, for ours (`lm`) and genlm-control (`maps`)."""

    lm: LM
    engine: RowCache
    maps: TokenMappings

    @classmethod
    def load(cls, name: str) -> Bench:
        """An embedded model."""
        embedded = LM.embedded(cast(Any, name), dtype="float32")
        vocabulary = embedded.vocabulary
        # Given by their ids and not as `stop="\n"`, under which the tokens with text before a
        # newline end a text too: genlm-control has no such ends, and rejects these tokens.
        newlines = [i for i in vocabulary.text_ids.tolist() if vocabulary.tokens[i][:1] == b"\n"]
        ends = [*vocabulary.ends.tolist(), *newlines]
        engine = RowCache(embedded.engine, ROW_BYTES)
        lm = LM.from_backend(engine, ends=ends)
        texts = dict.fromkeys(bytes(vocabulary.tokens[i]) for i in ends)
        maps = TokenMappings.create(engine.byte_vocab, list(texts))
        assert sorted(maps.eos_idxs) == lm.vocabulary.ends.tolist(), "the ends differ"
        return cls(lm, engine, maps)

    def ask(self, pattern: str) -> Any:
        """The model after the prompt for a pattern: our potential."""
        if getattr(self.lm.tokenizer, "chat_template", None) is None:
            shots = [*SHOTS.items(), (pattern, "")]
            parts = [f"Regular expression:\n{p}\nMatching string:\n{s}" for p, s in shots]
            return self.lm("\n\n".join(["Strings that match regular expressions.", *parts]))
        messages = [{"role": "system", "content": SYSTEM}]
        for shot, answer in SHOTS.items():
            messages.append({"role": "user", "content": shot})
            messages.append({"role": "assistant", "content": answer})
        return self.lm.chat([*messages, {"role": "user", "content": pattern}])


def constraint(pattern: str) -> Any:
    """The black box: prefixes by partial match, whole texts by full match, no newline."""
    matcher = regex.compile(pattern)

    # Some patterns match slowly. As it is new each time, no run uses another's verdicts either.
    @cache
    def is_prefix(text: str) -> bool:
        return "\n" not in text and matcher.fullmatch(text, partial=True) is not None

    return predicate(is_prefix, complete=lambda text: matcher.fullmatch(text) is not None)


# --- the methods -----------------------------------------------------------------------------

# Gives the results of runs with these seeds: checks, rows, steps, log_ml and seconds.
Result = dict[str, Any]
Method = Callable[[Bench, str, Sequence[int], Any], Awaitable[list[Result]]]


def result(cost: Cost, log_ml: float) -> Result:
    """JSON has no infinity: `log_ml` is None where all particles died."""
    return {
        "checks": cost.checks,
        "rows": len(cost.contexts),
        "steps": cost.steps,
        "log_ml": None if log_ml == -math.inf else float(log_ml),
    }


async def timed(runs: Awaitable[list[Result]]) -> list[Result]:
    """Charge each run its share of the main thread's time."""
    started = time.thread_time()
    results = await runs
    seconds = (time.thread_time() - started) / len(results)
    return [found | {"seconds": seconds} for found in results]


async def genlm_control(
    bench: Bench, pattern: str, seeds: Sequence[int], _: Any = None
) -> list[Result]:
    """SMC(AWRS) of genlm-control."""
    prompted = bench.ask(pattern)
    llm = PromptedLLM(bench.engine, prompt_ids=list(prompted.prompt), token_maps=bench.maps)
    # Over our text tokens, so that control tokens weigh 0 here too.
    condition = constraint(pattern).coerce(
        prompted, f=b"".join, prune=False, tables=bench.lm.vocabulary.tables
    )
    # A batch would be evaluated by one run for others too; without it each does its own.
    sampler = CountingAWRS(llm, condition, autobatch=False)
    sampler.rng = np.random.default_rng(seeds[0])
    torch.manual_seed(seeds[0])
    np.random.seed(seeds[0])  # noqa: NPY002 - it resamples with numpy's global generator
    smc = SMC(sampler)

    async def one() -> Result:
        COST.set(cost := Cost())
        sequences = await smc(
            n_particles=PARTICLES,
            ess_threshold=ESS_THRESHOLD,
            max_tokens=MAX_TOKENS,
            # Its default is "multinomial"; what differs here are the proposals alone.
            resampling_method="stratified",
        )
        return result(cost, sequences.log_ml)

    return await timed(asyncio.gather(*(one() for _ in seeds)))


async def our_run(
    bench: Bench, pattern: str, allowed: Any, seed: int, proposal: Any, **options: Any
) -> Result:
    """One inference of ours."""
    COST.set(cost := Cost())
    prompted = bench.ask(pattern)

    async def model(ctx: Context) -> str:
        return await ctx.generate(prompted * allowed, max_tokens=MAX_TOKENS, proposal=proposal)

    # The scheme that genlm-control has too: what differs is the proposal.
    scheme = {"resampling": "stratified", "ess_threshold": ESS_THRESHOLD}
    settings = {"n_particles": PARTICLES, **scheme, **options}
    posterior = await infer(model, seed=seed, progress=False, **settings)
    cost.checks, cost.steps = sum(posterior.stats.checks.values()), posterior.stats.tokens
    return result(cost, posterior.log_ml)


def ours(proposal_of: Callable[[Any], Any], **settings: Any) -> Method:
    """Our engine with the proposal that is made of the options of the command line, and with
    settings of `infer`."""

    async def runs(bench: Bench, pattern: str, seeds: Sequence[int], options: Any) -> list[Result]:
        allowed = constraint(pattern)
        proposal = proposal_of(options)
        each = (our_run(bench, pattern, allowed, seed, proposal, **settings) for seed in seeds)
        return await timed(asyncio.gather(*each))

    return runs


async def remembered(
    bench: Bench, pattern: str, seeds: Sequence[int], options: Any
) -> list[Result]:
    """Runs in a row, of which each knows what those before it have learned."""

    async def row(part: Sequence[int]) -> list[Result]:
        allowed, proposal = constraint(pattern), AWRS(**options)
        return [
            await our_run(bench, pattern, allowed, seed, proposal, remember=True) for seed in part
        ]

    async def rows() -> list[Result]:
        parts = [seeds[i : i + IN_A_ROW] for i in range(0, len(seeds), IN_A_ROW)]
        return [run for part in await asyncio.gather(*map(row, parts)) for run in part]

    return await timed(rows())


METHODS: dict[str, Method] = {
    "genlm-control": genlm_control,
    "ours": ours(lambda options: AWRS(**options)),
    "ours, remembered": remembered,
    "ours, by cost": ours(lambda _: AWRS()),
    "ours, by default": ours(lambda _: AWRS(), resampling="auto", ess_threshold=None),
    "two-loop": ours(lambda _: PaperAWRS("two-loop")),
    "recursive": ours(lambda _: PaperAWRS("recursive")),
    "geometric": ours(lambda _: PaperAWRS("geometric")),
}
# Those that take the options of the command line.
TUNED = ("ours", "ours, remembered")
# Their options where the command line has none: a check is then dear, as the bars have it.
OPTIONS = {"effort": 4.0}


# --- the evidence ----------------------------------------------------------------------------

# All matches of the patterns that have few.
FINITE = {
    r"(?(?=a)abc|xyz)": ["abc", "xyz"],
    r"^abc$": ["abc"],
    r"(?<=\s|\A)word(?=\s|\Z)": ["word"],
    r"(?>a{0,1})b": ["b", "ab"],
    r"(?>a{2}b{3})": ["aabbb"],
    r"(a)\1(?<=aa)(?=a)a": ["aaa"],
    r"^(?|(a)|(b))(?<a>x)$": ["ax", "bx"],
    r"(?>a{3,5})": ["aaa", "aaaa", "aaaaa"],
    r"(?>a|ab)c": ["ac"],
    r"(?<!\w)word(?!\w)": ["word"],
    r"(?>a{1,3}+)b": ["ab", "aab", "aaab"],
}

# The rows of the file of patterns: pattern, set, and for each model the evidence and its error.
Patterns = list[dict[str, str]]


class Scanned(BooleanPotential):
    """The black box with masks, found by a scan of the vocabulary and kept by the text so far.

    Nothing is left to chance but the tokens themselves, and no token proposal is involved.
    """

    def __init__(self, pattern: str, vocabulary: Any) -> None:
        super().__init__()
        self.box = constraint(pattern)
        self.matcher = regex.compile(pattern)
        self.masks: dict[bytes, np.ndarray] = {}
        # Tokens that are characters, in the order of these; the others have parts of characters.
        texts, self.parts = [], []
        for i in vocabulary.text_ids.tolist():
            try:
                texts.append((bytes(vocabulary.tokens[i]).decode(), i))
            except UnicodeDecodeError:
                self.parts.append(i)
        self.texts, self.ids = zip(*sorted(texts), strict=True)

    def start(self) -> Any:
        return self.box.start()

    def advance(self, state: Any, data: bytes) -> Any:
        return self.box.advance(state, data)

    def accepts(self, state: Any) -> Any:
        return self.box.accepts(state)

    def mask(self, state: Any, vocabulary: Any) -> np.ndarray:
        if state not in self.masks:
            if len(self.masks) * vocabulary.size >= MASK_BYTES:
                self.masks.clear()
            self.masks[state] = self._scan(state, vocabulary)
        return self.masks[state]

    def _scan(self, state: bytes, vocabulary: Any) -> np.ndarray:
        allowed = np.zeros(vocabulary.size, dtype=bool)
        # In a multi-byte character only its other parts continue.
        with suppress(UnicodeDecodeError):
            before = state.decode()
            at = 0
            while at < len(self.texts):
                text = self.texts[at]
                allowed[self.ids[at]] = self._is_prefix(before + text)
                at += 1
                if not allowed[self.ids[at - 1]]:
                    # All with the shortest rejected prefix are rejected.
                    cuts = (text[:cut] for cut in range(1, len(text) + 1))
                    rejected = next(cut for cut in cuts if not self._is_prefix(before + cut))
                    at = bisect_left(self.texts, rejected + chr(sys.maxunicode), at)
        for i in self.parts:
            allowed[i] = self.advance(state, bytes(vocabulary.tokens[i])) is not None
        return allowed

    def _is_prefix(self, text: str) -> bool:
        # Not by way of the black box, which keeps every text it was ever given.
        return "\n" not in text and self.matcher.fullmatch(text, partial=True) is not None


async def reference(bench: Bench, pattern: str) -> tuple[float, float]:
    """The evidence and its standard error, by runs with many particles.

    At least 8 runs, and up to 64 until the relative error is 3 % or `REFERENCE_ROWS` were used.
    """
    # A scan of a large vocabulary at every text takes too long: there the black box is checked.
    scan = bench.lm.vocabulary.size <= MOST_SCANNED
    allowed = Scanned(pattern, bench.lm.vocabulary) if scan else constraint(pattern)
    settings = {"n_particles": 64 if scan else 32, "remember": not scan}
    values: list[float] = []
    rows = 0
    while len(values) < 8 or (
        len(values) < 64 and rows < REFERENCE_ROWS and stderr(values) > 0.03 * mean(values)
    ):
        # Seeds that no run of the comparison has; few at once, for the sake of memory.
        seeds = range(10**6 + len(values), 10**6 + len(values) + 4)
        each = (our_run(bench, pattern, allowed, seed, AWRS(), **settings) for seed in seeds)
        for run in await asyncio.gather(*each):
            values.append(0.0 if run["log_ml"] is None else math.exp(run["log_ml"]))
            rows += run["rows"]
    return mean(values), stderr(values)


async def enumerated(bench: Bench, pattern: str) -> float:
    """The evidence of a pattern with few matches, exactly: all ways to spell them in tokens."""
    COST.set(Cost())
    prompt, vocabulary = bench.ask(pattern).prompt, bench.lm.vocabulary

    async def spelled(ids: tuple[int, ...], rest: bytes) -> float:
        (row,) = await bench.engine.batch_next_token_logprobs([prompt + ids])
        p = row.double().exp()
        if not rest:
            return float(p[vocabulary.ends.tolist()].sum())
        found = 0.0
        for cut in range(1, len(rest) + 1):
            for token in vocabulary.prefix_index.spelling(rest[:cut]):
                found += float(p[token]) * await spelled((*ids, int(token)), rest[cut:])
        return found

    return sum([await spelled((), text.encode()) for text in FINITE[pattern]])


def stderr(values: Sequence[float]) -> float:
    """The standard error of the mean."""
    return stdev(values) / math.sqrt(len(values))


def write_references(bench: Bench, model: str, rows: Patterns, file: Path) -> None:
    """Put the evidence into the file where it is missing."""
    for row in rows:
        if not row[f"z {model}"]:
            pattern = row["pattern"]
            if pattern in FINITE:
                z, error = asyncio.run(enumerated(bench, pattern)), 0.0
            else:
                z, error = asyncio.run(reference(bench, pattern))
            row[f"z {model}"], row[f"error {model}"] = f"{z:.6g}", f"{error:.2g}"
            print(f"{model} {row['pattern']}: {z:.4g} +- {error:.2g}", file=sys.stderr)
            with file.open("w", newline="") as output:
                writer = csv.DictWriter(output, list(row), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


# --- running and keeping ---------------------------------------------------------------------


class Job(NamedTuple):
    """A method on a pattern."""

    model: str
    pattern: str
    method: str
    options: str


def plan(models: Sequence[str], patterns: Sequence[str], methods: Any, options: Any) -> list[Job]:
    """All jobs; those of a pattern in a row, since they ask for the same rows."""
    given, none = json.dumps(options, sort_keys=True), json.dumps({})
    return [
        Job(model, pattern, method, given if method in TUNED else none)
        for model in models
        for pattern in patterns
        for method in methods
    ]


class Runs:
    """The runs so far, by job and seed; with a file they are kept there."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.found: dict[Job, dict[int, Result]] = defaultdict(dict)
        if path and Path(path).exists():
            for line in Path(path).read_text().splitlines():
                run = json.loads(line)
                self.found[Job(*(run[name] for name in Job._fields))][run["seed"]] = run

    def add(self, job: Job, seeds: Sequence[int], runs: list[Result], wall: float) -> None:
        """Keep the runs of a chunk, which took `wall` seconds each with all there is to it."""
        lines = [
            job._asdict() | {"seed": seed} | run | {"wall": wall}
            for seed, run in zip(seeds, runs, strict=True)
        ]
        self.found[job].update(zip(seeds, lines, strict=True))
        if self.path:
            with open(self.path, "a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))

    def missing(self, job: Job, seeds: int) -> list[range]:
        """The chunks of seeds that have not all been run."""
        chunks = [range(i, min(i + CHUNK, seeds)) for i in range(0, seeds, CHUNK)]
        return [chunk for chunk in chunks if not self.found[job].keys() >= set(chunk)]

    def minutes(self, jobs: Sequence[Job], seeds: int) -> float:
        """What is left to do, at the pace of the same model and method so far."""
        pace: dict[tuple[str, str], list[float]] = defaultdict(list)
        for job, runs in self.found.items():
            pace[job.model, job.method] += [run["wall"] for run in runs.values()]
        left = 0.0
        for job in jobs:
            known = pace[job.model, job.method]
            each = mean(known) if known else EXPECTED[job.model]
            left += each * sum(map(len, self.missing(job, seeds)))
        return left / 60


def measure(jobs: list[Job], seeds: int, options: Any, runs: Runs) -> None:
    """Do all jobs that are not done."""
    print(f"about {runs.minutes(jobs, seeds):.0f} minutes to go", file=sys.stderr)
    benches: dict[str, Bench] = {}
    for job in jobs:
        for chunk in runs.missing(job, seeds):
            if job.model not in benches:
                benches.clear()  # one model at a time: its rows fill the memory
                benches[job.model] = Bench.load(job.model)
            started = time.perf_counter()
            method = METHODS[job.method](benches[job.model], job.pattern, chunk, options)
            found = asyncio.run(cast(Any, method))
            wall = time.perf_counter() - started
            runs.add(job, chunk, found, wall / len(chunk))
            print(
                f"{job.model} {job.pattern!r}, {job.method}: {wall:.0f} s, about "
                f"{runs.minutes(jobs, seeds):.0f} minutes to go",
                file=sys.stderr,
                flush=True,
            )


# --- figures ---------------------------------------------------------------------------------

Row = dict[str, Any]
Table = dict[str, list[Row]]


def summarize(runs: list[Result], log_z: float) -> tuple[Row, np.ndarray]:
    """The figures of a method on a pattern, and the errors of its runs: a dead one has 1."""
    names = ("checks", "rows", "steps", "seconds")
    row: Row = {name: mean(run[name] for run in runs) for name in names}
    logs = [-math.inf if run["log_ml"] is None else run["log_ml"] for run in runs]
    ratios = np.exp(np.array(logs) - log_z)
    errors = (1 - np.sqrt(ratios)) ** 2
    row["checks per token"] = row["checks"] / row["steps"]
    row["error"] = float(errors.mean())
    row["product"] = row["checks"] * row["error"]
    row["interval"] = interval([errors], np.mean)
    row["ratio"] = float(ratios.mean())
    row["ratio error"] = float(ratios.std(ddof=1)) / math.sqrt(len(runs))
    row["dead"] = logs.count(-math.inf)
    if len(runs) >= 100:  # heavy tails hide from fewer
        row["mse"] = float(((ratios - 1) ** 2).mean())
    return row, errors


def interval(errors: list[np.ndarray], average: Callable[..., Any]) -> list[float]:
    """The bootstrap interval, 95 %, of the error averaged over patterns; seeds are redrawn."""
    rng = np.random.default_rng(0)
    n = len(errors[0])
    redrawn = [each[rng.integers(n, size=(1000, n))].mean(axis=1) for each in errors]
    return np.quantile(average(redrawn, axis=0), [0.025, 0.975]).tolist()


def overall(rows: list[Row], errors: list[np.ndarray], average: Callable[..., Any]) -> Row:
    """The mean or the median over patterns; of the dead, the sum."""
    row: Row = {
        name: float(average([row[name] for row in rows])) for name in rows[0] if name != "interval"
    }
    return row | {
        "interval": interval(errors, average),
        "dead": sum(row["dead"] for row in rows),
    }


HEAD = (
    f"{'':18} {'checks':>8} {'/token':>7} {'rows':>6} {'steps':>6} {'error':>7} "
    f"{'95 %':>13} {'mse':>8} {'product':>8} {'dead':>4} {'Z^/Z':>12} {'seconds':>7}"
)


def line(name: str, row: Row) -> str:
    """A line of the table."""
    low, high = row["interval"]
    mse = f"{row['mse']:.3g}" if "mse" in row else ""
    return (
        f"  {name:16} {row['checks']:8.1f} {row['checks per token']:7.2f} {row['rows']:6.1f} "
        f"{row['steps']:6.1f} {row['error']:7.4f} {low:6.4f}-{high:6.4f} {mse:>8} "
        f"{row['product']:8.3f} {row['dead']:4d} "
        f"{row['ratio']:6.2f}+-{row['ratio error']:4.2f} {row['seconds']:7.3f}"
    )


def compare(model: str, table: Table) -> tuple[dict[str, float], list[str]]:
    """Ours against genlm-control, and remembering against not; and the bars missed."""
    figures: dict[str, float] = {}
    missed: list[str] = []

    def bar(name: str, value: float, met: bool) -> None:
        figures[name] = float(value)
        if not met:
            missed.append(f"{model}: {name} {value:.3g}")

    def column(method: str, name: str) -> np.ndarray:
        return np.array([row[name] for row in table[method]])

    if {"genlm-control", "ours"} <= table.keys():
        (their, our), (their_error, our_error), (their_product, our_product), (their_dead, dead) = (
            (column("genlm-control", name), column("ours", name))
            for name in ("checks", "error", "product", "dead")
        )
        checks = their.mean() / our.mean()
        bar("mean checks, genlm-control over ours", checks, checks >= BARS[model]["checks"])
        product = np.median(their_product) / np.median(our_product)
        bar("median product, genlm-control over ours", product, product >= BARS[model]["product"])
        worse = float(((our > their) & (our_error > their_error)).mean())
        bar("share of patterns with more checks and more error", worse, worse <= MAX_WORSE)
        bar("dead runs more", dead.sum() - their_dead.sum(), dead.sum() <= their_dead.sum())
        figures["median over patterns of checks over ours"] = float(np.median(their / our))
        figures["median over patterns of product over ours"] = float(
            np.median(their_product / our_product)
        )
    if {"ours", "ours, remembered"} <= table.keys():
        share = column("ours, remembered", "checks").mean() / column("ours", "checks").mean()
        bar(f"checks of {IN_A_ROW} runs, remembered over fresh", share, share <= MAX_REMEMBERED)
    return figures, missed


def report(
    model: str, rows: Patterns, jobs: list[Job], seeds: int, runs: Runs
) -> tuple[dict[str, Any], list[str]]:
    """Print the table of a model; its figures and the bars it misses."""
    table: Table = defaultdict(list)
    errors: dict[str, list[np.ndarray]] = defaultdict(list)
    print(f"\n{model} in float32, {PARTICLES} particles, {seeds} seeds\n{HEAD}")
    for row in rows:
        z = float(row[f"z {model}"])
        print(f"{row['pattern']}   Z = {z:.4g} +- {row[f'error {model}']}")
        for job in jobs:
            if (job.model, job.pattern) == (model, row["pattern"]):
                found = [runs.found[job][seed] for seed in range(seeds)]
                figures, each = summarize(found, math.log(z))
                table[job.method].append(figures | {"pattern": job.pattern})
                errors[job.method].append(each)
                print(line(job.method, figures))
    results: dict[str, Any] = {"patterns": table}
    for title, average in (("mean", np.mean), ("median", np.median)):
        print(f"{title} over {len(rows)} patterns (of the dead, the sum)")
        results[title] = {}
        for method, found in table.items():
            plain = [{name: row[name] for name in row if name != "pattern"} for row in found]
            results[title][method] = overall(plain, errors[method], average)
            print(line(method, results[title][method]))
    results["comparison"], missed = compare(model, table)
    for name, value in results["comparison"].items():
        print(f"{name}: {value:.3g}")
    return results, missed


def option(text: str) -> tuple[str, Any]:
    """`name=value`, the value as Python writes it, or else a text."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    quick = f"{QUICK['limit']} patterns, {QUICK['seeds']} seeds, {', '.join(QUICK['methods'])}"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--model", choices=list(BARS), action="append")
    parser.add_argument("--method", choices=list(METHODS), action="append")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--set", choices=["tune", "report"], default="report")
    parser.add_argument("--limit", type=int, help="only so many patterns")
    parser.add_argument("--patterns", type=Path, default=Path(__file__).with_name("patterns.csv"))
    parser.add_argument(
        "--option", type=option, action="append", default=[], help="for AWRS(...); effort=4"
    )
    parser.add_argument("--raw", metavar="FILE", help="keep all runs here, and continue from there")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    parser.add_argument(
        "--reference", action="store_true", help="only find the evidence of patterns that lack it"
    )
    given = parser.parse_args()

    models = given.model or list(BARS)
    limit = given.limit or (QUICK["limit"] if given.quick else None)
    seeds = given.seeds or (QUICK["seeds"] if given.quick else SEEDS)
    with given.patterns.open(newline="") as file:
        patterns = list(csv.DictReader(file))
    if given.reference:
        for model in models:
            write_references(Bench.load(model), model, patterns, given.patterns)
        return
    known = [row for row in patterns if all(row[f"z {model}"] for model in models)]
    if len(known) < len(patterns):
        count = len(patterns) - len(known)
        print(f"{count} patterns without evidence left out: run --reference", file=sys.stderr)
    rows = [row for row in known if row["set"] == given.set][:limit]
    methods = given.method or (QUICK["methods"] if given.quick else list(METHODS))
    if "remember" not in inspect.signature(infer).parameters:
        print("infer has no remember=True: 'ours, remembered' is skipped", file=sys.stderr)
        methods = [name for name in methods if name != "ours, remembered"]

    options = OPTIONS | dict(given.option)
    jobs = plan(models, [row["pattern"] for row in rows], methods, options)
    runs = Runs(given.raw)
    measure(jobs, seeds, options, runs)

    results: dict[str, Any] = {}
    missed: list[str] = []
    for model in models:
        results[model], below = report(model, rows, jobs, seeds, runs)
        missed += below
    if given.json:
        settings = {"seeds": seeds, "particles": PARTICLES, "max_tokens": MAX_TOKENS}
        settings |= {"set": given.set, "options": options}
        Path(given.json).write_text(json.dumps({"settings": settings, "models": results}, indent=2))
    for text in missed:
        print("missed:", text)
    raise SystemExit(1 if given.check and missed else 0)


if __name__ == "__main__":
    main()
