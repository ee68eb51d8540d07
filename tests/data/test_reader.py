"""A user's folder: every file is read once, or passed over by name; nothing is left out silently."""

import gzip
import io
import json

import pandas as pd
import pyarrow as pa
import pytest
from relora_study.data import reader
from relora_study.data.reader import as_text, list_documents, read_documents
from relora_study.errors import UserError


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    return folder


def read(root, column="text"):
    """The documents below `root`: (id, domain, text) each."""
    listing = list_documents(root, "data.files")
    return [(row.id, row.domain, as_text(row, "data.files")) for row in read_documents(listing, column, "data.files")]


def texts(root):
    return sorted(text for _, _, text in read(root))


def refusal(root, column="text"):
    """The one short line with which reading ends."""
    with pytest.raises(UserError) as caught:
        read(root, column)
    line = str(caught.value)
    assert len(line.splitlines()) == 1 and len(line) < 1000
    return line


def packed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def content_of(kind: str, lines: list[str]) -> bytes:
    if kind == ".txt":
        return lines[0].encode()
    if kind == ".jsonl":
        return "\n".join(json.dumps({"text": line}) for line in lines).encode()
    table = io.BytesIO()
    pd.DataFrame({"text": lines}).to_parquet(table)
    return table.getvalue()


@pytest.mark.parametrize("compression", ["", ".gz", ".zst", ".GZ"])
@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".parquet", ".TXT", ".JSONL", ".Parquet"])
def test_every_kind_is_read_plain_or_compressed_in_any_case(root, kind, compression):
    lines = ["one text", "été ☃"]
    content = content_of(kind.lower(), lines)
    (root / f"a{kind}{compression}").write_bytes(packed(content, compression.lower()) if compression else content)
    assert texts(root) == sorted(lines[:1] if kind.lower() == ".txt" else lines)


