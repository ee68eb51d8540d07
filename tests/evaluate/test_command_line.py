"""The stage's commands on a cell of two checkpoints; a mistake costs one line, and no half-written table."""

import gzip
import json
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from relora_study.config import check
from relora_study.data.tokenizer import train_tokenizer
from relora_study.errors import UserError, command_line
from relora_study.evaluate import __main__ as stage
from relora_study.evaluate import minimal_pairs, tasks
from relora_study.model.checkpoints import save_checkpoint
from relora_study.storage.files import read_csv, sha256
from relora_study.train.run import start
from studies import write_yaml

TEXTS = [f"The minister of city {number} said that the law was new." for number in range(30)]
PAIR = {"sentence_good": "The law was new.", "sentence_bad": "The law were new.", "linguistics_term": "agreement"}
STEPS = (0, 8)


@pytest.fixture
def place(make_cell, raw, tmp_path):
    """All that the stage reads, in a folder whose name has a space."""
    root = tmp_path / "some results"
    cell = make_cell("relora", {"steps": 8})
    write_yaml(root / "cell/config.yaml", cell.model_dump())
    for step in STEPS:
        save_checkpoint(start(cell, torch.device("cpu")).model, cell, step, root / "cell/checkpoints")
    train_tokenizer(TEXTS, 290).save_pretrained(root / "data/tokenizer")
    tokens = root / "data/tokens"
    tokens.mkdir()
    for split in ("train", "held_out"):
        np.arange(90, dtype=np.uint16).tofile(tokens / f"{split}.bin")
    counts = {"tokens": 90, "documents": 1, "bytes": 180, "sha256": sha256(tokens / "held_out.bin")}
    manifest = {"dtype": "uint16", "vocab_size": 300, "end_of_text_id": 0, "train": counts, "held_out": counts}
    (tokens / "manifest.json").write_text(json.dumps(manifest | {"domains": {}, "tokenizer_sha256": "", "source": "t"}))
    read = {"held_out_tokens_per_domain": 2000, "held_out_tokens": 80, "checkpoint_tokens": 40}
    write_yaml(root / "measurement.yaml", raw["evaluation"] | read)
    pairs = [PAIR | {"UID": "was_were", "pairID": str(number)} for number in range(4)]
    pd.DataFrame(pairs).to_parquet(root / "minimal_pairs.parquet")
    texts = [*TEXTS, "", None]
    pd.DataFrame({"domain": ["a", "b"] * 16, "text": texts}).to_parquet(root / "perplexity.parquet")
    return root


def invoke(monkeypatch, command, options):
    """The stage's command as a user gives it: the exit code, or the one line that it ends with."""
    words = [str(word) for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    monkeypatch.setattr(sys, "argv", ["evaluate", command, *words])
    with pytest.raises(SystemExit) as ended:
        command_line(stage.app)
    return ended.value.code


def evaluate(monkeypatch, place):
    options = {"settings": place / "measurement.yaml", "cell": place / "cell", "data": place / "data"}
    options |= {"tasks": place, "threads": 1}
    return invoke(monkeypatch, "cell", options | {"output": place / "cell/evaluation.csv"})


def fails(monkeypatch, place, message):
    """The run ends with one line that holds ``message``, and leaves no table of the cell, whole or in part."""
    line = evaluate(monkeypatch, place)
    assert isinstance(line, str) and line.startswith("error: ") and len(line.splitlines()) == 1
    assert message in line
    assert not [path for path in (place / "cell").rglob("*") if "evaluation.csv" in path.name or "partial" in path.name]


def test_a_cells_table_has_every_suite_at_every_checkpoint_and_a_new_one_costs_only_itself(
    place, make_cell, monkeypatch
):
    measured, real = [], tasks.load_model
    monkeypatch.setattr(tasks, "load_model", lambda path, device: measured.append(path.name) or real(path, device))
    assert evaluate(monkeypatch, place) == 0
    cell = make_cell("relora", {"steps": 8}).model_copy(update={"seed": 2})
    save_checkpoint(start(cell, torch.device("cpu")).model, cell, 8, place / "cell/checkpoints")
    assert evaluate(monkeypatch, place) == 0
    assert measured == ["step-000000", "step-000008", "step-000008"]
    table = pd.read_csv(place / "cell/evaluation.csv")
    assert list(table.columns) == ["step", "suite", "item", "metric", "value"]
    assert set(zip(table.step, table.suite, strict=True)) == {
        (step, name) for step in STEPS for name in ("perplexity", "minimal_pairs", "held_out")
    }
    value = table[table.step == 8].set_index(["suite", "item", "metric"]).value
    assert value["minimal_pairs", "overall", "pairs"] == value["minimal_pairs", "paradigm/was_were", "pairs"] == 4
    assert value["perplexity", "overall", "skipped"] == 2, "the empty text and the missing one"
    assert value["held_out", "part", "loss"] > 0
    kept = pd.read_parquet(next((place / "cell/evaluation").glob("step-000008-perplexity-*.parquet")))
    assert kept[kept.nats.isna()].text.tolist() == [15, 15], "and listed by domain and place"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "checkpoint.json"])
