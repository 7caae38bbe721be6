"""What is allowed, and what is known of it.

`potential` is the base of Boolean potentials, `product` puts potentials together with a language
model, `target` sorts them, `factor` evaluates them on tokens, and `scoring` weighs a whole text. At
one context `next_verdicts` checks next tokens and keeps the verdicts in `verdict_cache`, by the
constraint and its state. `function_key` says when two functions surely give the same verdicts.

Refinements that can be skipped: `prefix_propagation`, what one verdict says of other tokens;
`undecided_utf8`, `dead_ends`, `checks_ahead`; and `genlm_factor`, potentials of genlm-control.
"""
