"""A real browser for the tests of the interactive page: Debian's Chromium, without a screen.

A pytest plugin. PYTEST_DONT_REWRITE: the tests import it before pytest does.
"""

import base64
import os
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WIDTHS = {"light": 1280, "dark": 1280, "phone": 390}


@pytest.fixture(scope="session")
def chromium():
    """The browser; in CI a missing one is a failure."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    assert all(paths) or not os.environ.get("CI"), "CI must have chromium and its driver: .ci/run"
    if not all(paths):
        pytest.skip("needs a browser (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=Service(paths[1]))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium):
    """The browser, light and wide; a test ends with nothing on its console."""
    look(chromium, "light")
    chromium.get_log("browser")
    yield chromium
    assert chromium.get_log("browser") == []


def look(driver, how: str, height: int = 900) -> None:
    """Light, dark or as wide as a phone."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if how == "dark" else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": WIDTHS[how], "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def shoot(driver, how: str, path: Path) -> None:
    """A picture of the whole page."""
    look(driver, how, driver.execute_script("return document.documentElement.scrollHeight"))
    picture = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(base64.b64decode(picture["data"]))
    look(driver, how)
