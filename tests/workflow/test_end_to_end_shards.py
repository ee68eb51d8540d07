"""The real DAG on shards of token ids, from a local copy: no documents, no training of a tokenizer, no network."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from relora_study.data.tokenizer import train_tokenizer
from studies import lay_out, snakemake

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


CONFIGS = ("tests/tiny.yaml", "shards.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = lay_out(tmp_path_factory.mktemp("shards") / "study")
    shutil.rmtree(folder / "corpus")
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


@pytest.mark.long
def test_a_cell_of_shards_is_trained_measured_and_read(folder):
    targets = [f"{CELL}/{name}.csv" for name in ("evaluation", "dynamics")]
    done = snakemake(folder, *targets, configs=CONFIGS)
    assert done.returncode == 0, done.stdout + done.stderr
    found = pd.read_csv(folder / targets[0])
    assert {"perplexity", "minimal_pairs", "held_out"} == set(found.suite) and found.value.notna().any()
    assert pd.read_csv(folder / f"{CELL}/log.csv").loss.notna().all()
    again = snakemake(folder, *targets, "--dry-run", configs=CONFIGS)
    assert "Nothing to be done" in again.stderr + again.stdout


def test_what_needs_texts_is_refused_before_any_job(folder):
    done = snakemake(folder, "--config", "evaluation={minimal_pairs: {source: templated}}", configs=CONFIGS)
    assert done.returncode and "evaluation.minimal_pairs.source must be path, url or hub" in done.stderr


def test_fewer_rows_than_the_training_reads_are_refused(folder):
    done = snakemake(folder, "--config", "data={hub_pretokenized: {shards: 1}}", configs=CONFIGS)
    assert done.returncode and "shards 1 hold 20 rows, and train.steps times train.batch_size are 40" in done.stderr
