"""Full, read-only and damaged disks: one line with path and remedy, the good state kept, and the next run recovers."""

import errno
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
from relora_study.config.schedule import due_steps
from relora_study.data.tokenizer import train_tokenizer
from relora_study.data.tokens import open_tokens
from relora_study.errors import UserError, refusal
from relora_study.model import checkpoints
from relora_study.model.checkpoints import list_checkpoints
from relora_study.storage.files import write_csv, write_json, write_text
from relora_study.train.log import Log, rows_up_to
from relora_study.train.loop import train

CPU = torch.device("cpu")
AUDIT = ["relora_study.report", "table", "audit", "--published", "--output"]


def files(folder: Path) -> dict[str, bytes]:
    """What must be the same in every run of a cell: its log, its weights, and what they say of themselves."""
    found = [folder / "log.csv", *(folder / "checkpoints").rglob("*.*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}


def fill(disk: Path, leave: int) -> None:
    """Take all but ``leave`` bytes of ``disk``."""
    with (disk / "filler").open("wb") as stream:
        stream.write(b"x" * (shutil.disk_usage(disk).free - leave))


@pytest.mark.parametrize(
    ("recipe", "period", "at", "leave", "named"),
    [
        ({"state_every": 4}, 8, 6, 30_000, "checkpoints/step-000008"),
        ({"state_every": 4, "checkpoint_every": 12}, 8, 6, 30_000, "state/step-000008"),
        ({"state_every": 100, "checkpoint_every": 200, "steps": 300}, 250, 105, 0, "log.csv"),
    ],
)
def test_a_disk_that_fills_while_a_cell_trains(make_cell, batch_of, mount, tmp_path, recipe, period, at, leave, named):
    disk = mount(8_000_000)
    cell = make_cell("relora", train={"checkpoint_offset": 3, **recipe}, reset_period=period)

    def filling(step):
        if step == at:
            fill(disk, leave)
        return batch_of(step)

    with pytest.raises(OSError) as caught:
        train(cell, CPU, filling, disk / "cell")
    said = refusal(caught.value)
    assert caught.value.errno == errno.ENOSPC and "\n" not in said
    assert named in said and "No space left on device" in said and "make room on that disk" in said
    assert not [*(disk / "cell").rglob(".partial*")], "what could not be written whole takes no room"
    kept = max((disk / "cell/state").iterdir())
    assert int(kept.name[-6:]) in (4, 100)
    (disk / "filler").unlink()
    train(cell, CPU, batch_of, disk / "cell")
    train(cell, CPU, batch_of, tmp_path / "whole")
    assert files(disk / "cell") == files(tmp_path / "whole")


@pytest.mark.long
def test_a_file_the_system_refuses_stops_the_trainer_in_one_line(prepare, run):
    whole, arguments = prepare("whole", steps=40)
    assert run(arguments).returncode == 0
    cut, arguments = prepare("cut", steps=40)
    done = run(arguments, limits={resource.RLIMIT_FSIZE: 20_000})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "checkpoints/step-000000" in line and "ulimit -f" in line and "run the same command again" in line
    assert run(arguments).returncode == 0
    assert files(cut) == files(whole)


@pytest.mark.long
def test_a_table_on_a_full_disk_keeps_the_old_one(mount, run):
    disk = mount(100_000)
    assert run([*AUDIT, str(disk / "audit")]).returncode == 0
    before = (disk / "audit.csv").read_bytes()
    fill(disk, 0)
    done = run([*AUDIT, str(disk / "audit")])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "audit.csv: No space left on device; make room on that disk" in done.stderr
    assert (disk / "audit.csv").read_bytes() == before and not [*disk.glob(".partial*")]
    (disk / "filler").unlink()
    assert run([*AUDIT, str(disk / "audit")]).returncode == 0


def test_a_read_only_folder_is_said_in_one_line(mount, run, prepare):
    disk = mount(1_000_000)
    folder, arguments = prepare("cell")
    shutil.copytree(folder, disk / "cell")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    training = [part.replace(str(folder), str(disk / "cell")) for part in arguments]
    for command in ([*AUDIT, str(disk / "audit")], training):
        done = run(command)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert str(disk) in line and ".partial" not in line
        assert "Read-only file system; choose a place that can be written" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions bind all but root")
def test_a_folder_without_permission_is_said_in_one_line(tmp_path, run):
    tmp_path.chmod(0o555)
    done = run([*AUDIT, str(tmp_path / "audit")])
    tmp_path.chmod(0o755)
    assert done.returncode == 1 and "Permission denied; change its permissions" in done.stderr


def test_a_missing_input_is_said_in_one_line(tmp_path, run):
    train_tokenizer(["the law was new"], 290).save_pretrained(tmp_path / "tokenizer")
    places = {"settings": "none.yaml", "documents": "", "tokenizer": "tokenizer", "output": "out"}
    arguments = [part for name, place in places.items() for part in (f"--{name}", tmp_path / place)]
    done = run(["relora_study.evaluate", "collect", "--task", "perplexity", *arguments])
    assert done.returncode == 1 and "none.yaml" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("write", [write_text, write_csv, write_json])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_part(tmp_path, monkeypatch, write):
    contents = {write_text: ("old", "new"), write_json: (1, 2)}.get(write, (pd.DataFrame({"a": [1]}),) * 2)
    write(tmp_path / "file", contents[0])
    before = (tmp_path / "file").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        write(tmp_path / "file", contents[1])
    assert caught.value.filename == str(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_bytes() == before


def test_states_and_checkpoints_are_synced_before_they_get_their_name(make_cell, batch_of, tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def noted(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    train(make_cell("relora"), CPU, batch_of, tmp_path)
    names = {f"{path.parent.name}/{path.name}" for path in synced}
    for folder, content in (
        ("checkpoints", ["model.safetensors", "adapters.safetensors", "config.json", "checkpoint.json"]),
        ("state", ["state.safetensors", "state.json"]),
    ):
        assert f"{tmp_path.name}/{folder}" in names, "the folder, so that the new name lasts"
        for name in content:
            assert f".partial-step-000024/{name}" in names
    assert f"{tmp_path.name}/log.csv" in names, "a state must not outlive the rows of its steps"


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data if how == "flipped" else data[: len(data) // 2])


@pytest.mark.parametrize("name", ["model.safetensors", "adapters.safetensors", "config.json"])
@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted"])
def test_a_damaged_checkpoint_is_found_before_it_is_read_and_trained_again(make_cell, batch_of, tmp_path, name, how):
    cell = make_cell("relora")
    train(cell, CPU, batch_of, tmp_path)
    whole = files(tmp_path)
    assert list(list_checkpoints(tmp_path, due_steps(cell))) == [0, 8, 11, 16, 19, 24]
    file = tmp_path / "checkpoints/step-000016" / name
    file.unlink() if how == "deleted" else damage(file, how)
    with pytest.raises(UserError, match=r"step-000016 is missing or damaged; delete .*manifest\.json and run again"):
        list_checkpoints(tmp_path, due_steps(cell))
    with pytest.warns(UserWarning, match=r"step-000016 is missing or damaged"):
        train(cell, CPU, batch_of, tmp_path)
    assert files(tmp_path) == whole


@pytest.mark.parametrize("deleted", ["log.csv", "checkpoints/step-000016", "checkpoints"])
def test_what_somebody_deleted_is_made_again(make_cell, batch_of, tmp_path, deleted):
    cell = make_cell("full")
    train(cell, CPU, batch_of, tmp_path)
    whole = files(tmp_path)
    path = tmp_path / deleted
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError) if deleted != "log.csv" else pytest.warns(UserWarning, match="of no use"):
        list_checkpoints(tmp_path, due_steps(cell))
        train(cell, CPU, batch_of, tmp_path)
    train(cell, CPU, batch_of, tmp_path)
    assert files(tmp_path) == whole


def test_a_damaged_checkpoint_costs_only_the_steps_behind_the_state_before_it(make_cell, batch_of, tmp_path):
    cell, seen = make_cell("relora", train={"state_every": 20}), []
    train(cell, CPU, batch_of, tmp_path)
    damage(tmp_path / "checkpoints/step-000024/model.safetensors", "flipped")
    with pytest.warns(UserWarning, match="step-000024"):
        train(cell, CPU, lambda step: seen.append(step) or batch_of(step), tmp_path)
    assert seen == [20, 21, 22, 23]


def test_a_row_that_was_cut_off_is_no_row_whatever_it_begins_with(tmp_path):
    rows = [f"{step},0.5" for step in range(1, 101)]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(["step,loss", *rows]) + "\n1")
    assert rows_up_to(log, 1000) == rows
    log.write_text("\n".join(["step,loss", *rows, "10"]))  # of step 101
    assert rows_up_to(log, 1000) == rows
    log.write_text("\n".join(["step,loss", *rows[:50], *rows[51:]]) + "\n")
    assert rows_up_to(log, 1000) == rows[:50], "behind a gap, no row counts"
    Log(log, ["step", "loss"], 20).close()
    assert log.read_text() == "\n".join(["step,loss", *rows[:20]]) + "\n"


def test_a_flipped_byte_of_the_tokens_is_found(prepare, tmp_path):
    prepare("cell")
    damage(tmp_path / "tokens/train.bin", "flipped")
    with pytest.raises(
        UserError, match=r"train\.bin is damaged: its hash differs from its manifest; delete .* run again"
    ):
        open_tokens(tmp_path / "tokens", "train")


def test_other_data_train_anew(make_cell, batch_of, tmp_path):
    cell = make_cell("full")
    train(cell, CPU, batch_of, tmp_path, data="a")
    first = files(tmp_path)
    with pytest.warns(UserWarning, match="superseded-1"):
        train(cell, CPU, lambda step: batch_of(step + 1), tmp_path, data="b")
    assert files(tmp_path / "superseded-1") == first != files(tmp_path)


def test_an_older_state_of_other_settings_is_not_continued_either(make_cell, batch_of, tmp_path):
    train(make_cell("full"), CPU, batch_of, tmp_path)
    (tmp_path / "state/step-000024/state.json").write_text("{")
    other = make_cell("full", train={"eps": 1e-6})
    with pytest.warns(UserWarning, match="superseded-1"):
        train(other, CPU, batch_of, tmp_path)
    train(other, CPU, batch_of, tmp_path / "fresh")
    assert (tmp_path / "log.csv").read_bytes() == (tmp_path / "fresh/log.csv").read_bytes()


def test_weights_are_read_from_safetensors_alone(make_cell, batch_of, tmp_path):
    train(make_cell("full"), CPU, batch_of, tmp_path)
    folder = tmp_path / "checkpoints/step-000024"
    torch.save(checkpoints.load_model(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="not a whole checkpoint"):
        checkpoints.load_model(folder)
