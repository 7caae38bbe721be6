"""`awrs-ppl run PROGRAM --inputs FILE.jsonl`: a program on each line of a file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import redirect_stdout
from functools import update_wrapper
from typing import Any

from awrs_ppl._messages import escape, quoted, safe_repr
from awrs_ppl.cli._cli_input import BadInput, one_line, read_file, report
from awrs_ppl.cli._cli_output import print_text
from awrs_ppl.errors import NoSurvivors

__all__ = ["answer_many", "read_inputs"]


def read_inputs(file: str, target: str, needs: list[str], names: list[str]) -> list[dict[str, Any]]:
    """The arguments on each line: an object by name, or the value of the one parameter that a
    program `needs`."""
    found = []
    for number, line in enumerate(read_file("--inputs", file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise BadInput(
                f"--inputs {file!r}, line {number}: {quoted(line)} is no JSON ({error}); write one "
                "value on each line"
            ) from error
        if not isinstance(value, dict) and len(needs) == 1:
            value = {needs[0]: value}
        wanted = ", ".join(needs) or "no arguments"
        if not isinstance(value, dict):
            raise BadInput(
                f"--inputs {file!r}, line {number}: {quoted(value)} is no object, and {target!r} "
                f"needs {wanted}; write an object with these names"
            )
        missing = [name for name in needs if name not in value]
        if missing or not value.keys() <= set(names):
            raise BadInput(
                f"--inputs {file!r}, line {number}: {quoted(value)} does not fit {target!r}, which "
                f"needs {wanted}" + (f" and takes {', '.join(names)}" if names else "")
            )
        found.append(value)
    return found


def answer_many(
    model: Callable[..., Awaitable[Any]],
    arguments: Mapping[str, Any],
    inputs: list[dict[str, Any]],
    options: argparse.Namespace,
    inference: Mapping[str, Any],
) -> int:
    """Infer each input and show its likeliest value, or all as JSON, in order; the exit status."""
    from awrs_ppl.scale.many import run_many

    async def program(ctx: Any, given: dict[str, Any]) -> Any:
        return await model(ctx, **{**arguments, **given})

    update_wrapper(program, model)
    found = run_many(
        program,
        inputs,
        concurrency=options.concurrency,
        on_error="return",
        save=options.save,
        progress=sys.stderr.isatty(),
        **inference,
    )
    failed = 0
    for number, given in enumerate(inputs):
        with redirect_stdout(sys.stderr):
            posterior = next(found)
        if isinstance(posterior, Exception):
            failed += 1
            report(f"input {number}: {one_line(posterior)}")
            if options.json:
                line = {"input": given, "error": one_line(posterior)}
                print_text(json.dumps(line))
            continue
        if options.json:
            print_text(json.dumps({"input": given, "posterior": json.loads(posterior.to_json())}))
        try:
            value = posterior.mode()
        except NoSurvivors as error:
            failed += 1
            report(f"input {number}: {one_line(error)}")
            continue
        if not options.json:
            share = posterior.probabilities[value]
            print_text(f"{number:6}  {share:.4f}  {escape(safe_repr(value))}")
    if failed:
        report(f"{failed:,} of {len(inputs):,} inputs have no results")
    return 1 if failed else 0
