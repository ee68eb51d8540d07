"""The real DAG on shards of token ids, from a local copy: no documents, no training of a tokenizer, no network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from relora_study.data.tokenizer import train_tokenizer

ROOT = Path(__file__).parent.parent
CELL = "results/cells/tiny-relora_released-s1"
pytestmark = pytest.mark.end_to_end

STUDY = {
    "data": {
        "source": "hub_pretokenized",
        "hub_pretokenized": {"path": "shards", "rows_per_shard": 20, "shards": 2},
        "tokenizer": {"source": "path", "name": "tokenizer"},
    },
    "evaluation": {
        "perplexity": {"source": "path", "path": "texts"},
        "minimal_pairs": {"source": "path", "path": "pairs"},
    },
}


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2"]
    command += ["--configfile", "tests/tiny.yaml", "shards.yaml"]
    offline = {"HF_HUB_OFFLINE": "1", "HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=offline, timeout=600)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for name in ("Snakefile", "config.yaml", "workflow", "envs", "resources", "profiles"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests/tiny.yaml", folder / "tests")
    (folder / "shards.yaml").write_text(yaml.safe_dump(STUDY))
    texts = ["the minister said that the law was new"] * 3
    train_tokenizer(texts, 400).save_pretrained(folder / "tokenizer")
    for place, content in {"texts/a/one.txt": texts[0], "pairs/p.jsonl": json.dumps(PAIR)}.items():
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_text(content)
    (folder / "shards/data").mkdir(parents=True)
    for number in (0, 1, 9999):
        rows = np.random.default_rng(number).integers(0, 250, (20, 33)).tolist()
        pd.DataFrame({"input_ids": rows}).to_parquet(folder / f"shards/data/train-{number:05d}-of-10000.parquet")
    return folder


PAIR = {"sentence_good": "the law was new", "sentence_bad": "the law new was", "UID": "p", "pairID": "0"}
PAIR["linguistics_term"] = "order"


def test_a_cell_of_shards_is_trained_measured_and_read(study):
    targets = [f"{CELL}/{name}.csv" for name in ("evaluation", "dynamics")]
    done = snakemake(study, *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    found = pd.read_csv(study / targets[0])
    assert {"perplexity", "minimal_pairs", "held_out"} == set(found.suite) and found.value.notna().any()
    assert pd.read_csv(study / f"{CELL}/log.csv").loss.notna().all()
    again = snakemake(study, *targets, "--dry-run")
    assert "Nothing to be done" in again.stderr + again.stdout


def test_what_needs_texts_is_refused_before_any_job(study):
    done = snakemake(study, "--config", "evaluation={minimal_pairs: {source: templated}}")
    assert done.returncode and "evaluation.minimal_pairs.source must be path, url or hub" in done.stderr


def test_fewer_rows_than_the_training_reads_are_refused(study):
    done = snakemake(study, "--config", "data={hub_pretokenized: {shards: 1}}")
    assert done.returncode and "shards 1 hold 20 rows, and train.steps times train.batch_size are 40" in done.stderr
