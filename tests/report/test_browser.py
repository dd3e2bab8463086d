"""The page in headless Chromium: nothing asked for, nothing wrong, nothing cut off, at two widths and in both modes.

`make test-browser` runs these; the screenshots are kept in the folder named by SYMBERT_SCREENSHOTS, if it is set.
"""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from tests.report.conftest import Study

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PHONE, DESK = 375, 1280

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium or its driver is not there"),
    # Selenium leaves the closing of its pipes to the interpreter.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def address(study: Study, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "report.html"
    published = shared / "reference" / "courtois2024"
    assert run(study.arguments(out, *(["--published", published] if published.is_dir() else []))) == 0
    return out.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--force-device-scale-factor=1"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def opened(browser: Any, address: str, width: int, mode: str = "light", media: str = "screen") -> None:
    features = [{"name": "prefers-color-scheme", "value": mode}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(address)


def kept(browser: Any, name: str) -> None:
    folder = os.environ.get("SYMBERT_SCREENSHOTS")
    if folder:
        height = browser.execute_script("return document.documentElement.scrollHeight")
        width = browser.execute_script("return window.innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_no_error_no_request_and_nothing_wider_than_the_window(
    browser: Any, address: str, width: int, mode: str
) -> None:
    opened(browser, address, width, mode)
    kept(browser, f"{mode}-{width}")
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url for url in requests if not url.startswith(("data:", "chrome:"))} <= {address}
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_charts_are_as_wide_as_their_place_and_their_text_can_be_read(browser: Any, address: str) -> None:
    for width in (PHONE, DESK):
        opened(browser, address, width)
        sizes = browser.execute_script(
            "return [...document.querySelectorAll('figure')].map(f => {"
            " const s = f.querySelector('svg'), r = s.getBoundingClientRect(), p = f.getBoundingClientRect();"
            " const heights = [...s.querySelectorAll('text')].map(t => t.getBoundingClientRect().height);"
            " const inside = r.left >= 0 && r.right <= window.innerWidth + 1;"
            " return [inside, Math.abs(r.width - p.width), Math.min(...heights)]})"
        )
        assert sizes
        for inside, difference, height in sizes:
            assert inside
            assert difference < 2
            assert height >= 8


def test_every_link_control_and_table_is_reached_by_keyboard(browser: Any, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, address, DESK)
    wanted = browser.execute_script("return document.querySelectorAll('a[href], summary, [tabindex=\"0\"]').length")
    reached = set()
    for _ in range(wanted + 5):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(browser.execute_script("const a = document.activeElement; return a.outerHTML.slice(0, 200)"))
        outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        if len(reached) == 1:
            assert outline == "solid", "focus has to be seen"
    assert len([html for html in reached if not html.startswith("<body")]) == wanted


def test_dark_mode_turns_the_charts_too(browser: Any, address: str) -> None:
    colours = {}
    for mode in ("light", "dark"):
        opened(browser, address, DESK, mode)
        colours[mode] = browser.execute_script(
            "return [getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('figure svg text')).fill]"
        )
    assert colours["light"][0] != colours["dark"][0]
    assert colours["light"][1] != colours["dark"][1]


def test_print_is_black_on_white_without_navigation_and_with_every_detail_open(browser: Any, address: str) -> None:
    opened(browser, address, DESK, "dark", media="print")
    assert browser.execute_script("return getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    heights = browser.execute_script(
        "return [...document.querySelectorAll('details dl')].map(d => d.getBoundingClientRect().height)"
    )
    assert heights
    assert min(heights) > 20
    document = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(document["data"]).startswith(b"%PDF")
