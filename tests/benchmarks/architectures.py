"""Which architectures of transformers the engine runs, and how: tiny models with random weights.

For each the engine's answers on random trees of contexts (forks, returns after eviction, growth by
one and by many tokens, several prompts in one call, lengths past twice every window, up to 16 rows,
continuations) are set beside those of an untouched copy of the model: one context at a time, no
mask, no positions, no cache, float32.

    equal      total variation at most 1e-4, log-probabilities of continuations within 2e-3
    wrong      an answer is off, or an exception after the model had been accepted
    rejected   an exception when the model was loaded
    none       transformers makes no such tiny model here

*cached* says whether only new tokens are fed (`lm.engine.is_cached`), and what is kept: keys *by
token*, *states*; *even* passes are of rows of one length. The trees are asked twice: at
the usual memory, and at little more than what the longest context takes.

    python tests/benchmarks/architectures.py [--quick] [--list] [--json FILE] [--check] [WORD ...]

Words choose the labels that begin with one. `--check` exits with 1 if one is wrong, or a model that
looks ahead is not rejected.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import logging
import os
import random
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from awrs_ppl import LM
from awrs_ppl.errors import AwrsError

sys.path.insert(0, str(Path(__file__).parent))
from architecture_configs import CAUSAL, LONGEST, NOT_CAUSAL, config_of

Context = tuple[int, ...]

MOST_APART, MOST_LOG_PROB = 1e-4, 2e-3
QUICK = ("llama", "gemma3_text", "gemma4_text", "qwen3_5_text", "lfm2", "mamba2", "jamba", "bloom")


class Row(NamedTuple):
    """A line of the table; `apart` is the largest total variation."""

    label: str
    verdict: str
    cached: bool
    how: str
    apart: float
    said: str
    seconds: float


def tokenizer() -> PreTrainedTokenizerFast:
    names = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(names)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def model_of(config: Any) -> Any:
    """A model with weights so large that a wrong position, mask or state shows."""
    with torch.device("meta"):
        try:
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        except (RuntimeError, NotImplementedError):  # some cannot be made there
            size = 0
    if size > 8e6:
        raise ValueError(f"the configuration is not tiny: {size / 1e6:.0f} million weights")
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for module in model.modules():
            kind = type(module).__name__
            for name, weight in module.named_parameters(recurse=False):
                if weight.dim() >= 2 and "Norm" not in kind and _is_projection(kind, name):
                    weight.normal_(0.0, 0.4 * (32 / max(32, weight.shape[-1])) ** 0.5)
                elif name == "bias" and weight.dim() == 1:
                    weight.normal_(0.0, 0.1)
            if hasattr(module, "A") and hasattr(module, "dt_proj"):  # Doge: no ties in its choice
                module.A.copy_(torch.linspace(0.5, 1.0, len(module.A)))
                module.dt_proj.weight.mul_(0.2)
    return model.eval()


def _is_projection(kind: str, name: str) -> bool:
    if name in ("A_log", "conv1d") or ("conv" in kind.lower() and kind != "Conv1D"):
        return False
    return kind in ("Linear", "Embedding", "Conv1D") or "weight" in name or "proj" in name


class Alone:
    """The model alone: one context, no mask, no cache."""

    def __init__(self, model: Any) -> None:
        self._model = copy.deepcopy(model)
        self._rows: dict[Context, torch.Tensor] = {}
        # Dynamic rotary embeddings remember the longest context; a short one resets them.
        self._remembers = any(hasattr(m, "max_seq_len_cached") for m in model.modules())

    @torch.inference_mode()
    def rows(self, context: Context) -> torch.Tensor:
        """The log-probabilities after each token."""
        ids = torch.tensor([context])
        try:
            if self._remembers:
                self._model(input_ids=ids[:, :1], use_cache=False)
            logits = self._model(input_ids=ids, use_cache=False).logits
        except TypeError as error:
            if "use_cache" not in str(error):
                raise
            logits = self._model(input_ids=ids).logits
        return logits[0].double().log_softmax(-1)

    def row(self, context: Context) -> torch.Tensor:
        if context not in self._rows:
            self._rows[context] = self.rows(context)[-1]
        return self._rows[context]

    def rounding(self) -> float:
        """How far rows of a longer context are from those of its prefixes: by rounding alone, or
        because the model looks ahead."""
        context = tuple(random.Random(1).choices(range(3, 259), k=LONGEST))
        rows = self.rows(context)
        return max(apart(rows[i - 1], self.row(context[:i])) for i in (1, 4, 9, 17, 30))


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Total variation of two rows of log-probabilities."""
    size = min(len(one), len(other))
    found = (one[:size].exp() - other[:size].exp()).abs().sum().item() / 2
    return found if found == found else float("inf")


def trees(rng: random.Random, calls: int, longest: int) -> list[list[Context]]:
    """What is asked, call by call."""

    def text(n: int, few: bool) -> Context:
        return tuple(rng.randint(3, 6 if few else 258) for _ in range(n))

    pool: list[Context] = [(1, *text(rng.randint(1, longest - 1), False)) for _ in range(4)]
    asked = []
    for _ in range(calls):
        rows: list[Context] = []
        for _ in range(rng.choice([1, 1, 2, 3, 5, 8, 16])):
            base = pool[-1 - min(rng.choice([0, 0, 1, 2, rng.randrange(60)]), len(pool) - 1)]
            base = base[: max(1, len(base) - rng.choice([0, 0, 0, 1, 2, 8, 25]))]
            grown = rng.choice([1, 1, 1, 0, 2, 3, rng.randint(4, 20)])
            rows.append((base + text(grown, rng.random() < 0.7))[:longest])
            pool.append(rows[-1])
        if rng.random() < 0.3:
            rows.append(rng.choice(rows))
        asked.append(rows)
    return asked


