"""What is allowed, and what is known of it.

`potential` is the base of Boolean potentials, `product` puts potentials together with a language
model, and `adapters` evaluates potentials over bytes, text or tokens on tokens. At one context
`next_verdicts` checks next tokens and keeps the verdicts in `verdict_cache`, by the constraint and
its state. `function_key` says when two functions surely give the same verdicts.
A refinement that can be skipped: `prefix_propagation`, what one verdict says of other tokens.
"""