def test_two_members_in_one_compressed_file_are_both_read(root):
    (root / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n') + gzip.compress(b'{"text": "b"}\n'))
    assert texts(root) == ["a", "b"]


def test_a_linked_folder_is_read_once_and_a_loop_ends(root, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/far.txt").write_text("far")
    (root / "z").mkdir()
    (root / "z/near.txt").write_text("near")
    (root / "a").symlink_to("z")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "z/loop").symlink_to(root)
    (root / "again.txt").symlink_to(root / "z/near.txt")
    assert [row[:2] for row in read(root)] == [("b/far.txt-0", "b"), ("z/near.txt-0", "z")]
    list_documents(root, "data.files").say("data.files")
    said = capsys.readouterr().err
    assert "2 files read, 3 passed over: 3 linked to what is read already (" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("junk", ["._x.txt", ".git/x.txt", ".ipynb_checkpoints/x-checkpoint.txt", "__MACOSX/a/x.txt"])
def test_what_tools_leave_is_passed_over_by_name_and_is_no_domain(root, junk, capsys):
    for place in (junk, f"letters/{junk}", "letters/a.txt"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(place)
    assert read(root) == [("letters/a.txt-0", "letters", "letters/a.txt")]
    list_documents(root, "data.files").say("data.files")
    first = junk.split("/")[0]
    assert f"1 files read, 2 passed over: 2 hidden or left by a tool ({first}, " in capsys.readouterr().err


def test_a_hidden_folder_that_the_user_names_is_read(root):
    (root / ".mine").mkdir()
    (root / ".mine/a.txt").write_text("a")
    assert texts(root / ".mine") == ["a"]


def test_files_of_other_kinds_are_named_with_their_count_and_a_whole_folder_says_nothing(root, capsys):
    (root / "a.txt").write_text("a")
    list_documents(root, "data.files").say("data.files")
    assert capsys.readouterr().err == ""
    for name in ("a.csv", "b.jsonl.xz", "c.json", "d.md"):
        (root / name).write_text("x")
    list_documents(root, "data.files").say("data.files")
    assert capsys.readouterr().err == (
        f"data.files.path: {root}: 1 files read, 4 passed over: 4 of another kind (a.csv, b.jsonl.xz, c.json, ...)\n"
    )


def test_one_file_instead_of_a_folder(root):
    (root / "a.txt").write_text("a")
    assert read(root / "a.txt") == [("a.txt-0", "files", "a")]


def test_a_broken_link_is_named(root):
    (root / "a.txt").write_text("a")
    (root / "b.txt").symlink_to(root / "gone.txt")
    assert "b.txt" in refusal(root) and "cannot read" in refusal(root)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_byte_order_mark_is_no_text(root, name):
    (root / name).write_bytes(b"\xef\xbb\xbf" + content_of("." + name.partition(".")[2], ["text"]))
    assert texts(root) == ["text"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1", "shift-jis"])
def test_another_encoding_is_refused_by_file_with_the_way_out(root, name, encoding):
    line = "日本の法律" if encoding == "shift-jis" else "the café was naïve"
    text = f'{{"text": "{line}"}}\n' if "jsonl" in name else line
    content = text.encode(encoding)
    (root / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    said = refusal(root)
    assert name in said and "iconv -f ENCODING -t UTF-8" in said


def test_utf_16_without_accents_or_a_mark_is_refused_too(root):
    (root / "a.txt").write_bytes("plain words".encode("utf-16-le"))
    assert "NULs, as in UTF-16" in refusal(root)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 3: not JSON (Expecting property name"),
        ("[" * 100_000, "line 3: not JSON ("),
        ('["text"]', "line 3: a list instead of an object; write one a line"),
        ('"text"', "line 3: a str instead of an object"),
        ("null", "line 3: a NoneType instead of an object"),
        ('{"body": "x"}', "line 3 has no column 'text'; set data.files.text_column to one of ['body']"),
        (json.dumps({"text": "\ud800"}), "a.jsonl-2: character 0 is half of a surrogate pair"),
        ('{"text": NaN}', "a.jsonl-2 holds nan, which is no text"),
        ('{"text": {"a": 1}}', "a.jsonl-2 holds {'a': 1}, which is no text"),
    ],
)
def test_a_bad_row_is_named_with_its_file_and_line(root, row, message):
    (root / "a.jsonl").write_text("\n".join(['{"text": "a"}', '{"text": "b"}', row, '{"text": "c"}']))
    said = refusal(root)
    assert "a.jsonl" in said and message in said


def test_a_json_array_is_refused_in_a_short_line(root):
    (root / "a.jsonl").write_text(json.dumps([{"text": "word " * 100} for _ in range(1500)]))
    assert "line 1: a list instead of an object" in refusal(root)


def test_many_columns_are_not_all_listed(root):
    pd.DataFrame({f"column{number}": [1] for number in range(500)}).to_parquet(root / "a.parquet")
    assert "and 480 more" in refusal(root)


def test_empty_lines_are_no_rows(root):
    (root / "a.jsonl").write_text('\n{"text": "a"}\r\n  \n{"text": "b"}\n\n')
    assert [row[0] for row in read(root)] == ["a.jsonl-0", "a.jsonl-1"] and texts(root) == ["a", "b"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet.gz", "a.txt.zst"])
def test_a_compressed_file_that_is_cut_off_is_named(root, name):
    content = content_of("." + name.split(".")[1], [f"text {number}" for number in range(500)])
    content = content * 50 if "txt" in name else content
    (root / name).write_bytes(packed(content, "." + name.rpartition(".")[2])[:-9])
    assert name in refusal(root)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_document_too_large_for_memory_is_refused(root, monkeypatch, name):
    monkeypatch.setattr(reader, "MOST_BYTES", 1000)
    (root / name).write_bytes(content_of("." + name.partition(".")[2], ["x" * 900]))
    assert texts(root) == ["x" * 900]
    (root / name).write_bytes(content_of("." + name.partition(".")[2], ["x" * 1001]))
    assert name in refusal(root) and "split it" in refusal(root)


def test_a_name_that_is_not_utf_8_is_refused(root):
    (root / "a.txt").write_text("a")
    try:
        open(bytes(root) + b"/\xff.txt", "w").close()  # noqa: PTH123
    except OSError:
        pytest.skip("this file system takes names of UTF-8 alone")
    assert "a name that is not UTF-8; rename it" in refusal(root)
