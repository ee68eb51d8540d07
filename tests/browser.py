"""A web report in a real browser: headless Chromium, driven by Selenium."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

# Without these a browser looks for updates, translations and accounts, which a closed network refuses one by one.
QUIET = ["quic", "background-networking", "component-update", "sync", "extensions", "default-apps", "translate"]
SECONDS = 120

# Decodes every image of the report, and gives those that do not come out: their paths.
BROKEN_IMAGES = """
const done = arguments[arguments.length - 1];
const images = Object.entries(results).filter(([, one]) => one.mime_type.startsWith("image/"));
Promise.all(images.map(async ([path, one]) => {
  const image = new Image();
  image.src = one.data_uri;
  try { await image.decode(); } catch { return path; }
  return image.naturalWidth > 200 ? null : path;
})).then(found => done([images.length, found.filter(path => path !== null)]));
"""

CAPTIONS = "return Object.fromEntries(Object.entries(results).map(([path, one]) => [path, one.caption]))"


@dataclass
class Seen:
    """What a browser saw of a report."""

    text: str
    top: float
    captions: dict[str, str]
    images: int
    broken: list[str]
    listed: list[str]
    complaints: list[str]


def chromium() -> tuple[str, str]:
    """The paths of the browser and its driver; skips the test where there is none, and fails in CI."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser and driver:
        return browser, driver
    why = "chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def look_at(page: Path, profile: Path, screenshot: Path) -> Seen:
    """Open ``page``, list every category, show a figure; ``screenshot`` keeps the first view, and the figure beside."""
    with browser(profile) as driver:
        driver.get(page.as_uri())
        WebDriverWait(driver, SECONDS).until(lambda one: one.find_elements(By.CSS_SELECTOR, "#app nav, #app .prose"))
        text = driver.find_element(By.ID, "app").text
        top = driver.execute_script("return document.querySelector('#app .prose h1').getBoundingClientRect().top")
        screenshot.parent.mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(screenshot))
        listed = [
            title for name in driver.execute_script("return Object.keys(categories)") for title in _open(driver, name)
        ]
        captions = driver.execute_script(CAPTIONS)
        images, broken = driver.execute_async_script(BROKEN_IMAGES)
        _show_a_figure(driver)
        driver.save_screenshot(str(screenshot.with_stem(f"{screenshot.stem}-figure")))
        complaints = [one["message"] for one in driver.get_log("browser") if one["level"] in ("SEVERE", "ERROR")]
        return Seen(text, top, captions, images, broken, listed, complaints)


@contextmanager
def browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """A headless browser of its own, which ends with the block."""
    chrome, driver = chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    flags = [
        "headless",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "window-size=1500,1100",
        f"user-data-dir={profile}",
    ]
    for flag in [*flags, *(f"disable-{name}" for name in QUIET)]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    started.set_script_timeout(SECONDS)
    started.set_page_load_timeout(SECONDS)
    try:
        yield started
    finally:
        started.quit()


# Everything that a selector finds, in the shadow trees of Bokeh's widgets, too.
DEEP = """
const found = [], look = root => {
  found.push(...root.querySelectorAll(arguments[0]));
  root.querySelectorAll("*").forEach(one => one.shadowRoot && look(one.shadowRoot));
};
look(document);
return found;
"""


def deep(driver: webdriver.Chrome, selector: str, words: str = "") -> WebElement:
    """The first element that ``selector`` finds anywhere in the page; of those with the text ``words`` where given."""

    def found(one: webdriver.Chrome) -> WebElement | None:
        every = one.execute_script(DEEP, selector)
        return next((element for element in every if not words or element.text.strip() == words), None)

    return WebDriverWait(driver, SECONDS).until(found)


def _open(driver: webdriver.Chrome, category: str) -> list[str]:
    """Show a category as its menu entry does, and each of its chapters; the text of every row of results."""
    chapters = driver.execute_script("return Object.keys(categories[arguments[0]])", category)
    rows: list[str] = []
    for chapter in chapters:
        driver.execute_script("app.setView({navbarMode: 'menu'})")  # or the last list of results stays
        driver.execute_script(
            "app.setView({navbarMode: 'subcategory', category: arguments[0], subcategory: arguments[1]})",
            category,
            chapter,
        )
        WebDriverWait(driver, SECONDS).until(lambda one: one.find_elements(By.CSS_SELECTOR, "#app table tr td"))
        rows += [one.text for one in driver.find_elements(By.CSS_SELECTOR, "#app table tr")]
    return rows


def _show_a_figure(driver: webdriver.Chrome) -> None:
    """Show the first PNG of the report in the page itself."""
    driver.execute_script(
        "const [path, one] = Object.entries(results).find(([, one]) => one.mime_type === 'image/png');"
        "app.setView({content: 'img', contentPath: one.data_uri, resultPath: path})"
    )
    WebDriverWait(driver, SECONDS).until(
        lambda one: one.execute_script("return [...document.images].some(image => image.naturalWidth > 200)")
    )
