"""What all displays share: words, numbers and the style sheet.

What is shown comes from a language model, so all of it is escaped, shortened and bounded. The
HTML has no script and loads nothing; it takes its colours from the page's text, so that it reads
on light and on dark pages.
"""

from __future__ import annotations

import unicodedata

from awrs_ppl._messages import escape, shorten

__all__ = ["ACCENTS", "CSS", "flat", "fold", "is_accent", "page", "percent", "plural", "safe"]

ACCENTS = 3


def safe(text: str, width: int) -> str:
    """A text made printable, of at most `width` cells of a terminal.

    >>> print(safe("a\\x1b", 40))
    a\\x1b
    >>> print(safe("e" + 5 * "\\u0301", 40)[-12:])
    \\u0301\\u0301
    """
    # Shortened twice: escapes make it longer, and a text of megabytes need not be escaped.
    return shorten(flat(escape(shorten(text, 4 * width))), width)


def flat(text: str) -> str:
    """More than a few accents on one letter would be piled over the lines above: made visible."""
    if text.isascii():
        return text
    pile, found = 0, []
    for char in text:
        pile = pile + 1 if is_accent(char) else 0
        high = pile > ACCENTS
        found.append(char.encode("unicode_escape").decode("ascii") if high else char)
    return "".join(found)


def is_accent(char: str) -> bool:
    """Whether a character is put on the one before."""
    return not char.isascii() and unicodedata.category(char) in ("Mn", "Me")


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


# Notebooks have styles of their own for tables, code and pictures. The class stands three times
# (`&`), which outweighs their selectors; VS Code's have `!important`, and so ours have too.
CSS = """
& { max-width: 60em; line-height: 1.4; text-align: left; }
& p { margin: 0 0 .6em; text-align: left; }
& p > b { display: inline-block; }
& table { border-collapse: collapse; table-layout: auto; width: 100%; margin: 0 0 .8em;
  color: inherit; font-size: inherit; }
& thead, & tr, & tbody tr:nth-child(n), & tbody tr:hover { background: none; border: none; }
& th, & td { color: inherit; padding: .25em .8em .25em 0; text-align: left !important;
  vertical-align: top; border: none !important; max-width: none; white-space: normal;
  line-height: 1.4; font-weight: normal; background: none; }
& th { border-bottom: 1px solid !important; vertical-align: bottom; }
& tbody tr + tr td {
  border-top: 1px solid color-mix(in srgb, currentColor 15%, transparent) !important; }
& .awrs-number { width: 1%; text-align: right !important; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
& .awrs-track { width: 20%; min-width: 3em; }
& .awrs-track > div { margin: .35em 0 0; border-radius: 2px; overflow: hidden;
  background: color-mix(in srgb, currentColor 12%, transparent); }
& .awrs-bar { height: .7em; min-width: 1px;
  background: #3b7ddd; background: color-mix(in srgb, currentColor 25%, #3b7ddd); }
& .awrs-value, & .awrs-part, & dd, & li, & p { overflow-wrap: anywhere; }
& td.awrs-part { padding-left: 1.2em; }
& td > code { display: block; white-space: pre-wrap; overflow-wrap: anywhere; color: inherit;
  background: none; padding: 0; border: none;
  font: .93em/1.45 ui-monospace, Menlo, Consolas, monospace;
  unicode-bidi: isolate; tab-size: 4; }
& td > code.awrs-quoted { padding-left: 1ch; text-indent: -1ch; }
& .awrs-note { border-left: 3px solid #d98a00; padding-left: .6em; }
& figure { margin: 0 0 .8em; }
& figcaption { font-size: .9em; }
& svg { display: block; width: 100%; max-width: 100%; margin: .3em 0;
  border-left: 1px solid; border-bottom: 1px solid; }
& path { fill: none; stroke: currentColor; vector-effect: non-scaling-stroke; }
& .awrs-line { stroke-width: 1.8; }
& .awrs-mark { stroke: #3b7ddd; stroke-width: 1.5; }
& .awrs-lost { stroke: #8a8a8a; }
& details { margin: 0 0 .3em; }
& summary { cursor: pointer; }
& details > :nth-child(2) { margin-top: .5em; }
& ul { margin: 0 0 .6em; padding-left: 1.2em; list-style: disc; }
& dl { display: grid; grid-template-columns: 7em minmax(0, 1fr); margin: .4em 0; }
& dt { font-weight: normal; }
& dd { margin: 0; }
""".replace("&", 3 * ".awrs-posterior")
