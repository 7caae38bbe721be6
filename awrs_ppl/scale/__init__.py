"""Beyond one inference: a program on many inputs, and on many machines.

1. `infer_many` (`many`) starts an inference for each input, so many at once, and gives the
   posteriors in the order of the inputs (`in_order`). Those that share a language model share its
   passes.
2. A `job` is what was requested, checked, with a seed for each input. With `save=` each posterior
   is kept in a folder as soon as it is there (`folder`), and is read from there when the same is
   done again.
3. `RayPool` (`ray_pool`) does the same, and independent runs, in workers on the machines of a Ray
   cluster: `ray_start` finds or starts Ray, `ray_workers` starts actors, gives them calls and
   replaces those that die, and `actor` is what each of them does. What travels is pickled by
   `closed_over`, which rejects language models: a worker makes its own, and the model gets it by
   its `lm_parameter`. Its event loop runs in the `background`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awrs_ppl.scale.many import infer_many, run_many
    from awrs_ppl.scale.ray_pool import RayPool

__all__ = ["RayPool", "infer_many", "run_many"]

_HOMES = {"RayPool": "ray_pool", "infer_many": "many", "run_many": "many"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
