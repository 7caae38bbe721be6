"""Messages name an extra by the command that installs it here."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from awrs_ppl import _extras


@pytest.mark.parametrize(
    ("direct_url", "wanted"),
    [
        (None, '"awrs-ppl[json]"'),
        ("{", '"awrs-ppl[json]"'),
        ({"url": "file:///home/a%20b/c", "dir_info": {}}, "'/home/a b/c[json]'"),
        ({"url": "file:///c", "dir_info": {"editable": True}}, "-e '/c[json]'"),
        (
            {"url": "file:///c/x.whl", "archive_info": {}},
            "'awrs-ppl[json] @ file:///c/x.whl'",
        ),
    ],
)
def test_extra_is_named_as_it_was_installed(monkeypatch, direct_url, wanted):
    text = json.dumps(direct_url) if isinstance(direct_url, dict) else direct_url
    found = SimpleNamespace(read_text=lambda name: text)
    monkeypatch.setattr(_extras, "distribution", lambda name: found)
    _extras.requirement.cache_clear()
    try:
        assert _extras.install("json") == f"pip install {wanted}"
        given = shlex.split(wanted)[-1]
        if "/" not in given or "@" in given:
            assert Requirement(given).extras == {"json"}
    finally:
        _extras.requirement.cache_clear()
