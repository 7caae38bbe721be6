"""Probabilistic programs over language models, with adaptive weighted rejection sampling.

A user writes `async def model(ctx)`; the language model proposes, Boolean potentials say what
is allowed, expensive potentials say what is better; `infer` gives a weighted posterior with an
unbiased estimate of the evidence.

What happens is written to the logger `awrs_ppl`, which shows warnings alone until it is set up:
`logging.basicConfig(level="INFO")` shows the models that are loaded, and of each inference when it
begins, its evidence, effective sample size and seconds at its end; and its resamplings too after
`logging.getLogger("awrs_ppl").setLevel("DEBUG")`.
"""

import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awrs_ppl import errors, potentials, testing
    from awrs_ppl.constraints.potential import BooleanPotential
    from awrs_ppl.constraints.product import product
    from awrs_ppl.distributions import Bernoulli, Categorical, Distribution, Uniform
    from awrs_ppl.errors import (
        AwrsError,
        ContextLengthError,
        EmbeddedModelError,
        ModelError,
        NoSurvivors,
        PotentialError,
        ReplayError,
        SavedFileError,
        VocabularyError,
        WorkerError,
    )
    from awrs_ppl.inference.algorithms import run
    from awrs_ppl.inference.exact import exact
    from awrs_ppl.inference.rejection import rejection
    from awrs_ppl.inference.smc import check_replay, infer
    from awrs_ppl.lm import LM
    from awrs_ppl.lm.toy import ToyLM
    from awrs_ppl.posterior.comparison import compare
    from awrs_ppl.posterior.diagnosis import Diagnosis
    from awrs_ppl.posterior.posterior import Posterior
    from awrs_ppl.potentials.predicates import predicate
    from awrs_ppl.program.context import Context
    from awrs_ppl.program.trace import Trace
    from awrs_ppl.proposals import AWRS, LocalAWRS, PaperAWRS, Prior
    from awrs_ppl.scale.many import infer_many, run_many

__version__ = "0.2.0"

_LINKED = ("models", "potentials")


# An empty folder would be a namespace package, which comes from nowhere.
if any(getattr(find_spec(f"awrs_ppl.{name}"), "origin", None) is None for name in _LINKED):
    raise ImportError(
        f"{__path__[0]} lacks models or potentials: in a checkout awrs_ppl/models and "
        "awrs_ppl/potentials are symbolic links to ../models and ../potentials, so run `git config "
        "core.symlinks true` and `git checkout -- awrs_ppl/models awrs_ppl/potentials` (on Windows "
        "in developer mode), or put copies of the two folders in place of the links"
    )

if "ipykernel" in sys.modules:
    # In a notebook without ipywidgets tqdm warns when it is imported, as transformers does; its
    # bars are drawn as text there, which will do.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("tqdm.auto")

__all__ = [
    "AWRS",
    "LM",
    "AwrsError",
    "Bernoulli",
    "BooleanPotential",
    "Categorical",
    "Context",
    "ContextLengthError",
    "Diagnosis",
    "Distribution",
    "EmbeddedModelError",
    "LocalAWRS",
    "ModelError",
    "NoSurvivors",
    "PaperAWRS",
    "Posterior",
    "PotentialError",
    "Prior",
    "ReplayError",
    "SavedFileError",
    "ToyLM",
    "Trace",
    "Uniform",
    "VocabularyError",
    "WorkerError",
    "check_replay",
    "compare",
    "errors",
    "exact",
    "infer",
    "infer_many",
    "potentials",
    "predicate",
    "product",
    "rejection",
    "run",
    "run_many",
    "testing",
]

# Where each name lives: it is loaded on first use, because torch and genlm take seconds.
_HOMES = {
    "awrs_ppl.distributions": ("Bernoulli", "Categorical", "Distribution", "Uniform"),
    "awrs_ppl.errors": (
        "AwrsError",
        "ContextLengthError",
        "EmbeddedModelError",
        "ModelError",
        "NoSurvivors",
        "PotentialError",
        "ReplayError",
        "SavedFileError",
        "VocabularyError",
        "WorkerError",
    ),
    "awrs_ppl.lm": ("LM",),
    "awrs_ppl.lm.toy": ("ToyLM",),
    "awrs_ppl.posterior.comparison": ("compare",),
    "awrs_ppl.posterior.diagnosis": ("Diagnosis",),
    "awrs_ppl.posterior.posterior": ("Posterior",),
    "awrs_ppl.constraints.potential": ("BooleanPotential",),
    "awrs_ppl.potentials.predicates": ("predicate",),
    "awrs_ppl.constraints.product": ("product",),
    "awrs_ppl.program.context": ("Context",),
    "awrs_ppl.proposals": ("AWRS", "LocalAWRS", "PaperAWRS", "Prior"),
    "awrs_ppl.inference.exact": ("exact",),
    "awrs_ppl.inference.rejection": ("rejection",),
    "awrs_ppl.inference.algorithms": ("run",),
    "awrs_ppl.inference.smc": ("check_replay", "infer"),
    "awrs_ppl.program.trace": ("Trace",),
    "awrs_ppl.scale.many": ("infer_many", "run_many"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in ("errors", "potentials", "testing"):
        return import_module(f"awrs_ppl.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
