"""Anything at all as an argument of what is public: it works, or a clear error quotes it."""

from __future__ import annotations

import asyncio
import math
import socket
import warnings
from collections.abc import Callable, Iterator
from copy import copy, deepcopy
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

import awrs_ppl
from awrs_ppl import (
    AWRS,
    AwrsError,
    Bernoulli,
    Categorical,
    Context,
    PaperAWRS,
    Prior,
    ToyLM,
    Uniform,
    check_replay,
    infer,
    predicate,
    product,
)
from awrs_ppl.genlm import HeadTailSampler
from awrs_ppl.lm.embedded import embedded_path
from awrs_ppl.potentials import (
    Contains,
    Grammar,
    JsonSchema,
    MoleculeProperty,
    OneOf,
    PddlGoal,
    PlanAchieves,
    Reachable,
    Regex,
    Soft,
    Sql,
    boolean,
)
from awrs_ppl.testing import (
    assert_prefix_closed,
    assert_properly_weighted,
    assert_unbiased,
    enumerate_posterior,
)

LM = ToyLM(["a", "b"], seed=1)
DATA = Path(__file__).parents[1] / "data"
DATABASE = DATA / "concert_singer.sqlite"
DOMAIN = (DATA / "blocksworld" / "domain.pddl").read_text()
TABLE = """(define (problem two) (:domain blocksworld) (:objects b1 b2)
  (:init (arm-empty) (clear b1) (clear b2) (on-table b1) (on-table b2)) (:goal (and"""


class Empty:
    """Nothing that any argument is."""


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.sampled_from(
        [
            np.float32(0.5),
            np.int64(2),
            np.array(0.5),
            np.array([1.0, 2.0]),
            1j,
            torch.tensor([1.0, 0.0]),
        ]
    ),
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["\ud800", "\udc80", "\x00", "(", "[", "*", "a{99999999}", "\u202e<script>"]),
)
SIMPLE = st.one_of(
    st.none(), NUMBERS, TEXTS, st.binary(max_size=4), st.sampled_from([Empty, Empty(), ..., range])
)
JUNK = st.one_of(
    SIMPLE,
    st.lists(SIMPLE, max_size=3),
    st.lists(SIMPLE, max_size=2).map(tuple),
    st.dictionaries(TEXTS, SIMPLE, max_size=2),
)


def ran(model: Any, **options: Any) -> Any:
    return asyncio.run(infer(model, **{"n_particles": 2, "seed": 0, "progress": False, **options}))


def result_of(statement: Callable[[Context], Any]) -> Any:
    async def model(ctx: Context) -> Any:
        return await statement(ctx)

    return ran(model)


def text(potential: Any, **options: Any) -> Any:
    return result_of(lambda ctx: ctx.generate(potential, **{"max_tokens": 2, **options}))


async def short(ctx: Context) -> str:
    return await ctx.generate(LM("a"), max_tokens=2)


POSTERIOR = ran(short)


def always(text: str) -> bool:
    return True


def of(name: str, function: Callable[..., Any], *args: Any) -> Callable[[Any], Any]:
    """The function with the junk as one of its options."""
    return lambda junk: function(*args, **{name: junk})


@cache
def real() -> awrs_ppl.LM:
    return awrs_ppl.LM.embedded("smollm2-135m", dtype="float32")


@cache
def small() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=49_152, n_embd=2, n_layer=1, n_head=1))


def loaded(**options: Any) -> awrs_ppl.LM:
    return awrs_ppl.LM(embedded_path("smollm2-135m"), **options)