def test_a_checkpoint_that_lacks_a_file(place, monkeypatch, name):
    (place / f"cell/checkpoints/step-000008/{name}").unlink()
    fails(monkeypatch, place, "step-000008 is missing or damaged; delete ")


def test_a_checkpoint_that_is_cut_off(place, monkeypatch):
    weights = place / "cell/checkpoints/step-000008/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    fails(monkeypatch, place, "step-000008 is missing or damaged; delete ")


def test_a_tokenizer_with_more_entries_than_the_model(place, monkeypatch):
    tokenizer = train_tokenizer(TEXTS, 290)
    tokenizer.add_tokens([f"new{number}" for number in range(20)])
    tokenizer.save_pretrained(place / "data/tokenizer")
    fails(
        monkeypatch,
        place,
        f"tokenizer has ids up to {len(tokenizer) - 1}, and the model of tiny-relora-s1 has 300 entries",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "was_were.jsonl, line 5: not JSON (Expecting property name"),
        (json.dumps(PAIR), "was_were.jsonl, line 5: not a minimal pair (UID is missing)"),
        (json.dumps(PAIR | {"UID": None, "pairID": 9}), "line 5: not a minimal pair (UID is null)"),
        (json.dumps(PAIR | {"UID": "was_were", "pairID": 3}), "paradigm was_were has pairID 3 twice"),
    ],
)
def test_a_bad_line_of_a_suite(place, monkeypatch, raw, line, message):
    (place / "pairs").mkdir()
    rows = [json.dumps(PAIR | {"UID": "was_were", "pairID": number}) for number in range(4)]
    (place / "pairs/was_were.jsonl").write_text("\n".join([*rows, line]))
    found = collect(monkeypatch, place, raw, "minimal_pairs", source="path", path=str(place / "pairs"))
    assert message in found and len(found.splitlines()) == 1 and not (place / "collected").exists()


def collect(monkeypatch, place, raw, task, **chosen):
    """The command ``collect`` of a task with other settings: what it ends with."""
    write_yaml(place / "chosen.yaml", raw["evaluation"] | {task: raw["evaluation"][task] | chosen})
    options = {"settings": place / "chosen.yaml", "task": task, "documents": place, "output": place / "collected"}
    return invoke(monkeypatch, "collect", options | {"tokenizer": place / "data/tokenizer"})


