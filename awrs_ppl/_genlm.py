"""What this library has of genlm-control and genlm-backend, imported without what they do not use.

`genlm.control` brings, by way of arsenal and jsonschema, pyplot, pandas, parts of scipy and a
parser that is built for one format of JSON schemas: nine tenths of its seconds, and nothing of it
is called by what it offers. While it is imported, stand-ins take the place of those modules;
afterwards each is imported in full where it is first used, by genlm-control or by others.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module, reload
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_UNUSED = (
    "graphviz",
    "matplotlib",
    "matplotlib.pyplot",
    "pandas",
    "rfc3987_syntax",
    "scipy.integrate",
    "scipy.optimize",
    "scipy.stats",
)


class _Later:
    """A function of a module that is imported when it is called."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(import_module(self._module), self._name)(*arguments, **options)


class _StandIn(ModuleType):
    """A module of functions that are not called yet; once its place is free, the real one's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []
        self.__spec__ = ModuleSpec(name, None)  # torch asks whether pandas is there, and would fail

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            return _Later(self.__name__, name)
        return getattr(import_module(self.__name__), name)


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Put stand-ins in the place of modules that are installed and not imported yet."""
    made = {
        name: _StandIn(name)
        for name in _UNUSED
        if name not in sys.modules and find_spec(name.partition(".")[0]) is not None
    }
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in made.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class _NoVLLM:
    """A finder of modules for which vLLM is not installed."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        if name == "vllm":
            raise ModuleNotFoundError("not imported before it is used", name=name)


@contextmanager
def _without_vllm() -> Iterator[None]:
    """Keep genlm-backend from importing vLLM, which takes seconds, and from choosing its settings.

    It does both where vLLM is installed, whether or not anyone uses it. Its engine for vLLM is
    imported in full when it is first made by its name.
    """
    if "vllm" not in sys.modules and find_spec("vllm") is None:
        yield
        return
    before = dict(os.environ)
    imported = sys.modules.pop("vllm", None)
    sys.meta_path.insert(0, _NoVLLM)
    try:
        yield
    finally:
        sys.meta_path.remove(_NoVLLM)
        if imported is not None:
            sys.modules["vllm"] = imported
        for name in [name for name in os.environ if name.startswith("VLLM_")]:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]
    module = sys.modules["genlm.backend.llm.vllm"]

    def from_name(*arguments: Any, **options: Any) -> Any:
        if not getattr(module, "HAS_VLLM", True):
            reload(module)
        return module.AsyncVirtualLM.from_name(*arguments, **options)

    if not getattr(module, "HAS_VLLM", True):
        module.AsyncVirtualLM.from_name = from_name


if "genlm.control" not in sys.modules:
    # What fails with stand-ins is imported again below, without.
    with _without_vllm():
        with _stand_ins(), suppress(Exception):
            import_module("genlm.control")
        import_module("genlm.control")

from genlm.backend.llm.base import AsyncLM  # noqa: E402
from genlm.backend.tokenization import Token  # noqa: E402
from genlm.backend.tokenization.bytes import ByteVocabError, get_byte_vocab  # noqa: E402
from genlm.control import BoolCFG, BoolFSA, CanonicalTokenization  # noqa: E402
from genlm.control.potential.autobatch import AutoBatchedPotential  # noqa: E402
from genlm.control.potential.base import Potential, VocabTables  # noqa: E402
from genlm.control.potential.built_in.json import (  # noqa: E402
    FullValidatorJsonSchema,
    ParserPotential,
)
from genlm.control.potential.built_in.llm import PromptedLLM  # noqa: E402
from genlm.control.potential.coerce import Coerced  # noqa: E402
from genlm.control.potential.product import Product  # noqa: E402
from genlm.control.typing import Atomic  # noqa: E402

__all__ = [
    "AsyncLM",
    "Atomic",
    "AutoBatchedPotential",
    "BoolCFG",
    "BoolFSA",
    "ByteVocabError",
    "CanonicalTokenization",
    "Coerced",
    "FullValidatorJsonSchema",
    "ParserPotential",
    "Potential",
    "Product",
    "PromptedLLM",
    "Token",
    "VocabTables",
    "get_byte_vocab",
]