def waited(function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """The same for a function that is awaited."""
    return lambda *more, **named: asyncio.run(function(*args, *more, **named))


CALLS: dict[str, Callable[[Any], Any]] = {
    "AWRS(effort)": of("effort", AWRS),
    "PaperAWRS(estimator)": of("estimator", PaperAWRS),
    "Categorical": Categorical,
    "Categorical(weights)": of("weights", Categorical, ["a", "b"]),
    "Bernoulli": Bernoulli,
    "Uniform(low)": lambda junk: Uniform(junk, 1),
    "Uniform(high)": lambda junk: Uniform(0, junk),
    "Uniform.log_prob": Uniform(0, 1).log_prob,
    "Bernoulli.log_prob": lambda junk: Bernoulli(0.5).log_prob(junk),
    **{
        f"infer({name})": of(name, ran, short)
        for name in ("ess_threshold", "resampling", "seed", "remember", "progress", "timeout")
    },
    # What is large runs long, and is right.
    "infer(n_particles)": lambda junk: (
        None if isinstance(junk, int) and 64 < junk <= 10**6 else ran(short, n_particles=junk)
    ),
    "infer(model)": ran,
    "lm(prompt)": LM,
    "lm(stop)": lambda junk: LM("a", stop=junk),
    "lm(temperature)": lambda junk: LM("a", temperature=junk),
    "ToyLM": ToyLM,
    "generate": text,
    **{
        f"generate({name})": of(name, text, LM("a"))
        for name in ("max_tokens", "proposal", "critic", "name")
    },
    "sample": lambda junk: result_of(lambda ctx: ctx.sample(junk)),
    "sample(proposal)": lambda junk: result_of(
        lambda ctx: ctx.sample(Bernoulli(0.5), proposal=junk)
    ),
    "observe": lambda junk: result_of(lambda ctx: ctx.observe(junk, "a")),
    "observe(value)": lambda junk: result_of(lambda ctx: ctx.observe(LM("a"), junk)),
    "factor": lambda junk: result_of(lambda ctx: ctx.factor(junk)),
    "call": lambda junk: result_of(lambda ctx: ctx.call(junk)),
    **{
        f"predicate({name})": lambda junk, name=name: predicate(**{name: junk})(always)
        for name in ("complete", "state", "workers", "time_limit", "on_error")
    },
    "product": lambda junk: product(LM("a"), junk),
    "Regex": lambda junk: text(LM("a") * Regex(junk)),
    "Regex(engine)": lambda junk: Regex("a", engine=junk),
    "OneOf": lambda junk: text(LM("a") * OneOf(junk)),
    "Contains": lambda junk: text(LM("a") * Contains(junk)),
    "Grammar": Grammar,
    "JsonSchema": JsonSchema,
    "Soft": lambda junk: text(LM("a") * Soft(junk)),
    "Sql": Sql,
    **{f"Sql({name})": of(name, Sql, DATABASE) for name in ("steps", "seconds", "max_rows")},
    "JsonSchema(engine)": of("engine", JsonSchema, {}),
    **{f"Soft({name})": of(name, Soft, always) for name in ("prefix", "workers", "time_limit")},
    "boolean": boolean,
    "MoleculeProperty": MoleculeProperty,
    "PddlGoal(domain)": lambda junk: PddlGoal(junk, TABLE),
    "PddlGoal(problem)": lambda junk: PddlGoal(DOMAIN, junk),
    "PlanAchieves(plan)": lambda junk: PlanAchieves(junk, DOMAIN, TABLE),
    "PlanAchieves(domain)": lambda junk: PlanAchieves("(pickup b1)", junk, TABLE),
    "Reachable(domain)": lambda junk: Reachable(junk, TABLE),
    "Reachable(problem)": lambda junk: Reachable(DOMAIN, junk),
    "LM": awrs_ppl.LM,
    "LM(model)": lambda junk: awrs_ppl.LM(junk, tokenizer=real().tokenizer),
    "LM(tokenizer)": lambda junk: awrs_ppl.LM(small(), tokenizer=junk),
    "LM(memory)": lambda junk: awrs_ppl.LM(small(), tokenizer=real().tokenizer, memory=junk),
    **{f"LM({name})": of(name, loaded) for name in ("device", "dtype")},
    "LM.embedded": awrs_ppl.LM.embedded,
    "LM.from_backend": awrs_ppl.LM.from_backend,
    "LM.from_backend(ends)": lambda junk: awrs_ppl.LM.from_backend(
        cast(Any, real().engine), ends=junk
    ),
    "lm.chat": lambda junk: real().chat(junk),
    "lm.encode": lambda junk: real().encode(junk),
    "lm.decode": lambda junk: real().decode(junk),
    "HeadTailSampler(potential)": lambda junk: HeadTailSampler(junk, Regex("a*")),
    "HeadTailSampler(condition)": lambda junk: HeadTailSampler(LM("a"), junk),
    **{
        f"HeadTailSampler({name})": of(name, HeadTailSampler, LM("a"), Regex("a*"))
        for name in ("seed", "proposal")
    },
    "check_replay": waited(check_replay),
    "check_replay(seed)": of("seed", waited(check_replay, short)),
    "enumerate_posterior": waited(enumerate_posterior),
    "assert_unbiased": waited(assert_unbiased),
    "assert_unbiased(seed)": of("seed", waited(assert_unbiased, short)),
    "assert_unbiased(runs)": lambda junk: (
        None if isinstance(junk, int) and junk > 64 else waited(assert_unbiased, short)(runs=junk)
    ),
    "assert_properly_weighted": lambda junk: waited(assert_properly_weighted)(junk, LM("a")),
    **{
        f"assert_properly_weighted({name})": of(
            name,
            waited(partial(assert_properly_weighted, draws=32), Prior(), LM("a") * Regex("a*")),
        )
        for name in ("text", "z", "seed")
    },
    "assert_properly_weighted(potential)": waited(
        partial(assert_properly_weighted, draws=32), Prior()
    ),
    "assert_unbiased(z)": of("z", waited(partial(assert_unbiased, runs=2), short)),
    "ToyLM.encode": LM.encode,
    "ToyLM.decode": LM.decode,
    "assert_prefix_closed": lambda junk: waited(assert_prefix_closed)(junk, ["a"]),
    "assert_prefix_closed(samples)": waited(assert_prefix_closed, Regex("a*")),
    "condition": lambda junk: result_of(lambda ctx: ctx.condition(junk)),
    "posterior.sample(seed)": lambda junk: POSTERIOR.sample(seed=junk),
    "posterior.expect": POSTERIOR.expect,
    "posterior.probability": POSTERIOR.probability,
}


# Where others are documented too.
EXTRA: dict[str, type[Exception]] = {"LM": OSError, "LM(model)": OSError}


@pytest.fixture(autouse=True, scope="module")
def offline() -> Iterator[None]:
    """Names of models are looked up without the network."""

    def fail(*_: Any) -> None:
        raise OSError("no test uses the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setattr(socket.socket, "connect", fail)
        yield
    real.cache_clear()
    small.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=100)
@given(junk=JUNK)
def test_junk_argument_works_or_is_quoted(name: str, junk: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            CALLS[name](junk)
            message = None
        except (AwrsError, TypeError, ValueError, EXTRA.get(name, AwrsError)) as error:
            message = str(error)
        except AssertionError as error:  # with so few runs, or so small a z
            if not name.startswith("assert_") or "standard errors" not in str(error):
                raise
            message = None
    if message is not None and not callable(junk):
        assert is_quoted(junk, message), f"{message!r} does not quote {junk!r}"


def is_quoted(junk: Any, message: str) -> bool:
    """Whether a message quotes what was given, or the part of it that is wrong."""
    if isinstance(junk, float) and math.isnan(junk):
        return "nan" in message
    parts = [junk]
    if isinstance(junk, dict):
        parts += [*junk, *junk.values()]
    elif isinstance(junk, list | tuple):
        parts += junk
    elif isinstance(junk, np.ndarray | torch.Tensor) and junk.ndim:
        parts += list(junk)
    if isinstance(junk, list | tuple | dict | bytes) and not junk:
        return True  # nothing is there to quote
    if isinstance(junk, str) and not junk.strip():
        return True
    shown = []
    for part in parts:
        # Some quote with less space, or a whole number as an int.
        shown += [repr(part)[:20], " ".join(str(part).split())[:12], str(part).strip()[:12]]
        if isinstance(part, float) and part.is_integer():
            shown.append(str(int(part)))
    return any(key in message for key in shown if key)


@pytest.mark.slow
def test_unusual_arguments_work() -> None:
    lm = real()
    tokenizer = lm.tokenizer
    memory: Any
    for memory in (np.int64(10**7), 1e7, 2**30):
        assert awrs_ppl.LM(small(), tokenizer=tokenizer, memory=memory)("a")
    assert loaded(device=torch.device("cpu"), dtype="bfloat16")("a")
    ids = lm.encode("zebra crossing")
    same: Any
    for same in (list(ids), np.array(ids), torch.tensor(ids)):
        assert lm.decode(same) == "zebra crossing"
        assert lm(same).prompt == ids
    message = {"role": "user", "content": "Hi", "name": "Ada"}
    assert lm.chat([message]).prompt == lm.chat("Hi").prompt
    assert lm.chat([MappingProxyType(message)]).prompt == lm.chat("Hi").prompt
    with pytest.raises(ValueError, match=r"'user<\|im_end\|>' is a role .* write a plain name"):
        lm.chat([{"role": "user<|im_end|>", "content": "Hi"}])
    limit: Any
    for limit in (np.uint64(1501), 1501.5, math.inf):
        assert Sql(DATABASE, steps=limit, max_rows=limit, seconds=limit).rows("SELECT 1")
    with pytest.raises(AwrsError, match="steps=1501"):
        Sql(DATABASE, steps=cast(Any, np.uint64(1501))).rows(
            "SELECT count(*) FROM singer a, singer b, singer c, singer d, singer e"
        )


async def test_numbers_of_numpy_are_accepted() -> None:
    two: Any = np.int64(2)
    rule = awrs_ppl.predicate(str.isascii, workers=two)
    proposal = awrs_ppl.AWRS(effort=cast(Any, np.float32(2.0)), _max_checks=cast(Any, np.uint8(9)))

    async def model(ctx: awrs_ppl.Context, most: Any) -> str:
        return await ctx.generate(LM("a") * rule, max_tokens=most, proposal=proposal)

    assert await awrs_ppl.infer(model, two, n_particles=two, seed=two, progress=False)
    with pytest.raises(AwrsError, match="max_tokens=True"):
        await awrs_ppl.infer(model, True, progress=False)


def test_tokens_without_a_row_of_logits_are_shown() -> None:
    few = GPT2LMHeadModel(GPT2Config(vocab_size=1000, n_embd=2, n_layer=1, n_head=1))
    lm = awrs_ppl.LM(few, tokenizer=real().tokenizer)
    assert lm.decode(lm.encode("zebra crossing")) == "zebra crossing"


def test_message_that_a_template_rejects_raises() -> None:
    lm = copy(real())
    lm.tokenizer = deepcopy(lm.tokenizer)
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    with pytest.raises(ValueError, match=r"rejects .*'Hi'"):
        lm.chat(parts)
    lm.tokenizer.chat_template = "{{ messages[0]['content'][0]['text'] }}"
    assert lm.chat(parts).prompt == lm.encode("Hi")
    lm.tokenizer.chat_template = "{{ raise_exception('only users may speak') }}"
    with pytest.raises(ValueError, match=r"rejects .*'robot'.*only users may speak"):
        lm.chat([{"role": "robot", "content": "Hi"}])
    lm.tokenizer.chat_template = "{{ 'a' + 1 }}"
    with pytest.raises(ValueError, match=r"rejects .*'Hi'"):
        lm.chat("Hi")
