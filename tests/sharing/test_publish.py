"""Publishing: what the card says, what is sent in which order, and nothing unasked. The Hub is not reached."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from relora_study.errors import UserError
from relora_study.sharing import publish
from relora_study.storage.files import write_json, write_text
from relora_study.train.loop import train
from studies import write_yaml
from typer.testing import CliRunner

NAME = "someone/tiny-relora"


class FakeHub:
    """Takes down what `huggingface_hub.HfApi` is asked for; each method checks its arguments against the real one's."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.sent: dict[str, set[str]] = {}

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert repo_id == NAME and exist_ok
        self.calls.append(("create", "private" if private else "public"))

    def create_branch(self, repo_id: str, *, branch: str, exist_ok: bool) -> None:
        self.calls.append(("branch", branch))

    def upload_folder(self, *, repo_id: str, folder_path: Path, revision: str, commit_message: str) -> None:
        assert revision == "main" or ("branch", revision) in self.calls
        self.sent.setdefault(revision, set()).update(file.name for file in Path(folder_path).iterdir())

    def upload_file(self, *, path_or_fileobj: bytes, path_in_repo: str, repo_id: str, revision: str) -> None:
        self.calls.append(("card", revision))
        self.sent[revision].add(path_in_repo)


@pytest.fixture
def trained(make_cell, tmp_path) -> Path:
    """A finished cell's folder, with checkpoints that training wrote."""
    cell, folder = make_cell("relora"), tmp_path / "results/cells/tiny-relora-s1"
    train(cell, torch.device("cpu"), lambda _: torch.randint(300, (4, 17)), folder)
    write_yaml(folder / "config.yaml", cell.model_dump())
    manifest = {"parameters": 12_345, "trainable_parameters": 6_789, "tokens": 1536, "steps": 24, "processes": 1}
    manifest |= {"cell": cell.name, "resets": [9, 17], "peak_memory_bytes": 1, "threads": 1, "platform": "Linux"}
    manifest |= {"device": "cpu", "versions": {"torch": "2.13.0"}, "final_sha256": "ab" * 32}
    write_json(folder / "manifest.json", manifest)
    pd.DataFrame({"step": [1, 2], "seconds": [3600.0, 3600.0]}).to_csv(folder / "timing.csv", index=False)
    rows = [(step, *key, 2.5 + step) for step in (0, 24) for *key, _ in publish.SHOWN]
    pd.DataFrame(rows, columns=["step", "suite", "item", "metric", "value"]).to_csv(
        folder / "evaluation.csv", index=False
    )
    write_text(tmp_path / "tokenizer/tokenizer.json", "{}")
    return folder


def test_the_card_says_what_the_cells_files_say(trained):
    card = ModelCard(publish.model_card(trained, NAME, "mit", all_steps=False))
    assert card.data.license == "mit" and card.data.model_name == "tiny-relora-s1"
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert measured == {metric: 26.5 for _, _, metric, _ in publish.SHOWN}, "of the last step alone"
    for said in (
        "12,345 parameters (6,789 trained)",
        "adapters of rank 4, merged every 8 steps",
        "ab" * 32,
        "2.00 hours",
    ):
        assert said in card.text
    assert yaml.safe_load(re.search(r"```yaml\n(.*)```", card.text, re.DOTALL)[1])["method"]["rank"] == 4
    assert "Earlier checkpoints" not in card.text


def test_the_last_checkpoint_is_sent_to_main_and_its_card_last(trained, tmp_path):
    hub = FakeHub()
    publish.upload(hub, trained, NAME, tmp_path / "tokenizer", "card", private=True, all_steps=False)
    assert hub.calls == [("create", "private"), ("card", "main")]
    wanted = {
        "model.safetensors",
        "adapters.safetensors",
        "config.json",
        "checkpoint.json",
        "tokenizer.json",
        "README.md",
    }
    assert wanted <= hub.sent["main"]


def test_earlier_checkpoints_are_branches(trained, tmp_path):
    hub = FakeHub()
    publish.upload(hub, trained, NAME, tmp_path / "tokenizer", "card", private=False, all_steps=True)
    steps = sorted(place.name for place in (trained / "checkpoints").iterdir())
    assert list(hub.sent) == [*steps[:-1], "main"] and hub.calls[0] == ("create", "public")
    assert ", ".join(steps[:-1]) in publish.model_card(trained, NAME, "mit", all_steps=True)


def test_the_fakes_arguments_are_those_of_the_library():
    """A renamed or dropped argument of huggingface_hub fails here, not on the Hub."""
    import inspect

    for method in ("create_repo", "create_branch", "upload_folder", "upload_file"):
        real = inspect.signature(getattr(publish.HfApi, method)).parameters
        asked = inspect.signature(getattr(FakeHub, method)).parameters
        assert set(asked) <= set(real), method


def test_the_card_alone_is_printed_and_nothing_sent(trained, monkeypatch):
    monkeypatch.setattr(publish, "HfApi", lambda: pytest.fail("the Hub was called"))
    shown = CliRunner().invoke(publish.app, [str(trained), NAME, "--card-only"])
    assert shown.exit_code == 0 and "# tiny-relora-s1" in shown.output


def test_what_is_not_evaluated_or_not_allowed_is_said_in_one_line(trained, monkeypatch, tmp_path):
    class Closed(FakeHub):
        def create_repo(self, *_, **__):
            raise OSError("no route to host")

    monkeypatch.setattr(publish, "HfApi", Closed)
    with pytest.raises(UserError, match="the Hub refused someone/tiny-relora: no route to host"):
        publish.publish(trained, NAME, tmp_path / "tokenizer")
    (trained / "evaluation.csv").unlink()
    with pytest.raises(UserError, match="run snakemake"):
        publish.model_card(trained, NAME, "mit", all_steps=False)


def test_no_rule_publishes():
    rules = "".join(file.read_text() for file in (Path(__file__).parents[2] / "workflow/rules").glob("*.smk"))
    assert "publish" not in re.sub(r"published?_\w+|published", "", rules)


def test_the_card_of_a_run_that_diverged_says_so_and_shows_its_last_measured_step(trained):
    manifest = json.loads((trained / "manifest.json").read_text()) | {"diverged_at": 20}
    write_json(trained / "manifest.json", manifest)
    for step in (19, 24):
        shutil.rmtree(trained / f"checkpoints/step-{step:06d}")
    rows = [(step, *key, 2.5 + step) for step in (8, 16) for *key, _ in publish.SHOWN]
    columns = ["step", "suite", "item", "metric", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(trained / "evaluation.csv", index=False)
    card = publish.model_card(trained, NAME, "mit", all_steps=False)
    assert "until it diverged at step 20." in card and "in 20 steps" in card and "## Measured at step 16" in card
    assert "18.5000" in card


@pytest.mark.parametrize(
    ("switches", "said"),
    [
        ({}, "trained at full rank"),
        ({"factor_rank": 4}, "trained by the method `other`: factors of rank 4"),
        ({"update": "galore", "projection_rank": 4}, "trained by the method `other`: galore projections of rank 4"),
    ],
)
def test_the_card_says_how_a_method_without_adapters_trains(make_cell, switches, said):
    cell = make_cell("other", **switches, **({"targets": ["q_proj"]} if switches else {}))
    assert publish._trained_by(cell) == said
