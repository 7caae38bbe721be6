"""How texts end: several end tokens, several language models, temperatures, weighing factors.

The judge is plain arithmetic on the models' weights.
"""

from __future__ import annotations

import asyncio
import itertools
import math

import numpy as np
import pytest
import torch
from genlm.backend.llm import MockAsyncLM
from genlm.control import PromptedLLM

from awrs_ppl import AWRS, Prior, ToyLM, infer, product
from awrs_ppl.potentials import OneOf, Regex, Soft, predicate
from awrs_ppl.tokens.vocabulary import Vocabulary

LETTERS = ["a", "b", "<e1>", "<e2>"]  # and the end of a `ToyLM`
ENDS = [2, 3, 4]


class ManyEnds(ToyLM):
    """A model with three end tokens."""

    def __init__(self, seed: int) -> None:
        self.table = np.random.default_rng(seed).gamma(1.0, size=(400, 5)) + 0.05
        super().__init__(LETTERS, weights=self.row)
        self.vocabulary = Vocabulary(self.vocabulary.tokens, ends=ENDS)

    def row(self, context: tuple[int, ...]) -> np.ndarray:
        return self.table[sum(7**i * (t + 1) for i, t in enumerate(context)) % 400]

    def p(self, context: tuple[int, ...], temperature: float) -> np.ndarray:
        powered = self.row(context) ** (1 / temperature)
        return powered / powered.sum()


ONE, TWO, THREE = ManyEnds(1), ManyEnds(2), ManyEnds(3)
FACTORS = {
    "one": [(ONE, 1.0)],
    "two": [(ONE, 1.0), (TWO, 1.0)],
    "two temperatures": [(ONE, 0.5), (TWO, 2.0)],
    "three": [(ONE, 1.0), (TWO, 0.7), (THREE, 1.5)],
    "one twice": [(ONE, 1.0), (ONE, 1.0)],
}


def end_of(factors, ids: tuple[int, ...]) -> float:
    """Each model ends by any of its end tokens."""
    return math.prod(float(lm.p((0, *ids), t)[ENDS].sum()) for lm, t in factors)


def token_of(factors, ids: tuple[int, ...], token: int) -> float:
    return math.prod(float(lm.p((0, *ids), t)[token]) for lm, t in factors)


def masses(factors, most: int) -> dict[str, float]:
    """Of every text: the product of the models, not renormalised."""
    found = {}
    for n in range(most):
        for ids in itertools.product((0, 1), repeat=n):
            mass = math.prod(token_of(factors, ids[:i], ids[i]) for i in range(n))
            found["".join(LETTERS[i] for i in ids)] = mass * end_of(factors, ids)
    return found


def potential(factors):
    return product(*(lm("a", temperature=t) for lm, t in factors))


@pytest.mark.parametrize("name", FACTORS)
def test_weight_of_a_text_and_its_end_is_the_product_over_models(name):
    factors = FACTORS[name]
    for text, mass in masses(factors, 4).items():

        async def ended(ctx, text=text):
            await ctx.observe(potential(factors), text, ends=True)

        found = asyncio.run(infer(ended, n_particles=1, seed=0, progress=False)).log_ml
        assert found == pytest.approx(math.log(mass), abs=1e-9), text


@pytest.mark.parametrize("rule", ["none", "mask", "predicate"])
@pytest.mark.parametrize("name", FACTORS)
async def test_weight_of_each_particle_is_the_mass_that_its_text_met(name, rule):
    factors, most = FACTORS[name], 4
    target = potential(factors)
    if rule == "mask":
        target = target * Regex("a*b?")
    elif rule == "predicate":
        target = target * predicate(lambda text: "ba" not in text and "bb" not in text)
    allowed = {
        text
        for text in masses(factors, most)
        if rule == "none" or not ("ba" in text or "bb" in text)
    }

    async def model(ctx):
        return await ctx.generate(target, max_tokens=most, proposal=AWRS(effort=1e9))

    posterior = await infer(model, n_particles=50, ess_threshold=0, seed=3, progress=False)
    for text, log_weight in zip(posterior.values, posterior.log_weights, strict=True):
        ids = tuple(LETTERS.index(letter) for letter in text)
        total = 1.0
        for n in range(min(len(ids), most - 1) + 1):
            here = end_of(factors, ids[:n])
            if n < most - 1:
                here += sum(
                    token_of(factors, ids[:n], token)
                    for token in (0, 1)
                    if text[:n] + LETTERS[token] in allowed
                )
            total *= here
        assert log_weight == pytest.approx(math.log(total), abs=1e-9), text
    assert len(set(posterior.values)) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", FACTORS)
