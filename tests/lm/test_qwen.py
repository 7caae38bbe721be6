"""The models of Qwen, for who has them: `pytest tests/lm --model qwen2.5-coder-0.5b`.

Each downloads the packages anew, since the file itself is not kept.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from awrs_ppl import LM, infer
from awrs_ppl.errors import EmbeddedModelError
from awrs_ppl.lm import packages
from awrs_ppl.lm.embedded import MODELS, joined

# Those of Qwen's own config.json; the rest of them is the default.
SETTINGS: dict[str, dict[str, Any]] = {
    "qwen2.5-coder-0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
    },
    "qwen2.5-coder-1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
    },
}
PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
TEXT = "SELECT name FROM singer WHERE age > 30;\n\ndef add(a, b):\n    return a + b\n" * 4


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = [name for name in metafunc.config.option.model if name in SETTINGS]
        metafunc.parametrize("name", names, scope="session")


@pytest.fixture(scope="session")
def file(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    parts = packages._downloaded(name, MODELS[name], folder)
    whole = joined(name, MODELS[name], parts, "")(folder)
    # One bit changed in one of them.
    with parts[-1].open("r+b") as part:
        part.seek(1000)
        (byte,) = part.read(1)
        part.seek(1000)
        part.write(bytes([byte ^ 16]))
    with pytest.raises(EmbeddedModelError, match="are damaged"):
        joined("damaged", MODELS[name], parts, "")(folder)
    (folder / "damaged.gguf").unlink()
    for part in parts:
        part.unlink()
    return whole


def unpacked(name: str, file: Path) -> Qwen2ForCausalLM:
    """The file's tensors, one by one by the package `gguf`, in Qwen's model."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    config = Qwen2Config(
        vocab_size=151_936,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings="output.weight" not in tensors,
        **SETTINGS[name],
    )
    with torch.device("meta"):
        model: Any = Qwen2ForCausalLM(config)
    weights = {}
    for tensor in tensors.values():
        stem, _, suffix = tensor.name.rpartition(".")
        if stem in WHOLE:
            ours = f"{WHOLE[stem]}.{suffix}"
        else:
            _, block, part = stem.split(".")
            ours = f"model.layers.{block}.{PARTS[part]}.{suffix}"
        weights[ours] = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
    model.load_state_dict(weights, strict=not config.tie_word_embeddings, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


@pytest.mark.timeout(0)
def test_logits_are_those_of_the_file_unpacked_and_memory_is_bounded(
    name: str, file: Path, tmp_path: Path
):
    # In a process of its own, for its peak of memory.
    code = (
        "import resource, sys, torch; from pathlib import Path;"
        "from awrs_ppl.lm.gguf import convert;"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), torch.float32);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, str(file), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = 1024 * int(done.stdout.split()[-1])
    largest = 4 * max(int(tensor.n_elements) for tensor in gguf.GGUFReader(file).tensors)
    assert peak <= largest + 1e9

    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path).encode(TEXT)])
    with torch.inference_mode():
        want = unpacked(name, file)(ids).logits[0]
        found = Qwen2ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)(ids).logits[0]
    assert float((found - want).abs().max() / want.abs().max()) < 1e-3


SINGERS = [("Ann", 25, "France"), ("Bob", 41, "Italy"), ("Cleo", 33, "France")]


def rows_of(answer: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE singer (name TEXT, age INTEGER, country TEXT)")
    database.executemany("INSERT INTO singer VALUES (?, ?, ?)", SINGERS)
    return sorted(database.execute(code_of(answer)).fetchall())


def code_of(answer: str) -> str:
    """What stands between fences, or the answer."""
    fenced = re.search(r"```\w*\n(.*?)```", answer, re.DOTALL)
    return fenced[1] if fenced else answer


def defined(answer: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code_of(answer), names)
    return names


SQL = "Write one SQL query, without explanation, on the table singer(name, age, country): "
PROMPTS = {
    SQL + "the names of all singers older than 30.": (
        lambda answer: rows_of(answer) == [("Bob",), ("Cleo",)]
    ),
    SQL + "how many singers come from France?": lambda answer: rows_of(answer) == [(2,)],
    "Answer with JSON only, with the keys name and age: Anna is 31 years old.": (
        lambda answer: json.loads(code_of(answer)) == {"name": "Anna", "age": 31}
    ),
    "Write a Python function add(a, b) that returns their sum. Code only.": (
        lambda answer: defined(answer)["add"](2, 3) == 5
    ),
    "Write a Python function last(xs) that returns the last element of a list. Code only.": (
        lambda answer: defined(answer)["last"]([1, 2, 7]) == 7
    ),
}


@pytest.mark.timeout(0)
@pytest.mark.parametrize("prompt", PROMPTS)
async def test_chat_gives_what_was_asked_for(name: Any, prompt: str):
    lm = LM.embedded(name, device="cpu")
    assert [lm.decode([int(i)]) for i in lm.vocabulary.ends] == ["<|endoftext|>", "<|im_end|>"]

    async def model(ctx: Any) -> str:
        return await ctx.generate(lm.chat(prompt, temperature=1e-6), max_tokens=120)

    answer = (await infer(model, n_particles=1, seed=0)).mode()
    print(repr(answer))
    assert PROMPTS[prompt](answer)
