"""What is staged for Snakemake: settings and listings, newer where their content changed and only there."""

import os
import time
from pathlib import Path

import pytest
import yaml
from relora_study.config import Cell, cells, check
from relora_study.config.settings import as_yaml, experiments_of, settings_files
from relora_study.session.staging import files_with_status, stage, stage_code, stage_listing, staged, user_places
from studies import ODD, ROOT


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


def tiny() -> tuple:
    """The default study."""
    study = check(yaml.safe_load((ROOT / "config.yaml").read_text()), [])
    return study, cells(study)


def test_a_copy_of_a_dataset_is_an_input_and_a_dataset_on_the_hub_is_none(tmp_path):
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    for path, listed in (
        (tmp_path, {"task-minimal_pairs": tmp_path, "task-perplexity": tmp_path}),
        ("someone/pairs", {}),
        (None, {}),
    ):
        for section in ("minimal_pairs", "perplexity"):
            raw["evaluation"][section] |= {"source": "hub", "path": path and str(path)}
        assert user_places(check(raw, [])) == listed


def test_the_text_of_settings_does_not_depend_on_the_library_that_writes_it():
    for settings in (tiny()[0], *tiny()[1].values()):
        assert as_yaml(settings) == yaml.safe_dump(settings.model_dump(), sort_keys=False)
        assert type(settings).model_validate(yaml.safe_load(as_yaml(settings))) == settings


def test_staged_files_are_newer_than_what_they_replace_even_when_the_clock_is_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study, chosen = tiny()
    files = settings_files(study, chosen, experiments_of(study))
    name, place = next(iter(chosen)), tmp_path / "results/settings/data.yaml"
    stage(study, files, Path("results"))
    kept = staged(f"cells/{name}/config.yaml").read_bytes()
    assert Cell.model_validate(yaml.safe_load(kept)) == chosen[name]
    stage(study, files, Path("results"))
    assert staged(f"cells/{name}/config.yaml").read_bytes() == kept, "what is there is not written twice"
    place.parent.mkdir(parents=True)
    place.write_text("other: settings\n")
    ahead = time.time_ns() + 10**12
    os.utime(place, ns=(ahead, ahead))
    stage(study, files, Path("results"))
    assert staged("settings/data.yaml").stat().st_mtime_ns > ahead
    place.write_text(as_yaml(study.data))
    os.utime(place, ns=(1, 1))
    stage(study, files, Path("results"))
    assert staged("settings/data.yaml").stat().st_mtime_ns == 1, "what holds already is not written again"
    kept = staged("settings/data.yaml").read_bytes()
    for time_ns in (0, 2):  # another study's file is put there, with its time, once and again
        place.write_text("other: settings\n")
        os.utime(place, ns=(time_ns, time_ns))
        stage(study, files, Path("results"))
        assert (
            staged("settings/data.yaml").read_bytes() != kept
            and staged("settings/data.yaml").stat().st_mtime_ns > ahead // 2
        )
        kept = staged("settings/data.yaml").read_bytes()
        place.write_text(as_yaml(study.data))
        stage(study, files, Path("results"))


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
