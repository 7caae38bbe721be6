"""What masking token by token does to a distribution, against the exact one.

In each of five domains the constraint is a choice between a few texts, so that every way in which
the language model can spell an allowed text can be walked. Exact, up to the small mass stated, are
then the distribution that the program asks for (the model's, given the constraint) and that of
locally constrained decoding, which renormalizes over the allowed tokens at every step. AWRS-SMC is
measured, with few particles and with many: the mean of its posterior over runs.

    python tests/benchmarks/bias.py --data FOLDER [--quick] [--check] [--model NAME]
        [--domain NAME] [--json FILE]

`FOLDER` has the data: see the README here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

from arsenal.maths import compare, norm
from tqdm import tqdm

from awrs_ppl import LM, Context, infer
from awrs_ppl.constraints.target import Target
from awrs_ppl.models import goal_inference, json_schema, molecules, pattern_matching, text_to_sql
from awrs_ppl.potentials import OneOf
from awrs_ppl.testing.enumeration import continuations
from awrs_ppl.tokens.text import Text

MODELS = ("smollm2-135m", "gemma3-270m")
# Particles of AWRS-SMC, and its runs: as the paper has them, and so many that the
# distribution shows.
FEW, MANY = (5, 40), (50, 8)
# What is left unwalked, at most, of either distribution.
LEFT = 0.005
# AWRS-SMC must be nearer to the exact distribution than local decoding, in so many domains.
BAR = 2
METHODS = ("local", "few", "many")
# So many texts are shown: some differ by spaces at their end alone.
ROWS = 8

Case = tuple[Any, tuple[Any, ...], list[str]]


def cases(data: Path) -> dict[str, Case]:
    """By domain: the program, its arguments, and the texts that are allowed."""
    spider = data / "spider"
    questions = text_to_sql.load(spider / "questions.jsonl", spider / "concert_singer.sqlite")
    blocks = data / "blocksworld"
    goals = goal_inference.load(blocks / "tasks.jsonl", blocks / "domain.pddl")
    smiles = data / "molecules" / "gdb17_sample.smi"
    sizes = {"enum": ["small", "medium", "large", "extra large"]}
    return {
        "pattern matching": (
            pattern_matching.pattern_matching,
            ("(?(?=a)abc|xyz)",),
            ["abc", "xyz"],
        ),
        "json": (
            json_schema.json_schema,
            (sizes,),
            [json.dumps(size) for size in sizes["enum"]],
        ),
        "text-to-SQL": (
            text_to_sql.text_to_sql,
            (questions[0],),
            [
                " SELECT COUNT(*) FROM singer",
                " SELECT COUNT(*) FROM concert",
                " SELECT MAX(age) FROM singer",
                " SELECT name FROM singer",
            ],
        ),
        "molecules": (
            molecules.molecules,
            (molecules.load(smiles, seed=0),),
            [f" {found}" for found in molecules.load(smiles, seed=1, count=6)],
        ),
        "goal inference": (
            goal_inference.goal_inference,
            (goals[2], goals[1]),
            # The goals of all problems with three blocks, up to where the program stops.
            sorted({task.goal.partition("\n")[0] for task in goals if len(task.goal) < 70}),
        ),
    }


async def distributions(
    target: Target, most_left: float
) -> tuple[dict[str, float], dict[str, float], float]:
    """The exact distribution, that of local decoding, and what was left unwalked of either, at
    most.

    `target` has one language model and one factor with a mask. The heaviest prefixes are walked
    first, by either distribution.
    """
    (factor,) = target.boolean
    vocabulary: Any = target.vocabulary
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    frontier: list[tuple[tuple[int, ...], bytes, Any, float, float]] = [
        ((), b"", await factor.begin(Text()), 1.0, 1.0)
    ]
    while frontier:
        walked = sum(p for p, _ in found.values())
        ahead, local = sum(node[3] for node in frontier), sum(node[4] for node in frontier)
        if ahead <= most_left * walked and local <= most_left:
            break
        frontier.sort(key=lambda node: max(node[4], node[3] / (walked + ahead)))
        ids, data, state, p, q = frontier.pop()
        mask: Any = factor.mask(state, vocabulary)
        allowed = [
            (token, text, math.exp(weight))
            for token, text, weight in await continuations(target, ids, data, forced=False)
            if (await factor.accepts(state) if token is None else mask[token])
        ]
        total = sum(weight for *_, weight in allowed)
        for token, text, weight in allowed:
            if token is None:
                mass = found[text.decode()]
                mass[0] += p * weight
                mass[1] += q * weight / total
                continue
            after = await factor.advance(state, token, bytes(vocabulary.tokens[token]))
            longer = (*ids, token), text, after, p * weight, q * weight / total
            frontier.append(longer)
    walked = sum(p for p, _ in found.values())
    local = sum(q for _, q in found.values())
    left = max(sum(node[3] for node in frontier) / walked, 1 - local)
    exact = {text: p / walked for text, (p, _) in found.items()}
    return exact, {text: q / local for text, (_, q) in found.items()}, left


def distance(first: dict[str, float], second: dict[str, float]) -> float:
    """The total variation between two distributions; a text that one lacks has probability 0."""
    both = compare(first, second, regression=False, verbose=0)
    return float(norm(both.want - both.have, 1)) / 2


async def measure(lm: LM, case: Case) -> dict[str, Any]:
    """The distributions of a case, by text."""
    program, arguments, texts = case
    potentials: list[Any] = []

    class Spy:
        async def generate(self, potential: Any, **_: Any) -> str:
            potentials.append(potential)
            return ""

    await program(cast(Any, Spy()), lm, *arguments, allowed=OneOf(texts))
    exact, local, left = await distributions(potentials[0].target, LEFT)

    async def choose(ctx: Context) -> str:
        return await ctx.generate(potentials[0], max_tokens=100)

    async def smc(particles: int, runs: int) -> dict[str, float]:
        means: dict[str, float] = defaultdict(float)
        for seed in tqdm(range(runs), leave=False):
            posterior = await infer(choose, n_particles=particles, seed=seed, progress=False)
            for text, share in posterior.probabilities.items():
                means[text] += share / runs
        return dict(means)

    few, many = await smc(*FEW), await smc(*MANY)
    return {"exact": exact, "local": local, "left": left, "few": few, "many": many}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="SmolLM2 alone")
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--domain", action="append", metavar="NAME")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args()
    known = cases(options.data)
    if unknown := set(options.domain or ()) - known.keys():
        parser.error(f"no domain is called {sorted(unknown)}: choose from {list(known)}")
    chosen = {name: known[name] for name in options.domain or known}
    results: dict[str, Any] = {}
    missed = []
    for model in options.model or (MODELS[:1] if options.quick else MODELS):
        lm = LM.embedded(cast(Any, model), dtype="float32")
        nearer, wanted = 0, min(BAR, len(chosen))
        for name, case in chosen.items():
            found = results[f"{model}, {name}"] = asyncio.run(measure(lm, case))
            away = {method: distance(found["exact"], found[method]) for method in METHODS}
            nearer += away["few"] < away["local"]
            print(
                f"\n{model}, {name}: total variation from the exact distribution "
                f"{away['local']:.3f} (local decoding, exactly), {away['few']:.3f} (AWRS-SMC, "
                f"{FEW[0]} particles, mean of {FEW[1]} runs), {away['many']:.3f} ({MANY[0]} "
                f"particles, {MANY[1]} runs); {found['left']:.2%} of the mass left unwalked"
            )
            print("  " + " ".join(f"{method:>7}" for method in ("exact", *METHODS)))
            for text in sorted(found["exact"], key=lambda one: -found["exact"][one])[:ROWS]:
                shares = [found[method].get(text, 0.0) for method in ("exact", *METHODS)]
                print("  " + " ".join(f"{p:7.4f}" for p in shares), f" {text!r}", flush=True)
        if nearer < wanted:
            missed.append(f"{model}: nearer than local decoding in {nearer} domains, not {wanted}")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2))
    for line in missed:
        print("missed:", line)
    raise SystemExit(1 if options.check and missed else 0)


if __name__ == "__main__":
    main()
