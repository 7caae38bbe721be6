"""Run the tutorials from top to bottom, each in a kernel of its own.

    python tests/tutorials.py [--save] [NAME ...]

A notebook fails if a cell raises or writes to stderr, or if what is committed was never run.
With `--save` the new outputs are written into the notebooks. It is not a part of the tests that
pytest runs: `make tutorials`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "tutorials"
SECONDS = 1800  # for a cell that hangs: a busy machine does not reach it
BYTES = 400_000


def faults(path: Path, notebook: Any) -> list[str]:
    """What is wrong with a notebook that was run."""
    found = []
    size = path.stat().st_size
    if size > BYTES:
        found.append(f"{size:,} bytes: at most {BYTES:,}, so use smaller pictures")
    for cell in notebook.cells:
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            found.append(f"cell {cell.id} was never run")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {cell.id} raised {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                found.append(f"cell {cell.id} wrote to stderr: {output.text}")
    return found


def execute(notebook: Any) -> float:
    """Run all cells, as a user who started the kernel in the folder would; the seconds it took."""
    started = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False,
        store_widget_state=False,
    ).execute()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 01_first_program")
    parser.add_argument("--save", action="store_true", help="write the outputs")
    options = parser.parse_args()
    every = sorted(FOLDER.glob("*.ipynb"))
    paths = [path for path in every if not options.names or path.stem in options.names]
    if unknown := set(options.names) - {path.stem for path in every}:
        parser.error(f"no tutorial {', '.join(sorted(unknown))} in {[p.stem for p in every]}")
    failed = False
    for path in paths:
        notebook: Any = nbformat.read(path, as_version=4)
        wrong = [] if options.save else faults(path, notebook)
        seconds = execute(notebook)
        if options.save:
            nbformat.write(notebook, path)
        wrong += faults(path, notebook)
        print(f"{path.stem}: {seconds:.0f} s", *wrong, sep="\n  ", flush=True)
        failed = failed or bool(wrong)
    sys.exit(failed or not paths)


if __name__ == "__main__":
    main()
