"""The pages of figures and tables in a real browser: captions beside figures, and tables that a click sorts."""

import pandas as pd
from browser import browser
from relora_study.report.captions import captions, title
from relora_study.report.figures import FIGURES
from relora_study.report.pages import figures_page, tables_page
from relora_study.report.tables import TABLES
from relora_study.storage.files import read_yaml
from selenium.webdriver.common.by import By
from studies import ROOT


def test_every_figure_and_table_has_a_title_of_its_own():
    named = {name: title(name) for name in (*FIGURES, *TABLES)}
    assert sorted(named) == sorted(read_yaml(ROOT / "workflow/report/captions.yaml")["titles"])
    assert len(set(named.values()) - {""}) == len(named)
    assert title("experiment_two_rates") == "Two rates"


def test_a_click_sorts_a_table_by_value_and_another_turns_it(unchanged, tmp_path):
    rows = {"cell": ["tiny-full-s42", "tiny-relora-s42", "small-full-s42"], "x": [9.5, 1200.0, -3.25]}
    rows |= {"x_low": [9.0, 1100.0, -3.5], "x_high": [10.0, 1300.0, -3.0], "why": ["b <i>", "a", "c"]}
    pd.DataFrame(rows).to_csv(tmp_path / "gaps.csv", index=False)
    texts = captions(unchanged.cells, False, "pairs") | {"tables": {"gaps": "What & why."}}
    (tmp_path / "tables.html").write_text(tables_page(tmp_path, texts, {}))
    with browser(tmp_path / "profile") as driver:
        driver.get((tmp_path / "tables.html").as_uri())
        heads = driver.find_elements(By.TAG_NAME, "th")

        def column(number: int) -> list[str]:
            cells = driver.find_elements(By.CSS_SELECTOR, f"td:nth-child({number + 1})")
            return [cell.text for cell in cells]

        assert column(2) == ["b <i>", "a", "c"], "as it is written"
        heads[1].click()
        assert column(2) == ["c", "b <i>", "a"]
        heads[1].click()
        assert column(2) == ["a", "b <i>", "c"]
        heads[2].click()
        assert column(0) == ["tiny, ReLoRA", "tiny, full rank", "small, full rank"]
        assert "What & why." in driver.find_element(By.TAG_NAME, "figcaption").text
        assert [one for one in driver.get_log("browser") if one["level"] == "SEVERE"] == []


def test_figures_stand_beside_their_captions_in_the_order_of_the_chapters(unchanged, drawn, figures, tmp_path):
    for name in ("gap_over_training", "update_rank"):
        drawn(name)
    texts = captions(unchanged.cells, False, "pairs")
    texts["figures"] = {name: texts["figures"][name] for name in ("update_rank", "gap_over_training")}
    page = figures_page(figures, texts, {})
    places = [page.index(f'id="{name}"') for name in ("gap_over_training", "update_rank")]
    assert places == sorted(places) and page.count("data:image/png;base64,") == 2
    assert "Like for like: effective rank of the net update" in page and "1 Loss and accuracy" in page
    assert "(update_rank, by the rule figure)" in page and "From cells/*/dynamics.csv." in page
