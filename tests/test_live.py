"""Live charts and exported pages: the formulas' own code, the formulas' numbers, nothing from outside."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

import costmodel as cm
from costmodel.figures.live import live_chart
from costmodel.reporting import MEDIA, scenario_file
from costmodel.scenario import FLAGSHIPS, YARDSTICK, Scenario

from .test_charts import HOSTILE, hostile
from .test_printing import node

CODE = re.compile(r"(?:[a-z_]+|Math\.(?:min|max|floor|ceil|expm1|log1p|log)|\d+(?:\.\d+)?(?:e[+-]?\d+)?|===|[-+*/(),?: ]|[<>]=?)*")
QUANTITIES = ("cache_bytes", "decode_flops", "prefill_flops")


def test_the_code_computes_what_the_formulas_say() -> None:
    dice = random.Random(3)  # noqa: S311 - points of a test
    points = [(dice.randint(1, 4_096), dice.randint(1, 1 << 20)) for _ in range(20)] + [(1, 1), (1, 1 << 20), (4_096, 1_024)]
    asked, expected = [], []
    for name in cm.presets():
        model = cm.load(name)
        for quantity in QUANTITIES:
            for scenario in (Scenario(), Scenario(view="engine", cache="fp8")):
                chart = live_chart([model], scenario, None, quantity)
                series, formula = chart["series"][0], scenario.formula(model, quantity)
                assert CODE.fullmatch(series["code"]), series["code"]
                assert set(series["needs"]) <= {"batch", "context", "new_tokens"}
                for batch, context in points:
                    at = {"batch": batch, "context": context}
                    asked.append([series["needs"], series["code"], [at[letter] for letter in series["needs"]]])
                    expected.append(formula(**at))
    program = (
        "const rows = JSON.parse(require('fs').readFileSync(0));"
        "console.log(JSON.stringify(rows.map(([needs, code, values]) => new Function(...needs, 'return ' + code)(...values))))"
    )
    done = subprocess.run([node(), "-e", program], input=json.dumps(asked), capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    for ours, theirs in zip(expected, json.loads(done.stdout), strict=True):
        assert theirs == ours if ours < 2**53 else theirs == pytest.approx(ours, rel=1e-12)


class Page(HTMLParser):
    """Tags, attributes and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def pages() -> list[str]:
    models = [cm.load(name) for name in FLAGSHIPS]
    return [cm.report(hostile(), "html"), scenario_file("html", [*models[:3], hostile()], Scenario(context=3_000, units="GB"))]


def test_exported_pages_load_nothing_and_hold_texts_as_texts() -> None:
    for text in pages():
        page = Page(text)
        assert page.tags.count("script") == 1
        assert "img" not in page.tags
        assert not [value for name, value in page.attributes if name in ("src", "href", "srcset", "action")]
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert not re.search(r"url\(|@import|https?://", text.split("<body>")[0])
        assert HOSTILE not in text
        assert "&lt;img src=x" in text
        script = text[text.index("<script>") : text.index("</script>")]
        assert "\\u003cimg" in script
        assert "<img" not in script


def test_a_title_cannot_end_the_script() -> None:
    model = hostile().model_copy(update={"title": "</script><script>alert(1)</script>"})
    assert Page(cm.report(model, "html")).tags.count("script") == 1


def test_equal_input_gives_equal_bytes_in_every_format() -> None:
    program = (
        "import costmodel as cm, hashlib; from costmodel.scenario import Scenario;"
        "from costmodel.reporting import MEDIA, scenario_file;"
        "m = cm.load('qwen3-next-80b-a3b');"
        "print([hashlib.sha256((cm.report(m, f) + scenario_file(f, [m], Scenario())).encode()).hexdigest() for f in MEDIA])"
    )
    seen = {
        subprocess.run(  # noqa: S603
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_every_format_of_a_scenario_has_its_numbers() -> None:
    scenario = Scenario(context=3_000, batch=2, weights="fp8", cache="fp8")
    model = cm.load("kimi-k2")
    cache = model.cache_bytes(context=3_000, batch=2, precision="fp8")
    rows: list[dict[str, Any]] = json.loads(scenario_file("json", [model], scenario))["models"]
    assert rows[0]["cache_bytes"] == cache
    assert str(cache) in scenario_file("csv", [model], scenario)
    assert MEDIA.keys() == {"html", "md", "csv", "json"}
    with pytest.raises(cm.CostModelError, match="no format 'pdf'"):
        scenario_file("pdf", [model], scenario)


def test_the_yardstick_is_the_grey_one() -> None:
    chart = live_chart([cm.load("gpt2")], Scenario(), cm.load(YARDSTICK))
    assert [series["colour"] for series in chart["series"]] == ["#0072B2", "#808080"]
    assert len(live_chart([cm.load(YARDSTICK)], Scenario(), cm.load(YARDSTICK))["series"]) == 1
