"""The statements a model can make: `Context`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar

from awrs_ppl.distributions import Distribution
from awrs_ppl.foreign import Foreign
from awrs_ppl.program.arguments import name_of, unknown_option
from awrs_ppl.program.statements import Call, Condition, Factor, Sample, Statement

if TYPE_CHECKING:
    from awrs_ppl._genlm import Potential
    from awrs_ppl.program.execution import Run
    from awrs_ppl.proposals import Proposal

__all__ = ["Context", "Pending"]

T = TypeVar("T")


class Pending(Awaitable[T], Generic[T]):
    """A statement that was made; `await` it to have it done."""

    __slots__ = ("_file", "_line", "_run", "statement")

    def __init__(self, run: Run, statement: Statement, file: str, line: int) -> None:
        self._run = run
        self.statement = statement
        self._file, self._line = file, line

    @property
    def line(self) -> str:
        """Where it was made, as file:line."""
        return f"{self._file}:{self._line}"

    def __await__(self) -> Generator[Any, Any, T]:
        return self._run.perform(self)

    def __repr__(self) -> str:
        return f"<statement {self.statement.name!r} made at {self.line}: await it>"


class Context:
    """What a model is given: every random choice and every weight goes through it.

    A model is an `async def` function whose first parameter is a `Context`. Each method makes
    a statement; `await` it before the next one. A model must do the same again when it is run
    again with the same values: take randomness from `ctx.sample`, and use `ctx.call` for
    whatever looks at the world outside.

    >>> from awrs_ppl import Bernoulli, ToyLM, run
    >>> lm = ToyLM(["a", "b"], weights=lambda context: [1, 1, 2])
    >>> async def model(ctx):
    ...     text = await ctx.generate(lm("a"), max_tokens=3)
    ...     await ctx.observe(Bernoulli(0.9), "a" in text)
    ...     await ctx.condition(text != "bb")
    ...     return text
    >>> "bb" in run(model, n_particles=50, seed=0, progress=False).probabilities
    False
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._statements = 0
        self._names: dict[str, int] = {}

    def generate(
        self,
        potential: Potential,
        *,
        max_tokens: int = 256,
        ends: bool = True,
        proposal: Proposal | None = None,
        critic: Potential | None = None,
        name: str | None = None,
        **misplaced: Never,
    ) -> Pending[str]:
        """Draw a text from a potential, token by token.

        `potential` is a language model after a prompt, alone or in a product. The text ends by
        the model's end token or before a stop, and `max_tokens` counts the end: the texts are
        those that end within so many tokens. After `max_tokens - 1` tokens of text the end is
        forced, and weighed by its probability.

        With `ends=False` the text is over without an end token, and nothing is weighed for
        ending: after each token, where every Boolean factor accepts the text and at least one
        says that it is over, as patterns, lists, grammars, schemas and predicates with
        `complete=` do; at a stop, and after `max_tokens` tokens of text, if all accept, else its
        weight is 0. It is never empty. Of a pattern that continues to match, as `[a-z]+`, this is
        the shortest text, token by token, stop or no stop. Where longer ones are meant, write what
        comes behind them into the pattern, as `[a-z]+\\.`; or give a `stop` and a predicate
        without `complete=`, which never says that a text is over.

        `proposal` is `AWRS()` by default. `critic` is an expensive potential over the text:
        its `prefix` steers provisionally (without what may be the prefix of a stop), its
        `complete` weighs when all have ended.

        Gives a `str`; bytes that are not UTF-8 are decoded by `surrogateescape`.
        """
        from awrs_ppl.program.text_statements import Generate

        if misplaced:
            raise unknown_option(misplaced, self.generate)
        return self._make(Generate, name, potential, max_tokens, proposal, critic, ends)

    def sample(
        self,
        distribution: Distribution | Foreign,
        *,
        name: str | None = None,
        proposal: Distribution | Foreign | None = None,
    ) -> Pending[Any]:
        """Draw from a distribution: an object with `sample(rng)` and `log_prob(x)`, or one of
        torch or scipy, as `scipy.stats.norm(0, 1)`.

        With a `proposal`, draw from that one and multiply the weight by the ratio. Particles
        that draw at once from one `Categorical` or `Bernoulli` share its values among them by
        their probabilities, as far as that goes.
        """
        return self._make(Sample, name, distribution, proposal)

    def observe(
        self,
        potential: Potential | Distribution | Foreign,
        value: Any,
        *,
        ends: bool = False,
        name: str | None = None,
    ) -> Pending[None]:
        """Multiply the weight by the probability of `value`.

        For a potential: of texts with the prefix `value` (`prefix`, over that of the empty
        text), or with `ends=True` of this text and its end (`complete`). A language model
        scores its own tokenization of `value`. For a distribution: `log_prob(value)`.
        """
        from awrs_ppl.program.text_statements import Observe

        return self._make(Observe, name, potential, value, ends)

    def factor(self, log_weight: float, *, name: str | None = None) -> Pending[None]:
        """Multiply the weight by exp(`log_weight`), a number or -inf."""
        return self._make(Factor, name, log_weight)

    def condition(self, ok: Any, *, name: str | None = None) -> Pending[None]:
        """Multiply the weight by 1 if `ok` is true, else by 0.

        `ok` is a truth value or what Python takes for one; not None, NaN, a text, several truth
        values, or what is always true, as a function.
        """
        return self._make(Condition, name, ok)

    def call(
        self, function: Callable[..., Any], *args: Any, name: str | None = None
    ) -> Pending[Any]:
        """Run a function outside the library once, sync or async, and remember its value.

        On replay a copy of the value is given, or the exception raised again. A sync function
        runs in the event loop's thread.
        """
        return self._make(Call, name, function, args)

    def _make(self, kind: type[Statement], name: str | None, *arguments: Any) -> Pending[Any]:
        name = name_of(kind.kind, name)
        base = f"{kind.kind} {self._statements + 1}" if name is None else name
        unique, number = base, self._names.get(base, 0)
        while unique in self._names:
            number += 1
            unique = f"{base} {number}"
        statement = kind(unique, *arguments)
        self._statements += 1
        if number:
            self._names[base] = number
        self._names[unique] = 1
        frame = sys._getframe(2)
        pending = Pending(self._run, statement, frame.f_code.co_filename, frame.f_lineno)
        self._run.made(pending)
        return pending
