"""`snakemake published_only` and its web report, for real: what the released values give without any training."""

import pytest
import yaml
from browser import look_at
from pypdf import PdfReader
from studies import ROOT, lay_out, snakemake

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = lay_out(tmp_path_factory.mktemp("released") / "with space")
    for arguments in (("published_only",), ("published_only", "--report", "results/published/report.html")):
        done = snakemake(folder, *arguments, configs=("config.yaml",))
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "results/published"


def test_every_figure_table_and_the_paper_are_made_without_training(released):
    asked = yaml.safe_load((ROOT / "workflow/report/captions.yaml").read_text())["published"]
    for kind, endings in (("figures", ("pdf", "png")), ("tables", ("csv", "md", "tex"))):
        wanted = {f"{name}.{ending}" for name in asked[kind] for ending in endings}
        assert {file.name for file in (released / kind).iterdir()} == wanted
    assert not (released.parent / "cells").exists()
    text = "".join(page.extract_text() for page in PdfReader(released / "paper.pdf").pages)
    assert "847" not in text and "7.4e-166" in text, "the published p-value, computed again"


def test_the_web_report_opens_in_a_browser(released, tmp_path):
    seen = look_at(released / "report.html", tmp_path / "profile", ROOT / "results/tests/released-report.png")
    assert seen.top >= 0, "the title can be seen"
    assert seen.complaints == []
    assert seen.images == sum(path.endswith(".png") for path in seen.captions) == 11 and seen.broken == []
    assert all(len(caption) > 30 for caption in seen.captions.values())
    assert "A100 GPU-hours" in seen.text and "0.7014 [0.6979, 0.7049]" in seen.text, "the first page has its table"
    assert {"Loss, perplexity and accuracy by step", "The audit CSV"} <= set(seen.listed)
