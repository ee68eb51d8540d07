"""The interactive page, clicked in a real browser."""

import re
from pathlib import Path

import pandas as pd
import pytest
from browser import browser, deep
from relora_study.report.explore import page
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import Select

ROOT = Path(__file__).parents[2]


def with_relora_above(results, tiny: float, small: float) -> None:
    """Let ReLoRA's loss lie above full rank's on every batch; other methods' losses are full rank's."""
    for size, over in (("tiny", tiny), ("small", small)):
        path = results.folder / f"{size}-relora-s42/log.csv"
        log = pd.read_csv(path)
        log.assign(loss=log.loss + over).to_csv(path, index=False)


@pytest.fixture
def opened(results, tmp_path):
    with_relora_above(results, 0.25, 0.5)
    file = tmp_path / "explore.html"
    file.write_text(page(results))
    with browser(tmp_path / "profile") as driver:
        driver.get(file.as_uri())
        deep(driver, "table td")
        yield driver


def values(driver) -> dict[str, tuple[float, float]]:
    """What the page shows of each line: its value, and where."""
    text = driver.execute_script("return Bokeh.documents[0].get_model_by_name('values').text")
    rows = re.findall(r"&#9632; (.+?)</td><td[^>]*>(.+?)</td><td[^>]*>at ([\d.,]+)", text)
    return {name: (float(value), float(at.replace(",", ""))) for name, value, at in rows}


def test_a_reader_chooses_runs_and_reads_values(opened):
    assert values(opened)["small, ReLoRA, seed 42"] == (0.5, 600.0), "minus full rank, at the end"
    assert values(opened)["tiny, ReLoRA as released, seed 42"] == (0.0, 600.0)
    assert not any("full rank" in name for name in values(opened))
    deep(opened, "label", "ReLoRA as released").click()
    assert {name.split(",")[1].strip() for name in values(opened)} == {"ReLoRA"}
    deep(opened, "button", "minus full rank").click()
    assert values(opened)["tiny, full rank, seed 42"][0] == pytest.approx(8 - 598 / 200, abs=1e-3), "a mean of five"
    assert values(opened)["tiny, ReLoRA, seed 42"][0] == pytest.approx(8.25 - 598 / 200, abs=1e-3)
    Select(deep(opened, "select")).select_by_visible_text("minimal-pair accuracy")
    assert values(opened)["tiny, full rank, seed 42"][0] == pytest.approx(0.8)
    opened.save_screenshot(str(_kept("explore.png")))
    assert [one["message"] for one in opened.get_log("browser") if one["level"] == "SEVERE"] == []


def _kept(name: str) -> Path:
    place = ROOT / "results/tests" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def test_the_pointer_reads_values_where_it_is_and_the_scale_and_the_unit_change(opened):
    deep(opened, "button", "minus full rank").click()
    ActionChains(opened).move_to_element(deep(opened, ".bk-events")).perform()
    (loss, step), *_ = values(opened).values()
    assert 200 < step < 400 and loss == pytest.approx(8.5 - step / 200, abs=0.01), "the middle"
    deep(opened, "button", "logarithmic").click()
    assert (
        opened.execute_script(
            "const [panel] = Bokeh.documents[0].roots()[0].children[1].children.filter(one => one.visible);"
            "return panel.y_scale.type"
        )
        == "LogScale"
    )
    opened.execute_script("Bokeh.documents[0].get_model_by_name('place').value = 'minutes'")
    assert {at for _, at in values(opened).values()} == {1.0}, "600 steps of a tenth of a second"


def test_the_page_names_the_settings_in_which_the_chosen_runs_differ(opened):
    def told() -> str:
        return opened.execute_script("return Bokeh.documents[0].get_model_by_name('settings').text")

    assert '<th style="text-align:left">merge</th>' in told() and "d model" in told()
    deep(opened, "label", "small").click()
    assert "unscaled" in told() and "d model" not in told()
    for method in ("full rank", "ReLoRA as released"):
        deep(opened, "label", method).click()
    assert told() == "", "one method at one size differs from nothing"


def test_the_page_of_the_default_study_is_small_and_holds_all_that_it_needs(results):
    text = page(results)
    assert len(text) < 2_000_000
    assert re.findall(r"<(?:script|link)[^>]+(?:src|href)=", text) == [], "nothing from a network"
