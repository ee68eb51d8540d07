"""A machine reads a large file once for its hash, and again after any change that its size, times or inode show."""

import os
from pathlib import Path

import pytest
from relora_study.storage import hashes
from relora_study.storage.files import sha256
from relora_study.storage.hashes import has_sha256


@pytest.fixture
def reads(monkeypatch, tmp_path) -> list[Path]:
    """The files that were read for their hash, on a machine where every file counts as large."""
    read = []

    def counted(path: Path) -> str:
        read.append(path)
        return sha256(path)

    monkeypatch.setattr(hashes, "REMEMBERED_FROM", 0)
    monkeypatch.setattr(hashes, "sha256", counted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return read


@pytest.fixture
def file(tmp_path) -> Path:
    """A file that nobody changed in the last minutes."""
    path = tmp_path / "train.bin"
    path.write_bytes(b"ids")
    age(path)
    return path


def age(path: Path, seconds: int = 1000) -> None:
    """Give the file a time of modification that is long ago."""
    then = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(then, then))


def test_a_large_file_is_read_once(reads, file):
    expected = sha256(file)
    assert [has_sha256(file, expected) for _ in range(3)] == [True] * 3
    assert reads == [file]


def test_a_file_of_a_second_is_read_each_time(reads, file, monkeypatch, tmp_path):
    monkeypatch.setattr(hashes, "REMEMBERED_FROM", 4)
    expected = sha256(file)
    assert has_sha256(file, expected) and has_sha256(file, expected)
    assert len(reads) == 2 and not (tmp_path / "cache").exists()


def another_time(file: Path) -> None:
    age(file)


def another_size(file: Path) -> None:
    before = file.stat()
    file.write_bytes(b"more ids")
    os.utime(file, ns=(before.st_mtime_ns, before.st_mtime_ns))


def another_inode(file: Path) -> None:
    before = file.stat()
    file.rename(file.with_name("old"))
    file.write_bytes(b"idz")
    os.utime(file, ns=(before.st_mtime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [another_time, another_size, another_inode])
def test_a_changed_file_is_read_again(reads, file, change):
    expected = sha256(file)
    assert has_sha256(file, expected)
    change(file)
    assert has_sha256(file, expected) == (sha256(file) == expected)
    assert reads == [file, file]


def test_another_machine_with_the_same_home_reads_the_file_itself(reads, file, monkeypatch):
    expected = sha256(file)
    for name in ("one", "two", "one"):
        monkeypatch.setattr(hashes.platform, "node", lambda name=name: name)
        assert has_sha256(file, expected)
    assert len(reads) == 2


def test_a_wrong_hash_is_wrong_each_time(reads, file):
    assert has_sha256(file, sha256(file))
    assert not has_sha256(file, "0" * 64) and not has_sha256(file, "0" * 64)
    assert len(reads) == 3


def test_a_file_that_was_just_written_is_not_remembered(reads, file):
    expected = sha256(file)
    file.touch()
    assert has_sha256(file, expected) and has_sha256(file, expected)
    assert len(reads) == 2


@pytest.mark.parametrize("damage", [b"", b"\xff\x00", b"{}", None])
def test_a_damaged_memory_costs_one_reading(reads, file, tmp_path, damage):
    expected = sha256(file)
    assert has_sha256(file, expected)
    (memory,) = (tmp_path / "cache").rglob("*.json")
    memory.write_bytes(memory.read_bytes().replace(expected[:8].encode(), b"01234567") if damage is None else damage)
    assert has_sha256(file, expected) and has_sha256(file, expected)
    assert len(reads) == 2


@pytest.mark.parametrize("place", ["file", "homeless"])
def test_a_memory_that_cannot_be_written_fails_nothing(reads, file, monkeypatch, tmp_path, place):
    (tmp_path / "cache").write_text("no folder")
    if place == "homeless":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    expected = sha256(file)
    assert has_sha256(file, expected) and has_sha256(file, expected)
    assert len(reads) == 2
