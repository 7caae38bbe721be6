"""The tests with the oldest versions of the dependencies that are allowed, or with the newest.

*Oldest*: the lower bound of every dependency in pyproject.toml, the extras included. *Newest*:
whatever can be installed today. In both, torch is the one in constraints.txt, and the tools of
development are the newest.

    python tests/versions.py oldest|newest [--keep FOLDER] [-- ARGUMENTS OF PYTEST]

Makes a virtual environment, installs, and runs the tests; the exit status is that of pytest.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def constraints(which: str) -> list[str]:
    """What pip is held to."""
    (torch,) = re.findall(r"^torch==\S+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if which == "newest":
        return [torch]
    oldest = [torch]
    for entry in itertools.chain(PROJECT["dependencies"], *EXTRAS.values()):
        found = re.match(r"([\w.-]+)(?:\[.*\])?[>=]=([\w.]+)", entry)
        if entry.startswith(f"{PROJECT['name']}["):
            continue  # the extra that has all the others
        assert found is not None, f"{entry!r} in pyproject.toml has no lower bound"
        if found[1] != "torch":
            oldest.append(f"{found[1]}=={found[2]}")
    return oldest


def run(*command: str) -> int:
    """Run a program in the repository, its output shown."""
    print("+", *command, flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def install(folder: Path, which: str) -> Path:
    """A new environment in a folder; its Python."""
    folder.mkdir(parents=True, exist_ok=True)
    held = folder / "constraints.txt"
    held.write_text("\n".join(constraints(which)) + "\n")
    print(held.read_text())
    settings = f"PYTHON={sys.executable}", f"VENV={folder}", f"CONSTRAINTS={held}"
    if run("make", "install", *settings):
        sys.exit(1)
    return folder / "bin" / "python"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=["oldest", "newest"])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the environment here")
    parser.add_argument("pytest", nargs="*", default=["-q"], help="arguments of pytest, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        folder = (given.keep or Path(spare) / "venv").resolve()
        python = install(folder, given.which)
        run(str(python), "-m", "pip", "freeze", "--exclude-editable")
        # Old packages beside new ones use what those want to drop, and say so.
        quiet = ("-W", "ignore::DeprecationWarning")
        sys.exit(run(str(python), "-m", "pytest", *quiet, *given.pytest))


if __name__ == "__main__":
    main()
