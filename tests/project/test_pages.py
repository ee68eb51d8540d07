"""What the pages point at exists: linked files and headings, paths, make targets, and overlays that can run."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from relora_study.config import cells, read_study

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / folder / "README.md" for folder in ("config", "results", "benchmarks", "tests/gpu")]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
SHIPPED = ("docs", "workflow", "relora_study", "config", "tests", "benchmarks", "resources", "envs", "paper", ".ci")
PATH = re.compile(rf"`((?:{'|'.join(map(re.escape, SHIPPED))})/[\w./-]*\w/?)`")
TARGET = re.compile(r"`make ([a-z][a-z0-9-]*)")
OVERLAY = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for name, anchor in LINK.findall(page.read_text()):
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), f"{name}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_paths_and_targets_exist(page):
    text = page.read_text()
    targets = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(TARGET.findall(text)) <= set(targets)
    if page.name == "CHANGELOG.md" or page.parent.name == "results":
        return  # one names files that are gone, the other files of a run
    for path in set(PATH.findall(text)) - {"workflow/presets/NAME.yaml"}:
        assert any((ROOT / folder / path).exists() for folder in ("", "workflow", "workflow/relora_study")), path


def test_every_page_is_in_the_index():
    linked = {(ROOT / "docs" / name).resolve() for name, _ in LINK.findall((ROOT / "docs/index.md").read_text())}
    assert {page for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"} <= linked


def test_every_preset_is_among_the_commands():
    listed = set(re.findall(r"`(\w+)`", (ROOT / "docs/commands.md").read_text()))
    assert {preset.stem for preset in (ROOT / "workflow/presets").glob("*.yaml")} <= listed


@pytest.mark.parametrize("page", PAGES[3:], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_first_line_of_a_page_says_for_whom_it_is(page):
    assert page.read_text().splitlines()[2].startswith("For ")


@pytest.mark.parametrize("text", OVERLAY.findall((ROOT / "docs/extending.md").read_text()))
def test_an_overlay_of_the_page_on_extending_makes_cells(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    assert cells(read_study([ROOT / "config.yaml", tmp_path / "mine.yaml"]))


def test_the_tours_training_shows_what_the_tour_says(tmp_path, monkeypatch):
    (program,) = re.findall(
        r"^```python\n(from pathlib .*?)^```", (ROOT / "docs/code.md").read_text(), re.DOTALL | re.M
    )
    (tmp_path / "config.yaml").symlink_to(ROOT / "config.yaml")
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    log = pd.read_csv(tmp_path / "one_cell/log.csv", index_col="step")
    assert log.index[log.reset == 1].tolist() == [61] and log.learning_rate[61] == 0
    assert log.update_norm[62] > 5 * max(log.update_norm[60], log.update_norm[63])


def test_the_drawing_of_the_rules_has_the_default_studys_rules():
    """Drawn from `snakemake --rulegraph` by graphviz, without `all` and `settings`."""
    command = [sys.executable, "-m", "snakemake", "--rulegraph"]
    graph = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    drawn = re.findall(r">(\w+)</text>", (ROOT / "docs/rulegraph.svg").read_text())
    assert {*drawn, "all", "settings"} == set(re.findall(r'label = "(\w+)"', graph))
