"""HTML in a browser: no script runs, nothing overflows, all can be read. And progress."""

from __future__ import annotations

import io
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from awrs_ppl import Bernoulli, Categorical, Context, ModelError, Posterior, ToyLM, infer, predicate
from awrs_ppl.inference import _progress
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


POSTERIORS = {f.__name__: f for f in (healthy, degenerate, all_dead, hostile)}

# The pages that a result stands in: a plain one, and what a notebook's style sheet asks for.
NOTEBOOK = """
.notebook { font: 13px/1.5 system-ui, sans-serif; }
.notebook table { table-layout: fixed; border: none; font-size: 12px; margin: 0 auto 1em; }
.notebook td, .notebook th { text-align: right; vertical-align: middle; padding: .5em .5em;
  max-width: none; white-space: normal; }
.notebook thead { border-bottom: 1px solid; }
.notebook tbody tr:nth-child(odd) { background: #f5f5f5; }
.notebook :not(pre) > code { background: #eee; padding: 1px 5px; }
"""
THEMES = {
    "plain light": ("light", ":root { color-scheme: light dark }"),
    "plain dark": ("dark", ":root { color-scheme: light dark }"),
    "notebook light": ("light", f"{NOTEBOOK} body {{ background: #fff; color: rgba(0,0,0,.87) }}"),
    "notebook dark": (
        "dark",
        f"{NOTEBOOK} body {{ background: #111; color: rgba(255,255,255,.87) }}",
    ),
    "grey light": ("light", f"{NOTEBOOK} body {{ background: #fff; color: #616161 }}"),
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
found.scrolls = document.documentElement.scrollWidth > width;
found.outside = [...document.body.children].filter((e) => !e.contains(root)).map((e) => e.tagName);
found.width = window.innerWidth;
return found;
"""


def page_of(content: str, style: str) -> str:
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><style>body {{ margin: 8px }} {style}'
        f'</style></head><body><div class="notebook">{content}</div></body></html>'
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
        for width in (400, 1200):
            found = measured(browser, path, width, scheme)
            picture(browser, f"{name} {theme} {width}".replace(" ", "_"), width)
            assert found["width"] == width
            assert not found["attacked"]
            assert found["strays"] == found["outside"] == []
            assert found["wide"] == [], (theme, width)
            assert not found["scrolls"], (theme, width)
            assert found["faint"] == [], (theme, width)
            assert found["texts"] > 20


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
        path.write_text(page_of(content, THEMES["notebook dark"][1]), encoding="utf-8")
        found = measured(browser, path, 400, "dark")
        picture(browser, f"{what}_{name}", 400)
        assert found["wide"] == found["faint"] == found["strays"] == []
        assert not found["attacked"]


# --- while it runs --------------------------------------------------------------------------


async def waiting(ctx: Context) -> None:
    for _ in range(5):
        await ctx.factor(-0.5 * await ctx.sample(Bernoulli(0.5)))


async def nested(ctx: Context) -> float:
    inner = await ctx.call(infer, waiting)
    await ctx.factor(-1.0)
    return inner.log_ml


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


@pytest.mark.usefixtures("nowhere")
async def test_bar_in_a_terminal_is_removed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    await infer(waiting, n_particles=7, seed=0)
    lines = shown.getvalue().split("\r")
    assert any("7 particles: 0 steps" in line for line in lines)
    assert "\n" not in shown.getvalue()
    assert lines[-1].strip() == ""  # it is taken away at the end


@pytest.mark.usefixtures("nowhere")
async def test_nested_inferences_have_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    for _ in range(2):  # the second time it is shown again
        await infer(nested, n_particles=3, seed=0)
    assert shown.getvalue().count("3 particles: 0 steps") == 2
    assert "10 particles" not in shown.getvalue()


@pytest.mark.usefixtures("nowhere")
async def test_progress_in_a_log_is_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    posterior = await infer(waiting, n_particles=7, seed=0)
    assert shown.getvalue() == ""  # it was over soon
    monkeypatch.setattr(_progress, "_EVERY", 0.0)
    await infer(waiting, n_particles=7, seed=0)
    lines = shown.getvalue().splitlines()
    assert len(lines) == len(posterior.history)
    assert lines[-1].startswith("7 particles: 5 steps in 0 s, ess=")
    assert lines[-1].endswith(", alive=7")
    assert "\r" not in shown.getvalue()


@pytest.mark.usefixtures("nowhere")
async def test_progress_shows_what_survived_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    async def model(ctx: Context) -> None:
        for _ in range(3):
            await ctx.factor(-2.0 * await ctx.sample(Bernoulli(0.5)))

    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(_progress, "_EVERY", 0.0)
    posterior = await infer(model, n_particles=9, seed=0, ess_threshold=1.0)
    survived = posterior.diagnose().survived
    assert survived is not None
    assert shown.getvalue().splitlines()[-1].endswith(f", survived={100 * survived:.1f} %")


@pytest.mark.usefixtures("nowhere")
async def test_progress_switched_off_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    await infer(waiting, seed=0, progress=False)
    with pytest.raises(ModelError, match="timeout=-1"):
        await infer(waiting, timeout=-1)
    assert shown.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)
    await infer(waiting, seed=0)


async def test_bar_in_a_notebook_without_widgets_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    await infer(waiting, n_particles=7, seed=0)
    assert "\r7 particles: 0 steps" in shown.getvalue()
