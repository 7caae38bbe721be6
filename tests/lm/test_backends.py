"""Engines of genlm-backend, ends of texts, and models that give no numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from genlm.backend.llm import AsyncTransformer, MockAsyncLM
from genlm.control import PromptedLLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from awrs_ppl import LM, Categorical, Context, ModelError, PotentialError, infer, product
from awrs_ppl.potentials import OneOf

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
END = len(ALPHABET)


def bytewise(**names: Any) -> PreTrainedTokenizerFast:
    """A token for each byte, and those named."""
    backend: Any = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(ALPHABET)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def small(size: int = END + 1, **ends: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
        **({"bos_token_id": None, "eos_token_id": END} | ends),
    )
    return LlamaForCausalLM(config).eval()


def token(character: str) -> int:
    return ALPHABET.index(character)


async def evidence(potential: Any, text: str, **more: Any) -> float:
    async def model(ctx: Context) -> None:
        await ctx.observe(potential, text, **more)

    return (await infer(model, n_particles=1, seed=0, progress=False)).log_ml


@pytest.mark.parametrize("temperature", [1.0, 0.5])
async def test_rows_that_are_no_tokens_count_in_the_softmax(temperature: float) -> None:
    """A vocabulary padded for a GPU: 40 rows that no token has."""
    model = small(END + 41)
    prompt, text = [token(c) for c in "ab"], [token(c) for c in "cd"]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + text])).logits[0].double() / temperature
    rows = torch.log_softmax(logits, -1)
    expected = sum(float(rows[i + 1, t]) for i, t in enumerate(text))
    tokenizer = bytewise(eos_token="<end>")
    backend = AsyncTransformer(model, tokenizer)
    for lm in (LM(model, tokenizer=tokenizer), LM.from_backend(backend)):
        assert await evidence(lm("ab", temperature=temperature), "cd") == pytest.approx(
            expected, abs=1e-4
        )
        end = float(rows[-1, END])
        assert await evidence(lm("ab", temperature=temperature), "cd", ends=True) == pytest.approx(
            expected + end, abs=1e-4
        )
    prompted = PromptedLLM(backend, prompt_ids=prompt, temperature=temperature)
    assert await evidence(prompted, "cd") == pytest.approx(expected, abs=1e-4)


class Adapted(MockAsyncLM):
    """An engine with adapters: each prefers a letter of its own."""

    def __init__(self) -> None:
        super().__init__(bytewise(eos_token="<end>"))
        self.letters = {None: "n", "one": "a", "two": "b"}

    async def next_token_logprobs(
        self, token_ids: Sequence[int], lora_name: str | None = None
    ) -> torch.Tensor:
        logits = torch.zeros(len(self.byte_vocab))
        logits[token(self.letters[lora_name])] = 8.0
        return torch.log_softmax(logits, -1)


async def test_adapter_of_a_prompted_llm_is_used() -> None:
    backend = Adapted()
    by_adapter = {
        name: PromptedLLM(backend, prompt_ids=[token("x")], lora_name=name)
        for name in backend.letters
    }
    rows = torch.zeros(END + 1).double()
    rows[0] = 8.0
    high, low = torch.log_softmax(rows, -1)[:2].tolist()
    for name, prompted in by_adapter.items():
        for letter in "nab":
            expected = high if letter == backend.letters[name] else low
            assert await evidence(prompted, letter) == pytest.approx(expected, abs=1e-5)
    # Nor are two adapters taken for one another in a product, or by cached verdicts.
    both = product(by_adapter["one"], by_adapter["two"])
    assert await evidence(both, "a") == pytest.approx(high + low, abs=1e-5)
    factors = [product(prompted).target.dense[0] for prompted in by_adapter.values()]
    assert len({factor.key for factor in factors}) == 3
    assert len({factor.fingerprint for factor in factors}) == 3
    assert factors[1].key == product(by_adapter["one"]).target.dense[0].key


async def test_adapter_that_the_engine_lacks_is_named() -> None:
    prompted = PromptedLLM(MockAsyncLM(bytewise(eos_token="<end>")), [0], lora_name="mine")
    with pytest.raises(ValueError, match="'mine'"):
        await evidence(prompted, "a")
    with pytest.raises(TypeError, match="lora_name=3: give a name"):
        LM.from_backend(prompted.model, lora_name=3)  # pyright: ignore[reportArgumentType]


async def test_temperature_and_ends_of_a_prompted_llm_are_kept() -> None:
    backend = MockAsyncLM(bytewise(eos_token="<end>"))
    half: Any = np.float32(0.5)
    prompted: Any = PromptedLLM(
        backend, [token("x")], eos_byte_strings=[b"!", b"?"], temperature=half
    )
    tokens = [prompted.token_maps.decode[token("a")]]
    assert await evidence(prompted, "a") == pytest.approx(await prompted.prefix(tokens), abs=1e-4)
    assert await evidence(prompted, "a", ends=True) == pytest.approx(
        await prompted.complete(tokens), abs=1e-4
    )


def test_prompted_llm_that_weighs_by_itself_is_rejected() -> None:
    class Steered(PromptedLLM):
        async def logw_next(self, context: Any) -> Any:
            raise NotImplementedError

    backend = MockAsyncLM(bytewise(eos_token="<end>"))
    with pytest.raises(TypeError, match=r"a logw_next of its own.* in an AsyncLM"):
        product(Steered(backend, [0]), OneOf(["a"]))
    patched: Any = PromptedLLM(backend, [0])
    patched._maybe_temper = lambda rows: rows
    with pytest.raises(TypeError, match="a _maybe_temper of its own"):
        product(patched)


@pytest.mark.parametrize(
    "given",
    [
        [END, 100],
        (END, 100),
        np.array([END, 100]),
        torch.tensor([END, 100]),
        [np.int64(END), torch.tensor(100)],
    ],
)
def test_ends_in_any_sequence_are_read(given: Any) -> None:
    model: Any = small()
    model.generation_config.eos_token_id = given
    assert ends_of(model) == [100, END]


@pytest.mark.parametrize("given", [END, [100, END], (100, END)])
@pytest.mark.parametrize("dropped", [True, False])
def test_ends_of_the_configuration_count_where_the_generation_has_none(
    given: Any, dropped: bool
) -> None:
    model: Any = small()
    if dropped:
        model.generation_config = None
    else:
        model.generation_config.eos_token_id = None
    object.__setattr__(model.config, "eos_token_id", given)  # past its own check
    assert ends_of(model) == sorted(np.atleast_1d(given).tolist())


@pytest.mark.parametrize("given", [END, np.int64(END), torch.tensor(END), [END]])
def test_end_as_any_whole_number_is_read(given: Any) -> None:
    model: Any = small()
    model.generation_config.eos_token_id = given
    assert ends_of(model) == [END]


def test_generation_settings_come_before_those_of_the_model() -> None:
    model: Any = small(eos_token_id=100)
    model.generation_config.eos_token_id = END
    assert ends_of(model) == [END]
    assert ends_of(model, bytewise(eos_token="<end>", pad_token="<pad>")) == [END]
    backend = AsyncTransformer(model, bytewise(eos_token="<end>"))
    model.generation_config.eos_token_id = [END, 100]
    assert LM.from_backend(backend).vocabulary.ends.tolist() == [100, END]
    assert LM.from_backend(backend, ends=[7]).vocabulary.ends.tolist() == [7]


def ends_of(model: Any, tokenizer: Any = None) -> list[int]:
    return LM(model, tokenizer=tokenizer or bytewise()).vocabulary.ends.tolist()


async def test_model_without_an_end_needs_a_stop() -> None:
    lm = LM(small(END, eos_token_id=None), tokenizer=bytewise())
    assert len(lm.vocabulary.ends) == 0

    async def model(ctx: Context, potential: Any) -> str:
        return await ctx.generate(potential, max_tokens=3)

    for potential in (lm("a"), lm("a") * OneOf(["a", "b"])):
        with pytest.raises(ModelError, match=r"no end token.*stop='\\n'"):
            await infer(model, potential, n_particles=2, progress=False)
    with pytest.raises(ModelError, match=r"ends=True.*no end token"):
        await evidence(lm("a"), "b", ends=True)
    assert np.isfinite(await evidence(lm("a"), "b"))
    assert np.isfinite(await evidence(lm("a", stop="b"), "c", ends=True))
    found = await infer(model, lm("a", stop="b") * OneOf(["a", ""]), n_particles=4, progress=False)
    assert set(found.values) <= {"a", "", None}
    assert found.log_ml > -np.inf


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
async def test_observation_of_weight_nan_is_an_error(broken: float) -> None:
    """Only the particle of "z" meets the damaged weight; the error names the text."""
    model: Any = small()
    with torch.no_grad():
        model.model.embed_tokens.weight[token("z")] = broken
    tokenizer = bytewise(eos_token="<end>")
    for lm in (
        LM(model, tokenizer=tokenizer),
        LM.from_backend(AsyncTransformer(model, tokenizer)),
    ):

        async def program(ctx: Context, lm: LM = lm) -> str:
            letter = await ctx.sample(Categorical(["y", "z"]))
            await ctx.observe(lm("a"), letter + "b")
            return letter

        assert np.isfinite(await evidence(lm("a"), "yb"))
        with pytest.raises(PotentialError, match=r"LM\('.*'\) gave .*nan to 'zb' after 'a'"):
            await infer(program, n_particles=16, seed=0, progress=False)
        with pytest.raises(PotentialError, match="nan to 'zb'"):
            await product(lm("a")).prefix(lm_tokens(lm, "zb"))


def lm_tokens(lm: LM, text: str) -> list[Any]:
    tokens: list[Any] = lm.vocabulary.text_tokens
    return [next(t for t in tokens if t.token_id == i) for i in lm.encode(text)]


async def test_row_length_inside_a_running_loop_is_found() -> None:
    """vLLM's engine starts a loop of its own to answer at once."""

    class Own(MockAsyncLM):
        def next_token_logprobs_sync(
            self, token_ids: Sequence[int], lora_name: str | None = None
        ) -> torch.Tensor:
            return asyncio.run(self.next_token_logprobs(token_ids, lora_name))

    lm = LM.from_backend(Own(bytewise(eos_token="<end>")))
    assert lm.vocabulary.size == END + 1


async def test_row_length_of_an_asynchronous_engine_is_found() -> None:
    class NotAtOnce(MockAsyncLM):
        def next_token_logprobs_sync(
            self, token_ids: Sequence[int], lora_name: str | None = None
        ) -> torch.Tensor:
            raise NotImplementedError

    lm = LM.from_backend(NotAtOnce(bytewise(eos_token="<end>")))
    assert lm.vocabulary.size == END + 1
