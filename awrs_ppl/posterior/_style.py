"""What all displays share: words, numbers and the style sheet.

What is shown comes from a language model, so all of it is escaped, shortened and bounded. The
HTML has no script and loads nothing; it takes its colours from the page's text, so that it reads
on light and on dark pages.
"""

from __future__ import annotations

import unicodedata

from awrs_ppl._messages import escape, shorten

__all__ = ["CSS", "fold", "page", "percent", "plural", "safe"]

_ACCENTS = 3


def safe(text: str, width: int) -> str:
    """A text made printable, of at most `width` cells of a terminal.

    >>> print(safe("a\\x1b", 40))
    a\\x1b
    >>> print(safe("e" + 5 * "\\u0301", 40)[-12:])
    \\u0301\\u0301
    """
    # Shortened twice: escapes make it longer, and a text of megabytes need not be escaped.
    return shorten(_flat(escape(shorten(text, 4 * width))), width)


def _flat(text: str) -> str:
    """More than a few accents on one letter would be piled over the lines above: made visible."""
    if text.isascii():
        return text
    pile, found = 0, []
    for char in text:
        pile = pile + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        high = pile > _ACCENTS
        found.append(char.encode("unicode_escape").decode("ascii") if high else char)
    return "".join(found)


def percent(share: float) -> str:
    """A share to show.

    >>> percent(0.0001), percent(0.5)
    ('<0.1 %', '50.0 %')
    """
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def plural(count: int) -> str:
    """The plural s for a count."""
    return "" if count == 1 else "s"


def page(content: str) -> str:
    """A piece of HTML with its style, to stand in any page."""
    return f'<div class="awrs-posterior"><style>{CSS}</style>{content}</div>'


def fold(title: str, content: str) -> str:
    """HTML that is folded away at first; empty if the content is."""
    return f"<details><summary>{title}</summary>{content}</details>" if content else ""


CSS = """
.awrs-posterior { max-width: 60em; line-height: 1.4; text-align: left; }
.awrs-posterior p { margin: 0 0 .6em; }
.awrs-posterior table { border-collapse: collapse; table-layout: auto; width: 100%;
  margin: 0 0 .8em; }
.awrs-posterior tr, .awrs-posterior tbody tr:nth-child(n) { background: none; }
.awrs-posterior th, .awrs-posterior td { color: inherit; padding: .2em .6em .2em 0;
  text-align: left; vertical-align: top; border: none; white-space: normal; }
.awrs-posterior th { font-weight: normal; border-bottom: 1px solid; }
.awrs-posterior .awrs-number { width: 1%; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.awrs-posterior th.awrs-number { white-space: normal; vertical-align: bottom; }
.awrs-posterior .awrs-track { width: 22%; min-width: 3.5em; }
.awrs-posterior .awrs-track > div { margin-top: .35em; border-radius: 2px; overflow: hidden;
  background: color-mix(in srgb, currentColor 12%, transparent); }
.awrs-posterior .awrs-bar { height: .7em; min-width: 1px;
  background: #3b7ddd; background: color-mix(in srgb, currentColor 25%, #3b7ddd); }
.awrs-posterior .awrs-value, .awrs-posterior .awrs-part, .awrs-posterior dd, .awrs-posterior li,
.awrs-posterior p { overflow-wrap: anywhere; }
.awrs-posterior .awrs-part { padding-left: 1.2em; }
.awrs-posterior td > code { white-space: pre-wrap; color: inherit; background: none; padding: 0; }
.awrs-posterior .awrs-note { border-left: 3px solid #d98a00; padding-left: .6em; }
.awrs-posterior figure { margin: 0 0 .8em; }
.awrs-posterior figcaption { font-size: .9em; }
.awrs-posterior svg { display: block; width: 100%; margin: .3em 0;
  border-left: 1px solid; border-bottom: 1px solid; }
.awrs-posterior path { fill: none; stroke: currentColor; vector-effect: non-scaling-stroke; }
.awrs-posterior .awrs-line { stroke-width: 1.8; }
.awrs-posterior .awrs-mark { stroke: #3b7ddd; stroke-width: 1.5; }
.awrs-posterior .awrs-lost { stroke: #8a8a8a; }
.awrs-posterior details { margin: 0 0 .3em; }
.awrs-posterior summary { cursor: pointer; }
.awrs-posterior details > :nth-child(2) { margin-top: .5em; }
.awrs-posterior ul { margin: 0 0 .6em; padding-left: 1.2em; }
.awrs-posterior dl { display: grid; grid-template-columns: 7em minmax(0, 1fr); margin: .4em 0; }
.awrs-posterior dt { font-weight: normal; }
.awrs-posterior dd { margin: 0; }
"""
