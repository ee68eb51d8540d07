"""The tasks on which checkpoints are evaluated. A task is a name, a kind and a source (config.measuring.Task).

A kind is a module with the functions of :class:`Kind`, and an entry of `KINDS`. Each checkpoint is evaluated once on
each task, and the scores are kept, because Snakemake reruns a whole job, which evaluates all checkpoints of a cell.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import Cell, MinimalPairs, Perplexity
from ..config.settings import MeasurementSettings
from ..model.checkpoints import load_model, read_metadata
from ..model.device import CPU
from ..storage.files import make_once, read_csv, write_csv, write_whole
from ..storage.hashes import code_version
from . import minimal_pairs, texts

HELD_OUT = "held_out"  # the suite of evaluation.csv that every study has without a task


class Kind(Protocol):
    """What a kind of tasks does; ``settings`` are the task's, in the kind's own section."""

    def collect(self, settings: Any, section: str, documents: Path, tokenizer: Path) -> pd.DataFrame:
        """Return the task's texts as a table, from the source that ``settings`` name."""

    def encode(
        self,
        settings: Any,
        table: pd.DataFrame,
        tokenizer: PreTrainedTokenizerBase,
        context_length: int,
        held_out: int,
    ) -> Any:
        """Return what :func:`collect` found as ids; its `repr` tells whether two are equal."""

    def score(self, model: PreTrainedModel, encoded: Any, batch_tokens: int) -> pd.DataFrame:
        """Return what a model says of each text or pair, a row each."""

    def measure(self, settings: Any, scores: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of evaluation.csv: item, metric and value."""


KINDS: dict[str, Kind] = {"texts": texts, "minimal_pairs": minimal_pairs}


class Prepared(NamedTuple):
    """A task for the model of a cell; ``fingerprint`` is a hash of everything that decides its scores."""

    name: str
    fingerprint: str
    score: Callable[[PreTrainedModel], pd.DataFrame]
    measure: Callable[[pd.DataFrame], pd.DataFrame]


def prepare(
    name: str,
    settings: Perplexity | MinimalPairs,
    table: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    evaluation: MeasurementSettings,
    cell: Cell,
) -> Prepared:
    """Encode the ``table`` of a task for the model of ``cell``."""
    kind = KINDS[settings.kind]
    encoded = kind.encode(settings, table, tokenizer, cell.model.context_length, evaluation.held_out_tokens_per_domain)
    parts = [part.to_csv() if isinstance(part, pd.DataFrame) else repr(part) for part in encoded]
    scores = partial(kind.score, encoded=encoded, batch_tokens=evaluation.batch_tokens)
    return Prepared(name, _hash(name, settings.kind, *parts), scores, partial(kind.measure, settings))


def prepare_held_out(documents: texts.Texts, batch_tokens: int) -> Prepared:
    """The part of the held-out documents on which every checkpoint is scored."""
    return Prepared(
        HELD_OUT,
        _hash(repr(documents)),
        lambda model: texts.document_losses(model, documents, batch_tokens),
        lambda losses: pd.DataFrame({"item": ["part"], "metric": "loss", "value": texts.mean_loss(losses)}),
    )


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def evaluate_once(
    tasks: Sequence[Prepared], checkpoint: Path, folder: Path, device: torch.device = CPU
) -> pd.DataFrame:
    """Evaluate ``checkpoint`` on ``tasks``, or read the tables that an earlier run left in ``folder``.

    The table has the columns suite (the task), item, metric, value. ``folder`` also receives the scores behind it, what
    `score` of each kind returns, as a .parquet. The files are named by checkpoint and task and by a hash of the
    weights, the task's texts and this code, so that a change in any of them evaluates the checkpoint again on the task.
    """
    weights = read_metadata(checkpoint).sha256["model.safetensors"]
    model = cache(lambda: load_model(checkpoint, device))

    def make(task: Prepared, place: Path) -> None:
        scores = task.score(model())
        write_whole(place.with_suffix(".parquet"), scores.to_parquet)
        write_csv(place, task.measure(scores).assign(suite=task.name))

    depends_on = weights, code_version("evaluate.tasks")
    places = [
        make_once(folder, f"{checkpoint.name}-{task.name}", (*depends_on, task.fingerprint), partial(make, task))
        for task in tasks
    ]
    return pd.concat(map(read_csv, places), ignore_index=True)
