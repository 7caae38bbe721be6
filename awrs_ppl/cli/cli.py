"""The command line: `awrs-ppl generate` draws a text, `awrs-ppl run` runs a program,
`awrs-ppl models` gets language models.

Results go to stdout, everything else to stderr, what programs and predicates print included.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any

from awrs_ppl._messages import quoted
from awrs_ppl.cli._cli_input import (
    BadInput,
    find,
    line_in,
    one_line,
    read_file,
    read_schema,
    read_stdin,
    reading,
    report,
)
from awrs_ppl.cli._cli_models import models
from awrs_ppl.cli._cli_options import EMBEDDED, options_parser, settings_of
from awrs_ppl.cli._cli_output import missing, print_text, report_facts, table, why_stopped
from awrs_ppl.errors import AwrsError, NoSurvivors

# Nothing heavy is imported up here: `--help` and rejections come at once.
if TYPE_CHECKING:
    from awrs_ppl.lm import LM
    from awrs_ppl.posterior.posterior import Posterior

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process; the exit status.

    0: there are results. 1: there are none. 2: bad usage or bad input. 3: stopped early, with
    results. 70: an error inside, whose traceback is printed. 130: interrupted. 141: whoever read
    the results has gone.

    >>> main(["generate", "Once upon a time", "--particles", "0"])  # stderr says why
    2
    """
    try:
        try:
            options = options_parser().parse_args(argv)
        except SystemExit as end:
            return int(end.code or 0)
        if options.command == "models":
            return models(options)
        return _answer_many(options) if getattr(options, "inputs", None) else _answer(options)
    except BrokenPipeError:
        # What is still buffered must not be written at exit either.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        report("interrupted")
        return 130
    except Exception:
        traceback.print_exc()
        report("this error does not come from your input: please report it, with the lines above")
        return 70


def _answer(options: argparse.Namespace) -> int:
    """Infer and show the posterior."""
    if getattr(options, "save", None):
        report("--save keeps the results of --inputs: add it, or leave out --save")
        return 2
    try:
        with redirect_stdout(sys.stderr):
            posterior = _COMMANDS[options.command](options)
    except (BadInput, AwrsError) as error:
        report(one_line(error))
        return 2
    if options.json:
        print_text(posterior.to_json())
    try:
        posterior.mode()
    except NoSurvivors as error:
        stopped = f"{why_stopped(posterior, options.timeout)}: " if posterior.stopped else ""
        report(stopped + one_line(error))
        return 1
    if not options.json:
        print_text(table(posterior))
    report_facts(posterior)
    if not posterior.stopped:
        return 0
    report(f"{why_stopped(posterior, options.timeout)}: {missing(posterior)}")
    return 3


def _answer_many(options: argparse.Namespace) -> int:
    """Infer a program on many inputs."""
    from awrs_ppl.cli._cli_many import answer_many, read_inputs

    try:
        with redirect_stdout(sys.stderr):
            model = find(options.program)
        arguments, lms = _arguments(model, options)
        parameters = list(inspect.signature(model).parameters.values())[1:]
        names = [p.name for p in parameters if p.name not in lms]
        needs = [p.name for p in parameters if p.name in names and p.name not in arguments]
        inputs = read_inputs(options.inputs, options.program, needs, names)
        if options.partial:
            raise BadInput("--partial and --inputs: leave one out; --save keeps what is finished")
        if options.algorithm != "smc":
            raise BadInput(
                "--algorithm and --inputs: leave one out; many inputs are inferred by smc"
            )
        if lms:
            arguments.update(dict.fromkeys(lms, _language_model(options.model)))
        return answer_many(model, arguments, inputs, options, settings_of(options))
    except (BadInput, AwrsError) as error:
        report(one_line(error))
        return 2


# --- what is inferred -----------------------------------------------------------------------


def _generate(options: argparse.Namespace) -> Posterior:
    """The posterior of one text."""
    prompt = read_stdin() if options.prompt == "-" else options.prompt
    constraints = list(_constraints(options))
    lm = _language_model(options.model)
    if options.chat and getattr(lm.tokenizer, "chat_template", None) is None:
        raise BadInput(
            f"--chat: {lm.name!r} has no chat template (it is a base model): leave out --chat, or "
            "choose a model that was made for conversations, as --model smollm2-135m"
        )
    after = lm.chat if options.chat else lm
    with reading("the prompt", "write another"):
        prompted = after(prompt, stop=options.stop, temperature=options.temperature)
    from awrs_ppl.constraints.product import product

    target = product(prompted, *constraints)

    async def text(ctx: Any) -> str:
        return await ctx.generate(target, max_tokens=options.max_tokens)

    return _infer(text, options)


