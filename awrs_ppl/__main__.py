"""`python -m awrs_ppl`: the command line."""

import sys

from awrs_ppl.cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
