"""Caches that are more than keys and values of each layer: states of recurrent layers, keys that
layers share, masks that the model makes itself. The judge is the model alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import TOKENS, Alone, check, model_of

from awrs_ppl.errors import AwrsError
from awrs_ppl.lm import acceptance, groups, states, view
from awrs_ppl.lm.cache import Store
from awrs_ppl.lm.snapshots import Snapshots
from awrs_ppl.lm.transformers import TransformersEngine

# Whether keys are kept by token, states whole, and whether passes are of rows of one length.
KINDS = {
    "lfm2": (True, True, False),
    "qwen3_5": (True, True, False),
    "mamba2": (False, True, False),
    "mamba": (False, True, False),
    "jamba": (True, True, False),
    "minimax": (False, True, True),
    "deepseek_v32": (True, False, False),
    "gemma4": (True, False, False),
    "gemma3n": (True, False, False),
    "llama4": (True, False, False),
    "bloom": (True, False, False),
    "falcon alibi": (True, False, False),
    "gpt_neo": (True, False, True),
}
WITH_STATES = [label for label, kinds in KINDS.items() if kinds[1]]


pytestmark = pytest.mark.usefixtures("quiet")


def engine_of(label: str, tokenizer: Any, memory: float = 2**28) -> tuple[Any, Alone]:
    model = model_of(label)
    alone = Alone(model)
    return TransformersEngine(model, tokenizer, memory=memory), alone


def store_of(engine: Any) -> Store:
    return engine._runner.store


def scarce(engine: Any, tokens: int, rows: int) -> None:
    """Have the engine keep so many tokens, and states of so many rows."""
    store = store_of(engine)
    memory = store.memory
    while store.limit > tokens and memory > 1000:
        memory = memory * 9 // 10
        try:
            store = store.within(memory)
        except AwrsError:
            break
    if store.snapshots is not None:
        store.snapshots.limit = rows * 2 * store.snapshots.size
    engine._runner.store = store


@pytest.mark.parametrize("label", KINDS)
def test_caches_of_all_kinds_give_what_the_model_alone_gives(
    label: str,
    byte_tokenizer: Any,
) -> None:
    engine, alone = engine_of(label, byte_tokenizer)
    store = store_of(engine)
    assert (bool(store.layers), store.snapshots is not None, store.layout.even) == KINDS[label]
    check(engine, alone, random.Random(label), calls=8)


@pytest.mark.parametrize("label", KINDS)
def test_caches_with_little_memory_give_what_the_model_alone_gives(
    label: str,
    byte_tokenizer: Any,
) -> None:
    engine, alone = engine_of(label, byte_tokenizer)
    scarce(engine, tokens=80, rows=3)
    check(engine, alone, random.Random(label), calls=8)
    kept = store_of(engine).snapshots
    if kept is not None:
        assert kept.nbytes <= kept.limit


@pytest.mark.parametrize("label", WITH_STATES)
async def test_rows_that_grow_feed_one_token_each(
    label: str,
    byte_tokenizer: Any,
) -> None:
    engine, _ = engine_of(label, byte_tokenizer)
    rng = random.Random(0)
    rows = [(1, *rng.choices(range(3, TOKENS), k=20))] * 4
    await engine.next_logits(rows)
    before, distinct = engine.stats.tokens, 0
    for _ in range(5):
        rows = [(*rng.choice(rows), rng.randrange(3, TOKENS)) for _ in rows]
        distinct += len({*rows})
        await engine.next_logits(rows)
    assert engine.stats.tokens - before == distinct


async def test_prompt_asked_again_is_not_fed_again(byte_tokenizer: Any) -> None:
    engine, _ = engine_of("qwen3_5", byte_tokenizer)
    prompt = tuple(range(3, 30))
    await engine.next_logits([prompt])
    before = engine.stats.tokens
    await engine.next_logits([prompt])
    assert engine.stats.tokens - before == 1


async def test_row_whose_state_is_gone_starts_at_the_nearest_before(
    byte_tokenizer: Any,
) -> None:
    engine, alone = engine_of("qwen3_5", byte_tokenizer)
    store = store_of(engine)
    prompt = tuple(range(3, 30))
    await engine.next_logits([prompt])
    await engine.next_logits([(*prompt, 40)])
    await engine.next_logits([(*prompt, 40, 41)])
    assert store.snapshots is not None
    for context in ((*prompt, 40, 41), (*prompt, 40)):
        store.snapshots.drop(store.find(context))
    before = engine.stats.tokens
    (found,) = await engine.next_logits([(*prompt, 40, 41)])
    assert engine.stats.tokens - before == 2
    want = alone.log_probs((*prompt, 40, 41)).exp()
    assert (found.double().softmax(-1) - want).abs().sum() / 2 < 1e-4


def test_states_within_memory_drop_steps_that_went_on_first() -> None:
    class Node:
        pass

    kept = Snapshots(memory=3 * 4 * 8, size=8)  # two thirds of it: eight states
    prompt, first, *steps = nodes = [Node() for _ in range(8)]
    kept.keep(prompt, None, 5, state_of(2))
    for base, node in zip(nodes, [first, *steps], strict=False):
        kept.keep(node, base, 1, state_of(2))
    assert len(kept) == 8
    last = Node()
    kept.keep(last, nodes[-1], 1, state_of(2))
    assert first not in kept  # one step of a row that has gone on
    assert prompt in kept
    assert last in kept
    assert kept.nbytes == kept.limit


def state_of(numbers: int) -> states.State:
    return states.State([torch.zeros(numbers)], None)


def test_too_little_memory_for_states_says_how_much_is_needed(
    byte_tokenizer: Any,
) -> None:
    with pytest.raises(AwrsError, match=r"states of layers without keys, \d+ bytes each: give"):
        engine_of("mamba2", byte_tokenizer, memory=8000)


@pytest.mark.parametrize("label", ["mamba", "jamba", "minimax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_that_take_one_token_behind_a_state_are_recognised(
    label: str, dtype: torch.dtype, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rounding hides it in the distributions, and few tokens are tried."""
    monkeypatch.setattr(acceptance, "_CHEAP", 0)
    engine = TransformersEngine(model_of(label).to(dtype), byte_tokenizer)
    assert store_of(engine).layout.steps


