"""Evaluate a checkpoint: perplexity, minimal pairs and held-out loss. Each checkpoint is evaluated once and kept.

Snakemake reruns a whole job. One job evaluates all checkpoints of a cell, so this cache spares those that are done.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from ..model.checkpoints import load_model, read_metadata
from ..model.device import CPU
from ..storage.files import make_once, read_csv, write_csv, write_whole
from ..storage.imports import code_version
from .held_out import document_losses, mean_loss
from .minimal_pairs import accuracies, judge
from .perplexity import Texts, perplexities, score_texts


@dataclass(frozen=True)
class EvaluationData:
    """The token ids that every checkpoint of a cell is evaluated on.

    ``domains`` are texts by domain, ``suite`` the minimal pairs and ``encoded`` their ids, and ``held_out`` the part of
    the held-out documents on which every checkpoint is scored. ``stride`` counts tokens between two windows of a long
    text; ``batch_tokens`` bounds a
    forward pass. ``start_token`` and ``leading_space`` say how each sentence of ``encoded`` begins.
    """

    domains: dict[str, Texts]
    stride: int
    suite: pd.DataFrame
    encoded: list[list[int]]
    held_out: Texts
    batch_tokens: int
    start_token: bool = False
    leading_space: bool = False
    device: torch.device = CPU

    @cached_property
    def fingerprint(self) -> str:
        """Hash everything that decides the scores: the ids, the stride, and the names of the pairs."""
        names = self.suite[["UID", "pairID", "linguistics_term"]].to_csv()
        return hashlib.sha256(
            repr((self.domains, self.stride, names, self.encoded, self.held_out)).encode()
        ).hexdigest()


def evaluate_once(data: EvaluationData, checkpoint: Path, folder: Path) -> pd.DataFrame:
    """Evaluate ``checkpoint`` on ``data``, or read the table that an earlier run left in ``folder``.

    The table has the columns suite, item, metric, value. ``folder`` also receives the scores behind it: both sentences
    of each pair (-pairs.parquet), and the loss of each text (-texts.parquet). The files are named by the checkpoint and
    by a hash of its weights, the data and this code, so that a change in any of them evaluates the checkpoint again.
    """
    weights = read_metadata(checkpoint).sha256["model.safetensors"]
    depends_on = weights, data.fingerprint, code_version("evaluate.checkpoint")

    def make(place: Path) -> None:
        scores = evaluate_checkpoint(data, checkpoint)
        write_whole(place.with_name(f"{place.stem}-pairs.parquet"), scores.pairs.to_parquet)
        write_whole(place.with_name(f"{place.stem}-texts.parquet"), scores.texts.to_parquet)
        write_csv(place, scores.table)

    return read_csv(make_once(folder, checkpoint.name, depends_on, make))


class CheckpointScores(NamedTuple):
    """The scores of one checkpoint.

    ``table`` has the columns suite, item, metric, value. ``pairs`` is what `minimal_pairs.judge` returns, and ``texts``
    what `perplexity.score_texts` returns.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    texts: pd.DataFrame


def evaluate_checkpoint(data: EvaluationData, checkpoint: Path) -> CheckpointScores:
    """Evaluate the checkpoint in the folder ``checkpoint`` on ``data``."""
    model = load_model(checkpoint, data.device)
    judged = judge(model, data.suite, data.encoded, data.batch_tokens)
    scored = score_texts(model, data.domains, data.stride, data.batch_tokens)
    loss = mean_loss(document_losses(model, data.held_out, data.batch_tokens))
    policy = {"start_token": float(data.start_token), "leading_space": float(data.leading_space)}
    tables = [
        perplexities(scored).assign(suite="perplexity"),
        accuracies(judged).assign(suite="minimal_pairs"),
        pd.DataFrame(
            {"item": "policy", "metric": list(policy), "value": list(policy.values()), "suite": "minimal_pairs"}
        ),
        pd.DataFrame({"item": ["part"], "metric": "loss", "value": loss, "suite": "held_out"}),
    ]
    return CheckpointScores(pd.concat(tables, ignore_index=True), judged, scored)
