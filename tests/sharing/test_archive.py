"""Packing results for others: what is in it, the same bytes each time, and nothing taken from a damaged one."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from archives import CELL, OWN, SHARED, configure, manifest, packed
from relora_study.errors import UserError
from relora_study.sharing.archive import CODE, HASHES, METADATA, _packed, _read, _sha256, unpack


def test_an_archive_holds_what_the_report_needs_and_nothing_large_or_foreign(results):
    with tarfile.open(packed(results)) as archive:
        names = archive.getnames()
        environment = archive.extractfile("archive/environment.txt").read().decode()
    extra = ["logs/pretrain/tiny-full-s1.log", "archive/environment.txt", "archive/corpus.json", HASHES, METADATA]
    assert {name for name in names if not name.startswith(CODE)} == {
        *SHARED,
        *(f"{CELL}/{name}" for name in OWN),
        *extra,
    }
    assert len(names) == len(set(names))
    held = {name.removeprefix(f"{CODE}/") for name in names}
    assert {"Snakefile", "workflow/rules/archive.smk", "workflow/relora_study/version.py", "LICENSE"} <= held
    assert "torch==" in environment and "# Python 3" in environment


def test_an_archive_holds_the_cells_of_sweeps_and_the_candidates_of_searches(results):
    space = {"grid": {"learning_rate": [1.0e-3, 2.0e-3]}}
    configure(
        results,
        sweeps={"rates": {"space": space}},
        tuning={"space": space, "rungs": [10, 20], "seeds": [0]},
        data={"validation_fraction": 0.1},
    )
    swept = [f"cells/tiny-full+learning_rate={rate}-s1" for rate in ("0.001", "0.002")]
    held = [
        f"{cell}/{name}" for cell in swept for name in ("config.yaml", "manifest.json", "held_out.csv", "timing.csv")
    ]
    search, candidate = "tuning/tiny-full", "tiny-full+learning_rate=0.001-s0"
    held += ["tuning/base/tiny-full-s1.yaml", f"{search}/settings.yaml", f"{search}/rung-0.csv"]
    held += [f"{search}/{candidate}/{name}" for name in ("config.yaml", "rung-0.json", "timing.csv")]
    left = [f"{swept[0]}/checkpoints/step-000020/model.safetensors", f"{search}/{candidate}/state/state.json"]
    for name in (*held, *left):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text(manifest(cell=name).model_dump_json() if "manifest" in name else name)
    with tarfile.open(packed(results)) as archive:
        names = archive.getnames()
    assert set(held) <= set(names) and not set(left) & set(names) and len(names) == len(set(names))


def test_the_same_results_give_the_same_bytes(results):
    first = packed(results).read_bytes()
    for file in results.rglob("*"):
        os.utime(file, (1, 1))
        file.chmod(0o700)
    assert packed(results).read_bytes() == first


def test_what_is_unpacked_is_what_was_packed_and_its_hashes_are_those_of_sha256sum(results, tmp_path):
    clone = tmp_path / "clone" / "results"
    unpack(packed(results), clone)
    for name in (*SHARED, *(f"{CELL}/{name}" for name in OWN)):
        assert (clone / name).read_bytes() == (results / name).read_bytes()
    assert subprocess.run(["sha256sum", "--check", "--quiet", HASHES], cwd=clone).returncode == 0
    assert len({file.stat().st_mtime_ns for file in clone.rglob("*") if file.is_file()}) == 1
    with pytest.raises(UserError, match="holds cells; unpack into a fresh clone"):
        unpack(packed(results), clone)


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        return {name: opened.extractfile(name).read() for name in opened.getnames()}


def outside(found: dict[str, bytes]) -> None:
    found["../evil"] = b"x"
    found[HASHES] += f"{_sha256(b'x')}  ../evil\n".encode()


DAMAGE = {
    "changed": lambda found: found.update({"tables/final.csv": b"better numbers"}),
    "added": lambda found: found.update({"tables/more.csv": b"x"}),
    "missing": lambda found: found.pop("tables/final.csv"),
    "outside": outside,
    "without hashes": lambda found: found.pop(HASHES),
    "a line of one word": lambda found: found.update({HASHES: found[HASHES] + b"oneword\n"}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_is_taken_from_an_archive_that_is_not_as_it_was(results, tmp_path, damage):
    archive = packed(results)
    found = contents(archive)
    DAMAGE[damage](found)
    archive.write_bytes(_packed(found))
    clone = tmp_path / "clone" / "results"
    with pytest.raises(UserError, match="fetch it again"):
        unpack(archive, clone)
    assert not clone.exists() and not (tmp_path / "clone" / "evil").exists()


def with_hashes(found: dict[str, bytes]) -> bytes:
    """The archive of files that nobody changed on the way."""
    lines = [f"{_sha256(content)}  {name}\n" for name, content in sorted(found.items()) if name != HASHES]
    return _packed(found | {HASHES: "".join(lines).encode()})


def test_a_byte_that_changed_on_the_way_is_one_line_or_changes_nothing(tmp_path):
    """Any byte: of the compression, of an entry's head, of a content."""
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(with_hashes({"paper.pdf": b"a paper", "tables/final.csv": b"numbers"}))
    whole, found, refused = archive.read_bytes(), _read(archive), 0
    for place in range(len(whole)):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert _read(archive) == found
        except UserError as error:
            assert "fetch it again" in str(error)
            refused += 1
    assert refused > len(whole) / 2


def test_what_the_disk_refuses_leaves_nothing_and_the_next_try_goes_on(results, tmp_path):
    """A name that is too long here is the last but the hashes."""
    archive, clone = packed(results), tmp_path / "clone" / "results"
    found = contents(archive)
    whole = archive.read_bytes()
    archive.write_bytes(with_hashes(found | {f"tables/{'n' * 300}.csv": b"x"}))
    for _ in range(2):
        with pytest.raises(OSError, match="File name too long"):
            unpack(archive, clone)
        assert list(clone.iterdir()) == []
    archive.write_bytes(whole)
    unpack(archive, clone)
    assert not list(clone.glob(".unpacking-*"))


def test_half_a_download_is_one_line(results, tmp_path):
    archive = packed(results)
    archive.write_bytes(archive.read_bytes()[:300])
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "workflow")}
    command = [sys.executable, "-m", "relora_study.sharing.archive", "unpack", archive, "--results", tmp_path / "clone"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "is not a whole archive" in done.stderr
