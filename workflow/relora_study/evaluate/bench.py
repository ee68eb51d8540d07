"""All that a checkpoint is measured on, and the measuring, once for each checkpoint."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from ..files import sha256, write_csv, write_whole
from ..train.checkpoints import load_model
from .minimal_pairs import accuracies, judge
from .perplexity import Texts, perplexities
from .scoring import negative_log_likelihoods


@dataclass(frozen=True)
class Bench:
    """The texts by domain, the minimal pairs with their ids, and the fixed batch of held-out rows."""

    domains: dict[str, Texts]
    suite: pd.DataFrame
    encoded: list[list[int]]
    batch: list[list[int]]
    batch_tokens: int

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all ids that are scored and of the pairs' names: the same bench measures the same."""
        names = self.suite[["UID", "pairID", "linguistics_term"]].to_csv()
        return hashlib.sha256(repr((self.domains, names, self.encoded, self.batch)).encode()).hexdigest()


def measure_once(bench: Bench, checkpoint: Path, folder: Path) -> pd.DataFrame:
    """Columns suite, item, metric, value of ``checkpoint``: from ``folder`` where this bench measured it before.

    ``folder`` receives the table and, for each pair, both scores (-pairs.parquet), under the checkpoint's name and a
    key of its weights and of the bench; what another bench or other weights left under that name is removed.
    """
    weights = sha256(checkpoint / "model.safetensors")
    key = hashlib.sha256(f"{weights} {bench.fingerprint}".encode()).hexdigest()[:12]
    place = folder / f"{checkpoint.name}-{key}.csv"
    if not place.exists():
        for old in folder.glob(f"{checkpoint.name}-*"):
            old.unlink()
        table, judged = measure(bench, checkpoint)
        write_whole(place.with_name(f"{place.stem}-pairs.parquet"), judged.to_parquet)
        write_csv(place, table)
    return pd.read_csv(place)


def measure(bench: Bench, checkpoint: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The checkpoint's table (suite, item, metric, value) and its judged pairs."""
    model = load_model(checkpoint)
    judged = judge(model, bench.suite, bench.encoded, bench.batch_tokens)
    loss = torch.cat(negative_log_likelihoods(model, bench.batch, bench.batch_tokens)).mean().item()
    tables = [
        perplexities(model, bench.domains, bench.batch_tokens).assign(suite="perplexity"),
        accuracies(judged).assign(suite="minimal_pairs"),
        pd.DataFrame({"item": ["fixed_batch"], "metric": "loss", "value": loss, "suite": "held_out"}),
    ]
    return pd.concat(tables, ignore_index=True), judged
