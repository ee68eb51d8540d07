"""What models write: by hand where the likeliest token is always taken, and in one line for each mistake."""

import sys

import pytest
import torch
from relora_study.data.tokenizer import train_tokenizer
from relora_study.errors import command_line
from relora_study.evaluate import __main__ as stage
from relora_study.evaluate.__main__ import app, continued
from relora_study.model.checkpoints import load_model, save_checkpoint
from relora_study.train.run import start
from transformers import AutoModelForCausalLM

TEXTS = ["the doctor said that the city was old", "a minister of the law said that people were new"] * 20


@pytest.fixture(scope="module")
def results(make_cell, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    train_tokenizer(TEXTS, 290).save_pretrained(folder / "data/tokenizer")
    cell = make_cell("full")
    torch.manual_seed(0)
    save_checkpoint(start(cell, torch.device("cpu")).model, cell, 8, folder / f"cells/{cell.name}/checkpoints")
    (folder / f"cells/{cell.name}/manifest.json").write_text("{}")
    return folder


def said(capsys, monkeypatch, results, *arguments: str, diverged: int | None = None) -> str:
    monkeypatch.setattr(stage, "diverged_at", lambda place: diverged)
    monkeypatch.setattr(sys, "argv", ["evaluate", "sample", "--results", str(results), *arguments])
    with pytest.raises(SystemExit):
        command_line(app)
    return capsys.readouterr().out


def test_the_likeliest_token_is_taken_one_by_one(results):
    checkpoint = next(results.glob("cells/*/checkpoints/step-*"))
    tokenizer = train_tokenizer(TEXTS, 290)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32")
    ((prompt, text),) = continued(model, tokenizer, ["the doctor"], 6, temperature=0, seed=0)
    ids, ours = [tokenizer.eos_token_id, *tokenizer("the doctor")["input_ids"]], load_model(checkpoint)
    begun = len(ids)
    while len(ids) < begun + 6 and ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(int(ours(torch.tensor([ids])).logits[0, -1].argmax()))
    assert (prompt, text) == ("the doctor", tokenizer.decode(ids[begun:], skip_special_tokens=True).replace("\n", " "))


def test_draws_are_those_of_the_seed(results, capsys, monkeypatch):
    first, again, other = (said(capsys, monkeypatch, results, "a city", "--seed", seed) for seed in "112")
    assert first == again != other and "after step 8" in first and "  a city |" in first


def test_a_cell_that_diverged_writes_nothing(results, capsys, monkeypatch):
    assert said(capsys, monkeypatch, results, diverged=5).strip().endswith(": diverged at step 5")


def test_no_trained_cell_is_said_in_one_line(results, tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(results / "data")
    monkeypatch.setattr(sys, "argv", ["evaluate", "sample", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: .*/cells has no trained cell; run snakemake"):
        command_line(app)
