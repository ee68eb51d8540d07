"""All that a checkpoint is measured on, and the measuring, once for each checkpoint."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from ..files import once, read_csv, write_csv, write_whole
from ..imports import code_version
from ..model.checkpoints import load_model, read_metadata
from ..model.device import CPU
from .minimal_pairs import accuracies, judge
from .perplexity import Texts, perplexities, score_texts
from .scoring import negative_log_likelihoods


@dataclass(frozen=True)
class Bench:
    """The texts by domain, the minimal pairs with their ids, and the fixed batch of held-out rows.

    ``start_token`` and ``leading_space`` say what each sentence of ``encoded`` begins with.
    """

    domains: dict[str, Texts]
    stride: int
    suite: pd.DataFrame
    encoded: list[list[int]]
    batch: list[list[int]]
    batch_tokens: int
    start_token: bool = False
    leading_space: bool = False
    device: torch.device = CPU

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all ids that are scored and of the pairs' names: the same bench measures the same."""
        names = self.suite[["UID", "pairID", "linguistics_term"]].to_csv()
        return hashlib.sha256(repr((self.domains, self.stride, names, self.encoded, self.batch)).encode()).hexdigest()


def measure_once(bench: Bench, checkpoint: Path, folder: Path) -> pd.DataFrame:
    """Columns suite, item, metric, value of ``checkpoint``: from ``folder`` where this bench measured it before.

    ``folder`` receives the table and, item by item, what it sums up: of each pair both scores (-pairs.parquet), of
    each text its loss (-texts.parquet); under the checkpoint's name and a key of its weights, the bench and this code.
    """
    weights = read_metadata(checkpoint).sha256["model.safetensors"]
    depends_on = weights, bench.fingerprint, code_version("evaluate.bench")

    def make(place: Path) -> None:
        measured = measure(bench, checkpoint)
        write_whole(place.with_name(f"{place.stem}-pairs.parquet"), measured.pairs.to_parquet)
        write_whole(place.with_name(f"{place.stem}-texts.parquet"), measured.texts.to_parquet)
        write_csv(place, measured.table)

    return read_csv(once(folder, checkpoint.name, depends_on, make))


class Measured(NamedTuple):
    """A checkpoint's table (suite, item, metric, value), its judged pairs and its scored texts."""

    table: pd.DataFrame
    pairs: pd.DataFrame
    texts: pd.DataFrame


def measure(bench: Bench, checkpoint: Path) -> Measured:
    """Measure the checkpoint in the folder ``checkpoint``."""
    model = load_model(checkpoint, bench.device)
    judged = judge(model, bench.suite, bench.encoded, bench.batch_tokens)
    scored = score_texts(model, bench.domains, bench.stride, bench.batch_tokens)
    loss = torch.cat(negative_log_likelihoods(model, bench.batch, bench.batch_tokens)).mean().item()
    policy = {"start_token": float(bench.start_token), "leading_space": float(bench.leading_space)}
    tables = [
        perplexities(scored).assign(suite="perplexity"),
        accuracies(judged).assign(suite="minimal_pairs"),
        pd.DataFrame(
            {"item": "policy", "metric": list(policy), "value": list(policy.values()), "suite": "minimal_pairs"}
        ),
        pd.DataFrame({"item": ["fixed_batch"], "metric": "loss", "value": loss, "suite": "held_out"}),
    ]
    return Measured(pd.concat(tables, ignore_index=True), judged, scored)
