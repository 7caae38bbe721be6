"""The code of the README runs, and prints what it says."""

from __future__ import annotations

import ast
import inspect
import math
import re
from pathlib import Path
from typing import Any

from awrs_ppl.testing import assert_prefix_closed

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


async def _run(source: str, namespace: dict[str, Any]) -> None:
    code = compile(source, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, namespace)
    if inspect.isawaitable(result):
        await result


async def test_the_program(capsys: Any) -> None:
    namespace: dict[str, Any] = {}
    await _run(BLOCKS[0], namespace)
    posterior = namespace["posterior"]
    assert "France" in capsys.readouterr().out
    assert math.isfinite(posterior.log_ml)
    (shown,) = re.findall(r"this prints\n\n```\n(.*?)```", README, flags=re.DOTALL)
    # The numbers hang on the machine's rounding, the best answer does not.
    best = posterior.mode()
    assert repr(best) in shown.splitlines()[2]


async def test_the_potentials() -> None:
    namespace: dict[str, Any] = {}
    for block in BLOCKS[1:]:
        await _run(block, namespace)
    balanced, even = namespace["balanced"], namespace["EvenBytes"]()
    await assert_prefix_closed(balanced, ["(a)(", "())", "((b)"])
    assert await balanced.complete(b"(()") == -math.inf
    assert await even.complete(b"ab") == 0.0
    assert await even.complete(b"abc") == -math.inf
    assert await namespace["short"].complete(b"four") == -0.4
