"""Minimal pairs: this project's scoring against lm_eval's Hugging Face backend, on the same model, pairs and threads.

`make bench-eval BLIMP=path/to/blimp.zip`; needs requirements-bench.txt beside requirements.txt.
"""

import json
import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, NamedTuple

import lm_eval.tasks
import numpy as np
import pandas as pd
import torch
import typer
from common import seconds_in_turns, write_results
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from relora_study.data.tokenizer import open_tokenizer, train_tokenizer
from relora_study.evaluate.minimal_pairs import Encoded, encode_pairs, read_suite, score
from relora_study.model.build import decoder_config
from relora_study.model.checkpoints import load_model
from relora_study.model.device import keep_freed_memory
from relora_study.storage.files import read_yaml
from train import paper_or_default
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

PARADIGMS = 5
PAIRS = 200  # of each paradigm
HARNESS_BATCHES = (16, 64, 256)  # the best of which is compared with
BATCH_TOKENS = 2048  # config.yaml's


class Case(NamedTuple):
    """The folders of a checkpoint and of its tokenizer."""

    checkpoint: Path
    tokenizer: Path


def fresh_models(suite: pd.DataFrame, folder: Path) -> dict[str, Case]:
    """The default study's models and the paper's tiny shape, not trained, with a tokenizer made from the pairs."""
    default, paper = paper_or_default(False), paper_or_default(True)
    train_tokenizer([*suite.sentence_good, *suite.sentence_bad], 4096).save_pretrained(folder / "tokenizer")
    cells = {
        "default tiny": default["tiny-full"],
        "default small": default["small-full"],
        "paper tiny": paper["tiny-full"],
    }
    torch.manual_seed(0)
    for name, cell in cells.items():
        LlamaForCausalLM(decoder_config(cell.size, cell.model)).save_pretrained(folder / name)
    return {name: Case(folder / name, folder / "tokenizer") for name in cells}


def stored_model(cell: Path) -> dict[str, Case]:
    """The last checkpoint of a trained cell, with the study's tokenizer."""
    last = sorted((cell / "checkpoints").glob("step-*"))[-1]
    return {f"{cell.name} {last.name}": Case(last, cell.parent.parent / "data" / "tokenizer")}


def harness_requests(suite: pd.DataFrame) -> list[Instance]:
    """The requests of lm_eval's own BLiMP task, good and bad by turns, on pairs from a local file, not the Hub."""
    template = read_yaml(Path(lm_eval.tasks.__file__).parent / "blimp" / "_template_yaml")
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.jsonl"
        pairs.write_text("\n".join(json.dumps(pair) for pair in suite.to_dict("records")))
        place = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"train": str(pairs)}, "cache_dir": folder}}
        task = ConfigurableTask(config={**template, **place, "task": "blimp"})
        task.build_all_requests()
    return list(task.instances)


class Harness:
    """lm_eval's backend with one batch size each, and its requests."""

    opened: "Harness"  # in the process that runs it

    def __init__(self, case: Case, suite: pd.DataFrame) -> None:
        """Open the checkpoint as its users do."""
        options = {"pretrained": str(case.checkpoint), "tokenizer": str(case.tokenizer), "dtype": "float32"}
        self.backends = {size: HFLM(**options, batch_size=size, device="cpu") for size in HARNESS_BATCHES}
        self.requests = harness_requests(suite)

    def scores(self, batch: int) -> np.ndarray:
        """Summed log-probabilities, [pairs, 2]."""
        found = self.backends[batch].loglikelihood(self.requests, disable_tqdm=True)
        return np.array([one[0] for one in found]).reshape(-1, 2)


def open_harness(case: Case, suite: pd.DataFrame, threads: int) -> None:
    """Begin a process of the harness's own, so that ours, which keeps freed memory, leaves it as its users have it."""
    torch.set_num_threads(threads)
    Harness.opened = Harness(case, suite)


def harness_scores(batch: int) -> np.ndarray:
    """What the opened harness gives, in its process."""
    return Harness.opened.scores(batch)


def our_scores(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, suite: pd.DataFrame) -> np.ndarray:
    """The same sums by this project, under lm_eval's policy: a start token, and a space before each sentence."""
    encoded = encode_pairs(suite, tokenizer, start_token=True, leading_space=True)
    return score(model, Encoded(suite, encoded), BATCH_TOKENS)[["good", "bad"]].to_numpy()


def compare(
    name: str, case: Case, suite: pd.DataFrame, threads: int, rounds: int
) -> list[tuple[str, str, str, float, float]]:
    """Rows for one model."""
    model, tokenizer = load_model(case.checkpoint), open_tokenizer(case.tokenizer)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=open_harness, initargs=(case, suite, threads)) as other:
        ways: dict[str, Callable[[], np.ndarray]] = {"ours": lambda: our_scores(model, tokenizer, suite)}
        ways |= {str(size): lambda size=size: other.submit(harness_scores, size).result() for size in HARNESS_BATCHES}
        ours, theirs = ways["ours"](), ways[str(HARNESS_BATCHES[0])]()
        seconds = seconds_in_turns(ways, rounds)
    best = min(HARNESS_BATCHES, key=lambda size: seconds[str(size)])
    differing = int(((ours[:, 0] > ours[:, 1]) != (theirs[:, 0] > theirs[:, 1])).sum())
    speeds = (len(suite) / seconds["ours"], len(suite) / seconds[str(best)])
    largest = (np.abs(ours - theirs).max(), np.abs(theirs).mean())
    return [
        (f"{name}, lm_eval in batches of {best}", "speed", "pairs/s", *speeds),
        (f"{name}, decisions that differ, of all", "agreement", "pairs", differing, len(suite)),
        (f"{name}, largest difference of a sum, beside its mean", "agreement", "nats", *largest),
    ]


def main(
    blimp: Annotated[Path, typer.Option(help="BLiMP as a .zip or folder")],
    cell: Annotated[Path | None, typer.Option(help="a trained cell, results/cells/...; else fresh models")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    rounds: Annotated[int, typer.Option(help="timed rounds")] = 3,
) -> None:
    """Time, compare, write results/benchmarks/evaluate.csv."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # as the job does
    suite = read_suite(blimp)
    chosen = suite[suite.UID.isin(suite.UID.unique()[:: suite.UID.nunique() // PARADIGMS][:PARADIGMS])]
    chosen = chosen.groupby("UID").head(PAIRS).reset_index(drop=True)
    with tempfile.TemporaryDirectory() as folder:
        models = stored_model(cell) if cell else fresh_models(suite, Path(folder))
        rows = [row for name, case in models.items() for row in compare(name, case, chosen, threads, rounds)]
    write_results("evaluate", rows)


if __name__ == "__main__":
    typer.run(main)
