"""Five domains, and seven methods side by side on one engine.

The domains, their data and how the methods are set are those of the AWRS paper: pattern
matching, JSON, text-to-SQL, molecules and goal inference; the language model alone, locally
constrained decoding, sample-rerank, twisted SMC and AWRS-SMC, with 1, 1, 10, 10 and 5 particles.
Added are AWRS-SMC with the domain's critic, and genlm-control's AWRS-SMC, on its own engine and
with our constraint. With `--equal`, all methods but the last once more with as many particles as
give them the LM tokens of AWRS-SMC.

*accuracy*: the score of `awrs_ppl.models`, weighted by the posterior, 0 where no particle is
left; its 95 % interval by a bootstrap over tasks. *alive*: the share of runs with any particle
left. Tokens, rows and seconds are those of a run; *checks*: evaluations of the constraints
per token. The first run of each task warms nothing up: caches are emptied before each run.

    python tests/benchmarks/domains.py --data FOLDER [--quick] [--model NAME] [--domain NAME]
        [--method NAME] [--tasks N] [--peer-tasks N] [--seeds N] [--equal] [--raw FILE]
        [--json FILE] [--plot FILE]

`FOLDER` has the data: see the README here. With `--raw` a run that was
stopped continues where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple, cast

import numpy as np
from tqdm import tqdm

from awrs_ppl import AWRS, LM, LocalAWRS, Prior, infer
from awrs_ppl.models import goal_inference, json_schema, molecules, pattern_matching, text_to_sql
from awrs_ppl.potentials import (
    JsonSchema,
    PddlGoal,
    Qed,
    Reachable,
    Regex,
    Smiles,
    Sql,
    predicate,
)

MODELS = ("smollm2-135m", "gemma3-270m")
TASKS, SEEDS = 20, 2
# genlm-control takes several times as long: it has fewer tasks.
PEER_TASKS = 2
QUICK = {"tasks": 2, "seeds": 1, "model": ["smollm2-135m"], "peer_tasks": 1}


@predicate(state=lambda text: 0)
def anything(text: str) -> bool:
    """All that a model may say when it is asked for nothing."""
    return True


# --- domains ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Domain:
    """A program of `awrs_ppl.models`, its tasks (the arguments of each) and its potentials."""

    program: Callable[..., Any]
    tasks: list[tuple[Any, ...]]
    score: Callable[[tuple[Any, ...], str], float]
    allowed: Callable[[tuple[Any, ...]], Any]
    critic: Callable[[tuple[Any, ...]], Any] | None = None


def domains(data: Path) -> dict[str, Domain]:
    """All of them, by name."""
    patterns = pattern_matching.load(data / "pattern_matching" / "patterns.csv")
    schemas = json_schema.load(data / "json_schema" / "schemas.jsonl")
    spider = data / "spider"
    questions = text_to_sql.load(spider / "questions.jsonl", spider / "concert_singer.sqlite")
    blocks = data / "blocksworld"
    goals = goal_inference.load(blocks / "tasks.jsonl", blocks / "domain.pddl")
    smiles = data / "molecules" / "gdb17_sample.smi"
    return {
        "pattern matching": Domain(
            pattern_matching.pattern_matching,
            [(pattern,) for pattern in spread(patterns)],
            lambda task, text: pattern_matching.score(task[0], text),
            lambda task: Regex(task[0]),
        ),
        "json": Domain(
            partial(json_schema.json_schema, max_tokens=150),
            [(schema,) for schema in spread(schemas)],
            lambda task, text: json_schema.score(task[0], text),
            lambda task: JsonSchema(task[0]) * Regex(r"[^\n]*"),
        ),
        "text-to-SQL": Domain(
            text_to_sql.text_to_sql,
            [(task,) for task in spread(questions)],
            lambda task, text: text_to_sql.score(task[0], text),
            lambda task: Sql(task[0].database),
            lambda task: text_to_sql.finds_rows(task[0]),
        ),
        "molecules": Domain(
            molecules.molecules,
            [(molecules.load(smiles, seed=number),) for number in range(20)],
            lambda task, text: molecules.score(task[0], text),
            lambda task: Smiles(),
            lambda task: Qed(),
        ),
        "goal inference": Domain(
            goal_inference.goal_inference,
            [(task, goals[i - 1]) for i, task in spread(list(enumerate(goals)))],
            lambda task, text: goal_inference.score(task[0], text),
            lambda task: PddlGoal(task[0].domain, task[0].problem),
            lambda task: Reachable(task[0].domain, task[0].problem),
        ),
    }


def spread(items: Sequence[Any], seed: int = 0) -> list[Any]:
    """All of them in a random order that is always the same."""
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


# --- methods ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Method:
    """A proposal in SMC; `free` leaves the constraint out."""

    proposal: Any
    particles: int
    ess_threshold: float = 0.5
    free: bool = False
    with_critic: bool = False


METHODS = {
    "LM alone": Method(Prior(), 1, free=True),
    "LCD": Method(LocalAWRS(), 1),
    "sample-rerank": Method(Prior(), 10, ess_threshold=0.0),
    "twisted SMC": Method(Prior(), 10, ess_threshold=0.9),
    "AWRS-SMC": Method(AWRS(), 5),
    "AWRS-SMC, critic": Method(AWRS(), 5, with_critic=True),
}
PEER = "genlm-control AWRS-SMC"

Result = dict[str, Any]


def usual_particles(method: str) -> int:
    """How many particles a method has if nothing else is said."""
    return METHODS["AWRS-SMC" if method == PEER else method].particles


def ours(
    lm: LM, domain: Domain, task: tuple[Any, ...], method: Method, particles: int, seed: int
) -> Result:
    """One inference."""
    engine: Any = lm.engine
    engine.clear_cache()
    options: dict[str, Any] = {"allowed": anything if method.free else domain.allowed(task)}
    if method.with_critic and domain.critic is not None:
        options["critic"] = domain.critic(task)
    model = partial(domain.program, proposal=method.proposal, **options)
    started = time.perf_counter()
    posterior = asyncio.run(
        infer(
            model,
            lm,
            *task,
            n_particles=particles,
            ess_threshold=method.ess_threshold,
            resampling="stratified",  # as the paper's methods are
            seed=seed,
            progress=False,
        )
    )
    seconds = time.perf_counter() - started
    scores = {value: domain.score(task, value) for value in posterior.probabilities}
    return {
        "accuracy": sum(scores[v] * p for v, p in posterior.probabilities.items()),
        "alive": bool(posterior.probabilities),
        "seconds": seconds,
        "tokens": posterior.stats.tokens,
        "rows": posterior.stats.lm_rows,
        "checks": sum(posterior.stats.checks.values()),
        "ess": posterior.ess,
        "best": next(iter(posterior.probabilities), None),
    }


def genlm_control(lm: LM, domain: Domain, task: tuple[Any, ...], seed: int) -> Result:
    """SMC(AWRS) of genlm-control on its own engine, with the prompt and constraint of ours."""
    import torch
    from genlm.backend.llm import AsyncTransformer
    from genlm.control import AWRS as GenlmAWRS
    from genlm.control import SMC, PromptedLLM

    prompt, stop, max_tokens = prompt_of(lm, domain, task)
    engine: Any = lm.engine
    vocabulary = lm.vocabulary
    # A token that begins with the stop ends the text there, as the end of the model does.
    ends = [i for i in vocabulary.text_ids.tolist() if stop and vocabulary.tokens[i][:1] in stop]
    texts = dict.fromkeys(bytes(vocabulary.tokens[i]) for i in [*vocabulary.ends.tolist(), *ends])
    backend = AsyncTransformer(engine.model, engine.tokenizer)
    llm = PromptedLLM(
        backend,
        prompt_ids=list(prompt),
        eos_byte_strings=list(texts),
    )
    allowed: Any = domain.allowed(task)
    checks = 0

    class Counting(GenlmAWRS):
        async def _accept(self, context: Any, token: Any, verbosity: int = 0) -> bool:
            nonlocal checks
            checks += 1
            return await super()._accept(context, token, verbosity)

    sampler = Counting(llm, allowed.coerce(llm, f=b"".join, prune=False), seed=seed)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - it resamples with numpy's global generator
    started = time.perf_counter()
    # It keeps the keys and values of the prompt only on request. (Where a model's window is
    # shorter than the prompt it fails then.)
    if len(prompt) < (getattr(engine.model.config, "sliding_window", None) or math.inf):
        backend.cache_kv(list(prompt))
    found = asyncio.run(
        SMC(sampler)(n_particles=usual_particles(PEER), ess_threshold=0.5, max_tokens=max_tokens)
    )
    seconds = time.perf_counter() - started
    # Texts that have ended, by their probability; without a survivor there are none.
    alive = found.log_total > -math.inf
    texts = found.decoded_posterior.items() if alive else ()
    shares = {text.strip(): float(p) for text, p in texts}
    return {
        "accuracy": sum(p * domain.score(task, text) for text, p in shares.items()),
        "alive": bool(shares),
        "seconds": seconds,
        "tokens": sum(map(len, found.contexts)),
        "rows": None,
        "checks": checks,
        "ess": float(found.ess) if alive else 0.0,
        "best": max(shares, key=lambda text: shares[text], default=None),
    }


def prompt_of(lm: LM, domain: Domain, task: tuple[Any, ...]) -> tuple[Any, Any, int]:
    """The prompt of a program's only `generate`, its stops, and its most tokens."""
    given: list[tuple[Any, int]] = []

    class Spy:
        async def generate(self, potential: Any, *, max_tokens: int, **_: Any) -> str:
            given.append((potential, max_tokens))
            return ""

    asyncio.run(domain.program(cast(Any, Spy()), lm, *task, allowed=anything))
    (potential, max_tokens) = given[0]
    (prompted,) = potential.target.dense
    return prompted.prompt, potential.target.stops, max_tokens


