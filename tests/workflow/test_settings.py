"""A changed setting or file of the user is noticed, whatever Snakemake notes and triggers; an unchanged one is not."""

import os
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml
from relora_study.config import Cell, cells, check
from relora_study.settings import as_yaml
from relora_study.staging import files_with_status, stage, stage_code, stage_listing, staged_cell, staged_settings
from studies import lay_out, snakemake

ROOT = Path(__file__).parents[2]
TRAINED = "results/cells/tiny-full-s1/manifest.json"
# Names of files that Snakemake, a shell or a reader of lists could take for its own syntax.
ODD = ["{doc_1}.txt", "<title>.txt", "{{x}}.txt", "}{.txt", "a 'b' \"c\".txt", "$(x) *?[y].txt", "Ünïcode ✓.txt"]
ODD += ["line\nbreak.txt", "-n.txt"]


def planned(folder: Path, *arguments: str) -> set[str]:
    """The rules of which a run would start jobs."""
    done = snakemake(folder, "--dry-run", *arguments, "--", TRAINED)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"^(\w+) +\d+$", done.stdout.partition("Job stats:")[2], re.MULTILINE)) - {"total"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study of which one cell is trained; its corpus has files with odd names."""
    folder = lay_out(tmp_path_factory.mktemp("settings") / "study")
    for name in ODD:
        (folder / "corpus/letters" / name).write_text(f"the minister said {name}")
    done = snakemake(folder, "--", TRAINED)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of it with its times, for a test to change."""
    return shutil.copytree(trained, tmp_path / "study")


MTIME = ("--rerun-triggers", "mtime")


@pytest.mark.end_to_end
@pytest.mark.parametrize(("triggers", "notes"), [((), "kept"), (MTIME, "kept"), ((), "deleted")])
def test_what_did_not_change_is_not_run_again(copy, triggers, notes):
    if notes == "deleted":
        shutil.rmtree(copy / ".snakemake")
    assert planned(copy, *triggers) == set()
    assert planned(copy, *triggers) == set(), "nor after a dry run"


@pytest.mark.end_to_end
@pytest.mark.parametrize(("triggers", "notes"), [((), "kept"), (MTIME, "kept"), ((), "deleted")])
def test_a_changed_setting_trains_again(copy, triggers, notes):
    if notes == "deleted":
        shutil.rmtree(copy / ".snakemake")
    longer = ("--config", "train={steps: 30}")
    assert planned(copy, *triggers, *longer) == {"cell_settings", "pretrain"}
    assert planned(copy, *triggers) == set(), "a dry run changes no result"
    done = snakemake(copy, *triggers, *longer, "--", TRAINED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert yaml.safe_load((copy / TRAINED).read_text())["steps"] == 30
    assert planned(copy, *triggers, *longer) == set()


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ("model={vocab_size: 399}", {"tokenizer", "tokens", "section_settings", "cell_settings", "pretrain"}),
        ("data={held_out_fraction: 0.3}", {"documents", "tokenizer", "tokens", "section_settings", "pretrain"}),
    ],
)
def test_a_changed_setting_reruns_what_reads_it_by_times_alone(copy, change, rules):
    assert planned(copy, *MTIME, "--config", change) - {"fetch"} == rules


@pytest.mark.end_to_end
def test_settings_that_another_put_there_are_replaced(copy):
    """Snakemake's notes say that nothing changed since the last run; the file says otherwise."""
    place = copy / "results/cells/tiny-full-s1/config.yaml"
    place.write_text(place.read_text().replace("steps: 20", "steps: 10"))
    assert planned(copy) == planned(copy, *MTIME) == {"cell_settings", "pretrain"}


@pytest.mark.end_to_end
def test_changes_of_files_with_odd_names_are_read(copy):
    """One after the other; `--touch` takes the results for made from what is there now."""
    files = [copy / "corpus/letters" / name for name in ODD[:2]]
    for change in (lambda: files[0].write_text("another text"), files[1].unlink):
        change()
        assert planned(copy, *MTIME) >= {"documents", "tokens", "pretrain"}
        assert snakemake(copy, "--touch", "--", TRAINED).returncode == 0
        assert planned(copy, *MTIME) == set()


@pytest.mark.parametrize("name", ODD)
def test_a_change_of_a_file_with_any_name_changes_the_listing(tmp_path, name):
    listing, file = tmp_path / "listing.txt", tmp_path / "corpus" / name
    file.parent.mkdir()
    file.write_text("one")
    texts = []
    for change in (lambda: None, lambda: file.write_text("three"), lambda: os.utime(file, (5, 5)), file.unlink):
        change()
        stage_listing(file.parent, listing)
        texts.append(listing.read_text())
    assert len(set(texts)) == 4