def test_a_suite_is_collected_from_a_zip_and_says_what_blimp_lacks(place, monkeypatch, raw, capsys):
    with zipfile.ZipFile(place / "suite.zip", "w") as archive:
        archive.writestr("data/causative.jsonl", json.dumps(PAIR | {"UID": "causative", "pairID": 0}))
    chosen = {"source": "path", "path": str(place / "suite.zip")}
    assert collect(monkeypatch, place, raw, "minimal_pairs", **chosen) == 0
    assert pd.read_parquet(place / "collected").UID.tolist() == ["causative"]
    assert "warning: BLiMP is incomplete: no adjunct_island, " in capsys.readouterr().err


def test_a_download_with_another_hash(place, monkeypatch, raw):
    (place / "other.zip").write_bytes(b"not BLiMP")
    monkeypatch.setattr(minimal_pairs, "BLIMP_URL", (place / "other.zip").as_uri())
    line = collect(monkeypatch, place, raw, "minimal_pairs", source="url")
    assert "other.zip has sha256" in line and len(line.splitlines()) == 1
    assert not (place / "collected").exists()


def copy_of_blimp(root, pairs):
    """BLiMP as the Hub holds it: a parquet file and a configuration a paradigm, and pair_id for pairID."""
    configurations = []
    for name in sorted({pair["UID"] for pair in pairs}):
        (root / name).mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame([pair for pair in pairs if pair["UID"] == name]).rename(columns={"pairID": "pair_id"})
        table.to_parquet(root / name / "train-00000-of-00001.parquet")
        configurations += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}/train-*"]
    (root / "README.md").write_text("\n".join(["---", "configs:", *configurations, "---"]))


def test_a_suite_from_a_local_copy_of_the_hubs(place, monkeypatch, raw):
    pairs = [PAIR | {"UID": uid, "pairID": number} for uid in ("one", "other") for number in range(2)]
    copy_of_blimp(place / "hub", pairs)
    chosen = {"source": "hub", "path": str(place / "hub")}
    assert collect(monkeypatch, place, raw, "minimal_pairs", **chosen) == 0
    found = pd.read_parquet(place / "collected")
    assert found.to_dict("records") == [pair | {"pairID": str(pair["pairID"])} for pair in pairs]
    copy_of_blimp(place / "twice", [pairs[0], pairs[0]])
    line = collect(monkeypatch, place, raw, "minimal_pairs", source="hub", path=str(place / "twice"))
    assert "twice: paradigm one has pairID 0 twice" in line


def test_a_copy_that_changed_and_a_copy_of_the_same_name_give_their_own_rows(tmp_path):
    """The folder's README names its configurations: in the library's cache, each copy below is the first one."""
    found = []
    for number, folder in enumerate(["here", "here", "there"]):
        pair = PAIR | {"UID": "one", "pairID": 0, "sentence_good": f"{number} is good."}
        copy_of_blimp(tmp_path / folder / "blimp", [pair])
        found.append(minimal_pairs.read_hub(str(tmp_path / folder / "blimp")).sentence_good.tolist())
    assert found == [["0 is good."], ["1 is good."], ["2 is good."]]


@pytest.mark.parametrize("section", ["perplexity", "minimal_pairs"])
def test_a_copy_of_a_dataset_that_cannot_be_read(place, monkeypatch, raw, section):
    (place / "hub/data").mkdir(parents=True)
    line = collect(monkeypatch, place, raw, section, source="hub", path=str(place / "hub"))
    assert line.startswith(f"error: evaluation.{section}.path: cannot load split ") and len(line.splitlines()) == 1
    assert not (place / "collected").exists()
    for split in ("train", "val"):
        pd.DataFrame({"other": [1]}).to_parquet(place / f"hub/data/{split}-00000-of-00001.parquet")
    line = collect(monkeypatch, place, raw, section, source="hub", path=str(place / "hub"))
    assert "has no column" in line and not (place / "collected").exists()


def texts_from(monkeypatch, place, raw, **chosen):
    """The command ``texts`` on the folder ``place``/mine: what it ends with; no table is left by a refusal."""
    ended = collect(monkeypatch, place, raw, "perplexity", source="path", path=str(place / "mine"), **chosen)
    if ended:
        assert ended.startswith("error: evaluation.perplexity") and len(ended.splitlines()) == 1 and len(ended) < 500
        assert not (place / "collected").exists()
    return ended


