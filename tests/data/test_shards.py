"""Shards of token ids: found or downloaded, vouched for, and converted in their published order."""

import copy
import hashlib
import json
import re
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from relora_study.config import Data
from relora_study.data import convert as conversion
from relora_study.data import shards as finding
from relora_study.data.__main__ import app
from relora_study.data.shards import shard_name
from relora_study.data.tokenizer import train_tokenizer
from relora_study.data.tokens import open_tokens, row
from relora_study.errors import UserError
from relora_study.storage.contracts import read_manifest
from relora_study.storage.files import sha256
from typer.testing import CliRunner

CONTEXT, ROWS, VOCABULARY = 16, 40, 300
REVISION, OTHER = "a" * 40, "b" * 40


def run(*arguments) -> None:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception:
        raise done.exception


@pytest.fixture
def settings(raw, tmp_path):
    """The data section of three training shards and a held-out one, with any key of `hub_pretokenized` changed."""

    def make(**changes) -> Data:
        data = copy.deepcopy(raw["data"]) | {"source": "hub_pretokenized"}
        data["tokenizer"] = {"source": "path", "name": "anywhere"}
        data["hub_pretokenized"] |= {"rows_per_shard": ROWS, "first_shard": 8, "shards": 3, "held_out_shard": 2}
        data["hub_pretokenized"] |= {"path": str(tmp_path / "copy"), **changes}
        return Data.model_validate(data)

    return make


def ids_of(number: int) -> np.ndarray:
    """What shard ``number`` holds, longer than the context by a few ids."""
    return np.random.default_rng(number).integers(0, VOCABULARY, (ROWS, CONTEXT + 4))


def write_shard(folder: Path, number: int, rows=None, kind=None) -> Path:
    path = folder / f"data/train-{number:05d}-of-10000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ids_of(number).tolist() if rows is None else rows
    pq.write_table(pa.table({"input_ids": pa.array(rows, kind or pa.list_(pa.int32()))}), path, row_group_size=16)
    return path


@pytest.fixture
def local(tmp_path):
    for number in (2, 8, 9, 10):
        write_shard(tmp_path / "copy", number)
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["the law was new"] * 3, VOCABULARY).save_pretrained(folder)
    return folder


@pytest.fixture
def prepare(tmp_path, tokenizer):
    """Run both commands on a data section; the folder of tokens."""

    def prepare(data: Data) -> Path:
        shape = {"context_length": CONTEXT, "vocab_size": VOCABULARY}
        (tmp_path / "tokens.yaml").write_text(yaml.safe_dump(data.model_dump() | shape))
        common = ("--settings", tmp_path / "tokens.yaml", "--threads", 2)
        listed = tmp_path / "shards.json"
        run("shards", *common, "--folder", tmp_path / "shards", "--output", listed)
        places = ("--shards", listed, "--tokenizer", tokenizer, "--output", tmp_path / "tokens")
        run("convert", *common, *places)
        return tmp_path / "tokens"

    return prepare


def assert_published_order(tokens: Path) -> None:
    """Rows 0, 1, ... are those of shards 8, 9, 10, cut to what a context predicts."""
    ids, expected = open_tokens(tokens, "train"), np.concatenate([ids_of(n) for n in (8, 9, 10)])[:, : CONTEXT + 1]
    assert isinstance(ids, np.memmap) and len(ids) == expected.size
    for index, wanted in enumerate(expected):
        assert row(ids, index, CONTEXT).tolist() == wanted.tolist()
    assert open_tokens(tokens, "held_out").tolist() == ids_of(2)[:, : CONTEXT + 1].ravel().tolist()


def test_a_local_copy_becomes_rows_in_the_published_order(local, settings, prepare):
    tokens = prepare(settings())
    assert_published_order(tokens)
    manifest = read_manifest(tokens)
    assert manifest.dtype == "uint16" and manifest.train.sha256 == sha256(tokens / "train.bin")
    assert manifest.held_out.sha256 == sha256(tokens / "held_out.bin")
    table = pd.read_csv(tokens / "train.csv")
    assert table.first_row.tolist() == [0, ROWS, 2 * ROWS]
    assert table.sha256.tolist() == [sha256(local / name) for name in table.shard]