# --- running and keeping ---------------------------------------------------------------------


class Job(NamedTuple):
    """A run."""

    model: str
    domain: str
    method: str
    particles: int
    task: int
    seed: int


class Runs:
    """The runs so far; with a file they are kept there."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.found: dict[Job, Result] = {}
        if path and Path(path).exists():
            for line in Path(path).read_text().splitlines():
                run = json.loads(line)
                self.found[Job(*(run[name] for name in Job._fields))] = run

    def add(self, job: Job, result: Result) -> None:
        """Keep a run."""
        self.found[job] = job._asdict() | result
        if self.path:
            with open(self.path, "a") as file:
                file.write(json.dumps(self.found[job]) + "\n")

    def measure(self, jobs: list[Job], by_name: dict[str, Domain]) -> None:
        """Do all that have not been done."""
        left = [job for job in jobs if job not in self.found]
        # Methods side by side: what else the machine does in these hours meets all of them.
        models = list(dict.fromkeys(job.model for job in left))
        left.sort(key=lambda job: (models.index(job.model), job.seed, job.task, job.domain))
        lm, loaded = cast(LM, None), None
        for job in (bar := tqdm(left, file=sys.stderr, mininterval=1.0)):
            bar.set_description(f"{job.model}, {job.domain}, {job.method}")
            if loaded != job.model:
                lm, loaded = LM.embedded(cast(Any, job.model), dtype="float32"), job.model
            domain = by_name[job.domain]
            task = domain.tasks[job.task]
            # Tasks are alike, and with the same random numbers they would share their luck.
            seed = 1000 * job.seed + job.task
            if job.method == PEER:
                result = genlm_control(lm, domain, task, seed)
            else:
                method = METHODS[job.method]
                result = ours(lm, domain, task, method, job.particles, seed)
            self.add(job, result)


def equal_particles(runs: Runs, model: str, domain: str, method: str) -> int:
    """As many particles as have, in the mean, the tokens of AWRS-SMC."""
    if method == "AWRS-SMC":
        return usual_particles(method)

    def tokens(name: str) -> float:
        return mean(
            run["tokens"] / run["particles"]
            for job, run in runs.found.items()
            if job[:3] == (model, domain, name) and job.particles == usual_particles(name)
        )

    wanted = usual_particles("AWRS-SMC") * tokens("AWRS-SMC")
    return max(1, round(wanted / max(tokens(method), 1.0)))


# --- figures ---------------------------------------------------------------------------------

# As Markdown, that a table can be pasted into BENCHMARKS.md.
HEAD = (
    f"| {'':31} | {'n':>3} | accuracy | {'95 %':>11} | alive | seconds | tokens | {'rows':>5} "
    "| checks | ESS |\n| --- |" + " ---: |" * 9
)


def summarize(runs: list[Result]) -> Result:
    """The means over runs, and the interval of the accuracy over tasks."""
    by_task: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        by_task[run["task"]].append(run["accuracy"])
    means = np.array([mean(values) for values in by_task.values()])
    rng = np.random.default_rng(0)
    redrawn = means[rng.integers(len(means), size=(2000, len(means)))].mean(axis=1)
    row: Result = {
        name: mean(run[name] for run in runs)
        for name in ("accuracy", "alive", "seconds", "tokens", "checks", "ess")
    }
    row["rows"] = None if runs[0]["rows"] is None else mean(run["rows"] for run in runs)
    row["checks per token"] = row["checks"] / max(row["tokens"], 1)
    row["interval"] = np.quantile(redrawn, [0.025, 0.975]).tolist()
    row["particles"], row["runs"] = runs[0]["particles"], len(runs)
    return row


def report(runs: Runs, jobs: list[Job]) -> dict[str, Any]:
    """Print the table; its figures."""
    grouped: dict[tuple[str, str], dict[tuple[str, int], list[Result]]] = defaultdict(dict)
    for job in jobs:
        rows = grouped[job.model, job.domain]
        rows.setdefault((job.method, job.particles), []).append(runs.found[job])
    results: dict[str, Any] = {}
    for (model, domain), methods in grouped.items():
        print(f"\n### {model}, {domain}\n\n{HEAD}")
        table = results.setdefault(model, {}).setdefault(domain, [])
        for (method, particles), found in methods.items():
            row = summarize(found)
            table.append({"method": method} | row)
            low, high = row["interval"]
            rows = "" if row["rows"] is None else f"{row['rows']:.0f}"
            if method == PEER:
                method += f", {len({run['task'] for run in found})} tasks"
            print(
                f"| {method:31} | {particles:3} | {row['accuracy']:8.2f} | {low:.2f} - {high:.2f} "
                f"| {row['alive']:5.2f} | {row['seconds']:7.2f} | {row['tokens']:6.0f} | {rows:>5} "
                f"| {row['checks per token']:6.2f} | {row['ess']:3.1f} |"
            )
    return results


def plot(results: dict[str, Any], path: str) -> None:
    """Accuracy against seconds, a panel for each model and domain."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    height, width = len(results), max(map(len, results.values()))
    figure, axes = plt.subplots(
        height, width, figsize=(3.2 * width, 3.0 * height), squeeze=False, layout="constrained"
    )
    methods = [*METHODS, PEER]
    handles: dict[str, Any] = {}
    for line, (model, table) in zip(axes, results.items(), strict=True):
        for axis, (domain, rows) in zip(line, table.items(), strict=False):
            for row in rows:
                low, high = row["interval"]
                accuracy, number = row["accuracy"], methods.index(row["method"])
                error = [[max(accuracy - low, 0.0)], [max(high - accuracy, 0.0)]]
                usual = row["particles"] == usual_particles(row["method"])
                drawn = axis.errorbar(
                    row["seconds"],
                    accuracy,
                    yerr=error,
                    fmt="os^vDP*"[number],
                    color=f"C{number}",
                    markerfacecolor=None if usual else "white",
                )
                handles.setdefault(row["method"] + ("" if usual else ", equal tokens"), drawn)
            axis.set(title=f"{domain}\n{model}", xlabel="seconds", xscale="log", ylim=(-0.03, 1.03))
            axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
        line[0].set_ylabel("accuracy")
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=7, fontsize="small")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="2 tasks of each, SmolLM2")
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--domain", action="append")
    parser.add_argument("--method", choices=[*METHODS, PEER], action="append")
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--peer-tasks", type=int, help=f"of {PEER}")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--equal", action="store_true", help="once more at equal LM tokens")
    parser.add_argument("--raw", metavar="FILE", help="keep all runs here, and continue from there")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE", help="accuracy against seconds, as PNG")
    given = parser.parse_args()

    count = given.tasks or (QUICK["tasks"] if given.quick else TASKS)
    seeds = given.seeds or (QUICK["seeds"] if given.quick else SEEDS)
    models = given.model or (QUICK["model"] if given.quick else MODELS)
    by_name = domains(given.data)
    if unknown := set(given.domain or ()) - by_name.keys():
        parser.error(f"no domain is called {sorted(unknown)}: choose from {list(by_name)}")
    methods = given.method or [*METHODS, PEER]
    usual = QUICK["peer_tasks"] if given.quick else PEER_TASKS
    peer_count = min(count, usual if given.peer_tasks is None else given.peer_tasks)

    def plan(particles: Callable[[str, str, str], int], names: Sequence[str]) -> list[Job]:
        return [
            Job(model, domain, method, particles(model, domain, method), task, seed)
            for model in models
            for domain in given.domain or by_name
            for method in names
            for task in range(
                min(peer_count if method == PEER else count, len(by_name[domain].tasks))
            )
            for seed in range(seeds)
            if by_name[domain].critic is not None or "critic" not in method
        ]

    runs = Runs(given.raw)
    jobs = plan(lambda _, __, method: usual_particles(method), methods)
    runs.measure(jobs, by_name)
    if given.equal:
        again = [name for name in methods if name in METHODS]
        more = plan(partial(equal_particles, runs), again)
        runs.measure(more, by_name)
        jobs = list(dict.fromkeys([*jobs, *more]))
    results = report(runs, jobs)
    if given.plot:
        plot(results, given.plot)
    if given.json:
        settings = {"tasks": count, "peer_tasks": peer_count, "seeds": seeds}
        Path(given.json).write_text(json.dumps({"settings": settings, "models": results}, indent=2))


if __name__ == "__main__":
    main()
