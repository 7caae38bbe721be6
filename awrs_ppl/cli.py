"""The command line: `awrs-ppl generate` draws a text, `awrs-ppl run` runs a program.

Results go to stdout, everything else to stderr, what programs and predicates print included.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial, update_wrapper
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from awrs_ppl import __version__
from awrs_ppl.errors import AwrsError, NoSurvivors

# Nothing heavy is imported up here: `--help` and refusals come at once.
if TYPE_CHECKING:
    from awrs_ppl.lm import LM
    from awrs_ppl.posterior import Posterior

__all__ = ["main"]

_EMBEDDED = ("gemma3-270m", "smollm2-135m")

_EPILOG = """\
examples:
  awrs-ppl generate "The capital of Italy is Rome. The capital of France is" --regex " [A-Z][a-z]+"
  awrs-ppl generate "List three birds." --chat --model smollm2-135m --stop $'\\n' --seed 1
  awrs-ppl generate "A user as JSON:" --json-schema user.json --json | jq '.probabilities[0].value'
  awrs-ppl generate - --predicate checks:is_haiku --particles 32 < prompt.txt
  awrs-ppl run haiku.py:model --arg topic=rain --arg lines=3
  awrs-ppl run awrs_ppl.models.capitals:capitals --seed 0

exit status:
  0    there are results
  1    no survivors: every particle has weight zero
  2    bad usage or bad input, or the program raised; one line on stderr says what to do
  70   an error inside, with a traceback
  130  interrupted
  141  whoever was reading the results has gone
