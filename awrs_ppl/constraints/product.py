"""Products of potentials, which are potentials of genlm-control themselves."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from awrs_ppl._genlm import Potential, Token
from awrs_ppl.constraints.potential import Multiplicative
from awrs_ppl.constraints.scoring import score
from awrs_ppl.constraints.tables import LazyTables
from awrs_ppl.constraints.target import Target
from awrs_ppl.tokens.text import Text
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["Product", "fingerprint", "product", "target_of"]


class Product(LazyTables, Multiplicative):
    """The product of potentials; made by `p * q` or `product(p, q, ...)`.

    Its vocabulary is that of its language model, or the bytes if it has none. A token that a
    factor cannot spell weighs 0; nothing is renormalized.

    >>> from awrs_ppl.potentials import Contains, Regex
    >>> import asyncio
    >>> asyncio.run((Regex("[a-z]+") * Contains("ab")).complete(b"cab"))
    0.0
    """

    def __init__(self, factors: Sequence[Potential]) -> None:
        flat: list[Potential] = []
        for factor in factors:
            flat.extend(factor.target.factors if isinstance(factor, Product) else [factor])
        self.target = Target.of(flat)  # not genlm-control's own __init__: see LazyTables

    def __reduce__(self) -> tuple[Any, ...]:
        return Product, (self.target.factors,)

    def vocabulary_of_tables(self) -> Vocabulary | None:
        """That of the language model."""
        return self.target.vocabulary

    @property
    def key(self) -> Hashable:
        """Equal for products that say the same of every text."""
        return self.target.key

    def is_terminal_only(self) -> bool:
        """Whether only whole texts are weighed."""
        return all(factor.is_terminal_only() for factor in self.target.factors)

    @property
    def fingerprint(self) -> str:
        """What a replay compares: the fingerprints of the factors."""
        return " * ".join(fingerprint(factor) for factor in self.target.factors)

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.target.factors))

    async def prefix(self, context: Any) -> float:
        """The log-weight of a context (tokens, or bytes) as a prefix."""
        return await score(self.target, _as_text(context), ends=False)

    async def complete(self, context: Any) -> float:
        """The log-weight of a context (tokens, or bytes) with its end."""
        return await score(self.target, _as_text(context), ends=True)


def target_of(potential: Potential) -> Target:
    """A potential's factors, sorted."""
    return potential.target if isinstance(potential, Product) else Target.of([potential])


def _as_text(context: Any) -> Text:
    """A context of genlm-control (bytes, ints or Tokens) as a text."""
    if isinstance(context, bytes):
        return Text(context)
    if context and isinstance(context[0], Token):
        return Text(b"".join(context), tuple(token.token_id for token in context))
    return Text(bytes(context))


def fingerprint(potential: object) -> str:
    """The kind of a potential, ours or genlm-control's, for comparing a replay with its record."""
    return getattr(potential, "fingerprint", type(potential).__qualname__)


def product(*potentials: Potential) -> Product:
    """The product of potentials, in any order, genlm-control's included.

    Boolean ones filter, others weigh. Raises `VocabularyError` if they share no token.

    >>> from awrs_ppl.potentials import Contains, Regex
    >>> product(Regex("[a-z]+"), Contains("ab"))
    Regex('[a-z]+') * Contains('ab')
    """
    return Product(potentials)
