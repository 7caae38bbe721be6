"""How Sphinx builds the guide: `make docs`.

All warnings are errors there, so a cell that raises or writes to standard error fails the build,
and so do a link that leads nowhere and a page that would load something from the network.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

from awrs_ppl import __version__

project = "awrs_ppl"
author = "The awrs_ppl authors"
release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton"]
nitpicky = True
default_role = "py:obj"  # see `names_and_code`

html_theme = "furo"
pygments_dark_style = "monokai"
html_title = f"awrs_ppl {release}"
html_static_path = ["_static"]
html_css_files = ["guide.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"Foreign": "Foreign"}
python_maximum_signature_line_length = 100

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_show_tb = True  # a cell that raises is a warning, and so an error
nb_output_stderr = "remove-warn"
nb_merge_streams = True
nb_ipywidgets_js = {}  # they would come from the network

NAME = re.compile(r"[A-Za-z_][\w.]*(\(\))?")
LOADED = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*\s(?:src|href)=["'](?:https?:)?//.*?["']"""
)


def names_and_code(*about: Any) -> None:
    """Read single backticks of a docstring as a terminal's reader does: a name is a link where the
    reference has it, all else is code with its backslashes.
    """
    *_, lines = about
    text = re.sub(
        r"(?<!`)`([^`]+)`(?!`)",
        lambda found: found[0] if NAME.fullmatch(found[1]) else f"``{' '.join(found[1].split())}``",
        "\n".join(lines),
    )
    lines[:] = text.split("\n")


def named_aliases(*about: Any) -> tuple[str | None, str | None]:
    """Sphinx 9 shows an alias in a union as the object that stands for its name."""
    *_, signature, returned = about
    return re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", signature or "") or None, returned


def code_where_nothing_is_documented(_: Sphinx, __: Any, node: Any, shown: Any) -> Any:
    """The text of a name in a docstring or signature that the reference does not have."""
    is_name = node.get("refdomain") == "py" and node["refdoc"].startswith("reference/")
    return shown if is_name else None


def warn_of_what_is_loaded(app: Sphinx, failure: Exception | None) -> None:
    """The guide is read without a network."""
    for page in () if failure else sorted(Path(app.outdir).rglob("*.html")):
        for found in LOADED.findall(page.read_text()):
            logging.getLogger(__name__).warning("%s loads from the network: %s", page, found)


def setup(app: Sphinx) -> None:
    """Connect the above."""
    app.connect("autodoc-process-docstring", names_and_code)
    app.connect("autodoc-process-signature", named_aliases)
    app.connect("missing-reference", code_where_nothing_is_documented)
    app.connect("build-finished", warn_of_what_is_loaded)
