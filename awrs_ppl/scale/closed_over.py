"""What is sent to other processes, as bytes; a language model among it is rejected by name."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

import cloudpickle

from awrs_ppl._messages import quoted
from awrs_ppl.constraints.function_key import global_names
from awrs_ppl.errors import ModelError
from awrs_ppl.lm import LM
from awrs_ppl.program.execution import name_of_model
from awrs_ppl.scale.lm_parameter import signature
from awrs_ppl.workers._pickles import by_value

__all__ = ["sent_input", "sent_load", "sent_model"]


def sent_model(model: Callable[..., Any], options: Mapping[str, Any]) -> bytes:
    """A model and the options of its inference; raises `ModelError` where one cannot be sent."""
    name = name_of_model(model)
    write = f"write `{signature(model)}`: it is given the pool's language model"
    remedy = "make it inside the model, or in load(), which may return several things"
    with by_value(model):
        _pickled(model, f"the model {name}", write, remedy)
        for option, value in options.items():
            _pickled(value, f"the option {option}={quoted(value)}", write, "leave it out")
        # Together: an object that both hold stays one object.
        return _pickled((model, dict(options)), f"the model {name}", write, remedy)


def sent_load(load: Callable[[], Any]) -> bytes:
    """The function that makes the language model."""
    within = "make it inside load, which is called once in each worker"
    with by_value(load):
        return _pickled(load, f"load={quoted(load)}", within, within)


def sent_input(model: Callable[..., Any], args: Sequence[Any]) -> bytes:
    """What a model is given beside the language model."""
    write = f"write `{signature(model)}` and leave it out here"
    with by_value(model):
        try:
            return _pickled(tuple(args), "the input", write, "")
        except ModelError:
            for value in args:
                what = f"the input {quoted(value)}"
                _pickled(value, what, write, "give data, such as texts, numbers, lists and dicts")
            raise


class _HoldsLM(Exception):
    """A language model was found, by a name or not."""

    def __init__(self, lm: LM, name: str | None) -> None:
        super().__init__()
        self.lm, self.name = lm, name


class _Pickler(cloudpickle.Pickler):
    """Raises `_HoldsLM` before a language model is pickled, however deep it lies."""

    def persistent_id(self, obj: Any) -> None:
        """Called for every object; the functions tell by which names they use an LM."""
        if isinstance(obj, LM):
            raise _HoldsLM(obj, None)
        if type(obj) is FunctionType:
            for name, value in _named(obj):
                if isinstance(value, LM):
                    raise _HoldsLM(value, name)


def _pickled(value: Any, what: str, if_lm: str, if_not: str) -> bytes:
    data = io.BytesIO()
    try:
        _Pickler(data).dump(value)
    except _HoldsLM as found:
        name = "" if found.name is None else f" by the name {found.name!r}"
        raise ModelError(
            f"{what} uses a language model of this process{name}, {quoted(found.lm)}, and that "
            f"is not sent to the workers: {if_lm}"
        ) from None
    except Exception as error:
        raise ModelError(
            f"{what} cannot be pickled, to be sent to the workers "
            f"({type(error).__name__}: {error}): {if_not}"
        ) from error
    return data.getvalue()


def _named(function: FunctionType) -> list[tuple[str, Any]]:
    """What a function closes over, and the globals that it names; of its defaults pickle tells."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = [(name, _content(cell)) for name, cell in cells]
    names = global_names(function.__code__)
    return [*found, *[(name, function.__globals__.get(name)) for name in names]]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None
