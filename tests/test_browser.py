"""The dashboard as people use it, in Chromium: painted, dragged, shared, saved, on a phone, in the dark, by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import costmodel as cm
from costmodel.answers.offers import offer
from costmodel.answers.promises import serve_sentence
from costmodel.answers.sentences import cache_sentence, usual_lines, verdict
from costmodel.reporting import MEDIA, scenario_file
from costmodel.scenario import FLAGSHIPS, YARDSTICK, Scenario
from costmodel.units import binary_bytes

pytest.importorskip("streamlit")
pytest.importorskip("playwright")

from .dashboard import NARROW, Visit, browser, visiting
from .load.server import dashboard

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser")]

PATHS = ("", "landscape", "compare", "anatomy", "moe", "roofline", "serve", "cost", "what-if", "formulas", "calibration", "report")
HERE = Path(__file__).parent
LIVE = ".live-chart"


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Any, str]]:
    with dashboard() as server, browser() as running:
        yield running, f"http://127.0.0.1:{server.port}"
        assert not server.complaints()


@pytest.fixture
def visit(site: tuple[Any, str]) -> Iterator[Visit]:
    with visiting(*site) as one:
        yield one


def test_the_first_screen_is_painted(visit: Visit) -> None:
    page = visit.open()
    models = [cm.load(name) for name in FLAGSHIPS]
    assert visit.metrics() == [binary_bytes(model.cache_bytes(context=131_072)) for model in models]
    assert visit.verdict() == verdict(models, Scenario(), cm.accelerator("h200"))
    text = page.inner_text("[data-testid=stMainBlockContainer]")
    assert cache_sentence(models, Scenario(), cm.load(YARDSTICK)) in text
    assert usual_lines(models, Scenario()) in text
    assert page.locator(".js-plotly-plot .scatterlayer .js-line").count() == 5
    assert "Gemma 3 27B" in page.locator("[aria-label*='Cache against context']").first.get_attribute("aria-label")


@pytest.mark.parametrize("path", PATHS)
def test_a_deep_link_opens_each_page(visit: Visit, path: str) -> None:
    page = visit.open(f"{path}?models=mixtral-8x7b&models=gpt2&context=8k&batch=3")
    scenario = Scenario(models=("mixtral-8x7b", "gpt2"), context=8_192, batch=3)
    assert visit.verdict() == verdict([cm.load(name) for name in scenario.models], scenario, cm.accelerator("h200"))
    assert not page.locator("[data-testid=stAlertContentWarning]").count()
    page.wait_for_selector(".js-plotly-plot, [data-testid=stMarkdownContainer] h1, .katex")


def drag(page: Any, name: str, to: float) -> Any:
    """Takes a live slider by the mouse and holds it at a share of its way."""
    slider = page.locator(f"{LIVE} input[data-name={name}]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    start = box["x"] + box["width"] * float(slider.input_value()) / 1_000
    page.mouse.move(start, box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(1, 21):
        page.mouse.move(start + (box["x"] + box["width"] * to - start) * step / 20, box["y"] + box["height"] / 2)
    return slider


def test_the_live_curve_moves_before_the_slider_is_let_go(visit: Visit) -> None:
    page = visit.open()
    page.wait_for_selector(f"{LIVE} path")
    curve = page.locator(f"{LIVE} path").first
    before, numbers = curve.get_attribute("d"), visit.metrics()
    page.locator(LIVE).evaluate(
        "box => { window.times = []; const tell = () => window.times.push(Number(box.dataset.redrawMs));"
        " new MutationObserver(tell).observe(box, {attributes: true}); }"
    )
    drag(page, "batch", 0.5)
    assert curve.get_attribute("d") != before
    times = page.evaluate("window.times")
    assert len(times) >= 10
    assert median(times) < 5
    batch = int(page.locator(f"{LIVE} output").nth(1).inner_text().replace(",", ""))
    shown = [float(value) for value in page.locator(f"{LIVE} strong").evaluate_all("all => all.map(one => one.dataset.value)")]
    assert shown == [cm.load(name).cache_bytes(context=131_072, batch=batch) for name in (*FLAGSHIPS, YARDSTICK)]
    assert visit.metrics() == numbers  # Python has heard nothing yet
    page.mouse.up()
    page.wait_for_function("old => document.querySelector('[data-testid=stMetricValue]').innerText.trim() != old", arg=numbers[0])
    visit.settle()
    assert page.locator(".st-key-batch input").input_value() == str(batch)
    assert visit.metrics() == [binary_bytes(cm.load(name).cache_bytes(context=131_072, batch=batch)) for name in FLAGSHIPS]
    drag(page, "context", 0.3)
    page.mouse.up()
    page.wait_for_url(re.compile(r"context="))
    visit.settle()
    assert f"batch={batch}" in page.url


def test_a_shared_link_gives_the_same_numbers(site: tuple[Any, str], visit: Visit) -> None:
    page = visit.open("?models=gemma-3-12b&models=kimi-k2&context=5000&batch=9&view=engine&cache=fp8&units=GB&accelerator=mi300x")
    page.get_by_role("button", name="Share").click()
    link = page.locator("[data-testid=stPopoverBody] code").first.inner_text().strip()
    for name in Scenario.model_fields:
        assert f"{name}=" in link
    seen = (visit.metrics(), visit.verdict(), page.locator(f"{LIVE} strong").all_inner_texts())
    with visiting(*site) as other:
        other.page.goto(link)
        other.settle()
        assert (other.metrics(), other.verdict(), other.page.locator(f"{LIVE} strong").all_inner_texts()) == seen


def upload(visit: Visit, name: str, data: bytes) -> str:
    """Puts a file into the uploader and gives what the page says of it."""
    page = visit.page
    page.locator("input[type=file]").set_input_files({"name": name, "mimeType": "application/octet-stream", "buffer": data})
    visit.settle()
    told = page.locator("[data-testid=stExpander] [data-testid=stAlert], [data-testid=stFileUploader] [role=alert]")
    told.first.wait_for(timeout=10_000)
    return str(told.first.inner_text())


def test_a_config_opens_and_bad_files_are_told(visit: Visit) -> None:
    page = visit.open("what-if?models=gpt2")
    page.locator("[data-testid=stMain] [data-testid=stExpander] summary").first.click()
    assert "is open in this session" in upload(visit, "config.json", (HERE / "configs" / "qwen3-8b.json").read_bytes())
    assert page.locator(".st-key-models [data-baseweb=tag], .st-key-models [data-testid=stMultiSelectTag]").count() != 1
    for name, data in {
        "large.json": b" " * (2 << 20),
        "binary.json": bytes(range(256)),
        "deep.json": b"[" * 100_000,
        "script.json": b'{"model_type": "<img src=x onerror=alert(1)>"}',
        "unknown.json": b'{"model_type": "nobody_knows"}',
    }.items():
        page.reload()
        visit.settle()
        page.locator("[data-testid=stMain] [data-testid=stExpander] summary").first.click()
        told = upload(visit, name, data)
        assert told.strip(), name
        assert len(told.strip().splitlines()) <= 2, name
    page.locator(".st-key-batch input").fill("4")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("batch=4"))


def choose(visit: Visit, key: str, option: str) -> None:
    """Chooses an option of a selectbox."""
    visit.page.locator(f".st-key-{key} input").click()
    visit.page.get_by_role("option", name=option, exact=True).click()
    visit.settle()


def saved(visit: Visit, key: str) -> str:
    """What a download button saves."""
    with visit.page.expect_download() as waiting:
        visit.page.locator(f".st-key-{key} button").click()
    return Path(waiting.value.path()).read_text(encoding="utf-8")


def test_each_report_can_be_downloaded(visit: Visit) -> None:
    page = visit.open("report?models=gemma-3-1b&context=4k")
    for form, (name, _) in MEDIA.items():
        choose(visit, "report_format", name)
        assert saved(visit, "report_download") == cm.report("gemma-3-1b", form, context=4_096), form
    page.get_by_role("button", name="Export").click()
    page.wait_for_selector(".st-key-export_download")
    scenario = Scenario(models=("gemma-3-1b",), context=4_096)
    for form, (name, _) in MEDIA.items():
        choose(visit, "export_format", name)
        assert saved(visit, "export_download") == scenario_file(form, [cm.load("gemma-3-1b")], scenario), form


def test_an_exported_page_is_alive_without_a_network(site: tuple[Any, str], tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    cm.report("qwen3-next-80b-a3b", "html", file)
    with visiting(site[0], f"file://{tmp_path}", offline=True) as visit:
        visit.page.goto(file.as_uri())
        curve = visit.page.locator(f"{LIVE} path").first
        before = curve.get_attribute("d")
        visit.page.locator(f"{LIVE} input[data-name=batch]").first.focus()
        for _ in range(3):
            visit.page.keyboard.press("PageUp")
        assert curve.get_attribute("d") != before
        shown = float(visit.page.locator(f"{LIVE} strong").first.get_attribute("data-value"))
        batch = int(visit.page.locator(f"{LIVE} output").nth(1).inner_text().replace(",", ""))
        assert shown == cm.load("qwen3-next-80b-a3b").cache_bytes(context=131_072, batch=batch)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_each_page_without_scrolling_sideways(site: tuple[Any, str], scheme: str) -> None:
    with visiting(*site, viewport=NARROW, color_scheme=scheme) as visit:
        for path in PATHS:
            page = visit.open(path)
            for box in ("document.documentElement", "document.querySelector('[data-testid=stMain]')"):
                assert page.evaluate(f"{box}.scrollWidth - {box}.clientWidth") <= 0, path
            assert page.evaluate(CONTRAST) >= 4.5, path
            dark = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
            brightness = sum(int(number) for number in re.findall(r"\d+", dark)[:3])
            assert (brightness < 200) == (scheme == "dark"), path


CONTRAST = """(() => {
  const light = (color) => color.match(/[0-9.]+/g).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const text = light(getComputedStyle(document.querySelector("[data-testid=stMainBlockContainer] strong")).color);
  const page = light(getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor);
  return (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
})()"""


def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    page = visit.open()
    page.wait_for_selector(LIVE)
    before = visit.metrics()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("Boolean(document.activeElement.closest('.st-key-context') && document.activeElement.type == 'range')"):
            break
    else:
        pytest.fail("Tab does not reach the slider of the context")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile("context="))
    visit.settle()
    assert visit.metrics() != before
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName == 'BUTTON' && document.activeElement.innerText.includes('Share')"):
            break
    else:
        pytest.fail("Tab does not reach Share")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-testid=stPopoverBody] code")
    page.keyboard.press("Escape")
    live = page.locator(f"{LIVE} input[data-name=batch]")
    live.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("PageUp")
    page.wait_for_url(re.compile("batch="))


def test_a_hostile_link_is_told(visit: Visit) -> None:
    page = visit.open("?context=<script>alert(1)</script>&models=nope&zzz=1&batch=-5")
    page.locator("[data-testid=stMetricValue]").nth(3).wait_for()
    assert page.locator("[data-testid=stAlert]").count() == 4


def test_a_click_on_the_landscape_opens_the_model(visit: Visit) -> None:
    page = visit.open("landscape?models=gpt2")
    point = page.locator(".js-plotly-plot .points path").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"], box["y"])
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url(re.compile("models=gpt2&models="))


def test_traffic_is_asked_under_more(visit: Visit) -> None:
    page = visit.open("serve?models=gemma-3-27b&models=llama-3.1-8b")
    now = Scenario(models=("gemma-3-27b", "llama-3.1-8b"))
    assert serve_sentence(offer(cm.load("gemma-3-27b"), now), now) in page.inner_text("[data-testid=stMainBlockContainer]")
    page.locator("[data-testid=stSidebar] [data-testid=stExpander] summary").click()
    for name, value in (("requests_per_s", "3.5"), ("usd_per_hour", "2"), ("prompt", "8192")):
        page.locator(f".st-key-{name} input").fill(value)
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(f"{name}={value}"))
    visit.settle()
    now = now.model_copy(update={"requests_per_s": 3.5, "usd_per_hour": 2.0, "prompt": 8192})
    assert serve_sentence(offer(cm.load("gemma-3-27b"), now), now) in page.inner_text("[data-testid=stMainBlockContainer]")
    assert page.locator(".js-plotly-plot .scatterlayer .trace").count() >= 2
    address = page.url
    with visiting(page.context.browser, visit.address) as other:
        other.page.goto(address)
        other.settle()
        assert serve_sentence(offer(cm.load("gemma-3-27b"), now), now) in other.page.inner_text("[data-testid=stMain]")
