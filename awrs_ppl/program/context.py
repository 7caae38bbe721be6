"""The statements a model can make: `Context`."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from awrs_ppl._values import quoted
from awrs_ppl.distributions import Distribution, as_number
from awrs_ppl.errors import ModelError
from awrs_ppl.foreign import Foreign, adapted, kind_of
from awrs_ppl.program.trace import Request

if TYPE_CHECKING:
    from genlm.control.potential.base import Potential

    from awrs_ppl.proposals import Proposal

__all__ = ["Context", "Statement"]

T = TypeVar("T")


class Runner(Protocol):
    """What serves the statements of one execution; see `engine.Run`."""

    def made(self, statement: Statement[Any]) -> None:
        """A statement was made: it must be awaited before the next one."""
        ...

    def perform(self, statement: Statement[Any]) -> Generator[Any, Any, Any]:
        """A statement is awaited: give its value."""
        ...


class Statement(Awaitable[T], Generic[T]):
    """A statement that was made; `await` it to have it done."""

    __slots__ = ("_file", "_line", "_runner", "request")

    def __init__(self, runner: Runner, request: Request, file: str, line: int) -> None:
        self._runner = runner
        self.request = request
        self._file, self._line = file, line

    @property
    def line(self) -> str:
        """Where it was made, as file:line."""
        return f"{self._file}:{self._line}"

    def __await__(self) -> Generator[Any, Any, T]:
        return self._runner.perform(self)

    def __repr__(self) -> str:
        return f"<statement {self.request.name!r} made at {self.line}: await it>"


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

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._statements = 0
        self._names: dict[str, int] = {}

    def generate(
        self,
        potential: Potential,
        *,
        max_tokens: int = 256,
        proposal: Proposal | None = None,
        critic: Potential | None = None,
        name: str | None = None,
    ) -> Statement[str]:
        """Draw a text from a potential, token by token.

        `potential` is a language model after a prompt, alone or in a product. `max_tokens`
        counts the end: after `max_tokens - 1` tokens of text the end is forced and weighed.
        `proposal` is `AWRS()` by default. `critic` is an expensive potential over the text:
        its `prefix` steers provisionally (without what may be the beginning of a stop), its
        `complete` weighs when all have ended.

        Gives a `str`; bytes that are not UTF-8 stand as `surrogateescape`.
        """
        from awrs_ppl.program.statements import generation

        arguments, fingerprint = generation(potential, max_tokens, proposal, critic)
        return self._make("generate", name, fingerprint, arguments, is_weighted=True)

    def sample(
        self,
        distribution: Distribution | Foreign,
        *,
        name: str | None = None,
        proposal: Distribution | Foreign | None = None,
    ) -> Statement[Any]:
        """Draw from a distribution: an object with `sample(rng)` and `log_prob(x)`, or one of
        torch or scipy, as `scipy.stats.norm(0, 1)`.

        With a `proposal`, draw from that one and multiply the weight by the ratio.
        """
        drawn = _distribution(distribution)
        instead = None if proposal is None else _distribution(proposal)
        fingerprint = (kind_of(drawn),)
        weighted = proposal is not None
        return self._make("sample", name, fingerprint, (drawn, instead), is_weighted=weighted)

    def observe(
        self,
        potential: Potential | Distribution | Foreign,
        value: Any,
        *,
        ends: bool = False,
        name: str | None = None,
    ) -> Statement[None]:
        """Multiply the weight by the probability of `value`.

        For a potential: of texts that begin with `value` (`prefix`, over that of the empty
        text), or with `ends=True` of this text and its end (`complete`). A language model
        scores its own tokenization of `value`. For a distribution: `log_prob(value)`.
        """
        from awrs_ppl.program.statements import observation

        arguments, fingerprint = observation(potential, value, ends)
        return self._make("observe", name, fingerprint, arguments, is_weighted=True)

    def factor(self, log_weight: float, *, name: str | None = None) -> Statement[None]:
        """Multiply the weight by exp(`log_weight`), a number or -inf."""
        number = as_number(log_weight)
        if isinstance(log_weight, bool | np.bool_) or math.isnan(number) or number == math.inf:
            raise ModelError(
                f"ctx.factor got {quoted(log_weight)}: a log-weight is a number or -inf; "
                + (_slip(log_weight) or "for a probability p write ctx.factor(math.log(p))")
            )
        return self._make("factor", name, (), number, is_weighted=True)

    def condition(self, ok: Any, *, name: str | None = None) -> Statement[None]:
        """Multiply the weight by 1 if `ok` is true, else by 0.

        `ok` is a truth value or what Python takes for one; not None, NaN, a text, several truth
        values, or what is always true, as a function.
        """
        return self._make("condition", name, (), _truth(ok), is_weighted=True)

    def call(
        self, function: Callable[..., Any], *args: Any, name: str | None = None
    ) -> Statement[Any]:
        """Run a function outside the library once, sync or async, and remember its value.

        On replay a copy of the value is given, or the exception raised again. A sync function
        runs in the event loop's thread.
        """
        if not callable(function):
            raise ModelError(f"ctx.call got {function!r}: write ctx.call(function, *args)")
        fingerprint = (getattr(function, "__qualname__", type(function).__qualname__),)
        return self._make("call", name, fingerprint, (function, args), is_weighted=False)

    def _make(
        self,
        kind: str,
        name: str | None,
        fingerprint: tuple[Any, ...],
        arguments: Any,
        *,
        is_weighted: bool,
    ) -> Statement[Any]:
        self._statements += 1
        if name is not None and not isinstance(name, str):
            raise ModelError(f"ctx.{kind} got name={name!r}: a name is a str")
        if name is None:
            name = f"{kind} {self._statements}"
        base = name
        while name in self._names:
            self._names[base] += 1
            name = f"{base} {self._names[base]}"
        self._names[name] = 1
        request = Request(kind, name, fingerprint, arguments, is_weighted)
        frame = sys._getframe(2)
        statement = Statement(self._runner, request, frame.f_code.co_filename, frame.f_lineno)
        self._runner.made(statement)
        return statement


def _distribution(given: Any) -> Any:
    """What `ctx.sample` draws from. Raises `ModelError`."""
    found = adapted(given)
    if isinstance(found, type) or not isinstance(found, Distribution):
        raise ModelError(
            f"ctx.sample got {quoted(given)}: it needs an object with sample(rng), rng a numpy "
            "Generator, and log_prob(x), such as Categorical(['a', 'b']), or a distribution of "
            "torch or scipy, such as scipy.stats.norm(0, 1)"
        )
    return found


def _truth(ok: Any) -> bool:
    """What a condition says. Raises `ModelError` where that is hardly what is meant."""
    slip = _slip(ok)
    if slip is None and isinstance(ok, str | bytes):
        slip = "a text is true unless it is empty: compare it, as in text == 'yes'"
    if slip is None and isinstance(ok, list | tuple | set | frozenset | dict) and _is_several(ok):
        slip = "it is true unless it is empty: put all(...) or any(...) around it"
    if slip is None and not (hasattr(type(ok), "__bool__") or hasattr(type(ok), "__len__")):
        slip = "it is always true: write a comparison, such as ... is not None"
    if slip is not None:
        raise ModelError(f"ctx.condition got {quoted(ok)}; {slip}")
    try:
        if ok != ok:
            raise ModelError(
                f"ctx.condition got {quoted(ok)}, which is neither true nor false: compare what "
                "it was computed from"
            )
        return bool(ok)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        # Of torch, numpy, pandas and decimal.
        raise ModelError(
            f"ctx.condition got {quoted(ok)}, which is neither true nor false: {error}"
        ) from error


def _is_several(values: Any) -> bool:
    return len(values) > 0 and all(isinstance(value, bool | np.bool_) for value in values)


def _slip(value: Any) -> str | None:
    """The mistake that most often brings such a value, and what to write instead."""
    if value is None:
        return "a function that ends without `return` gives None: does one lack it?"
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()  # or Python warns that it was never awaited
        return "it is always true: await it first"
    if inspect.isasyncgen(value) or isinstance(value, Iterator):
        return "it is always true: put all(...) or any(...) around it"
    if callable(value):
        shown = getattr(value, "__name__", "f").replace("<lambda>", "f")
        return f"a function is always true: call it, as in {shown}(...)"
    return None
