"""What inference returns, and how it is shown.

`posterior` has the weighted results and the evidence, `explanation` says where the weight went,
`diagnosis` how far to rely on them. They are shown as text and HTML (`_display`, `_explained`,
`_diagnosed`, `_style`, `_svg`), as plots (`_plots`), and in genlm-control's format (`_record`).
"""