async def worst(engine: Any, alone: Alone, seed: int, calls: int, longest: int) -> list[float]:
    """The largest total variation, and the largest error of a continuation's log-probability."""
    rng = random.Random(seed)
    found = [0.0, 0.0]
    for contexts in trees(rng, calls, longest):
        rows = (await engine.next_logits(contexts)).double().log_softmax(-1)
        for context, row in zip(contexts, rows, strict=True):
            found[0] = max(found[0], apart(alone.row(context), row))
        if rng.random() > 0.4:
            continue
        cuts = [rng.randrange(1, len(context) + 1) for context in contexts[:3]]
        asked = [(c[:cut], c[cut:]) for c, cut in zip(contexts, cuts, strict=False)]
        scores = await engine.sequence_logprobs(asked)
        for (context, text), score in zip(asked, scores, strict=True):
            for i, token in enumerate(text):
                want = alone.row(context + text[:i])[token].item()
                error = abs(want - score[i].item())
                # Improbable tokens have large relative errors of rounding.
                if want > -14 or not error < 0.1:
                    found[1] = max(found[1], error if error == error else float("inf"))
    return found


def scarce(engine: Any) -> Any:
    """The engine with little more memory than the longest context takes."""
    memory = 2048.0
    while True:
        memory *= 1.5
        try:
            found = engine.sibling(memory)
            asyncio.run(found.next_logits([(1,) * n for n in range(1, LONGEST + 1)]))
        except AwrsError:
            continue
        return engine.sibling(1.5 * memory)


def examine(label: str, kind: str, extra: dict[str, Any], warned: list[str]) -> Row:
    """Try one architecture. `warned` receives what the library warns of."""
    started = time.perf_counter()

    def row(verdict: str, said: str, engine: Any = None, apart: float = 0.0) -> Row:
        cached, how = (engine.is_cached, how_of(engine)) if engine is not None else (False, "")
        return Row(label, verdict, cached, how, apart, said, time.perf_counter() - started)

    if kind not in CONFIG_MAPPING:
        return row("none", f"transformers {transformers.__version__} does not have it")
    try:
        model = model_of(config_of(kind, extra))
        alone = Alone(model)
        rounding = alone.rounding()
    except Exception as error:
        return row("none", one_line(error))
    warned.clear()
    try:
        engine: Any = LM(model, tokenizer=tokenizer()).engine
    except Exception as error:
        return row("rejected", one_line(error))
    # Some amplify rounding: then an earlier row of a longer pass is off by as much.
    slack = max(1.0, 10 * rounding / MOST_APART) if rounding < 1e-3 else 1.0
    found, said = [0.0, 0.0], warned[0].rpartition("each time: ")[2] if warned else ""
    try:
        for seed, calls, longest in ((0, 10, LONGEST), (1, 5, 12), (2, 7, LONGEST)):
            asked = scarce(engine) if seed == 2 and engine.is_cached else engine
            errors = asyncio.run(worst(asked, alone, seed, calls, longest))
            found = [max(pair) for pair in zip(found, errors, strict=True)]
    except Exception as error:
        return row("wrong", one_line(error), engine, found[0])
    if found[0] > MOST_APART * slack or found[1] > MOST_LOG_PROB * slack:
        said = f"log-probabilities off by {found[1]:.1e}; {said}"
        return row("wrong", said, engine, found[0])
    return row("equal", said, engine, found[0])


def how_of(engine: Any) -> str:
    """What of a context is kept."""
    if not engine.is_cached:
        return "in full"
    layout = engine._runner.store.layout
    kept = [name for name, has in (("by token", layout.layers), ("states", layout.states)) if has]
    return " and ".join(kept) + (", even" if layout.even else "")


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--quick", action="store_true", help=", ".join(QUICK))
    parser.add_argument("--list", action="store_true", help="the labels")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    everything = CAUSAL | {f"{label}!": what for label, what in NOT_CAUSAL.items()}
    if words := tuple(options.words):
        everything = {k: v for k, v in everything.items() if k.startswith(words)}
    elif options.quick:
        everything = {k: v for k, v in everything.items() if k in QUICK}
    if options.list:
        print("\n".join(everything))
        return
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    warned: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warned.append(record.getMessage())
    logging.getLogger("awrs_ppl").addHandler(handler)
    logging.getLogger("awrs_ppl").propagate = False
    rows = []
    for label, what in everything.items():
        row = examine(label, *what, warned)
        rows.append(row)
        print(
            f"{label:26} {row.verdict:8} {row.how:20} {row.apart:7.0e} {row.seconds:5.1f} s  "
            f"{row.said[:150]}",
            flush=True,
        )
    counts = {v: sum(row.verdict == v for row in rows) for v in ("equal", "rejected", "wrong")}
    print(f"{counts}, {sum(row.cached for row in rows)} cached")
    if options.json:
        Path(options.json).write_text(json.dumps([row._asdict() for row in rows], indent=1))
    ahead = [row.label for row in rows if row.label.endswith("!") and row.verdict == "equal"]
    raise SystemExit(1 if options.check and (counts["wrong"] or ahead) else 0)


if __name__ == "__main__":
    main()
