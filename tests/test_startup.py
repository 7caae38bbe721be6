"""What is imported, and that what is left out is there when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

UNUSED = (
    "graphviz",
    "matplotlib.pyplot",
    "pandas",
    "rfc3987_syntax",
    "scipy.integrate",
    "scipy.optimize",
    "scipy.stats",
)


def python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_modules_that_nothing_uses_are_not_imported():
    code = f"import sys, awrs_ppl; awrs_ppl.LM; print([m for m in {UNUSED} if m in sys.modules])"
    assert python(code) == "[]"


@pytest.mark.parametrize("first", ["", "import pandas, scipy.stats; ", "import genlm.control; "])
def test_modules_are_the_real_ones_afterwards(first: str):
    code = f"""{first}
import awrs_ppl
awrs_ppl.LM
import graphviz, matplotlib.pyplot, pandas, scipy, scipy.integrate, scipy.optimize, scipy.stats
from scipy.stats import mannwhitneyu
assert isinstance(pandas.DataFrame({{"a": [1]}}), pandas.DataFrame)
assert scipy.stats.norm.cdf(0) == 0.5
assert scipy.integrate.quad(lambda x: x, 0, 1)[0] == 0.5
assert abs(scipy.optimize.minimize(lambda x: x @ x, [1.0]).x[0]) < 1e-6
assert "a -> b" in graphviz.Source("digraph {{a -> b}}").source
assert matplotlib.pyplot.figure() is not None
import arsenal.timer  # imported with stand-ins
assert arsenal.timer.pd.DataFrame is pandas.DataFrame
assert arsenal.timer.mannwhitneyu([1.0, 2.0], [3.0, 4.0]) == mannwhitneyu([1.0, 2.0], [3.0, 4.0])
"""
    python(code)


def test_formats_of_json_schemas_are_checked_as_without_stand_ins():
    code = """
import sys
if sys.argv[1:]: import jsonschema
import awrs_ppl; awrs_ppl.LM
import jsonschema
checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
print([(name, checker.conforms(text, name))
    for name in ("iri", "uri", "iri-reference", "date")
    for text in ("http://a.b/\u00e9", "a b", "2020-01-01", "http://[")])
"""
    command = [sys.executable, "-c", code]
    results = [
        subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout
        for more in ([], ["first"])
    ]
    assert results[0] == results[1]
    assert "('iri', False)" in results[0]
    assert "('iri', True)" in results[0]
