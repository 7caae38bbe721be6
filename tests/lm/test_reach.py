"""Layers that see a window, a chunk or what an index chooses, or share keys, and models that count
positions themselves; and that a planted fault in each is found."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_models import Alone, check, model_of, window_is_one_longer

from awrs_ppl.lm.own_positions import OwnPositions
from awrs_ppl.lm.reach import Reach
from awrs_ppl.lm.runner import Runner
from awrs_ppl.lm.transformers import TransformersEngine
from awrs_ppl.lm.tree_view import TreeView, _Tree
from awrs_ppl.lm.view import View

pytestmark = pytest.mark.usefixtures("quiet")


def test_layers_that_share_keys_take_no_memory(byte_tokenizer: Any) -> None:
    engine = TransformersEngine(model_of("gemma4"), byte_tokenizer)
    layers = engine._runner.store.layers
    assert [layer.at for layer in layers] == [0, 1, 2, 3]
    asyncio.run(engine.next_logits([(1, 5, 6)]))
    per_token = 4 * 2 * (2 * (2 * 8) + 2 * 16)  # two layers of each kind, keys and values
    store = engine._runner.store
    assert store.nbytes == per_token * (store.size + store.rows * store.columns)


def chunks_begin_one_late(patch: pytest.MonkeyPatch) -> None:
    right = Reach.seen
    patch.setattr(Reach, "seen", lambda reach, columns, at: right(reach, columns - 1, at - 1))


def keys_of_another_owner_are_shared(patch: pytest.MonkeyPatch) -> None:
    """A layer hands on what the owner before it keeps."""
    right = View._extend

    def extend(view: View, layer: int, which: int, states: torch.Tensor) -> torch.Tensor:
        own = right(view, layer, which, states)
        if layer not in (2, 3) or view.cells is None:
            return own
        cells = view.store.cells[layer - 2][which][: len(view.jobs)]
        return cells[:, view.columns - own.shape[2] : view.columns].transpose(1, 2)

    patch.setattr(View, "_extend", extend)


def positions_are_columns(patch: pytest.MonkeyPatch) -> None:
    """As if rows were padded on the left up to their first token."""
    right = OwnPositions.told

    def told(own: OwnPositions, given: dict[str, Any], before: int) -> Any:
        where = given["position_ids"]
        columns = torch.arange(where.shape[1]).expand(where.shape) + before
        return right(own, {**given, "position_ids": columns}, before)

    patch.setattr(OwnPositions, "told", told)


def bias_counts_from_the_padded_start(patch: pytest.MonkeyPatch) -> None:
    right = OwnPositions.told

    @contextlib.contextmanager
    def told(own: OwnPositions, given: dict[str, Any], before: int) -> Iterator[dict[str, Any]]:
        with right(own, given, before) as found:
            tokens = found["attention_mask"].clone()
            for row, last in enumerate(given["position_ids"][:, -1].tolist()):
                tokens[row, : tokens.shape[1] - 1 - last] = 0
            yield {**found, "attention_mask": tokens}

    patch.setattr(OwnPositions, "told", told)


def indexer_has_keys_of_other_rows(patch: pytest.MonkeyPatch) -> None:
    right = View.update_indexer
    patch.setattr(View, "update_indexer", lambda *arguments: right(*arguments).roll(1, 0))


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        ("gemma4", window_is_one_longer),
        ("gemma4", keys_of_another_owner_are_shared),
        ("gemma3n", keys_of_another_owner_are_shared),
        ("llama4", chunks_begin_one_late),
        ("llama4", positions_are_columns),
        ("bloom", bias_counts_from_the_padded_start),
        ("falcon alibi", bias_counts_from_the_padded_start),
        ("deepseek_v32 sparse", indexer_has_keys_of_other_rows),
    ],
)
def test_planted_fault_is_found_by_contexts_and_at_load(
    label: str, fault: Any, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(model_of(label), byte_tokenizer)
    alone = Alone(engine.model)
    assert engine.is_cached
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check(engine, alone, random.Random(0), calls=20)
    # At load another way is taken: passes of rows of one length, or states kept whole.
    layout = TransformersEngine(model_of(label), byte_tokenizer)._runner.store.layout
    assert layout != engine._runner.store.layout


@pytest.mark.parametrize("label", ["llama4", "bloom"])
def test_engines_of_one_model_and_of_its_copy_tell_it_positions_once(
    label: str, byte_tokenizer: Any
) -> None:
    model = model_of(label)
    alone = Alone(model)
    for one in (model, model, copy.deepcopy(model)):
        engine = TransformersEngine(one, byte_tokenizer)
        assert engine.is_cached
        check(engine, alone, random.Random(3), calls=3)
    context = (1, *range(3, 30))
    found = model(input_ids=torch.tensor([context])).logits[0, -1].double().log_softmax(-1)
    assert (found.exp() - alone.log_probs(context).exp()).abs().sum() < 1e-5


def contexts_behind_a_prompt(rng: random.Random) -> Iterator[list[tuple[int, ...]]]:
    """Calls of eight contexts with a long common prompt, that grow, fork and are of all lengths."""
    prompt = (1, *rng.choices(range(3, 90), k=18))
    texts = [prompt] * 8
    for _ in range(5):
        texts = [
            (*rng.choice(texts), *rng.choices(range(3, 90), k=rng.choice([1, 1, 1, 3])))
            for _ in texts
        ]
        yield texts


def pass_kinds(patch: pytest.MonkeyPatch) -> list[type]:
    """The kinds of views of all passes from now on."""
    kinds, right = [], Runner._pass_by

    def pass_by(runner: Runner, kind: Any, *rest: Any) -> None:
        kinds.append(kind)
        right(runner, kind, *rest)

    patch.setattr(Runner, "_pass_by", pass_by)
    return kinds


def apart_behind_a_prompt(engine: Any, alone: Alone) -> float:
    """The largest total variation, without room for rows."""
    engine._runner.store.room = 0
    worst = 0.0
    for texts in contexts_behind_a_prompt(random.Random(2)):
        for text, row in zip(texts, asyncio.run(engine.next_logits(texts)), strict=True):
            found = (row.double().softmax(-1) - alone.log_probs(text).exp()).abs().sum() / 2
            worst = max(worst, float(found))
    return worst


@pytest.mark.parametrize(
    ("label", "fits"),
    [
        ("llama", True),
        ("gemma3", True),
        ("gemma4", True),
        ("llama4", True),
        ("deepseek_v32", True),
        ("bloom", False),  # in one row a column is no position
        ("mpt", False),
    ],
)
def test_contexts_behind_a_prompt_too_many_for_the_workspace_are_one_row(
    label: str, fits: bool, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(model_of(label), byte_tokenizer)
    alone = Alone(engine.model)
    kinds = pass_kinds(monkeypatch)
    assert apart_behind_a_prompt(engine, alone) < 1e-4
    assert (kinds.count(TreeView) > 3) is fits


def contexts_see_branches_of_others(patch: pytest.MonkeyPatch) -> None:
    right = _Tree.__init__

    def init(tree: _Tree, bases: Any) -> None:
        right(tree, bases)
        for seen in tree.sees:
            seen.update((branch, 99) for branch in [*seen])

    patch.setattr(_Tree, "__init__", init)


def tokens_stand_one_late(patch: pytest.MonkeyPatch) -> None:
    right = TreeView.positions
    patch.setattr(TreeView, "positions", lambda view: right(view) + 1)


@pytest.mark.parametrize("fault", [contexts_see_branches_of_others, tokens_stand_one_late])
def test_planted_fault_in_one_row_is_found_and_by_the_first_pass(
    fault: Any, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(model_of("llama"), byte_tokenizer)
    alone = Alone(engine.model)
    fault(monkeypatch)
    engine._runner._trees.fit = True
    assert apart_behind_a_prompt(engine, alone) > 1e-3
    engine = TransformersEngine(engine.model, byte_tokenizer)
    assert apart_behind_a_prompt(engine, alone) < 1e-4
