"""Readings made by hand, of which a test knows what the report must say."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from relora_study.analysis.experiments import Swept
from relora_study.analysis.losses import Losses
from relora_study.config import cells, check
from relora_study.config.settings import experiments_of, stage_settings, yardstick_settings
from relora_study.storage.contracts import Manifest, Split, write_manifest
from relora_study.storage.files import write_csv, write_json
from studies import write_yaml

STEPS = range(0, 601, 60)
TOKENS = Manifest(
    source="pypi_news",
    dtype="uint16",
    vocab_size=4096,
    end_of_text_id=0,
    tokenizer_sha256="",
    train=Split(documents=1111, tokens=222222, bytes=999999, sha256="a" * 64),
    held_out=Split(documents=33, tokens=4444, bytes=18000, sha256="b" * 64),
)
MANIFEST = {
    "parameters": 100,
    "trainable_parameters": 40,
    "tokens": 614400,
    "device": "cpu",
    "threads": 2,
    "processes": 1,
    "platform": "Linux on a test",
    "versions": {"python": "3.11", "torch": "2.13.0"},
    "peak_memory_bytes": 2**30,
}


def log_of(cell) -> pd.DataFrame:
    steps, adapted = np.arange(1, 601), bool(cell.method.rank)
    norm = np.where(steps <= 61, 0.0 if cell.method.adapter_initialization == "zero" else 0.5, 1.0)
    table = {
        "step": steps,
        "tokens": steps * 1024,
        "loss": 8 - steps / 200,
        "learning_rate": 1e-3,
        "gradient_norm": 1.0,
    }
    resets = np.isin(steps, range(61, 601, 60))
    after = np.isin(steps, range(62, 601, 60))  # an update three times as large follows each reset
    table |= {"adapter_gradient_norm": norm if adapted else None, "reset": adapted * resets}
    table |= {"update_norm": np.where(after & adapted, 3.0, 1.0), "clipped_gradient_norm": None}
    return pd.DataFrame(table)


def evaluation_of(right: float) -> pd.DataFrame:
    rows = []
    for step in STEPS:
        for item in ("a.com", "b.com", "overall", "macro_average"):
            for metric in ("token_perplexity", "mean_text_perplexity", "bits_per_byte"):
                rows.append((step, "perplexity", item, metric, 900 - step))
        for item in ("overall", "phenomenon/agreement", "paradigm/is_are"):
            pairs = {"accuracy": right, "accuracy_low": right - 0.1, "accuracy_high": right + 0.1, "pairs": 100.0}
            rows += [(step, "minimal_pairs", item, metric, value) for metric, value in pairs.items()]
        rows.append((step, "held_out", "part", "loss", 8 - step / 300))
    return pd.DataFrame(rows, columns=["step", "suite", "item", "metric", "value"])


def held_out_of(loss: float) -> pd.DataFrame:
    """Ten documents of a hundred tokens, around a loss (nats a token)."""
    nats = 100 * loss * np.linspace(0.9, 1.1, 10)
    return pd.DataFrame({"document": range(10), "tokens": 100, "bytes": 400, "nats": nats})


def yardsticks_of(study) -> pd.DataFrame:
    """Counted models of every diet, at 7, 5 and 4.5 nats a token."""
    every = [*cells(study).values(), *experiments_of(study).cells.values()]
    losses = {"unigram": 7.0, "bigram": 5.0, "trigram": 4.5}
    return pd.DataFrame(
        [
            {"seed": diet.seed, "sequences": diet.sequences, "tokens": 1000, "yardstick": name, "loss": loss}
            for diet in yardstick_settings(study, every).diets
            for name, loss in losses.items()
        ]
    )


def judged_of(right: float) -> pd.DataFrame:
    """A hundred pairs in five paradigms, the first of which are judged right."""
    good = np.where(np.arange(100) < 100 * right, 1.0, -1.0)
    return pd.DataFrame({"UID": [f"p{number % 5}" for number in range(100)], "good": good, "bad": 0.0})


def texts_of(perplexity: float) -> pd.DataFrame:
    """Twenty texts in two domains, around a perplexity."""
    nats = 50 * np.log(perplexity) * np.linspace(0.9, 1.1, 20)
    return pd.DataFrame(
        {"domain": ["a.com", "b.com"] * 10, "text": range(20), "tokens": 50, "bytes": 200, "nats": nats}
    )


def dynamics_of(lost: float) -> pd.DataFrame:
    steps = [*STEPS, *(step + 3 for step in STEPS if 0 < step < 600)]
    rows = [
        (step, component, layer, quantity, metric, 1 / (1 + step + layer), "")
        for step in steps
        for component in ("w2", "ov_authors", "v", "o")
        for layer in range(4)
        for quantity in ("weights", "updates")
        for metric in ("per", "condition_number", "frobenius_norm")
    ]
    later = {
        "cycle_update": ["effective_rank", "overlap_left", "overlap_right"],
        "cumulative_update": ["effective_rank"],
        "updates_exact": ["condition_number"],
        "effective_weights": ["gini", "hoyer", "frobenius_norm"],
    }
    rows += [
        (s, c, 0, "gradients", m, 0.3, "") for s in STEPS for c in ("w2", "v", "o") for m in ("per", "condition_number")
    ]
    circuits = [("ov_authors", "per"), ("ov_circuit", "per_of_rank"), ("ov_circuit", "condition_number")]
    rows += [(s, component, 0, "effective_weights", m, 0.5, "") for s in STEPS for component, m in circuits]
    rows += [(s, "w2", 0, quantity, m, 1e-3, "") for s in STEPS for quantity, names in later.items() for m in names]
    rows += [
        (s, "layer_output", 0, "hidden_states", m, 0.5, "") for s in STEPS for m in ("cka_with_last", "mean_cosine")
    ]
    rows += [(s, "model", -1, "merge", m, lost, "") for s in STEPS for m in ("update_lost", "loss_jump")]
    return pd.DataFrame(rows, columns=["step", "component", "layer", "quantity", "metric", "value", "reason"])


def write_results(raw: dict, folder: Path) -> None:
    """The default study's results in ``folder``, of hand-made readings, with no published curves in its figures."""
    study = check(raw, [])
    study = study.model_copy(update={"report": study.report.model_copy(update={"published": "off"})})
    for section, settings in stage_settings(study).items():
        write_yaml(folder / f"settings/{section}.yaml", settings.model_dump())
    write_yaml(folder / "settings/sweeps.yaml", experiments_of(study).sweeps.model_dump())
    write_manifest(folder / "data/tokens", TOKENS)
    write_csv(folder / "evaluation/yardsticks.csv", yardsticks_of(study))
    for right, (name, cell) in zip(itertools.cycle((0.8, 0.5, 0.6)), cells(study).items(), strict=False):
        place = folder / "cells" / name
        write_yaml(place / "config.yaml", cell.model_dump())
        write_csv(place / "log.csv", log_of(cell))
        write_csv(place / "timing.csv", pd.DataFrame({"step": range(1, 601), "seconds": 0.1}))
        write_csv(place / "evaluation.csv", evaluation_of(right))
        write_csv(place / "held_out.csv", held_out_of(6.0))
        write_csv(place / "dynamics.csv", dynamics_of(0.5 if cell.method.merge == "unscaled" else 0.0))
        (place / "evaluation").mkdir()
        judged_of(right).to_parquet(place / "evaluation/step-000600-minimal_pairs-0.parquet")
        texts_of(300).to_parquet(place / "evaluation/step-000600-perplexity-0.parquet")
        write_json(place / "manifest.json", MANIFEST)


def swept(rows: pd.DataFrame, margin: float = 0.0) -> Swept:
    """Runs with one loss each, of text whose documents are not known."""
    rows = rows.reset_index(drop=True)
    rows = rows.assign(cell=[f"c{number}" for number in range(len(rows))])
    return Swept(rows, Losses.of_means(dict(zip(rows.cell, rows.loss, strict=True))), margin)


def with_losses(runs, losses: dict[str, float], spread: float = 0.0):
    """``runs`` whose cells score so on two documents, around which differences vary; NaN diverged."""
    made = replace(runs)
    nats = {name: 50 * one * np.array([1 - spread, 1 + spread]) for name, one in losses.items()}
    made.__dict__["losses"] = Losses(np.array([50.0, 50.0]), nats)
    made.__dict__["yardsticks"] = {"unigram": 7.0, "bigram": 5.1}
    return made