@pytest.mark.parametrize("label", ["lfm2", "qwen3_5", "mamba2"])
def test_models_that_take_several_tokens_behind_a_state_get_them(
    label: str, byte_tokenizer: Any
) -> None:
    engine = TransformersEngine(model_of(label).to(torch.bfloat16), byte_tokenizer)
    assert not store_of(engine).layout.steps


# Planted faults: made behind the trial at load, which would find them, too.


def state_by_reference(patch: pytest.MonkeyPatch, engine: Any) -> None:
    """The state of a single row goes into a pass as it is kept."""
    right = states._with_tensors

    def with_tensors(thing: Any, rows: Any) -> Any:
        if isinstance(thing, states._Place) and len(rows[0]) == 1:
            return rows[thing.number][0]
        return right(thing, rows)

    patch.setattr(states, "_with_tensors", with_tensors)


def state_of_the_batch(patch: pytest.MonkeyPatch, engine: Any) -> None:
    """The rows of a pass are not told apart: all get the state of the first."""
    right = states.rows_of
    patch.setattr(view, "rows_of", lambda layers, rows: [right(layers, rows)[0]] * rows)


def state_one_token_early(patch: pytest.MonkeyPatch, engine: Any) -> None:
    """A row goes on from the state before its last token, where that is kept."""
    right = Snapshots.batch

    def batch(self: Snapshots, nodes: Any) -> Any:
        return right(self, [n.parent if n.parent in self else n for n in nodes])

    patch.setattr(Snapshots, "batch", batch)


def padding_in_states(patch: pytest.MonkeyPatch, engine: Any) -> None:
    """Rows that feed different numbers of tokens share a pass, padded."""
    right = groups.Groups._need

    def need(self: Any, job: Any, store: Store) -> Any:
        found = right(self, job, store)
        return found._replace(alike=found.alike[1:])

    patch.setattr(groups.Groups, "_need", need)
    patch.setattr(view, "_require_no_padding", lambda pads: None)


def several_tokens_behind_a_state(patch: pytest.MonkeyPatch, engine: Any) -> None:
    store = store_of(engine)
    engine._runner.store = Store(
        store.layout._replace(steps=False), store.dtype, store.device, store.memory
    )


def rows_of_several_lengths(patch: pytest.MonkeyPatch, engine: Any) -> None:
    """Of a model that makes its own masks and positions."""
    right = groups.Groups._need

    def need(self: Any, job: Any, store: Store) -> Any:
        found = right(self, job, store)
        return found._replace(alike=found.alike[:1])

    patch.setattr(groups.Groups, "_need", need)


def window_off_by_one(patch: pytest.MonkeyPatch, engine: Any) -> None:
    store = store_of(engine)
    layers = []
    for layer in store.layers:
        reach = layer.reach
        shorter = reach._replace(length=max(0, reach.length - 1))
        layers.append(layer._replace(reach=shorter))
    layout = store.layout._replace(layers=layers)
    engine._runner.store = Store(layout, store.dtype, store.device, store.memory)


def keys_of_another_layer(patch: pytest.MonkeyPatch, engine: Any) -> None:
    store = store_of(engine)
    numbers = [*store.number.values()][::-1]
    store.number = dict(zip(store.number, numbers, strict=True))


FAULTS: list[tuple[Callable[[pytest.MonkeyPatch, Any], None], list[str]]] = [
    (state_by_reference, ["lfm2", "qwen3_5", "mamba2", "jamba"]),
    (state_of_the_batch, ["lfm2", "qwen3_5", "mamba2", "jamba", "minimax"]),
    (state_one_token_early, ["lfm2", "qwen3_5", "mamba2", "jamba", "minimax"]),
    (padding_in_states, ["lfm2", "qwen3_5", "mamba2"]),
    (several_tokens_behind_a_state, ["mamba", "jamba", "minimax"]),
    (rows_of_several_lengths, ["gpt_neo"]),
    (window_off_by_one, ["gemma4", "llama4"]),
    (keys_of_another_layer, ["gemma4"]),
]


@pytest.mark.parametrize(
    ("fault", "label"), [(fault, label) for fault, labels in FAULTS for label in labels]
)
def test_planted_fault_is_found(
    fault: Callable[[pytest.MonkeyPatch, Any], None],
    label: str,
    byte_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, alone = engine_of(label, byte_tokenizer)
    fault(monkeypatch, engine)
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        check(engine, alone, random.Random(0), calls=32)
