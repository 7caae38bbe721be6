"""The layers of a model, and the ways in which their cache may be kept."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, cache_utils
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from awrs_ppl.lm.reach import Reach
from awrs_ppl.lm.states import size_of

__all__ = ["LENGTHS", "Layer", "Layout", "cache_argument", "layouts_of"]

# Newer than the oldest version of transformers that the library takes.
_LINEAR = getattr(cache_utils, "LinearAttentionCacheLayerMixin", ())
_HYBRID = tuple(
    getattr(cache_utils, f"LinearAttentionAnd{name}AttentionLayer", DynamicLayer)
    for name in ("Full", "SlidingWindow")
)
_DUMMY = getattr(cache_utils, "DummyLayer", ())
_INDEXED = getattr(cache_utils, "DynamicIndexedLayer", DynamicLayer)
_BY_TOKEN = (DynamicLayer, DynamicSlidingWindowLayer, _INDEXED, *_HYBRID)
# How long windows and chunks are, by the names of configurations.
LENGTHS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
_MASKED = {"full_attention", "indexed_attention", *LENGTHS}  # for which masks are made here
_UNMASKED = {"linear_attention", "conv", "mamba"}
_HYBRIDS = {"hybrid": "full_attention", "hybrid_sliding": "sliding_attention"}


class Layer(NamedTuple):
    """One attention layer that keeps something; others attend to the keys of an earlier one.

    `shapes` are (heads, dim) of what it keeps of each token: its keys, its values, and where it
    has an indexer, that chooses what to attend to, the keys of that.
    """

    shapes: tuple[tuple[int, int], ...]
    reach: Reach = Reach()
    at: int = 0  # its number in the model


class Layout(NamedTuple):
    """A way to keep the cache of a model.

    `layers` keep keys and values by token; layers with a number in `states` keep the state after
    a context whole, which takes `state_size` bytes after one token. Is a pass `even`, its rows are
    of one length, and the model makes masks and positions itself; else they are made here, the
    masks by kind of layer, None for layers of the kinds `unmasked`. With `steps` a model cannot
    take more than one token behind a state. Is the cache an object of the model's `own`, it is the
    state, which the model takes and gives back as `argument`. Models look at the `blank` layers of
    an empty cache where they make masks, and states begin as a copy of theirs.
    """

    layers: list[Layer]
    states: tuple[int, ...] = ()
    state_size: int = 0
    even: bool = False
    unmasked: tuple[str, ...] = ()
    steps: bool = False
    argument: str = "past_key_values"
    own: bool = False
    blank: tuple[Any, ...] = ()


def cache_argument(model: Any) -> str:
    """The name under which a model takes its cache; transformers 5.24 began to change it."""
    takes = inspect.signature(model.forward).parameters
    names = ("past_key_values", "cache", "cache_params")
    return next((name for name in names if name in takes), "past_key_values")


def layouts_of(model: Any) -> list[Layout]:
    """The ways in which the cache of a model may be kept, what costs least first.

    None of them need be right: that is tried out. Raises `ValueError` where a model does not use a
    cache as models do.
    """
    config = model.config.get_text_config(decoder=True)
    if config._attn_implementation not in ("eager", "sdpa"):
        raise ValueError(f"{config._attn_implementation!r} attention does not take our masks")
    argument, problem = cache_argument(model), "it keeps nothing in it"
    cache: Any = DynamicCache(config=model.config)
    try:
        _run(model, **{argument: cache})
    except Exception as error:
        problem = str(error)
    sizes = [size_of(layer) for layer in cache.layers]
    if not any(sizes):
        output = _run(model)
        for argument in ("past_key_values", "cache_params", "state"):
            if size := size_of(getattr(output, argument, None)):
                own = Layout([], (0,), size, True, argument=argument, own=True)
                return [own, own._replace(steps=True)]
        raise ValueError(f"it does not use a cache of transformers: {problem}")
    blank = tuple(DynamicCache(config=model.config).layers)
    return [
        layout._replace(argument=argument, blank=blank)
        for layout in _layouts(config, cache.layers, sizes)
    ]


def _run(model: Any, **arguments: Any) -> Any:
    takes = inspect.signature(model.forward).parameters
    arguments |= {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        return model(input_ids=token, use_cache=True, **arguments)


def _layouts(config: Any, kept: list[Any], sizes: list[int]) -> list[Layout]:
    """The ways to keep these layers of a cache, of so many bytes after a token."""
    layers, states, wholes = [], [], []
    kinds = _kinds(config, len(kept))
    for index, (kind, layer) in enumerate(zip(kinds, kept, strict=True)):
        if sizes[index]:
            wholes.append(index)
        keys = getattr(layer, "keys", None)
        by_token = type(layer) in _BY_TOKEN
        if isinstance(layer, _LINEAR) or (sizes[index] and not by_token):
            states.append(index)
        if not by_token or keys is None:  # another layer's keys are used, or none
            continue
        tensors = [keys, layer.values]
        if getattr(layer, "indexer_keys", None) is not None:
            tensors.append(layer.indexer_keys[:, None])
        shapes = tuple((tensor.shape[1], tensor.shape[3]) for tensor in tensors)
        layers.append(Layer(shapes, _reach(config, kind), index))
    linear = all(isinstance(kept[index], _LINEAR) for index in states)
    state_size = sum(_state_size(kept[index]) for index in states)
    found = []
    if linear:
        unmasked = tuple(sorted({*kinds} & _UNMASKED or ({"linear_attention"} if states else {})))
        plain = {kinds[layer.at] for layer in layers} <= _MASKED
        here = Layout(layers, tuple(states), state_size, False, unmasked)
        found = [here] if plain else []
        if layers:
            found.append(here._replace(even=True))
    found.append(Layout([], tuple(wholes), sum(sizes), True))
    return [
        layout._replace(steps=steps)
        for layout in found
        for steps in ((False, True) if layout.states else (False,))
    ]


def _kinds(config: Any, count: int) -> list[str]:
    """The kind of each layer, by its attention."""
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        named = [kind for kind, name in LENGTHS.items() if getattr(config, name, None)]
        kinds = [*named, "full_attention"][:1] * count
    if len(kinds) != count:
        raise ValueError(f"{len(kinds)} kinds of layers, but {count} in the cache")
    return [_HYBRIDS.get(kind, kind) for kind in kinds]


def _reach(config: Any, kind: str) -> Reach:
    # A window of none is how some configurations say that a layer sees everything.
    length = getattr(config, LENGTHS[kind], None) if kind in LENGTHS else 0
    return Reach() if length is None else Reach(kind, length)


def _state_size(layer: Any) -> int:
    kept = (getattr(layer, name, None) for name in ("keys", "values"))
    return size_of(layer) - sum(tensor.nbytes for tensor in kept if tensor is not None)