@pytest.fixture
def mine(place):
    (place / "mine/letters").mkdir(parents=True)
    return place / "mine/letters"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"The law was new.", "holds b'The law was new.', which is neither a text nor a list of ids"),
        (7, "holds 7, which is neither"),
        (1.5, "holds 1.5, which is neither"),
        ({"ids": [1, 2]}, "holds {'ids': [1, 2]}, which is neither"),
        ([1.0, 2.5], "holds 1.0 at position 0, which is no id of the tokenizer"),
        (["12", "13"], "holds '12' at position 0, which is no id"),
        (["The", "law"], "holds 'The' at position 0, which is no id"),
        ([[1, 2], [3]], "holds [1, 2] at position 0, which is no id"),
        ([5, -100], "holds -100 at position 1, which is no id"),
        ([5, 290], "holds 290 at position 1, which is no id"),
        ([5, None], "at position 1, which is no id"),
        ([True, False], "holds True at position 0, which is no id"),
    ],
)
def test_a_column_of_neither_texts_nor_ids_is_named_before_anything_trains(
    place, mine, monkeypatch, raw, value, message
):
    pd.DataFrame({"text": [value]}).to_parquet(mine / "a.parquet")
    found = texts_from(monkeypatch, place, raw)
    assert "letters/a.parquet-0" in found and message in found
    (place / "hub/data").mkdir(parents=True)
    table = pd.DataFrame({"text": [value], "source": "c4"})
    table.to_parquet(place / "hub/data/val-00000-of-00001.parquet")
    found = collect(monkeypatch, place, raw, "perplexity", source="hub", path=str(place / "hub"))
    assert ", row 0" in found and message in found and not (place / "collected").exists()


def test_an_id_in_a_hole_of_the_vocabulary_is_named(place, mine, monkeypatch, raw):
    with_a_hole(place / "data/tokenizer", 299)
    pd.DataFrame({"text": [[5, 299], [5, 295]]}).to_parquet(mine / "a.parquet")
    assert "a.parquet-1 holds 295 at position 1, which is no id" in texts_from(monkeypatch, place, raw)


def with_a_hole(folder, largest):
    """A tokenizer of 290 entries and one more, whose id is ``largest``."""
    train_tokenizer(TEXTS, 290).save_pretrained(folder)
    saved = json.loads((folder / "tokenizer.json").read_text())
    saved["added_tokens"].append(saved["added_tokens"][0] | {"id": largest, "content": "<|far|>"})
    saved["model"]["vocab"]["<|far|>"] = largest
    (folder / "tokenizer.json").write_text(json.dumps(saved))


def test_a_tokenizer_whose_ids_have_holes_is_held_to_its_largest(place, monkeypatch):
    with_a_hole(place / "data/tokenizer", 299)
    assert evaluate(monkeypatch, place) == 0
    (place / "cell/evaluation.csv").unlink()
    with_a_hole(place / "data/tokenizer", 310)
    fails(monkeypatch, place, "tokenizer has ids up to 310, and the model of tiny-relora-s1 has 300 entries")


def test_texts_and_ids_side_by_side_are_refused(place, mine, monkeypatch, raw):
    pd.DataFrame({"text": [[1, 2]]}).to_parquet(mine / "a.parquet")
    (mine / "b.jsonl").write_text(json.dumps({"text": "words"}))
    found = texts_from(monkeypatch, place, raw)
    assert "letters/b.jsonl-0 holds a text, and letters/a.parquet-0 holds ids; give texts or ids" in found


@pytest.mark.parametrize("content", ["", '{"text": null}\n{"text": ""}\n'])
def test_a_folder_without_a_text_to_score(place, mine, monkeypatch, raw, content):
    (mine / "a.jsonl").write_text(content)
    assert "there is no text to score" in texts_from(monkeypatch, place, raw)


