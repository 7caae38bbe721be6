"""Ranges of tokens with a common prefix, against a search through all tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from awrs_ppl.tokens.prefix_index import PrefixIndex, boundaries

BYTES = st.sampled_from([b"a", b"b", "é".encode(), b"\xff", b"\xfe", "丁".encode(), b"\xe4"])
TOKENS = st.lists(BYTES, min_size=1, max_size=4).map(b"".join)


@given(st.lists(TOKENS, min_size=1, max_size=30), TOKENS)
def test_prefix_index_finds_the_tokens_of_a_plain_search(tokens: list[bytes], data: bytes) -> None:
    prefix_index = PrefixIndex([*tokens, b"a"], range(len(tokens)))  # the last one is no text
    first, last = prefix_index.range(data)
    longer = {i for i, token in enumerate(tokens) if token.startswith(data)}
    assert set(prefix_index.ids[first:last].tolist()) == longer
    within = {i for i, token in enumerate(tokens) if data.startswith(token)}
    assert set(prefix_index.within(data)) == within
    same = {i for i, token in enumerate(tokens) if token == data}
    assert set(prefix_index.spelling(data)) == same
    for rank, i in enumerate(prefix_index.ids.tolist()):
        assert prefix_index.ranks[i] == rank
    assert prefix_index.ranks[len(tokens)] == -1


@given(st.text(min_size=1, max_size=6))
def test_boundaries_of_texts_are_between_characters(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    whole = [len(text[:n].encode("utf-8", "surrogatepass")) for n in range(1, len(text))]
    assert list(boundaries(data)) == whole
