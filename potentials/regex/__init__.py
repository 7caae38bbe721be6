"""Texts that match a regular expression of the package `regex`.

`regex` has the potential. `syntax` reads a pattern as a `tree`; `regular` says whether that is
regular, and writes it for llguidance, which has masks; `prefix` writes another pattern for the
prefixes of matches, where texts are matched one at a time.
"""

from awrs_ppl.potentials.regex.regex import Regex

__all__ = ["Regex"]
