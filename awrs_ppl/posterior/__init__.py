"""What inference returns, and how it is shown, compared and kept.

`posterior` has the weighted results and the evidence, `explanation` says where the weight went,
`diagnosis` how far to rely on them, `comparison` which of several programs has the most evidence.
They are shown as text and HTML (`_display` and its `_results` and `_texts`, `_explained`,
`_diagnosed`, `_style`, `_svg`) and as plots (`_plots`). `values` and `by_value` know what values
are equal.

Files and other formats: `saving` with `_saved` and `_plain_values` (a file that is loaded again),
`_exports` (JSON, data frames, pickles), `_record` (genlm-control's) and `_arviz`.
"""
