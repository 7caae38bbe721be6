"""What can be loaded as a language model, what is rejected in a sentence, and what a model's owner
may do with it afterwards."""

from __future__ import annotations

import asyncio
import copy
import functools
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
)

from awrs_ppl import LM
from awrs_ppl.lm.transformers import TransformersEngine

LLAMA = LlamaConfig(
    vocab_size=260,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    initializer_range=0.3,
    pad_token_id=0,
)
BERT = BertConfig(
    vocab_size=260,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
)


@functools.cache
def byte_tokenizer() -> PreTrainedTokenizerFast:
    names = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(names)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")


def llama() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(copy.deepcopy(LLAMA))


def on_meta() -> Any:
    with torch.device("meta"):
        return LlamaForCausalLM(copy.deepcopy(LLAMA))


def giving_tuples() -> Any:
    model = llama()
    model.config.return_dict = False
    return model


def of_two_dtypes() -> Any:
    model = llama().to(torch.bfloat16)
    model.lm_head.float()
    return model


def encoder_decoder() -> Any:
    config = T5Config(vocab_size=260, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    return AutoModelForSeq2SeqLM.from_config(config)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (on_meta, r"LM got a LlamaForCausalLM on the meta device.*from_pretrained"),
        (giving_tuples, r"config\.return_dict=False: set model\.config\.return_dict = True"),
        (of_two_dtypes, r"cannot run .*bfloat16 and torch\.float32, so write model\.to\("),
        (encoder_decoder, r"T5ForConditionalGeneration, a sequence-to-sequence model"),
        (lambda: llama().model, r"LlamaModel, which gives no logits .*AutoModelForCausalLM"),
        (
            lambda: AutoModelForSequenceClassification.from_config(copy.deepcopy(LLAMA)),
            r"LlamaForSequenceClassification, which gives no logits of next tokens",
        ),
        (
            lambda: AutoModelForTokenClassification.from_config(copy.deepcopy(LLAMA)),
            r"LlamaForTokenClassification, which gives no logits of next tokens",
        ),
        (
            lambda: AutoModelForMaskedLM.from_config(BERT),
            r"BertForMaskedLM, which is no causal language model: .* depends on the tokens behind",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_model_of_another_kind_is_rejected_in_a_sentence(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        LM(make(), tokenizer=byte_tokenizer())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["encoder", "sequence to sequence"])
def test_folder_of_another_kind_of_model_is_rejected(kind: str, tmp_path: Path) -> None:
    model = encoder_decoder() if kind != "encoder" else AutoModelForMaskedLM.from_config(BERT)
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is no causal language model") as caught:
        LM(tmp_path)
    assert len(str(caught.value)) < 500


def test_checkpoint_without_some_weights_is_rejected(tmp_path: Path) -> None:
    llama().model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks weights of LlamaForCausalLM: lm_head\.weight, wh"):
        LM(tmp_path)


def test_checkpoint_with_tied_weights_is_whole(tmp_path: Path) -> None:
    config = LlamaConfig(**{**LLAMA.to_dict(), "tie_word_embeddings": True})
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    lm = LM(tmp_path, device="cpu")
    assert lm.engine.vocab_size == 260  # pyright: ignore


@pytest.mark.parametrize("part", ["model", "layer"])
def test_dropout_of_a_model_in_training_mode_is_off(part: str) -> None:
    config = GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4, initializer_range=0.4)
    model = GPT2LMHeadModel(config).train()  # dropout 0.1
    engine = TransformersEngine(model, byte_tokenizer())
    trained: Any = model if part == "model" else model.transformer.h[1]
    trained.train()
    context = (5, 6, 7, 8, 9, 10)
    (found,) = asyncio.run(engine.next_logits([context]))
    assert trained.training  # as its owner left it
    assert all(module.training for module in trained.modules())
    model.eval()
    with torch.inference_mode():
        want = model(input_ids=torch.tensor([context])).logits[0, -1]
    torch.testing.assert_close(found, want, atol=1e-4, rtol=0)


@pytest.mark.skipif(sys.platform != "linux", reason="forks are the default on Linux alone")
def test_forked_process_and_its_parent_give_the_same_logits() -> None:
    engine = TransformersEngine(llama(), byte_tokenizer())
    contexts = [(5, 6, 7), (5, 6, 8, 9)]
    before = asyncio.run(engine.next_logits(contexts))

    def answer(queue: Any) -> None:
        queue.put((os.getpid(), asyncio.run(engine.next_logits(contexts)).tolist()))

    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=answer, args=(queue,), daemon=True)
    child.start()
    pid, found = queue.get()
    child.join()
    assert pid == child.pid != os.getpid()
    torch.testing.assert_close(torch.tensor(found), before, atol=1e-4, rtol=0)
    after = asyncio.run(engine.next_logits([*contexts, (5, 6, 7, 8)]))
    torch.testing.assert_close(after[:2], before, atol=1e-4, rtol=0)


def test_embedded_model_shares_its_weights_and_not_its_cache() -> None:
    first = LM.embedded("smollm2-135m", device="cpu")
    second = LM("smollm2-135m", device="cpu", memory=2**24)
    assert second.name == first.name
    one: Any = first.engine
    other: Any = second.engine
    assert other.model is one.model
    assert second.vocabulary is first.vocabulary
    assert other is not one
    context = first.prompt_ids("The sky is")
    a = asyncio.run(first.engine.next_logits([context]))
    assert (one.stats.rows, other.stats.rows) == (1, 0)
    b = asyncio.run(second.engine.next_logits([context]))
    assert torch.equal(a, b)
    assert other.stats.rows == 1
    assert other._runner.store.limit < one._runner.store.limit
    weights = one.model
    del first, one
    again: Any = LM.embedded("smollm2-135m", device="cpu").engine  # the first is gone
    assert again.model is weights
    third = LM.embedded("smollm2-135m", device="cpu", dtype="bfloat16")
    assert third.engine.model is not weights  # pyright: ignore[reportAttributeAccessIssue]


def test_unknown_name_without_network_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def unreachable(url: str, **_: Any) -> None:
        calls.append(url)
        raise ConnectionError("no route to host")

    monkeypatch.setattr("awrs_ppl.lm.checkpoint.get_hf_file_metadata", unreachable)
    with pytest.raises(OSError, match="LM got 'nobody/no-model': there is no folder") as caught:
        LM("nobody/no-model")
    assert len(calls) == 1
    assert len(str(caught.value).splitlines()) == 3
    assert "no route to host" in str(caught.value)