"""


class _Refused(Exception):
    """Bad input: the message quotes it and says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process; the exit status.

    0: there are results. 1: no survivors. 2: bad usage or bad input. 70: an error inside, whose
    traceback is printed. 130: interrupted. 141: whoever read the results has gone.

    >>> main(["generate", "Once upon a time", "--particles", "0"])  # stderr says why
    2
    """
    try:
        try:
            options = _parser().parse_args(argv)
        except SystemExit as end:
            return int(end.code or 0)
        return _answer(options)
    except BrokenPipeError:
        # What is still buffered must not be written at exit either.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    except Exception:
        traceback.print_exc()
        _tell("this error is not of your input: please report it, with the lines above")
        return 70


def _answer(options: argparse.Namespace) -> int:
    """Infer and show the posterior."""
    try:
        with redirect_stdout(sys.stderr):
            posterior: Posterior = options.infer(options)
    except (_Refused, AwrsError) as error:
        _tell(_one_line(error))
        return 2
    if options.json:
        _print(posterior.to_json())
    try:
        posterior.mode()
    except NoSurvivors as error:
        _tell(_one_line(error))
        return 1
    if not options.json:
        _print(_table(posterior))
    _tell(
        f"{len(posterior)} particles, {posterior.alive} alive, ESS {posterior.ess:.1f}, "
        f"log evidence {posterior.log_ml:.2f}, seed {posterior.seed}"
    )
    return 0


# --- what is inferred -----------------------------------------------------------------------


def _generate(options: argparse.Namespace) -> Posterior:
    """The posterior of one text."""
    prompt = _stdin() if options.prompt == "-" else options.prompt
    constraints = list(_constraints(options))
    lm = _language_model(options.model)
    if options.chat and getattr(lm.tokenizer, "chat_template", None) is None:
        raise _Refused(
            f"--chat: {lm.name!r} has no chat template (it is a base model): leave out --chat, or "
            "choose a model that was made for conversations, as --model smollm2-135m"
        )
    ask = lm.chat if options.chat else lm
    with _reading("the prompt", "write another"):
        asked = ask(prompt, stop=options.stop, temperature=options.temperature)
    from awrs_ppl.products import product

    target = product(asked, *constraints)

    async def text(ctx: Any) -> str:
        return await ctx.generate(target, max_tokens=options.max_tokens)

    return _infer(text, options)


def _constraints(options: argparse.Namespace) -> Iterator[Any]:
    """The potentials that the options name; files are read before anything heavy is loaded."""
    schemas = {file: _schema(file) for file in options.json_schema}
    grammars = {file: _file("--grammar", file) for file in options.grammar}
    functions = {target: _find(target) for target in options.predicate}
    if options.regex:
        from awrs_ppl.potentials.regex import Regex

        for pattern in options.regex:
            with _reading(f"--regex {pattern!r}", "mend the pattern"):
                yield Regex(pattern)
    for file, schema in schemas.items():
        from awrs_ppl.potentials.json_schema import JsonSchema

        with _reading(f"--json-schema {file!r}", "mend the schema"):
            yield JsonSchema(schema)
    for file, lark in grammars.items():
        from awrs_ppl.potentials.grammar import Grammar

        with _reading(f"--grammar {file!r}", "mend the grammar"):
            yield Grammar(lark)
    for target, function in functions.items():
        from genlm.control.potential.base import Potential

        from awrs_ppl.potentials.predicates import predicate

        with _reading(f"--predicate {target!r}", "name a function of a text, or a potential"):
            yield function if isinstance(function, Potential) else predicate(function)


def _run(options: argparse.Namespace) -> Posterior:
    """The posterior of a program in a file or module."""
    target = options.program
    model = _find(target)
    arguments, lms = _arguments(model, options)
    if lms:
        arguments.update(dict.fromkeys(lms, _language_model(options.model)))
    elif options.model is not None:
        raise _Refused(
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
        where = _line_in(getattr(code, "co_filename", None), error)
        raise _Refused(f"{target!r} raised {_one_line(error)}{where}; mend the program") from error


def _arguments(model: Any, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """What `--arg` gives to the program, and the names of its parameters that are the LM."""
    target, given = options.program, dict(options.arg)
    if len(given) < len(options.arg):
        names = [name for name, _ in options.arg]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"--arg {twice}=... is given twice: leave one out")
    how = "write `async def model(ctx, ...)`"
    if not callable(model):
        raise _Refused(f"{target!r} is {model!r}, which is no function: {how}")
    try:
        first, *rest = inspect.signature(model).parameters.values()
    except (TypeError, ValueError):
        raise _Refused(f"{target!r} takes no parameter ctx: {how}") from None
    named = [p for p in rest if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    lms = [p.name for p in named if _is_lm(p)]
    names = [p.name for p in named if p.name not in lms]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in rest)
    for name in given:
        if name in lms:
            raise _Refused(f"--arg {name}=...: this is the language model; choose it by --model")
        if name not in names and (name == first.name or not takes_any):
            takes = f"it takes {', '.join(names)}" if names else "it takes none"
            raise _Refused(f"--arg {name}=...: {target!r} has no parameter {name!r}; {takes}")
    missing = [p.name for p in named if p.default is p.empty and p.name not in (*lms, *given)]
    if missing:
        wanted = " ".join(f"--arg {name}=VALUE" for name in missing)
        raise _Refused(f"{target!r} needs {', '.join(missing)}: add {wanted}")
    return given, lms


def _is_lm(parameter: inspect.Parameter) -> bool:
    kind = parameter.annotation
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return parameter.name == "lm" or name.rpartition(".")[2] == "LM"


def _infer(model: Callable[..., Any], options: argparse.Namespace) -> Posterior:
    from awrs_ppl.smc import run

    return run(
        model,
        n_particles=options.particles,
        ess_threshold=options.ess_threshold,
        seed=options.seed,
        remember=options.remember,
        timeout=options.timeout,
        partial=options.partial,
        progress=sys.stderr.isatty(),
    )


def _language_model(name: str | None) -> LM:
    """Load the model of `--model`."""
    name = name or _EMBEDDED[0]
    _tell(f"loading {name}")
    from awrs_ppl.lm import LM

    if name in _EMBEDDED:
        return LM.embedded(name)
    try:
        return LM(name)
    except Exception as error:  # transformers raises whatever its parts do
        raise _Refused(
            f"--model {name!r} cannot be loaded ({_one_line(error)}): choose "
            f"{' or '.join(_EMBEDDED)}, a folder with a model, or a name that transformers knows"
        ) from error


# --- input ----------------------------------------------------------------------------------


@contextmanager
def _reading(what: str, remedy: str) -> Iterator[None]:
    """Refuse, in one line, what cannot be read or built."""
    try:
        yield
    except (AwrsError, ImportError, OSError, RecursionError, TypeError, ValueError) as error:
        # What follows on further lines is a picture of the place.
        reason = str(error).partition("\n")[0].rstrip(" :")
        remedy = "install what is missing" if isinstance(error, ImportError) else remedy
        raise _Refused(f"{what}: {reason}; {remedy}") from error


def _stdin() -> str:
    with _reading("the prompt on stdin", "give it as UTF-8"):
        text = sys.stdin.buffer.read().decode()
    return text.removesuffix("\n").removesuffix("\r")


def _file(option: str, file: str) -> str:
    with _reading(f"{option} {file!r}", "name a text file in UTF-8"):
        return Path(file).read_text(encoding="utf-8-sig")


def _schema(file: str) -> Any:
    text = _file("--json-schema", file)
    with _reading(f"--json-schema {file!r} is no JSON", "mend the file"):
        return json.loads(text)


def _find(target: str) -> Any:
    """What `package.module:name` or `path/to/file.py:name` names."""
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise _Refused(
            f"{target!r} names no function: write path/to/file.py:function or "
            "package.module:function"
        )
    module = _module(place)
    try:
        return getattr(module, name)
    except AttributeError:
        defined = [
            known
            for known, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__ and not known.startswith("_")
        ]
        there = f"choose one of {', '.join(defined)}" if defined else "it defines none"
        raise _Refused(f"{target!r}: there is no {name!r} in {place!r}; {there}") from None


def _module(place: str) -> ModuleType:
    """Import a file, or a module that is found from the current folder."""
    path = Path(place).expanduser().resolve()
    is_file = place.endswith(".py") or "/" in place or os.sep in place
    if is_file and not path.is_file():
        raise _Refused(f"there is no file {place!r}: name a Python file, as haiku.py:model")
    # As `python file.py` and `python -m module` do.
    folder = str(path.parent if is_file else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        if not is_file:
            return importlib.import_module(place)
        # A name that no other module has: the file may be called like one.
        name = "awrs_ppl_file_" + re.sub(r"\W", "_", path.stem)
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError("it is no Python file")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        where = _line_in(str(path), error) if is_file else ""
        raise _Refused(
            f"{place!r} cannot be imported: {_one_line(error)}{where}; mend it, or name another "
            "path/to/file.py:function or package.module:function"
        ) from error
    return module


def _line_in(file: str | None, error: BaseException) -> str:
    """The line of a file that an exception went through last."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f" at {file}:{lines[-1]}" if lines else ""