def test_texts_of_every_kind_of_file_are_collected_and_what_is_passed_over_is_named(
    place, mine, monkeypatch, raw, capsys
):
    (mine / "A.TXT").write_bytes(b"\xef\xbb\xbfone")
    (mine / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "two"}'))
    (mine / "._b.txt").write_bytes(b"\x00\xff")
    (mine / "notes.md").write_text("x")
    assert texts_from(monkeypatch, place, raw) == 0
    found = pd.read_parquet(place / "collected")
    assert found.to_dict("list") == {"domain": ["letters"] * 2, "text": ["one", "two"]}
    assert "evaluation.perplexity.path: " in (said := capsys.readouterr().err) and "2 files read, 2 passed over" in said


@pytest.mark.parametrize("name", ["overall", "macro_average"])
def test_a_domain_called_as_an_average_is_refused(place, mine, monkeypatch, raw, name):
    mine.rename(place / "mine" / name)
    (place / "mine" / name / "a.txt").write_text("text")
    assert f"has the domain {name!r}, which is the name of an average; rename" in texts_from(monkeypatch, place, raw)
    held_out = pd.DataFrame({"id": "a", "domain": [name], "text": "x"})
    held_out.to_parquet(place / "held_out.parquet")
    assert f"has the domain {name!r}" in collect(monkeypatch, place, raw, "perplexity", source="held_out")


@pytest.mark.parametrize("names", [["NA", "null", "None", "nan"], ["$bad_{$", "a,b", "1", "été"]])
def test_a_domain_keeps_its_name_whatever_it_is_from_the_folder_to_the_table(place, mine, monkeypatch, raw, names):
    for name in names:
        (place / "mine" / name).mkdir()
        (place / "mine" / name / "a.txt").write_text("The minister said that the law was new.")
    assert texts_from(monkeypatch, place, raw) == 0
    (place / "collected").rename(place / "perplexity.parquet")
    for _ in range(2):  # the second time from what was kept of the first
        assert evaluate(monkeypatch, place) == 0
        table = read_csv(place / "cell/evaluation.csv")
        items = table[(table.suite == "perplexity") & (table.step == 8)].item.unique()
        assert set(items) == {*names, "overall", "macro_average"}
        (place / "cell/evaluation.csv").unlink()


def test_a_row_of_the_hub_without_a_domain_is_named(place, monkeypatch, raw):
    (place / "mine/data").mkdir(parents=True)
    table = pd.DataFrame({"text": ["a text", "another"], "source": ["c4", None]})
    table.to_parquet(place / "mine/data/val-00000-of-00001.parquet")
    found = collect(monkeypatch, place, raw, "perplexity", source="hub", path=str(place / "mine"))
    assert "row 1 names no domain; fill" in found


def test_a_dataset_with_python_of_its_own_never_runs_it(place, monkeypatch, raw):
    (place / "mine").mkdir()
    (place / "mine/mine.py").write_text(f"open({str(place / 'ran')!r}, 'w')")
    for section in ("perplexity", "minimal_pairs"):
        line = collect(monkeypatch, place, raw, section, source="hub", path=str(place / "mine"))
        assert line.startswith("error: ") and len(line.splitlines()) == 1
    assert not (place / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentence_good": ["The", "law"]}, "sentence_good is ['The', 'law'], no text"),
        ({"sentence_bad": 7}, "sentence_bad is 7, no text"),
        ({"sentence_bad": " "}, "sentence_bad is empty"),
        ({"linguistics_term": 1.5}, "linguistics_term is 1.5, no text"),
    ],
)
def test_a_pair_whose_sentences_are_no_texts_is_named(place, monkeypatch, raw, change, message):
    (place / "mine").mkdir()
    rows = [PAIR | {"UID": "u", "pairID": 0}, PAIR | {"UID": "u", "pairID": 1} | change]
    (place / "mine/u.jsonl").write_text("\n".join(map(json.dumps, rows)))
    chosen = {"source": "path", "path": str(place / "mine")}
    line = collect(monkeypatch, place, raw, "minimal_pairs", **chosen)
    assert f"u.jsonl, line 2: not a minimal pair ({message})" in line and not (place / "collected").exists()


