"""What the start of a run knows: settings, code and the user's files, as texts."""

import os
import time
from types import SimpleNamespace

import jinja2
import pytest
import yaml
from relora_study.config import Cell, cells, check
from relora_study.config.settings import as_yaml, experiments_of
from relora_study.session.start import (
    STAGES,
    TEMPLATE,
    code_listing,
    files_listing,
    files_with_status,
    holds,
    renew_template,
    texts_at_start,
    user_places,
)
from relora_study.storage.hashes import PACKAGE
from studies import ODD, ROOT


@pytest.mark.parametrize("name", ODD)
def test_a_change_of_a_file_with_any_name_changes_the_listing(tmp_path, name):
    file = tmp_path / "corpus" / name
    file.parent.mkdir()
    file.write_text("one")
    texts = []
    for change in (lambda: None, lambda: file.write_text("three"), lambda: os.utime(file, (5, 5)), file.unlink):
        change()
        texts.append(files_listing(file.parent))
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


def test_a_file_holds_its_text_or_does_not(tmp_path):
    path = tmp_path / "data.yaml"
    assert not holds(path, "a: 1\n")
    path.write_text("a: 1\n")
    assert holds(path, "a: 1\n") and not holds(path, "a: 2\n")


def test_each_start_has_a_newer_template_with_another_hash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    for _ in range(2):
        renew_template()
        seen.append((TEMPLATE.stat().st_mtime_ns, TEMPLATE.read_text()))
        time.sleep(0.02)
    assert seen[0][0] < seen[1][0] and seen[0][1] != seen[1][1]
    text = "a: '{{ b }}'\n# {% c %}\n"
    assert jinja2.Template(seen[1][1]).render(params=SimpleNamespace(text=text)) == text


def test_the_start_knows_the_settings_of_all_stages_and_cells(tmp_path):
    study, chosen = tiny()
    texts = texts_at_start(study, chosen, experiments_of(study))
    name = next(iter(chosen))
    assert Cell.model_validate(yaml.safe_load(texts[f"cells/{name}/config.yaml"]())) == chosen[name]
    assert yaml.safe_load(texts["settings/whole.yaml"]()) == study.model_dump()


def test_linked_folders_are_listed_once_and_a_circle_of_links_ends(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/text.txt").write_text("text")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "corpus")
    assert [path.name for path, _ in files_with_status(tmp_path / "corpus")] == ["text.txt"]


def test_code_is_listed_by_content_and_not_by_time():
    """A stage lists what it imports, and training is no stage whose change runs again."""
    before = code_listing("data")
    os.utime(PACKAGE / "data" / "__main__.py")
    assert code_listing("data") == before and "data/__main__.py" in before and "train/" not in before
    assert "train" not in STAGES