@pytest.mark.end_to_end
@pytest.mark.parametrize("change", [{"add", "old"}, {"replace", "old"}])
def test_a_file_that_is_older_than_the_results_is_noticed(copy, change):
    file = copy / "corpus/letters" / ("new.txt" if "add" in change else "0.txt")
    file.write_text("an old letter that was copied with its time")
    if "old" in change:
        os.utime(file, (1_000_000_000, 1_000_000_000))
    assert "documents" in planned(copy, *MTIME)


@pytest.mark.end_to_end
def test_a_folder_with_an_odd_name_is_read(copy):
    place = "corpora/{plain} <two>"
    (copy / "corpora").mkdir()
    (copy / "corpus").rename(copy / place)
    assert "documents" in planned(copy, *MTIME, "--config", f'data={{files: {{path: "{place}"}}}}')


def tiny() -> tuple:
    """The default study."""
    study = check(yaml.safe_load((ROOT / "config.yaml").read_text()), [])
    return study, cells(study)


def test_the_text_of_settings_does_not_depend_on_the_library_that_writes_it():
    for settings in (tiny()[0], *tiny()[1].values()):
        assert as_yaml(settings) == yaml.safe_dump(settings.model_dump(), sort_keys=False)
        assert type(settings).model_validate(yaml.safe_load(as_yaml(settings))) == settings


def test_staged_files_are_newer_than_what_they_replace_even_when_the_clock_is_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study, chosen = tiny()
    name, place = next(iter(chosen)), tmp_path / "results/settings/data.yaml"
    stage(study, chosen, Path("results"))
    kept = staged_cell(name).read_bytes()
    assert Cell.model_validate(yaml.safe_load(kept)) == chosen[name]
    stage(study, chosen, Path("results"))
    assert staged_cell(name).read_bytes() == kept, "what is there is not written twice"
    place.parent.mkdir(parents=True)
    place.write_text("other: settings\n")
    ahead = time.time_ns() + 10**12
    os.utime(place, ns=(ahead, ahead))
    stage(study, chosen, Path("results"))
    assert staged_settings("data").stat().st_mtime_ns > ahead
    place.write_text(as_yaml(study.data))
    os.utime(place, ns=(1, 1))
    stage(study, chosen, Path("results"))
    assert staged_settings("data").stat().st_mtime_ns == 1, "what holds already is not written again"
    kept = staged_settings("data").read_bytes()
    for time_ns in (0, 2):  # another study's file is put there, with its time, once and again
        place.write_text("other: settings\n")
        os.utime(place, ns=(time_ns, time_ns))
        stage(study, chosen, Path("results"))
        assert staged_settings("data").read_bytes() != kept and staged_settings("data").stat().st_mtime_ns > ahead // 2
        kept = staged_settings("data").read_bytes()
        place.write_text(as_yaml(study.data))
        stage(study, chosen, Path("results"))


def test_a_listing_is_as_old_as_the_newest_file_until_a_file_changes(tmp_path):
    corpus, listing = tmp_path / "corpus", tmp_path / "listing.txt"
    corpus.mkdir()
    (corpus / "one.txt").write_text("one")
    for path in (corpus / "one.txt", corpus):
        os.utime(path, (1000, 1000))
    stage_listing(corpus, listing)
    assert listing.stat().st_mtime == 1000
    (corpus / "two.txt").write_text("two")
    stage_listing(corpus, listing)
    assert listing.stat().st_mtime > time.time() - 100


def test_linked_folders_are_listed_once_and_a_circle_of_links_ends(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/text.txt").write_text("text")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "corpus")
    assert [path.name for path, _ in files_with_status(tmp_path / "corpus")] == ["text.txt"]


def test_code_is_listed_by_content_and_not_by_time(tmp_path):
    package, listing = tmp_path / "package", tmp_path / "listing.txt"
    package.mkdir()
    (package / "a.py").write_text("a = 1\n")
    os.utime(package / "a.py", (1000, 1000))
    stage_code(package.rglob("*.py"), package, listing)
    assert listing.stat().st_mtime == 1000
    before = listing.read_text()
    os.utime(package / "a.py")
    stage_code(package.rglob("*.py"), package, listing)
    assert (listing.read_text(), listing.stat().st_mtime) == (before, 1000), "a checkout of the same code"
    (package / "a.py").write_text("a = 2\n")
    os.utime(package / "a.py", (1000, 1000))
    stage_code(package.rglob("*.py"), package, listing)
    assert listing.read_text() != before and listing.stat().st_mtime > time.time() - 100