KINDS = [pa.list_(pa.int64()), pa.large_list(pa.uint16()), pa.list_(pa.int32(), CONTEXT + 4)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_any_lists_of_integers_are_read(local, settings, prepare, kind):
    for number in (2, 8, 9, 10):
        write_shard(local, number, kind=kind)
    assert_published_order(prepare(settings()))


def test_rows_of_different_lengths_are_cut(local, settings, prepare):
    rows = [row[: CONTEXT + 1 + index % 4] for index, row in enumerate(ids_of(9).tolist())]
    write_shard(local, 9, rows)
    assert_published_order(prepare(settings()))


def damage(row: int, change) -> list:
    rows = ids_of(9).tolist()
    rows[row] = change(rows[row])
    return rows


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        (damage(33, lambda ids: [*ids[:5], VOCABULARY, *ids[6:]]), None, "row 33: id 300 at position 5 is not below"),
        (damage(21, lambda ids: [-1, *ids[1:]]), None, "row 21: id -1 at position 0"),
        (damage(7, lambda ids: [None, *ids[1:]]), None, "row 7: id -1 at position 0"),
        (damage(39, lambda ids: ids[:CONTEXT]), None, "row 39: 16 ids, fewer than context_length \\+ 1 = 17"),
        (damage(0, lambda _: None), None, "row 0: 0 ids"),
        (ids_of(9).tolist()[:-1], None, "39 rows, not data.hub_pretokenized.rows_per_shard 40"),
        (ids_of(9).tolist(), pa.list_(pa.float32()), "not lists of integers"),
        (ids_of(9)[:, 0].tolist(), pa.int32(), "not lists of integers"),
    ],
)
def test_a_bad_shard_is_named_with_its_row(local, settings, prepare, tmp_path, rows, kind, message):
    write_shard(local, 9, rows, kind)
    with pytest.raises(UserError, match=message) as error:
        prepare(settings())
    assert "train-00009-of-10000.parquet" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "tokens/train.bin").exists() and not (tmp_path / "tokens/manifest.json").exists()


def test_ids_beyond_the_context_are_not_judged(local, settings, prepare):
    write_shard(local, 9, damage(3, lambda ids: [*ids[:-1], 10**6]))
    assert_published_order(prepare(settings()))


def test_another_column_is_named(local, settings, prepare):
    with pytest.raises(UserError, match=r"train-00008-of-10000.parquet has no column 'ids'.*input_ids"):
        prepare(settings(column="ids"))


def test_a_missing_shard_is_named(local, settings, prepare):
    (local / shard_name(settings().hub_pretokenized, 10)).unlink()
    with pytest.raises(UserError, match=r"lacks shard data/train-00010-of-10000\.parquet"):
        prepare(settings())


def test_half_a_shard_is_no_shard(local, settings, prepare):
    file = local / shard_name(settings().hub_pretokenized, 9)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"train-00009-of-10000\.parquet is not a whole Parquet file"):
        prepare(settings())


