"""The alphabet: texts as bytes, and the tokens of a language model.

`text` is a text by its bytes and tokens. `vocabulary` has the tokens' bytes, those that are text
and those that end one, and how a text may end at a stop. `prefix_index` has the tokens in byte
order, so that those with one prefix are a range. `next_token` weighs the next outcomes at many
contexts at once: each token, and each way to end. `urn` draws from such weights without
replacement, exactly. A refinement that can be skipped: `underflow`, weights too small for float32.
"""
