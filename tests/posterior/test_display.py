"""HTML in a browser: no script runs, nothing overflows, all is aligned and can be read."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from awrs_ppl import Bernoulli, Categorical, Context, Posterior, ToyLM, infer, predicate
from awrs_ppl.inference._progress import StepInfo
from awrs_ppl.potentials import Regex

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver") or shutil.which("chromium.chromedriver")
try:
    from selenium import webdriver
except ImportError:
    webdriver = None

needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER and webdriver),
    reason="needs Chromium, its driver and selenium: apt-get install chromium chromium-driver; "
    "pip install selenium",
)

# To keep the pictures: a folder for them.
PICTURES = os.environ.get("AWRS_PPL_SCREENSHOTS")

HOSTILE = [
    "<script>window.attacked = true; document.body.dataset.attacked = 1</script>",
    '"><img src=x onerror="window.attacked = true">',
    "'><svg onload=alert(1)><iframe srcdoc='<script>parent.attacked = true</script>'>",
    "</code></td></tr></table></div></div><style>* { display: none }</style><h1>out</h1>",
    "&lt;b&gt; &amp; &#60;script&#62;",
    "a\x1b[31mred\x07\u202egnp.exe\u2066\u200f\r\n\x00 next\udc80 line",
    "漢字" * 5000,
    "e" + "\u0301" * 10_000,
    "x" * 10_000,
    "word " * 2000,
]


def toy(seed: int = 0) -> ToyLM:
    return ToyLM(["a", "b", "c", " the", "<b>", "\n"], seed=seed)


async def healthy() -> Posterior:
    lm = toy()

    @predicate
    def calm(text: str) -> bool:
        return "bb" not in text and "cc" not in text

    async def model(ctx: Context) -> str:
        text = await ctx.generate(lm("a", stop="\n") * Regex(r"[abc<> the]{2,}") * calm)
        kind = await ctx.sample(Categorical(["long", "short"]))
        await ctx.observe(Bernoulli(0.8 if kind == "long" else 0.3), len(text) > 6)
        return f"{kind}: {text}"

    return await infer(model, n_particles=64, seed=1, progress=False)


async def degenerate() -> Posterior:
    async def model(ctx: Context) -> int:
        number = 0
        for _ in range(12):
            number = 2 * number + await ctx.sample(Bernoulli(0.5))
            await ctx.factor(-1.5 * (number % 2) - 4.0 * (number % 7 == 3))
        await ctx.factor(0.02 * number)
        return number

    return await infer(model, n_particles=40, seed=2, ess_threshold=0.2, progress=False)


async def all_dead() -> Posterior:
    lm = toy()

    @predicate
    def never_for_long(text: str) -> bool:
        return len(text) < 4

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm("a") * Regex(r"[abc]{5,}") * never_for_long)

    return await infer(model, n_particles=16, seed=0, progress=False)


async def hostile() -> Posterior:
    """Everything that shows text shows a hostile one: values, potentials, statements."""

    async def model(ctx: Context) -> str:
        text = await ctx.sample(Categorical(HOSTILE))
        await ctx.factor(-0.1 * HOSTILE.index(text), name=HOSTILE[0])
        await ctx.condition(text != HOSTILE[2], name=HOSTILE[3])
        await ctx.factor(len(text) % 3 - 1.0, name=HOSTILE[5])
        await ctx.factor(0.1, name="x" * 300)
        return text

    posterior = await infer(model, n_particles=400, seed=0, progress=False)
    posterior.kills.update({text: i + 1 for i, text in enumerate(HOSTILE)})
    posterior.stats.checks.update({text: i + 1 for i, text in enumerate(HOSTILE)})
    posterior.stats.seconds.update(dict.fromkeys(HOSTILE, 1.0))
    return posterior


async def of_values(values: list[Any], weights: list[float] | None = None) -> Posterior:
    async def model(ctx: Context) -> Any:
        return values[await ctx.sample(Categorical(list(range(len(values))), weights))]

    return await infer(model, n_particles=4 * len(values), seed=0, progress=False)


async def labels() -> Posterior:
    return await of_values(["positive", "negative", "neutral", True, 3.5, None], [6, 3, 2, 1, 1, 1])


@dataclass
class Person:
    name: str
    roles: list[str]
    address: dict[str, Any]


async def records() -> Posterior:
    """Long values of one shape, which differ late: dicts, dataclasses, JSON."""
    address = {"street": "Unter den Linden", "number": 77, "postcode": "10117", "city": "Berlin"}
    roles = ["translator", "editor", "reader of proofs", "keeper of the archive"]
    plain = [
        {"name": "Anna Amalia", "roles": roles, "address": address | {"number": number}}
        for number in (1, 2, 3)
    ]
    return await of_values(
        [
            *plain,
            Person("Anna Amalia", roles, address),
            json.dumps(plain[0]),
            json.dumps({"rows": [plain[1]] * 40}),
            json.dumps({"rows": [plain[1]] * 39 + [plain[2]]}),
        ]
    )


QUERY = """SELECT a.name, count(*) AS works
FROM authors AS a
JOIN books AS b ON b.author = a.id
WHERE b.year BETWEEN {} AND 1900 AND a.name LIKE '%"%'
GROUP BY a.name
ORDER BY works DESC
LIMIT 10;"""


async def queries() -> Posterior:
    return await of_values([QUERY.format(year) for year in (1800, 1850)] + ["SELECT 1", "SELECT 2"])


POEM = """Whose woods these are I think I know,
his house is in the village though;  
   he will not see me stopping here
