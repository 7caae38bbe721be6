"""Sequential Monte Carlo over the particles of a program.

`smc` has `infer` and `run`; `inference` is one run: advance the programs, make a `step` of those
that are furthest behind, apply it, resample. `population` holds the particles and their weights,
`resampling` the schemes. `recorder` counts the costs and keeps what a posterior shows,
`failures` says what went wrong and where, `check_replay` finds programs that do not repeat.
"""