def _constraints(options: argparse.Namespace) -> Iterator[Any]:
    """The potentials that the options name; files are read before anything heavy is loaded."""
    schemas = {file: read_schema(file) for file in options.json_schema}
    grammars = {file: read_file("--grammar", file) for file in options.grammar}
    functions = {target: find(target) for target in options.predicate}
    if options.regex:
        from awrs_ppl.potentials.regex import Regex

        for pattern in options.regex:
            with reading(f"--regex {pattern!r}", "mend the pattern"):
                yield Regex(pattern)
    for file, schema in schemas.items():
        from awrs_ppl.potentials.json import JsonSchema

        with reading(f"--json-schema {file!r}", "mend the schema"):
            yield JsonSchema(schema)
    for file, lark in grammars.items():
        from awrs_ppl.potentials.grammar import Grammar

        with reading(f"--grammar {file!r}", "mend the grammar"):
            yield Grammar(lark)
    for target, function in functions.items():
        from awrs_ppl._genlm import Potential
        from awrs_ppl.potentials.predicates import predicate

        with reading(f"--predicate {target!r}", "name a function of a text, or a potential"):
            yield function if isinstance(function, Potential) else predicate(function)


def _run(options: argparse.Namespace) -> Posterior:
    """The posterior of a program in a file or module."""
    target = options.program
    model = find(target)
    arguments, lms = _arguments(model, options)
    if lms:
        arguments.update(dict.fromkeys(lms, _language_model(options.model)))
    elif options.model is not None:
        raise BadInput(
            f"{target!r} takes no language model: leave out --model {options.model!r}, or give "
            "the program a parameter named lm"
        )
    program = update_wrapper(partial(model, **arguments), model)
    try:
        return _infer(program, options)
    except AwrsError:
        raise
    except Exception as error:
        # Exceptions of the program carry a note on where they happened; others are not its.
        if not getattr(error, "__notes__", ()):
            raise
        code = getattr(inspect.unwrap(model), "__code__", None)
        where = line_in(getattr(code, "co_filename", None), error)
        raise BadInput(f"{target!r} raised {one_line(error)}{where}; mend the program") from error


def _arguments(model: Any, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """What `--arg` gives to the program, and the names of its parameters that are the LM."""
    target, given = options.program, dict(options.arg)
    if len(given) < len(options.arg):
        names = [name for name, _ in options.arg]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"--arg {twice}=... is given twice: leave one out")
    how = "write `async def model(ctx, ...)`"
    if not callable(model):
        raise BadInput(f"{target!r} is {quoted(model)}, which is no function: {how}")
    try:
        first, *rest = inspect.signature(model).parameters.values()
    except (TypeError, ValueError):
        raise BadInput(f"{target!r} takes no parameter ctx: {how}") from None
    # A wrapper of anything gives what it wraps gives: that is seen when it runs.
    wraps = any(p.kind is p.VAR_POSITIONAL for p in (first, *rest))
    if not wraps and (kind := _unfit(model)) is not None:
        raise BadInput(f"{target!r} is {kind}: {how}")
    named = [p for p in rest if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    lms = [p.name for p in named if _is_lm(p)]
    names = [p.name for p in named if p.name not in lms]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in rest)
    for name in given:
        if name in lms:
            raise BadInput(f"--arg {name}=...: this is the language model; choose it by --model")
        if name not in names and (name == first.name or not takes_any):
            takes = f"it takes {', '.join(names)}" if names else "it takes none"
            raise BadInput(f"--arg {name}=...: {target!r} has no parameter {name!r}; {takes}")
    missing = [p.name for p in named if p.default is p.empty and p.name not in (*lms, *given)]
    if missing and not options.inputs:
        wanted = " ".join(f"--arg {name}=VALUE" for name in missing)
        raise BadInput(f"{target!r} needs {', '.join(missing)}: add {wanted}")
    # Bound, none is taken for an option of `infer`, whatever its name.
    given = {p.name: p.default for p in named if p.default is not p.empty} | given
    return given, lms


def _unfit(model: Any) -> str | None:
    """What a callable is that is no `async def`; None of one that is, or wraps one."""
    while isinstance(model, partial):
        model = model.func
    model = inspect.unwrap(model)
    if inspect.iscoroutinefunction(model) or inspect.iscoroutinefunction(type(model).__call__):
        return None
    if inspect.isclass(model):
        return "a class"
    if inspect.isasyncgenfunction(model):
        return "an async generator (it has a yield), and a model returns its value"
    if inspect.isroutine(model):
        return "a plain function, which cannot await its statements"
    return f"{quoted(model)}, which is no function"


def _is_lm(parameter: inspect.Parameter) -> bool:
    kind = parameter.annotation
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return parameter.name == "lm" or name.rpartition(".")[2] == "LM"


def _infer(model: Callable[..., Any], options: argparse.Namespace) -> Posterior:
    from awrs_ppl.inference.algorithms import run

    progress = sys.stderr.isatty()
    settings = settings_of(options)
    return run(
        model, algorithm=options.algorithm, partial=options.partial, progress=progress, **settings
    )


def _language_model(name: str | None) -> LM:
    """Load the model of `--model`."""
    name = name or EMBEDDED[0]
    report(f"loading {name}")
    from awrs_ppl.lm import LM

    try:
        return LM.gguf(name) if name.endswith(".gguf") else LM(name)
    except AwrsError:
        raise
    except Exception as error:  # transformers raises whatever its parts do
        raise BadInput(
            f"--model {name!r} cannot be loaded ({one_line(error)}): choose "
            f"{', '.join(EMBEDDED)}, a folder with a model, a .gguf file, or a name that "
            "transformers knows"
        ) from error


_COMMANDS = {"generate": _generate, "run": _run}
