"""A changed setting or file of the user is noticed, whatever Snakemake notes and triggers; an unchanged one is not."""

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from studies import ODD, snakemake

ROOT = Path(__file__).parents[2]
TRAINED = "results/cells/tiny-full-s1/manifest.json"


def planned(folder: Path, *arguments: str, target: str = TRAINED) -> set[str]:
    """The rules of which a run would start jobs to make ``target``."""
    done = snakemake(folder, "--dry-run", *arguments, "--", target)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"^(\w+) +\d+$", done.stdout.partition("Job stats:")[2], re.MULTILINE)) - {"total"}


@pytest.fixture
def copy(study, tmp_path):
    """A copy of the study as it was made, with its times, for a test to change; its corpus has odd names."""
    return shutil.copytree(study.parent / "untouched", tmp_path / "study")


MTIME = ("--rerun-triggers", "mtime")


@pytest.mark.end_to_end
@pytest.mark.parametrize(("triggers", "notes"), [((), "kept"), (MTIME, "kept"), ((), "deleted")])
def test_what_did_not_change_is_not_run_again(copy, triggers, notes):
    if notes == "deleted":
        shutil.rmtree(copy / ".snakemake")
    assert planned(copy, *triggers) == set()
    assert planned(copy, *triggers) == set(), "nor after a dry run"


@pytest.mark.long
@pytest.mark.end_to_end
@pytest.mark.parametrize(("triggers", "notes"), [((), "kept"), (MTIME, "kept"), ((), "deleted")])
def test_a_changed_setting_trains_again(copy, triggers, notes):
    if notes == "deleted":
        shutil.rmtree(copy / ".snakemake")
    longer = ("--config", "train={steps: 30}")
    assert planned(copy, *triggers, *longer) == {"settings", "enough", "pretrain"}
    assert planned(copy, *triggers) == set(), "a dry run changes no result"
    done = snakemake(copy, *triggers, *longer, "--", TRAINED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert yaml.safe_load((copy / TRAINED).read_text())["steps"] == 30
    assert planned(copy, *triggers, *longer) == set()


@pytest.mark.end_to_end
def test_a_run_that_was_stopped_before_it_trained_is_made_up_for_where_a_check_is_made_again(copy):
    """The check is `ancient` for what is trained, and behind a job that runs Snakemake reads no other reason."""
    longer = ("--config", "train={steps: 30}")
    assert snakemake(copy, *longer, "--until", "settings", "--", TRAINED).returncode == 0
    assert planned(copy, *longer) == {"enough", "pretrain"}
    assert planned(copy, *longer, "--forcerun", "task") == {"enough", "pretrain", "task"}


@pytest.mark.end_to_end
def test_a_new_cell_trains_where_a_check_before_training_is_made_again(copy):
    changes = ("--config", "study={seeds: [2]}", "train={steps: 30}")
    new = TRAINED.replace("s1", "s2")
    assert planned(copy, *changes, target=new) == {"settings", "enough", "pretrain"}


# Texts are read again with a new tokenizer: where they are ids, they are held to its vocabulary.
OF_TOKENS = {"tokenizer", "tokens", "enough", "task", "settings"}


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ("model={vocab_size: 399}", {*OF_TOKENS, "pretrain"}),
        ("data={held_out_fraction: 0.3}", {*OF_TOKENS, "documents", "pretrain"}),
    ],
)
def test_a_changed_setting_reruns_what_reads_it_by_times_alone(copy, change, rules):
    assert planned(copy, *MTIME, "--config", change) - {"fetch"} == rules


@pytest.mark.end_to_end
def test_settings_that_another_put_there_are_replaced(copy):
    """Snakemake's notes say that nothing changed since the last run; the file says otherwise."""
    place = copy / "results/cells/tiny-full-s1/config.yaml"
    place.write_text(place.read_text().replace("steps: 20", "steps: 10"))
    assert planned(copy) == planned(copy, *MTIME) == {"settings", "pretrain"}


@pytest.mark.long
@pytest.mark.end_to_end
def test_changes_of_files_with_odd_names_are_read(copy):
    """One after the other; `--touch` takes the results for made from what the listings say now."""
    files = [copy / "corpus/letters" / name for name in ODD[:2]]
    for change in (lambda: files[0].write_text("another text"), files[1].unlink):
        change()
        assert planned(copy, *MTIME) >= {"documents", "tokens", "pretrain"}
        for accept in (("--until", "settings"), ("--touch",)):
            assert snakemake(copy, *accept, "--", TRAINED).returncode == 0
        assert planned(copy, *MTIME) == set()


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", ["new.txt", "0.txt"])
def test_a_file_that_is_older_than_the_results_is_noticed(copy, name):
    file = copy / "corpus/letters" / name
    file.write_text("an old letter that was copied with its time")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert "documents" in planned(copy, *MTIME)


@pytest.mark.end_to_end
def test_a_folder_with_an_odd_name_is_read(copy):
    place = "corpora/{plain} <two>"
    (copy / "corpora").mkdir()
    (copy / "corpus").rename(copy / place)
    assert "documents" in planned(copy, *MTIME, "--config", f'data={{files: {{path: "{place}"}}}}')