def test_an_interrupted_conversion_leaves_nothing_that_passes_for_whole(local, settings, prepare, monkeypatch):
    tokens = prepare(settings())
    real, calls = conversion._checked, []

    def cut_off(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(conversion, "_checked", cut_off)
    with pytest.raises(BaseException):  # noqa: B017 - click turns an interrupt into its own
        prepare(settings())
    with pytest.raises(UserError, match=r"manifest\.json cannot be read"):
        open_tokens(tokens, "train")
    monkeypatch.setattr(conversion, "_checked", real)
    assert_published_order(prepare(settings()))


@pytest.mark.parametrize("command", ["shards", "convert"])
def test_no_room_is_said_before_any_work(hub, settings, prepare, monkeypatch, tmp_path, command):
    usage = namedtuple("usage", "total used free")
    free = 1000 if command == "shards" else 2 * ROWS * (CONTEXT + 1)
    monkeypatch.setattr("relora_study.storage.files.shutil.disk_usage", lambda _: usage(0, 0, free))
    with pytest.raises(UserError, match="GB are free; make room first"):
        prepare(settings(path=None, revision=REVISION) if command == "shards" else settings())
    assert not list(tmp_path.rglob("shards/data/*")) and not (tmp_path / "tokens/train.bin").exists()


class Hub(BaseHTTPRequestHandler):
    """The three addresses of the Hub that a download asks for, over the shards of a folder."""

    folder: Path
    requests: list
    lies: dict  # path -> the hash that the Hub gives instead of the true one
    cut: set  # paths of which half is sent, once

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.requests.append((self.command, self.path, self.headers.get("Range")))
        if re.fullmatch(r"/api/datasets/pico-lm/pretokenized-dolma", self.path):
            self._json({"id": "pico-lm/pretokenized-dolma", "sha": REVISION, "private": False, "downloads": 0})
        elif found := re.match(r"/api/datasets/pico-lm/pretokenized-dolma/tree/(\w+)/data", self.path):
            self._json(self._tree()) if found[1] == REVISION else self._missing("RevisionNotFound")
        else:
            self._file(self.path.partition(f"/resolve/{REVISION}/")[2])

    def _tree(self):
        paths = sorted((self.folder / "data").iterdir())
        entries = [(f"data/{path.name}", path.stat().st_size, self._hash(f"data/{path.name}")) for path in paths]
        return [
            {"type": "file", "path": path, "size": size, "oid": "0" * 40}
            | {"lfs": {"oid": digest, "size": size, "pointerSize": 130}}
            for path, size, digest in entries
        ]

    def _hash(self, name):
        return self.lies.get(name) or hashlib.sha256((self.folder / name).read_bytes()).hexdigest()

    def _file(self, name):
        content = (self.folder / name).read_bytes()
        start = int(re.search(r"\d+", self.headers.get("Range") or "0")[0])
        part = content[start:] if self.command == "GET" else content
        self.send_response(206 if start else 200)
        headers = {"X-Repo-Commit": REVISION, "X-Linked-Etag": f'"{self._hash(name)}"', "ETag": '"x"'}
        headers |= {"X-Linked-Size": len(content), "Content-Length": len(part), "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            cut = name in self.cut and not self.cut.discard(name)
            self.wfile.write(part[: len(part) // 2] if cut else part)
            self.close_connection = cut or self.close_connection

    def _json(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _missing(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(local, monkeypatch):
    """The real client of the Hub, against a server on this machine that holds the local copy's shards."""
    handler = type("Handler", (Hub,), {"folder": local, "requests": [], "lies": {}, "cut": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(handler) -> list[str]:
    """The shards whose content was asked for, in order."""
    return [path[-27:] for command, path, _ in handler.requests if command == "GET" and "/resolve/" in path]


def test_a_download_brings_the_range_and_nothing_else(hub, local, settings, prepare, tmp_path):
    write_shard(local, 11)
    assert_published_order(prepare(settings(path=None, revision=REVISION)))
    assert sorted(fetched(hub)) == [f"rain-{number:05d}-of-10000.parquet" for number in (2, 8, 9, 10)]
    assert read_manifest(tmp_path / "tokens").revision == REVISION


def test_a_second_run_downloads_nothing_and_a_longer_one_only_more(hub, local, settings, prepare):
    write_shard(local, 11)
    prepare(settings(path=None, revision=REVISION))
    hub.requests.clear()
    prepare(settings(path=None, revision=REVISION))
    assert fetched(hub) == []
    prepare(settings(path=None, revision=REVISION, shards=4))
    assert fetched(hub) == ["rain-00011-of-10000.parquet"]


def test_what_was_downloaded_is_a_local_copy(hub, local, settings, prepare, tmp_path):
    prepare(settings(path=None, revision=REVISION))
    downloaded = str(tmp_path / "shards")
    assert_published_order(prepare(settings(path=downloaded, revision=REVISION)))
    with pytest.raises(UserError, match=f"revision {REVISION}, and data.hub_pretokenized.revision is {OTHER}"):
        prepare(settings(path=downloaded, revision=OTHER))
    file = tmp_path / "shards/data/train-00009-of-10000.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=rf"{file.name} has {len(whole) - 1} bytes, not the {len(whole)}"):
        prepare(settings(path=downloaded, revision=REVISION))
    file.write_bytes(whole[:-1] + b"x")
    with pytest.raises(UserError, match=rf"{file.name} has sha256"):
        prepare(settings(path=downloaded, revision=REVISION))


def test_a_damaged_download_is_fetched_again(hub, settings, prepare, tmp_path):
    prepare(settings(path=None, revision=REVISION))
    file = tmp_path / "shards/data/train-00009-of-10000.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    hub.requests.clear()
    assert_published_order(prepare(settings(path=None, revision=REVISION)))
    assert fetched(hub) == ["rain-00009-of-10000.parquet"]


def test_a_hash_that_is_not_the_hubs_is_refused(hub, settings, prepare):
    hub.lies["data/train-00009-of-10000.parquet"] = "0" * 64
    with pytest.raises(UserError, match=rf"train-00009-of-10000\.parquet has sha256 \w+, not {'0' * 64}"):
        prepare(settings(path=None, revision=REVISION))


def test_a_download_that_was_cut_off_goes_on(hub, settings, prepare, monkeypatch):
    name = "data/train-00009-of-10000.parquet"
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 512)
    hub.cut.add(name)
    assert_published_order(prepare(settings(path=None, revision=REVISION)))
    ranges = [asked for command, path, asked in hub.requests if command == "GET" and path.endswith(name)]
    assert len(ranges) == 2 and ranges[0] is None and re.fullmatch(r"bytes=[1-9]\d*-", ranges[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": None}, f"data.hub_pretokenized.revision must be a commit; the newest .* is {REVISION}"),
        ({"revision": OTHER}, f"cannot list pico-lm/pretokenized-dolma at revision {OTHER}"),
        ({"shards": 5}, r"no shard data/train-00011-of-10000\.parquet"),
    ],
)
def test_what_the_hub_lacks_is_named(hub, settings, prepare, changes, message):
    with pytest.raises(UserError, match=message) as error:
        prepare(settings(**{"path": None, "revision": REVISION, **changes}))
    assert "\n" not in str(error.value)


def test_a_changed_revision_is_refused_beside_the_old_ones_shards(hub, settings, prepare):
    prepare(settings(path=None, revision=REVISION))
    with pytest.raises(UserError, match=f"holds shards of revision {REVISION}, and .*revision is {OTHER}"):
        prepare(settings(path=None, revision=OTHER))


@pytest.mark.long
def test_without_network_the_address_is_named(settings, prepare, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot list pico-lm/pretokenized-dolma .*check data\.hub_pretokenized"):
        prepare(settings(path=None, revision=REVISION))


def test_memory_does_not_grow_with_a_shard(tmp_path):
    """Rows are read a batch at a time: what Arrow holds at most is far less than the shard's ids."""
    count, length = 12_000, 257
    rows = conversion.ShardLayout("input_ids", count, length, VOCABULARY, "uint16")
    ids = np.random.default_rng(0).integers(0, VOCABULARY, count * length)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(ids, pa.int32()), length)
    pq.write_table(pa.table({"input_ids": lists}), tmp_path / "big.parquet", row_group_size=1000)
    del lists
    before, most, read = pa.total_allocated_bytes(), 0, 0
    with (tmp_path / "big.parquet").open("rb") as shard:
        for batch in conversion.read_rows(shard, "big", rows):
            most, read = max(most, pa.total_allocated_bytes() - before), read + len(batch)
    assert read == count and most < count * length * 4 / 3


def test_an_error_leaves_later_shards_undone():
    done = []

    def work(number: int) -> int:
        if number == 0:
            raise UserError("the first")
        done.append(number)
        return number

    with pytest.raises(UserError):
        finding.in_parallel(work, range(500), 1, "")
    assert len(done) < 500
    assert finding.in_parallel(lambda number: number * 2, range(50), 4, "") == list(range(0, 100, 2))