def test_a_suites_folder_is_read_as_a_corpus_is(place, monkeypatch, raw, capsys):
    pairs = [PAIR | {"UID": "u", "pairID": number, "field": "a\u2028b"} for number in range(2)]
    rows = [json.dumps(pair, ensure_ascii=False) for pair in pairs]
    (place / "mine/.git").mkdir(parents=True)
    (place / "mine/u.JSONL.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + "\n".join(rows).encode()))
    for junk in ("._u.jsonl", ".git/u.jsonl"):
        (place / "mine" / junk).write_bytes(b"\x00\xff")
    chosen = {"source": "path", "path": str(place / "mine")}
    assert collect(monkeypatch, place, raw, "minimal_pairs", **chosen) == 0
    assert pd.read_parquet(place / "collected").pairID.tolist() == ["0", "1"]
    assert f"{place / 'mine'}: 1 files read, 2 passed over: " in capsys.readouterr().err


def test_a_task_of_ones_own_is_a_block_of_the_configuration(place, monkeypatch, raw):
    """Named, read, scored and kept as the study's two are; the other tasks keep their scores."""
    assert evaluate(monkeypatch, place) == 0
    kept = {path: path.stat().st_mtime_ns for path in (place / "cell/evaluation").iterdir()}
    (place / "mine").mkdir()
    pair = PAIR | {"UID": "agrees", "pairID": 0}
    (place / "mine/agrees.jsonl").write_text("\n".join(json.dumps(pair | {"pairID": n}) for n in range(3)))
    (place / "poems").mkdir()
    (place / "poems/one.txt").write_text("The minister of the new law said that the law was new.")
    tasks = {
        "zorro": {"kind": "minimal_pairs", "path": str(place / "mine"), "licence": "MIT"},
        "poems": {"kind": "texts", "path": str(place / "poems")},
    }
    settings = yaml.safe_load((place / "measurement.yaml").read_text()) | {"tasks": tasks}
    write_yaml(place / "measurement.yaml", settings)
    write_yaml(place / "chosen.yaml", raw["evaluation"] | {"tasks": tasks})
    for task in tasks:
        options = {"settings": place / "chosen.yaml", "task": task, "documents": place}
        options |= {"tokenizer": place / "data/tokenizer", "output": place / f"{task}.parquet"}
        assert invoke(monkeypatch, "collect", options) == 0
    assert evaluate(monkeypatch, place) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    table = read_csv(place / "cell/evaluation.csv")
    value = table[table.step == 8].set_index(["suite", "item", "metric"]).value
    assert value["zorro", "paradigm/agrees", "pairs"] == value["zorro", "overall", "pairs"] == 3
    assert value["zorro", "overall", "accuracy"] == (value["minimal_pairs", "overall", "accuracy"] > 0.5)
    assert value["poems", "overall", "tokens"] > 0 and value["poems", "macro_average", "token_perplexity"] > 1


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"held_out": {"kind": "texts", "path": "x"}}, "tasks: held_out is a task that every study has"),
        ({"mine": {"kind": "quiz", "path": "x"}}, "tasks.mine.kind"),
        ({"mine": {"kind": "minimal_pairs", "path": "x", "text_column": "t"}}, "are for kind texts, not minimal_pairs"),
    ],
)
def test_a_task_that_cannot_be_is_a_mistake(raw, task, message):
    with pytest.raises(UserError, match=message):
        check(raw | {"evaluation": raw["evaluation"] | {"tasks": task}}, [])
