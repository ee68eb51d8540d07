"""Files written through temporary names have the permissions that the umask gives, and words in tables stay words."""

import os
import stat

import numpy as np
import pandas as pd
import pytest
import torch
from relora_study.storage.files import read_csv, write_csv, write_folder_whole, write_text, write_whole
from safetensors.torch import save_file


@pytest.fixture(params=[0o027, 0o002, 0o077, 0o022], ids=oct)
def expected(request):
    """The permissions of a new file under a umask, which holds while the test runs."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_of_a_folder_get_the_umasks_permissions_whoever_writes_them(tmp_path, expected):
    def fill(place):
        save_file({"w": torch.zeros(3)}, place / "model.safetensors")
        (place / "closed.txt").touch(mode=0o600)
        (place / "open.txt").touch(mode=0o777)

    write_folder_whole(tmp_path / "step", fill)
    assert {path.name: mode(path) for path in (tmp_path / "step").iterdir()} == dict.fromkeys(
        ["model.safetensors", "closed.txt", "open.txt"], expected
    )
    assert mode(tmp_path / "step") == expected | (expected & 0o444) >> 2


def test_single_files_do_too(tmp_path, expected):
    write_whole(tmp_path / "a.safetensors", lambda path: save_file({"w": torch.zeros(3)}, path))
    write_text(tmp_path / "b.txt", "b")
    assert mode(tmp_path / "a.safetensors") == mode(tmp_path / "b.txt") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.txt"]


@pytest.mark.parametrize("word", ["NA", "null", "None", "nan", "NaN", "n/a", "", "1e5", "a,b", 'a"b', "é", " x "])
def test_a_word_in_a_table_comes_back_as_it_was_and_a_missing_value_is_missing(tmp_path, word):
    table = pd.DataFrame({"item": [word, "other"], "value": [np.nan, 0.5]})
    write_csv(tmp_path / "a.csv", table)
    found = read_csv(tmp_path / "a.csv")
    assert found.item.tolist() == [word, "other"]
    assert np.isnan(found.value[0]) and found.value[1] == 0.5
