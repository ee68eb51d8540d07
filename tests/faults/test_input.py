"""Texts that nobody should have, through the data stage's own commands: read as they are, or named."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from relora_study.config import Data
from relora_study.data.__main__ import app
from relora_study.data.documents import split
from relora_study.data.reader import list_documents
from relora_study.data.sources import read_files
from relora_study.errors import UserError
from relora_study.storage.contracts import read_manifest
from transformers import AutoTokenizer
from typer.testing import CliRunner

FILLING = [f"Report {number} of the city." for number in range(60)]
SCRIPTS = {
    "hangul": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다",
    "devanagari": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है",
    "arabic": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق",
    "emoji": "👩🏽‍🔬🧪 → 🇳🇱 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
}


@pytest.fixture
def stage(raw, tmp_path):
    """Run the data stage on the files of `corpus`; its folder."""
    (tmp_path / "corpus").mkdir()

    def go(vocabulary: int = 300):
        files = {"path": str(tmp_path / "corpus"), "text_column": "text"}
        settings = raw["data"] | {"source": "files", "files": files, "held_out_fraction": 0.2}
        (tmp_path / "data.yaml").write_text(yaml.safe_dump(settings))
        shape = {"vocab_size": vocabulary, "context_length": 16}
        (tmp_path / "tokens.yaml").write_text(yaml.safe_dump(settings | shape))
        data = tmp_path / "data"
        documents, tokenizer, tokens = (["--output", data / name] for name in ("documents", "tokenizer", "tokens"))
        read, ids = ["--documents", data / "documents"], ["--settings", tmp_path / "tokens.yaml"]
        steps = [
            ["documents", "--settings", tmp_path / "data.yaml", *documents, "--download", tmp_path],
            ["tokenizer", *ids, *tokenizer, *read],
            ["tokens", *ids, *tokens, *read, "--tokenizer", data / "tokenizer"],
        ]
        for step in steps:
            done = CliRunner().invoke(app, [*map(str, step)])
            if done.exception:
                raise done.exception
        return data

    return go


def decoded(data) -> str:
    """All training text, from the ids on disk."""
    tokenizer = AutoTokenizer.from_pretrained(data / "tokenizer")
    ids = np.fromfile(data / "tokens/train.bin", dtype="<u2")
    return tokenizer.decode(ids)


def expected(data) -> str:
    return "".join(text + "<|endoftext|>" for text in pd.read_parquet(data / "documents/train.parquet").text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_corpus_in_another_script_survives(stage, tmp_path, script):
    lines = [json.dumps({"text": f"{SCRIPTS[script]} {number}"}) for number in range(60)]
    (tmp_path / "corpus/a.jsonl").write_text("\n".join(lines))
    data = stage()
    assert decoded(data) == expected(data) and SCRIPTS[script] in expected(data)


def test_nul_bytes_and_empty_documents_go_through_every_step(stage, tmp_path):
    for number, text in enumerate(FILLING):
        (tmp_path / f"corpus/{number}.txt").write_bytes(text.encode() + b" \x00\x01 end")
    for number in range(5):
        (tmp_path / f"corpus/empty{number}.txt").write_bytes(b"" if number % 2 else b" \n\t")
    data = stage()
    assert decoded(data) == expected(data)
    assert "\x00\x01 end" in expected(data)
    manifest = read_manifest(data / "tokens")
    assert manifest.train.documents < 60 and all(pd.read_parquet(data / "documents/train.parquet").text.str.strip())


def test_invalid_utf8_in_jsonl_is_named(stage, tmp_path):
    (tmp_path / "corpus/bad.jsonl").write_bytes(b'{"text": "\xff\xfe"}\n')
    with pytest.raises(UserError, match=r"cannot read .*bad\.jsonl"):
        stage()


@pytest.mark.parametrize("texts", [[], [""], ["only one"]])
def test_a_corpus_too_small_to_split_is_said(stage, tmp_path, texts):
    for number, text in enumerate(texts):
        (tmp_path / f"corpus/{number}.txt").write_text(text)
    with pytest.raises(UserError, match=r"holds no|add documents"):
        stage()


@pytest.mark.parametrize("column", [[1, 2], [["a"], ["b"]], [b"a", b"b"], [True, False], [1.5, None]])
def test_a_parquet_whose_text_is_no_text_is_named(stage, tmp_path, column):
    pd.DataFrame({"text": column}).to_parquet(tmp_path / "corpus/numbers.parquet")
    with pytest.raises(UserError, match=r"text_column: numbers\.parquet-0 holds .* which is no text"):
        stage()


def test_a_parquet_without_the_column_is_named(stage, tmp_path):
    pd.DataFrame({"body": ["a"]}).to_parquet(tmp_path / "corpus/other.parquet")
    with pytest.raises(UserError, match=r"other\.parquet has no column 'text'; set data\.files\.text_column"):
        stage()


def test_texts_that_look_like_numbers_or_dates_stay_texts(raw, tmp_path):
    texts = ["007", "1e3", "2020-01-01", "true", "null"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    settings = raw["data"] | {"source": "files", "files": {"path": str(tmp_path), "text_column": "text"}}
    found = read_files(Data.model_validate(settings), list_documents(tmp_path, "data.files"))
    assert [document.text for document in found] == texts


def test_documents_with_one_id_go_one_way_and_keep_their_order(tmp_path):
    texts = [f"text {number}" for number in range(400)]
    table = pd.DataFrame(
        {"id": [f"d{n // 4}" for n in range(400)], "domain": "x", "text": texts, "held_out_only": False}
    )
    split(table.itertuples(index=False), 0.2, tmp_path)
    train, held_out = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("train", "held_out"))
    assert not set(train.id) & set(held_out.id) and len(train) + len(held_out) == 400
    assert all(group.text.tolist() == sorted(group.text, key=texts.index) for _, group in train.groupby("id"))


@pytest.mark.slow
def test_a_line_of_100_megabytes(stage, tmp_path):
    long = "the minister said " * 5_800_000
    assert len(long) > 100_000_000
    lines = [json.dumps({"text": text}) for text in (long, *FILLING)]
    (tmp_path / "corpus/long.jsonl").write_text("\n".join(lines))
    data = stage()
    manifest = read_manifest(data / "tokens")
    assert manifest.train.bytes + sum(map(len, pd.read_parquet(data / "documents/held_out.parquet").text)) > 100_000_000