to watch his {} fill up with snow."""  # noqa: W291


async def poems() -> Posterior:
    long = "\n\n".join(POEM.format(i) for i in range(12))
    return await of_values([POEM.format("woods"), POEM.format("fields"), long, long + "\nEnd."])


async def hostile_values() -> Posterior:
    return await of_values(
        [*HOSTILE, "שלום עולם — مرحبا", "👩‍👩‍👧 🙂 zero\u200bwidth\ufeff", "\\x1b"]
    )


async def many() -> Posterior:
    return await of_values([f"value {i}, which is one of two hundred" for i in range(200)])


async def cut_short() -> Posterior:
    """Some have finished, others are in the midst of a text."""
    lm = ToyLM(["a", "b", " the", " cat", " sat"], seed=1)
    task = asyncio.current_task()
    assert task is not None

    def stop(info: StepInfo) -> None:
        if info.step == 9:
            task.cancel()  # as the stop button of a notebook does

    async def model(ctx: Context) -> str:
        kind = await ctx.sample(Categorical(["none", "short", "long"]), name="kind")
        if kind == "none":
            return kind
        most = 4 if kind == "short" else 40
        text = await ctx.generate(lm("a"), max_tokens=most, name="text")
        return f"{kind}: {text}"

    options: dict[str, Any] = {"n_particles": 12, "seed": 5, "progress": stop, "partial": True}
    return await infer(model, ess_threshold=0, **options)


async def timed_out() -> Posterior:
    """Nothing had finished."""
    lm = ToyLM(["a", "\n", " the", " cat", "<b>"], seed=1)

    async def forever(ctx: Context) -> None:
        await ctx.generate(lm("a"), max_tokens=12)
        await ctx.call(asyncio.sleep, 3600)

    return await infer(forever, n_particles=8, seed=5, progress=False, timeout=1.0)


POSTERIORS = {
    f.__name__: f
    for f in (
        *(labels, records, queries, poems, hostile_values, many),
        *(healthy, degenerate, all_dead, hostile, cut_short, timed_out),
    )
}

# The pages that a result stands in: a plain one, and two with what the style sheets of notebooks
# do, by selectors that weigh as much: JupyterLab's, which nbconvert has too, and VS Code's.
PLAIN = ":root { color-scheme: light dark }"
LAB = """
.lab { font: 14px/1.6 system-ui, sans-serif; padding-right: 20px; }
.lab table { table-layout: fixed; border: none; font-size: 13px; margin: 0 auto 1em; color: %s; }
.lab td, .lab th, .lab tr { vertical-align: middle; padding: .5em; line-height: normal;
  max-width: none; white-space: normal; border: none; }
