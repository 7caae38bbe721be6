"""The command line, `awrs-ppl`: `cli` has the commands, the rest reads what they are given."""

from awrs_ppl.cli.cli import main

__all__ = ["main"]
