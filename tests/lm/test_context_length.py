"""What is too long for a language model: an error that reaches the particle that went there."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, GPT2Config, LlamaConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from awrs_ppl import (
    LM,
    Categorical,
    Context,
    ContextLengthError,
    check_replay,
    infer,
    product,
)
from awrs_ppl.lm.transformers import TransformersEngine
from awrs_ppl.potentials import Regex

MOST = 16
OPTIONS: dict[str, Any] = {
    "n_particles": 8,
    "seed": 0,
    "ess_threshold": 0,  # else the longer prompts may be resampled away
    "progress": False,
}


@functools.cache
def byte_tokenizer() -> PreTrainedTokenizerFast:
    names = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(names)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")


@functools.cache
def lm() -> LM:
    config = GPT2Config(
        vocab_size=259, n_positions=MOST, n_embd=32, n_layer=2, n_head=4, eos_token_id=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    return LM(model, tokenizer=byte_tokenizer())


async def prompted(ctx: Context) -> str:
    """A prompt with room for the text, or one without, behind which 16 tokens are too few."""
    return "x" * await ctx.sample(Categorical([3, MOST - 3]))


async def caught(ctx: Context) -> tuple[int, str]:
    prompt = await prompted(ctx)
    try:
        text = await ctx.generate(lm()(prompt) * Regex("[ab]{4}"), max_tokens=8)
    except ContextLengthError:
        text = "too long"
    return len(prompt), text


async def test_error_caught_in_a_model_leaves_other_particles_running() -> None:
    posterior = await infer(caught, **OPTIONS)
    assert {n for n, _ in posterior.values} == {3, MOST - 3}
    for n, text in posterior.values:
        assert (text == "too long") is (n > 3)
    assert all(weight > -torch.inf for weight in posterior.log_weights)
    await check_replay(caught, seed=1)


async def test_weight_of_a_text_that_became_too_long_is_that_of_its_tokens() -> None:
    """The particle keeps what its tokens did to its weight: their mass under the constraint."""
    posterior = await infer(caught, **OPTIONS)
    index = posterior.values.index((MOST - 3, "too long"))
    # Thirteen tokens of prompt leave room for the draw of four, before the end is drawn.
    ids = [lm().encode(c)[0] for c in "ab"]
    trees: dict[tuple[int, ...], float] = {}
    prompt = lm().prompt_ids("x" * (MOST - 3))
    for bits in range(16):
        text = [ids[bits >> i & 1] for i in range(4)]
        weight = 0.0
        for i in range(4):
            with torch.inference_mode():
                row = torch.tensor([[*prompt, *text[:i]]])
                logits = lm().engine.model(input_ids=row).logits[0, -1]  # pyright: ignore
            weight += float(logits.log_softmax(-1)[ids].logsumexp(0))
        trees[tuple(text)] = weight
    assert any(
        weight == pytest.approx(posterior.log_weights[index], abs=1e-4) for weight in trees.values()
    )


async def test_error_not_caught_names_the_particle_and_what_to_do() -> None:
    async def model(ctx: Context) -> str:
        return await ctx.generate(lm()(await prompted(ctx)) * Regex("[ab]{4}"), max_tokens=8)

    with pytest.raises(
        ContextLengthError, match=r"17 tokens .* 16 .*GPT2LMHeadModel.*config\.n_positions.*shorten"
    ) as caught:
        await infer(model, **OPTIONS)
    (note,) = caught.value.__notes__
    assert note.startswith("awrs_ppl: in particle ")
    assert "at 'generate 2'" in note


async def test_observe_of_a_text_too_long_raises_in_the_model() -> None:
    async def model(ctx: Context) -> bool:
        prompt = await prompted(ctx)
        try:
            await ctx.observe(lm()(prompt), "abab!")
        except ContextLengthError:
            return len(prompt) > 3
        return len(prompt) == 3

    posterior = await infer(model, **OPTIONS)
    assert posterior.values == [True] * 8


@pytest.mark.parametrize("as_factor", [False, True])
async def test_weighing_a_text_too_long_raises_in_the_model(as_factor: bool) -> None:
    async def model(ctx: Context) -> bool:
        prompt = await prompted(ctx)
        judge = lm()(prompt)
        try:
            if as_factor:  # of another object of the same vocabulary: a second proposal
                await ctx.generate(product(lm()("x"), judge, Regex("[ab]{4}")), max_tokens=8)
            else:
                await ctx.generate(lm()("x") * Regex("[ab]{4}"), max_tokens=8, critic=judge)
        except ContextLengthError:
            return len(prompt) > 3
        return len(prompt) == 3

    posterior = await infer(model, **OPTIONS)
    assert posterior.values == [True] * 8


async def test_inference_beside_a_failed_one_continues() -> None:
    async def short(ctx: Context) -> str:
        return await ctx.generate(lm()("x") * Regex("[ab]{4}"), max_tokens=8)

    async def long(ctx: Context) -> str:
        return await ctx.generate(lm()("x" * 40), max_tokens=8)

    failed, other = await asyncio.gather(
        infer(long, **OPTIONS), infer(short, **OPTIONS), return_exceptions=True
    )
    assert isinstance(failed, ContextLengthError)
    assert not isinstance(other, BaseException)
    assert len(other.values) == 8


GPT = {"n_embd": 32, "n_layer": 1, "n_head": 4}
USUAL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}
SEQ2SEQ = {"d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 4}


@pytest.mark.parametrize(
    ("kind", "config", "limit"),
    [
        ("gpt2", {**GPT, "n_positions": 24}, 24),
        ("gptj", {**GPT, "n_positions": 24, "rotary_dim": 4}, 24),
        ("opt", {**USUAL, "ffn_dim": 32, "max_position_embeddings": 24}, 24),
        ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 1, "max_seq_len": 24}, 24),
        ("whisper", {**SEQ2SEQ, "max_target_positions": 24}, 24),
        ("bart", {**SEQ2SEQ, "max_position_embeddings": 24}, 24),
        ("bert", {**USUAL, "is_decoder": True, "max_position_embeddings": 24}, 24),
        # Rows for padding and before it: the first token's stands behind them.
        ("roberta", {**USUAL, "is_decoder": True, "max_position_embeddings": 24}, 22),
        ("bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 4}, None),
        ("falcon", {**USUAL, "alibi": True, "max_position_embeddings": 24}, None),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}, None),
    ],
)
async def test_limit_is_where_the_model_alone_ends(
    kind: str, config: dict[str, Any], limit: int | None
) -> None:
    ids = {"vocab_size": 70, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**ids, **config)).eval()
    engine = TransformersEngine(model, byte_tokenizer())

    def alone(n: int) -> torch.Tensor:
        with torch.inference_mode():
            return model(input_ids=torch.tensor([[*range(4, 4 + n)]])).logits[0, -1]

    long = limit or 34
    (row,) = await engine.next_logits([tuple(range(4, 4 + long))])
    torch.testing.assert_close(row, alone(long), atol=1e-4, rtol=1e-4)
    if limit is not None:
        with pytest.raises((IndexError, RuntimeError)):
            alone(limit + 1)
        with pytest.raises(ContextLengthError, match=f"more than the {limit} that"):
            await engine.next_logits([tuple(range(4, 5 + limit))])


@pytest.mark.parametrize(
    ("rope", "limit"),
    [
        ({"rope_type": "default"}, 24),
        ({"rope_type": "linear", "factor": 2.0}, 24),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 12}, 24),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}, 96),
    ],
    ids=["default", "linear", "yarn", "stretched by yarn"],
)
async def test_rotary_positions_end_where_the_configuration_says(
    rope: dict[str, Any], limit: int
) -> None:
    """The model alone continues, with positions that it has never seen."""
    parameters = {**rope, "rope_theta": 10000.0}
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=4, max_position_embeddings=24, rope_parameters=parameters,
    )  # fmt: skip
    engine = TransformersEngine(AutoModelForCausalLM.from_config(config).eval(), byte_tokenizer())
    await engine.next_logits([(5,) * limit])
    with pytest.raises(ContextLengthError, match=r"config\.max_position_embeddings"):
        await engine.next_logits([(5,) * (limit + 1)])
    context = (5,) * (limit - 4)
    with pytest.raises(ContextLengthError):
        await engine.sequence_logprobs([(context, (5,) * 6)])
    (scores,) = await engine.sequence_logprobs([(context, (5,) * 5)])
    assert len(scores) == 5