:not(.markdown).lab td, :not(.markdown).lab th, :not(.markdown).lab tr { text-align: right; }
.lab th { font-weight: bold; }
.lab tbody tr:nth-child(odd) { background: %s; }
.lab tbody tr:nth-child(even) { background: %s; }
.lab p { margin: 0 0 1em; }
.lab svg { max-width: 100%%; height: auto; }
.themed .lab code { background: %s; font-size: inherit; white-space: pre-wrap; padding: 0; }
.themed .lab :not(pre) > code { background: %s; padding: 1px 5px; }
"""
CODE = """
body { font: 13px/1.4 system-ui, sans-serif; }
table, thead, tr, th, td, tbody { border: none !important; border-spacing: 0; }
table { width: 100%%; }
table, th, tr { text-align: left !important; vertical-align: middle; }
thead { font-weight: bold; background-color: rgba(130, 130, 130, .16); }
th, td { padding: 4px 8px; }
tr:nth-child(even) { background-color: rgba(130, 130, 130, .08); }
body { background: %s; color: %s; }
"""
LAB_LIGHT = LAB % ("#212121", "#fff", "#f5f5f5", "#fff", "#eee")
LAB_DARK = LAB % ("#ffffffdd", "#111", "#222", "#111", "#333")
THEMES = {
    "plain light": ("light", PLAIN),
    "plain dark": ("dark", PLAIN),
    "lab light": ("light", f"{LAB_LIGHT} body {{ background: #fff; color: rgba(0,0,0,.87) }}"),
    "lab dark": ("dark", f"{LAB_DARK} body {{ background: #111; color: rgba(255,255,255,.87) }}"),
    "code light": ("light", CODE % ("#fff", "#616161")),
    "code dark": ("dark", CODE % ("#1e1e1e", "#ccc")),
}

# What is measured on the page. Colours are drawn, so that the browser itself mixes them.
MEASURE = """
const root = document.querySelector('.awrs-posterior');
const width = document.documentElement.clientWidth;
const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
const pen = canvas.getContext('2d', {willReadFrequently: true});
const over = (colors) => { pen.clearRect(0, 0, 1, 1);
  for (const [color, alpha] of colors) { pen.globalAlpha = alpha; pen.fillStyle = color;
    pen.fillRect(0, 0, 1, 1); }
  return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3); };
const light = (rgb) => { const [r, g, b] = rgb.map((c) => { c /= 255;
  return c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; });
  return .2126 * r + .7152 * g + .0722 * b; };
const page = matchMedia('(prefers-color-scheme: dark)').matches ? '#121212' : '#ffffff';
const found = {wide: [], faint: [], least: 99, texts: 0, strays: [], attacked: !!window.attacked};
for (const element of root.querySelectorAll('*')) {
  if (element.closest('style')) continue;
  const box = element.getBoundingClientRect();
  if (!element.closest('svg') && (box.right > width + 1 || box.left < -1 ||
      element.scrollWidth > element.clientWidth + 1 && element.clientWidth))
    found.wide.push([element.tagName, element.className, box.left, box.right,
      element.scrollWidth, element.clientWidth]);
  if (/^(SCRIPT|IMG|IFRAME|H1|OBJECT|LINK)$/i.test(element.tagName))
    found.strays.push(element.tagName);
  for (const {name} of element.attributes) if (name.startsWith('on')) found.strays.push(name);
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || !box.height) continue;
  found.texts += 1;
  const layers = []; let opacity = 1;
  for (let at = element; at; at = at.parentElement) {
    const style = getComputedStyle(at);
    layers.unshift([style.backgroundColor, 1]);
    opacity *= style.opacity;
  }
  const behind = [[page, 1], ...layers];
  const back = light(over(behind));
  const front = light(over([...behind, [getComputedStyle(element).color, opacity]]));
  const contrast = (Math.max(back, front) + .05) / (Math.min(back, front) + .05);
  found.least = Math.min(found.least, contrast);
  if (contrast < 4.5)
    found.faint.push([element.tagName, element.textContent.slice(0, 40), contrast]);
}
const box = (e) => e.getBoundingClientRect();
// Where the characters of a cell are, not its box.
const ink = (e) => { const range = document.createRange(); range.selectNodeContents(e);
  return range.getBoundingClientRect(); };
const table = root.querySelector('table');
found.rows = table ? [...table.tBodies[0].rows].map((row) => {
  const [number, track, value] = row.cells;
  const bar = track && track.querySelector('.awrs-bar');
  const code = value && value.querySelector('code');
  return { share: number.textContent, text: value ? value.textContent : '', isValue: !!code,
    number: number.textContent ? ink(number).right : null, numberTop: ink(number).top,
    track: bar && box(track.firstChild).left, width: bar && box(track.firstChild).width,
    bar: bar && box(bar).width, left: value && ink(value).left, top: value && ink(value).top,
    lines: code && box(code).height / parseFloat(getComputedStyle(code).lineHeight),
    size: parseFloat(getComputedStyle(code || number).fontSize),
    shade: getComputedStyle(row).backgroundColor, of: row.parentElement.rows.length }; }) : [];
