"""`LM.gguf`: the model of the file, whatever its architecture, or one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file
from small_gguf import SIZES, WIDTH, far_from, model_of, names_of, write
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from awrs_ppl import LM
from awrs_ppl.errors import AwrsError, EmbeddedModelError
from awrs_ppl.lm import gguf_weights, loading
from awrs_ppl.lm.token_bytes import kept_token_bytes


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("AWRS_PPL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


KINDS = ["qwen2", "qwen2 tied", "llama", "llama tied", "llama 3", "qwen3moe"]


@pytest.mark.parametrize("kind", KINDS)
async def test_model_is_that_of_the_file(tmp_path: Path, kind: str):
    model = model_of(kind)
    added = {}
    if kind == "llama 3":
        theirs = LlamaForCausalLM(LlamaConfig(**SIZES)).model.rotary_emb.inv_freq
        added = {"rope_freqs.weight": theirs / model.model.rotary_emb.inv_freq}
    lm = LM.gguf(write(tmp_path / "m.gguf", model, add=added), device="cpu")
    assert await far_from(lm, model) < 1e-3
    # The twin: what this would let pass is another model.
    assert await far_from(lm, model_of(kind, seed=1)) > 0.1
    if kind == "llama 3":  # at these lengths the scaling is small
        assert await far_from(lm, LlamaForCausalLM(LlamaConfig(**SIZES)).eval()) > 1e-2
    weights = lm.engine.model  # pyright: ignore[reportAttributeAccessIssue]
    tied = weights.get_input_embeddings().weight is weights.get_output_embeddings().weight
    assert tied == kind.endswith("tied")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_weights_are_the_files_unpacked(tmp_path: Path, own_cache: Path, dtype: str):
    model = model_of("qwen2")
    path = write(tmp_path / "m.gguf", model, quantized=True)
    LM.gguf(path, device="cpu", dtype=dtype)
    (folder,) = [path for path in own_cache.iterdir() if path.is_dir()]
    found = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    names = {name: ours for name, ours, _ in names_of(model)}
    assert {*found} == {*names.values()}
    for name, ours in names.items():
        want = torch.tensor(gguf.dequantize(tensors[name].data, tensors[name].tensor_type))
        assert found[ours].dtype == getattr(torch, dtype)
        assert torch.equal(found[ours], want.to(found[ours].dtype))


async def test_tensors_are_unpacked_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gguf_weights, "_CHUNK", 7 * WIDTH)
    monkeypatch.setattr(gguf_weights, "_SHARD", 4096)
    model = model_of("llama")
    assert await far_from(LM.gguf(write(tmp_path / "m.gguf", model), device="cpu"), model) < 1e-3


def test_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "m.gguf", model_of("qwen2"))
    first = LM.gguf(path, device="cpu")
    monkeypatch.setattr("awrs_ppl.lm.conversions.convert", None)
    second = LM.gguf(path, device="cpu")
    assert second.engine is not first.engine
    assert second.engine.model is first.engine.model  # pyright: ignore[reportAttributeAccessIssue]
    # Another file of the same name, size and second is another model.
    write(path, model_of("qwen2", seed=1))
    with pytest.raises(TypeError):
        LM.gguf(path, device="cpu")


def test_text_ends_where_qwen_ends_it(tmp_path: Path):
    lm = LM.gguf(write(tmp_path / "m.gguf", model_of("qwen2")), device="cpu")
    assert sorted(lm.vocabulary.ends) == [257, 258]
    assert lm.encode("ab 12\n") == (256, *b" 12\n")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_its_head(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + b"0" * 5000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, r"m\.gguf' is damaged or not whole .*: copy or download it again"),
        (cut_in_its_head, r"m\.gguf' is damaged or not whole .*: copy or download it again"),
        (emptied, r"m\.gguf' is no GGUF file: it does not begin with GGUF"),
        (replaced, r"m\.gguf' is no GGUF file: it does not begin with GGUF"),
    ],
)
def test_file_that_is_not_whole_is_refused(
    tmp_path: Path, own_cache: Path, change: Any, message: str
):
    path = write(tmp_path / "m.gguf", model_of("qwen2"))
    change(path)
    with pytest.raises(ValueError, match=message) as caught:
        LM.gguf(path, device="cpu")
    assert "\n" not in str(caught.value)
    assert not [path for path in own_cache.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "rwkv9"}, "is of the architecture 'rwkv9', which this version of"),
        ({"leave_out": ["blk.1.ffn_up.weight"]}, "lacks weights of Qwen2ForCausalLM: model.layers"),
        ({"add": {"blk.0.attn_sinks.weight": [1.0]}}, "has the tensor 'blk.0.attn_sinks.weight'"),
        ({"add": {"rope_freqs.weight": [1.0] * 7 + [3.0]}}, "in a way that is not Llama 3's"),
    ],
)
def test_file_of_another_model_is_refused(tmp_path: Path, changes: Any, message: str):
    path = write(tmp_path / "m.gguf", model_of("qwen2"), **changes)
    with pytest.raises(ValueError, match=message) as caught:
        LM.gguf(path, device="cpu")
    assert "\n" not in str(caught.value)


def test_missing_file_is_an_oserror(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no\.gguf': there is no such file"):
        LM.gguf(tmp_path / "no.gguf")


def test_cache_that_cannot_be_written_names_the_variable(tmp_path: Path, own_cache: Path):
    own_cache.write_text("a file where a folder should be")
    with pytest.raises(EmbeddedModelError, match="set AWRS_PPL_CACHE to another folder"):
        LM.gguf(write(tmp_path / "m.gguf", model_of("qwen2")), device="cpu")


def test_saved_folder_loads_with_transformers_alone(tmp_path: Path, own_cache: Path):
    model = model_of("qwen2 tied")
    LM.gguf(write(tmp_path / "m.gguf", model), device="cpu")
    (folder,) = [path for path in own_cache.iterdir() if path.is_dir()]
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)


def test_folder_is_read_as_transformers_reads_it(tmp_path: Path, own_cache: Path):
    lm = LM.gguf(write(tmp_path / "m.gguf", model_of("qwen2")), device="cpu")
    (folder,) = [path for path in own_cache.iterdir() if path.is_dir()]
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = lm.tokenizer
    assert ours.get_vocab() == theirs.get_vocab()
    for name in ("eos_token_id", "pad_token_id", "all_special_ids", "chat_template"):
        assert getattr(ours, name) == getattr(theirs, name)
    # Qwen's class normalizes, which its file does not say.
    for text in ("ab 12\n", "e\u0301", "<|im_end|>a", "  x\t"):
        assert ours.encode(text) == theirs.encode(text)
    assert ours.encode("e\u0301") == ours.encode("\u00e9") != ours.encode("e")


def test_second_load_knows_what_the_first_found_out(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write(tmp_path / "m.gguf", model_of("qwen2"))
    first: Any = LM.gguf(path, device="cpu").engine
    (folder,) = [path for path in own_cache.iterdir() if path.is_dir()]
    kept = [*folder.glob("trial-*.json"), *folder.glob("tokens-*.npz")]
    assert len(kept) == 2
    found = (first.vocab_size, first._runner.window, first.token_bytes)
    loading._LOADED.clear()
    monkeypatch.setattr("awrs_ppl.lm.runner.Trial", None)
    again: Any = LM.gguf(path, device="cpu").engine
    assert again.model is not first.model
    assert (again.vocab_size, again._runner.window, again.token_bytes) == found
    # Damaged files are no reason to fail, and what holds of one dtype need not of another.
    for file in kept:
        file.write_bytes(b"?")
    loading._LOADED.clear()
    with pytest.raises(TypeError):
        LM.gguf(path, device="cpu")
    monkeypatch.undo()
    monkeypatch.setenv("AWRS_PPL_CACHE", str(own_cache))
    mended: Any = LM.gguf(path, device="cpu").engine
    assert (mended.vocab_size, mended._runner.window, mended.token_bytes) == found
    (tokens,) = folder.glob("tokens-*.npz")
    whole = tokens.read_bytes()
    for cut in (0, len(whole) // 2, len(whole) - 3):
        tokens.write_bytes(whole[:cut])
        assert kept_token_bytes(mended.tokenizer, folder) == mended.token_bytes
        assert len(tokens.read_bytes()) == len(whole)
    with pytest.raises(AwrsError):  # as on a first load
        LM.gguf(path, device="cpu", memory=1)
