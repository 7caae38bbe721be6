"""What genlm-control asks of a potential about its symbols, made when it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from awrs_ppl.constraints.potential import BYTE_TABLES, BYTES

if TYPE_CHECKING:
    from awrs_ppl._genlm import VocabTables
    from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["LazyTables"]


class LazyTables:
    """The part of a potential over a vocabulary's text tokens, or over bytes if it has none.

    The tables of 262,144 tokens take a second, and inference here does not look into them.
    """

    def vocabulary_of_tables(self) -> Vocabulary | None:
        """The tokens; None for bytes."""
        raise NotImplementedError

    @property
    def tables(self) -> VocabTables:
        """genlm-control's tables, shared by all potentials over this vocabulary."""
        vocabulary = self.vocabulary_of_tables()
        return BYTE_TABLES if vocabulary is None else vocabulary.tables

    @property
    def vocab(self) -> list[Any]:
        """The symbols, without the end."""
        vocabulary = self.vocabulary_of_tables()
        return BYTES if vocabulary is None else vocabulary.text_tokens

    @property
    def vocab_eos(self) -> list[Any]:
        """The symbols and the end."""
        return self.tables.vocab_eos

    @property
    def lookup(self) -> dict[Any, int]:
        """Where each stands in `vocab_eos`."""
        return self.tables.lookup

    @property
    def eos(self) -> Any:
        """The end."""
        return BYTE_TABLES.eos

    @property
    def token_type(self) -> Any:
        """The type of the symbols."""
        return self.tables.token_type