found.heads = table ? [...table.tHead.rows[0].cells].map((e) => [ink(e).left, ink(e).right]) : [];
found.scrolls = document.documentElement.scrollWidth > width;
found.outside = [...document.body.children].filter((e) => !e.contains(root)).map((e) => e.tagName);
found.width = window.innerWidth;
return found;
"""


def page_of(content: str, style: str) -> str:
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><style>body {{ margin: 8px }} {style}'
        f'</style></head><body class="themed"><div class="lab">{content}</div></body></html>'
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    assert webdriver is not None
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def measured(browser: Any, path: Path, width: int, scheme: str) -> dict[str, Any]:
    """Open a page of this width, unfold everything, and measure."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    browser.get(path.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    return browser.execute_script(MEASURE)


def picture(browser: Any, name: str, width: int) -> None:
    if PICTURES is None:
        return
    height = browser.execute_script("return document.documentElement.scrollHeight")
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.save_screenshot(str(Path(PICTURES) / f"{name}.png"))


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("name", POSTERIORS)
async def test_posterior_in_a_browser_fits_and_can_be_read(
    name: str, browser: Any, tmp_path: Path
) -> None:
    posterior = await POSTERIORS[name]()
    for theme, (scheme, style) in THEMES.items():
        path = tmp_path / "page.html"
        path.write_text(page_of(posterior._repr_html_(), style), encoding="utf-8")
        for width in (500, 1200):
            found = measured(browser, path, width, scheme)
            picture(browser, f"{name} {theme} {width}".replace(" ", "_"), width)
            assert found["width"] == width
            assert not found["attacked"]
            assert found["strays"] == found["outside"] == []
            assert found["wide"] == [], (theme, width)
            assert not found["scrolls"], (theme, width)
            assert found["faint"] == [], (theme, width)
            assert found["texts"] > 20
            assert_aligned(found, theme)


def assert_aligned(found: dict[str, Any], theme: str) -> None:
    """Numbers end, bars and values begin at one line each, under their titles; all differ."""
    rows = found["rows"]
    ends, bars, begins = (
        [row[key] for row in rows if row[key] is not None] for key in ("number", "track", "left")
    )
    (_, title_end), _, (title_begin, _) = found["heads"]
    for places, title in ((ends, title_end), (bars, None), (begins, title_begin)):
        if places:
            assert max(places) - min(places) < 1.5, theme
            assert title is None or abs(places[0] - title) < 1.5, theme
    for row in rows:
        assert row["size"] >= 11, theme
        assert row["shade"] == "rgba(0, 0, 0, 0)", theme
        if row["share"]:
            assert abs(row["numberTop"] - row["top"]) < 5, theme
        if row["bar"] is not None and not row["share"].startswith("<"):
            share = float(row["share"].removesuffix(" %")) / 100
            assert row["bar"] / row["width"] == pytest.approx(share, abs=0.02), theme
    texts = [row["text"] for row in rows if row["isValue"]]
    assert len(set(texts)) == len(texts), theme


@needs_browser
def test_measures_of_a_bad_page_find_its_faults(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    bad = (
        '<div class="awrs-posterior"><p style="color: #777; opacity: .8">faint</p>'
        '<p style="white-space: nowrap">' + "wide " * 200 + "</p>"
        '<img src=x onerror="window.attacked = true"></div></div><h1>out</h1>'
    )
    path.write_text(page_of(bad, ":root { color-scheme: light dark }"))
    found = measured(browser, path, 400, "dark")
    assert [faint[1] for faint in found["faint"]] == ["faint"]
    assert found["wide"]
    assert found["scrolls"]
    assert "IMG" in found["strays"]
    assert "onerror" in found["strays"]
    assert found["outside"] == ["H1"]
    # The image fails after the page was read.
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    assert browser.execute_script("return window.attacked")
    black_on_white = '<div class="awrs-posterior"><p>text</p></div>'
    path.write_text(page_of(black_on_white, ":root { color-scheme: light dark }"))
    assert math.isclose(measured(browser, path, 400, "light")["least"], 21, rel_tol=0.01)
    assert measured(browser, path, 400, "dark")["least"] > 15


@needs_browser
@pytest.mark.parametrize("what", ["explain", "diagnose"])
async def test_parts_of_a_result_in_a_browser_fit_and_can_be_read(
    what: str, browser: Any, tmp_path: Path
) -> None:
    for name in ("healthy", "hostile"):
        runs = [await POSTERIORS[name]() for _ in range(2 if what == "diagnose" else 1)]
        posterior = Posterior.pool(runs)
        path = tmp_path / "page.html"
        content = getattr(posterior, what)()._repr_html_()
        path.write_text(page_of(content, THEMES["lab dark"][1]), encoding="utf-8")
        found = measured(browser, path, 400, "dark")
        picture(browser, f"{what}_{name}", 400)
        assert found["wide"] == found["faint"] == found["strays"] == []
        assert not found["attacked"]
