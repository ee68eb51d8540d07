"""Estimate how long a study takes: floating-point operations from the shapes, and speeds that machines reached."""

from math import log

import numpy as np

from ..config import Cell, Study, cells
from ..config.settings import Experiments, Search

# Operations a second that two CPU cores reach together in these small models (docs/commands.md, "Time and memory").
NOMINAL_FLOPS_PER_SECOND = 1.2e11
SHARD_BYTES_PER_ID = 1.86  # the authors' parquet shards take 77.8 MB for 20,480 rows of 2,049 ids
OVERHEAD = 1.6  # time of a whole study over the time of its trainings
SHARES = {
    "pretrain": 1.0,
    "evaluate": (OVERHEAD - 1) / 2,
    "dynamics": (OVERHEAD - 1) / 2,
}  # a rule's share of a training's time
IMPORTS = 5.0  # seconds that every job spends on imports


def flops_per_token(cell: Cell) -> int:
    """Count the floating-point operations of training on one token: matrix products and attention, both passes.

    A weight costs two operations in the forward pass, two for the gradient of its input and, if it trains, two for its
    gradient (Kaplan et al. 2020, section 2.1). Attention is counted as if it were not causal, as is usual: scores and
    weighted values cost 2 * context * width each in the forward pass, and twice as much in the backward pass.
    The optimizer's step is left out, and with it the projections of galore, fira and apollo: they cost a step, not a
    token.
    """
    size, method = cell.size, cell.method
    head = 6 * size.d_model * cell.model.vocab_size
    if method.adapters_only:
        head = 4 * size.d_model * cell.model.vocab_size
    layer = sum(_linear_flops(cell, name, *shape) for name, shape in size.linear_shapes.items())
    return size.num_hidden_layers * (layer + 12 * cell.model.context_length * size.widths["queries"]) + head


def _linear_flops(cell: Cell, name: str, inputs: int, outputs: int) -> int:
    if cell.method.rank and name in cell.method.targets:
        return 4 * inputs * outputs + 6 * cell.method.rank * (inputs + outputs)
    if cell.method.factor_rank and name in cell.method.targets:
        return 6 * cell.method.factor_rank * (inputs + outputs)
    return (4 if cell.method.adapters_only else 6) * inputs * outputs


def micro_batch_rows(cell: Cell) -> int:
    """Return the sequences of a micro-batch: no more than a process has of a batch."""
    return min(cell.train.micro_batch_size, cell.train.batch_size // cell.runtime.processes)


def training_flops(cell: Cell) -> int:
    """Count the floating-point operations of a cell's whole training."""
    return flops_per_token(cell) * cell.train.steps * cell.train.batch_size * cell.model.context_length


def data_bytes(study: Study) -> tuple[float, int]:
    """Return the bytes on disk of the study's shards (an estimate) and of the token files made from them (exact).

    A row counts ``model.context_length + 1`` ids, as in the authors' shards.
    """
    settings = study.data.hub_pretokenized
    ids = (settings.shards + 1) * settings.rows_per_shard * (study.model.context_length + 1)
    width = {"uint16": 2, "uint32": 4}[study.data.dtype(study.model.vocab_size)]
    return ids * SHARD_BYTES_PER_ID, ids * width


def estimated_minutes(study: Study, experiments: Experiments) -> float:
    """Estimate the minutes of the whole study, with its experiments, on two CPU cores, within a factor of two."""
    beside = experiments.beside(cells(study))
    own, swept = (sum(map(training_flops, group.values())) for group in (cells(study), beside))
    searched = sum(map(search_flops, experiments.searches.values()))
    flops = OVERHEAD * own + swept + searched
    rungs = sum(len(one.cells_at(rung)) for one, _ in experiments.searches.values() for rung in range(len(one.rungs)))
    imports = IMPORTS * (2 * len(beside) + rungs) / 2
    return 1 + (flops / NOMINAL_FLOPS_PER_SECOND + imports) / 60


def search_flops(search: Search) -> float:
    """Count the floating-point operations of a search, each step of a candidate once, as a mean over candidates."""
    return sum(rung_flops(search, rung) for rung in range(len(search[0].rungs)))


def rung_flops(search: Search, rung: int) -> float:
    """Count the floating-point operations of all candidates that reach ``rung``, from the rung before.

    At the last rung, these include the whole trainings with further seeds.
    """
    settings, tried = search
    a_step = sum(training_flops(cell) / cell.train.steps for cell in tried.values()) / len(tried)
    return a_step * settings.survivors[rung] * settings.steps_to(rung)


def expected_seconds(rule: str, cell: Cell | None) -> float:
    """Estimate the seconds of a job of ``rule`` on one of two CPU cores, within about a factor of two."""
    share = SHARES.get(rule, 0.0) if cell else 0.0
    return IMPORTS + (2 * share * training_flops(cell) / NOMINAL_FLOPS_PER_SECOND if cell else 0.0)


def expected_rung_seconds(search: Search, rung: int) -> float:
    """Estimate the seconds of a candidate's job at ``rung``: a mean over those that train and those dropped before."""
    return IMPORTS + 2 * rung_flops(search, rung) / len(search[0].cells_at(rung)) / NOMINAL_FLOPS_PER_SECOND


H200_FLOPS_PER_SECOND = 989e12  # the data sheet's peak of dense bfloat16 products
# At the paper's widths, in bfloat16 and micro-batches of 16 sequences. Models this narrow leave most of a GPU idle.
WIDTHS = (96, 384)
SHARES_OF_PEAK = {
    ("full", "eager"): (0.025, 0.140),
    ("full", "compiled"): (0.040, 0.286),
    ("adapters", "eager"): (0.014, 0.086),
    ("adapters", "compiled"): (0.028, 0.145),
}
MODES = ("eager", "compiled")  # `runtime.compile` false or true
LEAST_FLOPS_PER_SECOND = min(min(shares) for shares in SHARES_OF_PEAK.values()) * H200_FLOPS_PER_SECOND


def expected_share_of_peak(cell: Cell, mode: str) -> float:
    """Return the share of an H200's peak for the width of ``cell``: between the measured widths, along log(width)."""
    shares = SHARES_OF_PEAK["adapters" if cell.method.rank else "full", mode]
    return float(np.interp(log(cell.size.d_model), [log(width) for width in WIDTHS], shares))


def expected_tokens_per_second(cell: Cell, mode: str) -> float:
    """Return the tokens a second that one H200 would train; more GPUs train as many each, without their messages."""
    return expected_share_of_peak(cell, mode) * H200_FLOPS_PER_SECOND / flops_per_token(cell)
