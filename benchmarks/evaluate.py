"""Minimal pairs: this project's scoring against lm_eval's Hugging Face backend, on the same model, pairs and threads.

`make bench-eval BLIMP=path/to/blimp.zip`; needs requirements-bench.txt beside requirements.txt.
"""

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

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
from relora_study.evaluate.minimal_pairs import encode_pairs, judge
from relora_study.evaluate.suite import read_suite
from relora_study.files import read_yaml
from relora_study.memory import keep_freed_memory
from relora_study.model.build import llama_config, use_kernels
from train import paper_or_default
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerBase

PARADIGMS = 5
PAIRS = 200  # of each paradigm
HARNESS_BATCHES = (16, 64, 256)  # the best of which is compared with
BATCH_TOKENS = 2048  # config.yaml's

Case = tuple[LlamaForCausalLM, PreTrainedTokenizerBase]


def fresh_models(suite: pd.DataFrame) -> dict[str, Case]:
    """The default study's models and the paper's tiny shape, not trained, with a tokenizer made from the pairs."""
    default, paper = paper_or_default(False), paper_or_default(True)
    tokenizer = train_tokenizer([*suite.sentence_good, *suite.sentence_bad], 4096)
    cells = {
        "default tiny": default["tiny-full"],
        "default small": default["small-full"],
        "paper tiny": paper["tiny-full"],
    }
    torch.manual_seed(0)
    return {
        name: (LlamaForCausalLM(llama_config(cell.size, cell.model)).eval(), tokenizer) for name, cell in cells.items()
    }


def stored_model(cell: Path) -> dict[str, Case]:
    """The last checkpoint of a trained cell, with the study's tokenizer."""
    last = sorted((cell / "checkpoints").glob("step-*"))[-1]
    tokenizer = open_tokenizer(cell.parent.parent / "data" / "tokenizer")
    return {f"{cell.name} {last.name}": (AutoModelForCausalLM.from_pretrained(last).eval(), tokenizer)}


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


def harness_scores(case: Case, requests: list[Instance], batch: int) -> np.ndarray:
    """lm_eval's summed log-probabilities, [pairs, 2]."""
    harness = HFLM(pretrained=case[0], tokenizer=case[1], batch_size=batch, device="cpu")
    scores = [found[0] for found in harness.loglikelihood(requests, disable_tqdm=True)]
    return np.array(scores).reshape(-1, 2)


def our_scores(model: LlamaForCausalLM, case: Case, suite: pd.DataFrame) -> np.ndarray:
    """The same sums by this project, under lm_eval's policy: a start token, and a space before each sentence."""
    encoded = encode_pairs(suite, case[1], start_token=True, leading_space=True)
    return judge(model, suite, encoded, BATCH_TOKENS)[["good", "bad"]].to_numpy()


def compare(name: str, case: Case, suite: pd.DataFrame, rounds: int) -> list[tuple[str, str, str, float, float]]:
    """Rows for one model."""
    requests = harness_requests(suite)
    model = use_kernels(copy.deepcopy(case[0]))
    ways: dict[str, Callable[[], np.ndarray]] = {"ours": lambda: our_scores(model, case, suite)}
    ways |= {str(size): lambda size=size: harness_scores(case, requests, size) for size in HARNESS_BATCHES}
    ours, theirs = ways["ours"](), ways[str(HARNESS_BATCHES[0])]()
    seconds = seconds_in_turns(ways, rounds)
    best = min(HARNESS_BATCHES, key=lambda size: seconds[str(size)])
    differing = int(((ours[:, 0] > ours[:, 1]) != (theirs[:, 0] > theirs[:, 1])).sum())
    return [
        (
            f"{name}, lm_eval in batches of {best}",
            "speed",
            "pairs/s",
            len(suite) / seconds["ours"],
            len(suite) / seconds[str(best)],
        ),
        (f"{name}, decisions that differ, of all", "agreement", "pairs", differing, len(suite)),
        (
            f"{name}, largest difference of a sum, beside its mean",
            "agreement",
            "nats",
            np.abs(ours - theirs).max(),
            np.abs(theirs).mean(),
        ),
    ]


def main(
    blimp: Annotated[Path, typer.Option(help="BLiMP as a .zip or folder")],
    cell: Annotated[Path | None, typer.Option(help="a trained cell, results/cells/...; else fresh models")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    rounds: Annotated[int, typer.Option(help="timed rounds")] = 3,
) -> None:
    """Time, compare, write results/benchmarks/evaluate.csv."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # as the job does; for both sides
    suite = read_suite(blimp)
    chosen = suite[suite.UID.isin(suite.UID.unique()[:: suite.UID.nunique() // PARADIGMS][:PARADIGMS])]
    chosen = chosen.groupby("UID").head(PAIRS).reset_index(drop=True)
    models = stored_model(cell) if cell else fresh_models(suite)
    write_results("evaluate", [row for name, case in models.items() for row in compare(name, case, chosen, rounds)])


if __name__ == "__main__":
    typer.run(main)
