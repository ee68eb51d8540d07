"""What is decided by content, and what could be known before training is said before it."""

import json
import math
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from relora_study.analysis.results import Runs, over_full_rank
from relora_study.config import Evaluation, cells, check
from relora_study.config.benchmark_names import blimp_phenomena, suite_name, texts_name
from relora_study.config.settings import CorpusNeeds
from relora_study.data.tokens import check_corpus_size
from relora_study.errors import UserError
from relora_study.storage.contracts import Manifest, Split
from relora_study.train.loop import train


def pairs_in(folder, paradigms):
    folder.mkdir(parents=True)
    for name in paradigms:
        (folder / f"{name}.jsonl").write_text(json.dumps({"UID": name}) + "\n")
    return folder


def named(raw, report=None, **pairs):
    evaluation = {**raw["evaluation"], "minimal_pairs": {**raw["evaluation"]["minimal_pairs"], **pairs}}
    return suite_name(Evaluation.model_validate(evaluation), report or check(raw, []).report)


def test_a_suite_is_blimp_by_its_67_paradigms(raw, tmp_path):
    whole = blimp_phenomena()
    assert len(whole) == 67
    of_mine = pairs_in(tmp_path / "my pairs", whole)
    assert named(raw, source="path", path=str(of_mine)) == "BLiMP"
    assert named(raw, source="hub", path=str(of_mine)) == "BLiMP"
    with zipfile.ZipFile(tmp_path / "suite.zip", "w") as archive:
        for file in of_mine.iterdir():
            archive.write(file, f"data/{file.name}")
    assert named(raw, source="path", path=str(tmp_path / "suite.zip")) == "BLiMP"
    zorro = pairs_in(tmp_path / "blimp-project/zorro", ["agreement"])
    assert named(raw, source="path", path=str(zorro)) == "zorro"
    part = pairs_in(tmp_path / "BLiMP", sorted(whole)[:66])
    assert named(raw, source="path", path=str(part)) == "BLiMP (by name)"


def test_a_report_remembers_that_the_files_were_blimp(raw, tmp_path):
    own = pairs_in(tmp_path / "mine", blimp_phenomena())
    pairs = {**raw["evaluation"]["minimal_pairs"], "source": "path", "path": str(own)}
    study = check({**raw, "evaluation": {**raw["evaluation"], "minimal_pairs": pairs}}, [])
    shutil.rmtree(own)
    assert (
        suite_name(study.evaluation, study.report.model_copy(update={"suite": None})) == "mine"
        and suite_name(study.evaluation, study.report) == "BLiMP"
    )


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        ({"source": "held_out"}, "held-out documents"),
        ({"source": "hub"}, "Paloma"),
        ({"source": "hub", "path": "allenai/paloma"}, "Paloma"),
        ({"source": "hub", "path": "someone/paloma-like"}, "paloma-like"),
        ({"source": "path", "path": "paloma-project/letters"}, "letters"),
        ({"source": "path", "path": "texts/Paloma"}, "Paloma (by name)"),
    ],
)
def test_only_paloma_is_called_paloma(raw, texts, name):
    evaluation = {**raw["evaluation"], "perplexity": {**raw["evaluation"]["perplexity"], **texts}}
    study = check(raw, [])
    assert texts_name(Evaluation.model_validate(evaluation), study.report) == name
    said = study.report.model_copy(update={"texts": "Paloma, a copy", "suite": "Zorro"})
    assert texts_name(Evaluation.model_validate(evaluation), said) == "Paloma, a copy"
    assert named(raw, said) == "Zorro"


def results_of(raw, tmp_path, methods, baseline=None):
    blocks = {name: raw["methods"]["relora" if name == "adapters" else "full"] for name in methods}
    study = {"sizes": ["tiny"], "methods": methods, "seeds": [1], "baseline": baseline}
    found = check({**raw, "methods": blocks, "study": study}, [])
    return Runs(tmp_path, cells(found), baseline=found.study.baseline)


@pytest.mark.parametrize(
    ("methods", "chosen", "expected"),
    [
        (["baseline", "adapters"], None, "baseline"),
        (["adapters", "one", "two"], None, "one"),
        (["adapters", "one", "two"], "two", "two"),
        (["adapters"], None, None),
    ],
)
def test_adapters_are_compared_with_the_method_of_rank_0(raw, tmp_path, methods, chosen, expected):
    results = results_of(raw, tmp_path, methods, chosen)
    assert results.full_rank_method == expected
    against = results.full_rank_of(results.cells["tiny-adapters-s1"])
    assert (against.method_name if against else None) == expected
    log = pd.DataFrame(
        {"size": "tiny", "seed": 1, "step": 1, "method": methods, "loss": np.arange(1.0, len(methods) + 1)}
    )
    over = over_full_rank(log, results.full_rank_method).set_index("method").loss
    assert over["adapters"] == log.set_index("method").loss["adapters"] - (
        log.set_index("method").loss[expected] if expected else 0.0
    )


def manifest(train, held_out):
    parts = {"train": Split(tokens=train, sha256=""), "held_out": Split(tokens=held_out, sha256="")}
    return Manifest(source="files", dtype="uint16", vocab_size=300, end_of_text_id=0, tokenizer_sha256="", **parts)


def needs(train: int, held_out: int) -> CorpusNeeds:
    return CorpusNeeds(context_length=32, train_sequences=train, held_out_sequences=held_out)


def test_data_that_repeat_and_too_little_held_out_are_said_when_tokens_are_packed():
    assert check_corpus_size(manifest(33 * 40, 33 * 2), needs(40, 2)) == ""
    said = check_corpus_size(manifest(11_495, 33 * 2), needs(3840, 2))
    assert said == "warning: training reads 122,880 tokens of a corpus of 11,495: it repeats 10.7 times"
    with pytest.raises(UserError, match=r"dynamics.batch_sequences 3 is more than the 2 sequences that are held out; "):
        check_corpus_size(manifest(33 * 40, 33 * 3 - 1), needs(40, 3))


def test_the_largest_seed_trains_and_is_read_back(make_cell, tmp_path):
    seed = 2**63 - 1
    cell = make_cell("relora", train={"steps": 10}).model_copy(update={"seed": seed})
    generator = torch.Generator().manual_seed(0)
    run = train(cell, torch.device("cpu"), lambda step: torch.randint(300, (4, 17), generator=generator), tmp_path)
    log = pd.read_csv(tmp_path / "log.csv").assign(seed=seed)
    assert run.cell.seed == seed and log.reset.sum() == 1 and math.isfinite(log.loss.iloc[-1])
    assert log.groupby("seed").size().index[0] == seed