# --- output ---------------------------------------------------------------------------------


def _table(posterior: Posterior) -> str:
    """All values, as Python writes them, each on one line, the most probable first."""
    from awrs_ppl._values import escape, safe_repr

    rows = [f"{share:11.4f}  {escape(safe_repr(value))}" for _, value, share in posterior._results]
    return "\n".join(["probability  value", *rows])


def _one_line(error: BaseException) -> str:
    """The message and the notes of an exception; its type where the message needs it."""
    from awrs_ppl._values import escape

    lines = [*str(error).splitlines(), *getattr(error, "__notes__", ())]
    text = " ".join(line.strip() for line in lines if line.strip())
    if not isinstance(error, _Refused | AwrsError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return escape(text)


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _tell(text: str) -> None:
    print(f"awrs-ppl: {text}", file=sys.stderr, flush=True)


# --- the options ----------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            message += "; a value that begins with - is written with =, as --regex=-a"
        self.exit(2, f"{self.prog}: {' '.join(message.splitlines())} (see {self.prog} --help)\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        sys.stdout.flush()  # the help: a broken pipe shows here
        super().exit(status, message)


def _parser() -> argparse.ArgumentParser:
    style: Any = {
        "epilog": _EPILOG,
        "allow_abbrev": False,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    about = "Draw texts from a language model under constraints, with their probabilities."
    parser = _Parser(prog="awrs-ppl", description=about, **style)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    again: Any = {"action": "append", "default": []}

    about = "Draw a text after a prompt. Constraints may be repeated; all of them hold."
    generate = commands.add_parser("generate", help="draw a text", description=about, **style)
    generate.set_defaults(infer=_generate)
    add = generate.add_argument
    add("prompt", help="the prompt; - reads it from stdin, without a line break at its end")
    add("--regex", metavar="PATTERN", help="a pattern that the whole text matches", **again)
    add("--json-schema", metavar="FILE", help="a schema that allows the text, as JSON", **again)
    add("--grammar", metavar="FILE", help="a grammar of the text, in Lark syntax", **again)
    what = "a function that says if texts that begin so may become allowed (also FILE.py:FUNCTION)"
    add("--predicate", metavar="MODULE:FUNCTION", help=what, **again)
    what = "the text ends before this; a line break is $'\\n' in bash"
    add("--stop", metavar="TEXT", type=_text, help=what, **again)
    what = "the most tokens, the end counts as one (default: %(default)s)"
    add("--max-tokens", metavar="N", type=_COUNT, default=256, help=what)
    what = "divides the logits (default: %(default)s)"
    add("--temperature", metavar="T", type=_TEMPERATURE, default=1.0, help=what)
    add("--chat", action="store_true", help="take the prompt as a message, and draw an answer")
    _add_inference(generate)

    about = (
        "Run a program, `async def model(ctx, ...)`. Its parameter lm, or those annotated LM, "
        "are given\nthe language model."
    )
    run = commands.add_parser("run", help="run a program", description=about, **style)
    run.set_defaults(infer=_run)
    run.add_argument("program", help="FILE.py:FUNCTION or MODULE:FUNCTION")
    what = "a parameter's value, as JSON, else as text"
    run.add_argument("--arg", metavar="NAME=VALUE", type=_argument, help=what, **again)
    _add_inference(run)
    return parser


def _add_inference(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = f"{' or '.join(_EMBEDDED)}, which need no download, a folder, or a name that "
    what += f"transformers knows (default: {_EMBEDDED[0]})"
    add("--model", metavar="NAME", help=what)
    what = "more are slower and more exact (default: %(default)s)"
    add("--particles", metavar="N", type=_COUNT, default=16, help=what)
    add("--seed", metavar="N", type=_SEED, help="the same seed gives the same result")
    what = "resample below this share of effective particles (default: %(default)s)"
    add("--ess-threshold", metavar="X", type=_SHARE, default=0.5, help=what)
    what = "share what is learned with inferences inside the program; a seed then fixes nothing"
    add("--remember", action="store_true", help=what)
    what = "stop after so long, with the texts that are finished"
    add("--timeout", metavar="SECONDS", type=_SECONDS, help=what)
    what = "stop at an interrupt (Ctrl-C) with the texts that are finished"
    add("--partial", action="store_true", help=what)
    add("--json", action="store_true", help="print the whole posterior as JSON")


def _number(kind: type[float], least: float, most: float, wanted: str, text: str) -> float:
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: give {wanted}")
    return number


_COUNT = partial(_number, int, 1, math.inf, "a whole number of at least 1")
_SEED = partial(_number, int, 0, math.inf, "a whole number of at least 0")
_SHARE = partial(_number, float, 0, 1, "a number from 0 to 1")
_SECONDS = partial(_number, float, 0, sys.float_info.max, "a number of seconds")
# The limits are those of `LM`.
_TEMPERATURE = partial(_number, float, 1e-6, sys.float_info.max, "a number of at least 1e-6")


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("'': give a text of at least one character")
    return text


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE, as topic=rain")
    try:
        return name, json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return name, value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
