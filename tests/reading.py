"""How much of the library a reader opens: the core to read, and the way of one token.

    python tests/reading.py

The *core* is what SMC with AWRS is made of: programs, inference without its records, the default
proposal, constraints and tokens, without the refinements that a first reading skips. Its lines of
code are counted without blank lines, comments and docstrings.

The *way* is what one token of a `generate` under a predicate calls, with one particle, from the
step to the change of the particle: its modules, and the calls that come from another module than
the one before. Records and messages are left out of both.
"""

from __future__ import annotations

import ast
import asyncio
import io
import sys
import tokenize
from itertools import pairwise
from pathlib import Path
from typing import Any

import awrs_ppl
from awrs_ppl import Context, ToyLM, infer, predicate

PACKAGE = Path(awrs_ppl.__file__).parent
FOLDERS = ("program", "inference", "proposals", "constraints", "tokens")
RECORDS = {
    "program": ("trace",),
    "inference": (
        "_progress",
        "blame",
        "keywords",
        "losses",
        "recorder",
        "failures",
        "check_replay",
        "logger",
    ),
}
REFINEMENTS = {
    "inference": ("children", "competition", "in_time"),
    "program": ("arguments", "text_arguments", "misuse", "replay"),
    "proposals": ("paper", "prior", "room", "spelling"),
    "constraints": (
        *("arguments", "checks_ahead", "completion", "dead_ends", "function_key", "genlm_factor"),
        *("prefix_propagation", "undecided_utf8", "weighing"),
    ),
    "tokens": ("underflow",),
}
MESSAGES = (
    "_messages.py",
    "constraints/arguments.py",
    "constraints/potential.py",
    "log_weights.py",
)


def lines_of_code(source: str) -> int:
    """The lines of a module that hold code."""
    found: set[int] = set()
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (*nothing, tokenize.ENDMARKER):
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            found.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(found)


def core() -> dict[str, int]:
    """The lines of code of each module of the core."""
    return {
        f"{folder}/{file.name}": lines_of_code(file.read_text())
        for folder in FOLDERS
        for file in sorted((PACKAGE / folder).glob("*.py"))
        if file.stem not in (*RECORDS.get(folder, ()), *REFINEMENTS.get(folder, ()))
    }


def way() -> list[str]:
    """The modules of the calls that draw the second token of a text."""
    lm = ToyLM(["a", "b", "c"], weights=lambda context: [3, 2, 1, 1])
    allowed = predicate(lambda text: "c" not in text)

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * allowed, max_tokens=6)

    steps: list[list[str]] = []
    inside = False

    def called(frame: Any, event: str, argument: Any) -> None:
        nonlocal inside
        if event != "call" or "/awrs_ppl/" not in frame.f_code.co_filename:
            return
        module = frame.f_code.co_filename.rsplit("/awrs_ppl/", 1)[1]
        if not inside and frame.f_code.co_name == "make_step":
            inside = True
            steps.append([])
        if frame.f_code.co_qualname == "Change.apply":
            inside = False
        if inside and Path(module).stem not in RECORDS["inference"] and module not in MESSAGES:
            steps[-1].append(module)

    async def traced() -> None:
        await infer(model, n_particles=1, seed=0, progress=False)  # what is made once is made
        sys.setprofile(called)
        try:
            await infer(model, n_particles=1, seed=0, progress=False)
        finally:
            sys.setprofile(None)

    asyncio.run(traced())
    return steps[1]


def main() -> None:
    lines = core()
    for module, count in lines.items():
        print(f"{count:6} {module}")
    print(f"{sum(lines.values()):6} lines of code to read")
    modules = way()
    jumps = sum(one != other for one, other in pairwise(modules))
    print(f"one token: {len(set(modules))} modules, {jumps} jumps")
    print("   " + ", ".join(sorted(set(modules))))


if __name__ == "__main__":
    main()