async def test_evidence_with_many_ends_and_models_is_the_sum_of_the_texts(name):
    factors = FACTORS[name]
    wanted = math.fsum(masses(factors, 3).values())

    async def model(ctx):
        return await ctx.generate(potential(factors), max_tokens=3)

    found = [
        math.exp((await infer(model, n_particles=20, seed=seed, progress=False)).log_ml)
        for seed in range(60)
    ]
    error = float(np.std(found)) / math.sqrt(len(found))
    assert abs(np.mean(found) - wanted) < 4.5 * error + 1e-9 * wanted


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
async def test_temperature_of_a_prompted_llm_in_a_product_is_its_own(temperature):
    backend = _mock()
    letters = {bytes(token): i for i, token in enumerate(backend.byte_vocab)}
    a, b = letters[b"a"], letters[b"b"]
    llm = PromptedLLM(backend, prompt_ids=[a], eos_byte_strings=[b"!"], temperature=temperature)

    async def model(ctx):
        return await ctx.generate(
            product(llm, OneOf(["a", "b"])), max_tokens=2, proposal=AWRS(effort=1e9)
        )

    def log_probs(context: list[int]) -> np.ndarray:
        logps = backend.next_token_logprobs_sync(context)
        return torch.log_softmax(logps.double() / temperature, -1).numpy()

    end = letters[b"!"]
    wanted = {
        text: float(log_probs([a])[i] + log_probs([a, i])[end]) for text, i in (("a", a), ("b", b))
    }
    posterior = await infer(model, n_particles=400, seed=0, ess_threshold=0, progress=False)
    allowed = np.logaddexp(log_probs([a])[a], log_probs([a])[b])
    for text, log_weight in zip(posterior.values, posterior.log_weights, strict=True):
        last = log_probs([a, a if text == "a" else b])[end]
        assert log_weight == pytest.approx(float(allowed + last), abs=1e-5)
    share = math.exp(log_probs([a])[a] - allowed)
    drawn = np.mean([text == "a" for text in posterior.values])
    # Stratified draws: each particle has its position in an even grid.
    assert abs(drawn - share) <= 1.5 / 400
    assert set(wanted) == set(posterior.values)


def _mock() -> MockAsyncLM:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab={**alphabet, "</s>": len(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return MockAsyncLM(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>"))


def uneven(text: str) -> float:
    """At the end; the prefix weighs otherwise, also that of the empty text."""
    return 0.3 * len(text) - 1.0


def before(text: str) -> float:
    return -0.9 * len(text) + 0.25


@pytest.mark.parametrize("text", ["", "a", "ab", "bba"])
@pytest.mark.parametrize("with_lm", [True, False])
async def test_observation_weighs_by_complete_at_the_end_and_by_prefix_before(text, with_lm):
    soft = Soft(uneven, prefix=before)
    rest = predicate(lambda text: True)
    target = ONE("a") * soft * rest if with_lm else product(soft, rest)
    ids = tuple(LETTERS.index(letter) for letter in text)
    factors = FACTORS["one"]
    mass = math.prod(token_of(factors, ids[:i], ids[i]) for i in range(len(ids)))
    wanted = {
        True: uneven(text) + (math.log(mass * end_of(factors, ids)) if with_lm else 0.0),
        False: before(text) - before("") + (math.log(mass) if with_lm else 0.0),
    }
    for ends, log_weight in wanted.items():

        async def model(ctx, ends=ends):
            await ctx.observe(target, text, ends=ends)

        posterior = await infer(model, n_particles=2, seed=0, progress=False)
        assert posterior.log_ml == pytest.approx(log_weight, abs=1e-9)


@pytest.mark.parametrize("proposal", [AWRS(effort=1e9), Prior()], ids=str)
async def test_generated_text_is_weighed_by_complete_and_not_by_its_prefixes(proposal):
    soft = Soft(uneven, prefix=before)

    async def model(ctx):
        return await ctx.generate(ONE("a") * soft, max_tokens=4, proposal=proposal)

    posterior = await infer(model, n_particles=40, seed=2, ess_threshold=0, progress=False)
    for text, log_weight in zip(posterior.values, posterior.log_weights, strict=True):
        # Without a constraint the only share below 1 is that of the end that is forced.
        forced = math.log(end_of(FACTORS["one"], tuple(LETTERS.index(c) for c in text)))
        wanted = uneven(text) + (forced if len(text) == 3 else 0.0)
        assert log_weight == pytest.approx(wanted, abs=1e-9), text
