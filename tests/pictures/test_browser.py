"""The pages in a real browser, headless: nothing hostile runs, nothing is cut off, the chart runs as its text does.

Needs Chromium with its driver (on Debian: chromium, chromium-driver) and selenium; skips with the reason without them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trace_fixtures as fixtures
from picture_fixtures import HOSTILE, view_of, words

from speak_neuro.export.files.trace_file import Trace
from speak_neuro.pictures.picture import Picture
from speak_neuro.sim.parity import compare as parity
from speak_neuro.sim.parity.report import render

pytestmark = pytest.mark.browser

TEXTS = {
    "english": "The neuron is the tokenizer: each spike closes a token, and a hard reset forgets the past. " * 2,
    "hebrew": "הנוירון הוא המפצל: כל דחף סוגר אסימון, ואחרי דחף קשה הוא שוכח את העבר. " * 2,
    "chinese": "神经元就是分词器：每个脉冲结束一个词元，硬重置之后它忘记过去。" * 4,
}
ATTACKS = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<svg onload=\"document.title='owned'\">",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium whose size and colour scheme the tests set."""
    chrome = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chrome is None or driver is None:
        pytest.skip("no Chromium with its driver here (on Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Callable[..., None]:
    """Open a page, given as its source, at a width and in a colour scheme."""

    def go(page: str, width: int = 1280, scheme: str = "light") -> None:
        file = tmp_path / "page.html"
        file.write_text(page, encoding="utf-8")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get(file.as_uri())

    return go


@pytest.fixture(scope="module")
def report() -> str:
    """A failed comparison of hostile and of ordinary texts, with differences at every place."""
    exported, trace = fixtures.make_trace([*ATTACKS, *TEXTS.values()])
    bits = (trace.valid * np.arange(trace.valid.shape[1]) % 5).astype(np.float32)
    named = {"device": ATTACKS[1], "run": ATTACKS[0]}
    trace = Trace(**{**fixtures.fields(trace), "meta": named, "entropy": bits})
    own = parity.LevelRun(trace.spikes.astype(np.int8), trace.membrane, trace.current, trace.gate_logit, 0.1, {})
    changed = replace(own, spikes=np.where(trace.valid, 1 - trace.spikes, 0).astype(np.int8))
    patch = pytest.MonkeyPatch()
    runs = {"neuron": own, "readout": changed}
    patch.setattr(parity, "run_level", lambda level, *_, **__: runs[level])
    found = parity.compare(exported, trace)
    patch.undo()
    return render(found.report, exported, trace, found.runs)


def background(browser: Any) -> tuple[int, ...]:
    colour = browser.execute_script("return getComputedStyle(document.querySelector('section')).backgroundColor")
    return tuple(int(part) for part in colour[4:-1].split(",")[:3])


def test_choosing_a_sequence_shows_its_text(browser: Any, visit: Callable[..., None], report: str) -> None:
    visit(report)
    options = browser.execute_script("return document.getElementById('choice').options.length")
    assert options == len(ATTACKS) + len(TEXTS)
    shown = {}
    for index in range(options):
        script = (
            "const c = document.getElementById('choice'); c.value = arguments[0]; c.dispatchEvent(new Event('change'));"
        )
        browser.execute_script(script, str(index))
        shown[index] = browser.execute_script("return document.getElementById('text').textContent")
        plot = browser.execute_script("return [...document.querySelectorAll('#plot .glyph')].map(t => t.textContent)")
        assert "".join(plot).replace("·", " ") == shown[index]
        bars = browser.execute_script(
            "return [...document.querySelectorAll('#plot .bits title')].map(t => t.textContent)"
        )
        assert bars == [f"{t % 5:.2f} bits" for t in range(len(plot))]
    assert set(shown.values()) == {*ATTACKS, *TEXTS.values()}
    assert browser.title == "Parity failed · speak_neuro"  # no script of a text ran
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_chart_of_a_right_to_left_text_is_not_mirrored(
    browser: Any, visit: Callable[..., None], report: str
) -> None:
    visit(report)
    for name, rightwards in (("english", True), ("hebrew", False)):
        script = """
            const choice = document.getElementById('choice'), wanted = arguments[0];
            for (const option of choice.options) {
                choice.value = option.value; choice.dispatchEvent(new Event('change'));
                if (document.getElementById('text').textContent === wanted) break;
            }
            return [...document.querySelectorAll('#plot .glyph')].slice(0, 20).map(t => t.getBoundingClientRect().x)"""
        places = browser.execute_script(script, TEXTS[name])
        assert places == sorted(places, reverse=not rightwards)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_column_is_cut_off(browser: Any, visit: Callable[..., None], report: str, width: int, scheme: str) -> None:
    for page in (report, *(Picture([view_of(text), words(text)]).html() for text in TEXTS.values())):
        visit(page, width, scheme)
        beyond = """return [...document.querySelectorAll('td, th, select, .token, svg, dd, h2')]
            .filter(e => e.offsetParent !== null || e.tagName === 'svg')
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
            .map(e => e.outerHTML.slice(0, 80))"""
        assert browser.execute_script(beyond) == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert (min(background(browser)) > 200) == (scheme == "light")


def test_tokens_of_hostile_texts_run_nothing(browser: Any, visit: Callable[..., None]) -> None:
    for text in (*ATTACKS, HOSTILE):
        visit(Picture([view_of(text, name=text)], title=text).html())
        assert browser.title == " ".join(text.split())
        shown = browser.execute_script("return document.querySelector('.text').textContent")
        assert shown.replace("\ufffd", "") == "".join(c for c in text if c.isprintable())
        assert browser.execute_script("return document.querySelectorAll('script, img').length") == 0


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_stand_out(browser: Any, visit: Callable[..., None], report: str, scheme: str) -> None:
    """WCAG: text 4.5, graphics 3."""
    visit(report, scheme=scheme)
    script = """const of = (s, p) => getComputedStyle(document.querySelector(s))[p];
        const token = '.token.hard, .token.soft';
        return [[of('.gate.closed', 'stroke'), of('section', 'backgroundColor'), 3],
                [of(token, 'borderInlineEndColor'), of(token, 'backgroundColor'), 3],
                [of('body', 'color'), of(token, 'backgroundColor'), 4.5],
                [of('th small', 'color'), of('section', 'backgroundColor'), 4.5],
                [of('.threshold', 'stroke'), of('section', 'backgroundColor'), 3]]"""
    for one, other, least in browser.execute_script(script):
        bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= least, (one, other)
