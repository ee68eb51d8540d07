"""Estimate what trainings take, and what their jobs ask a scheduler for: operations, time, memory and cores.

Operations and memory follow from the shapes, and time from speeds that machines reached.
"""

import math

import numpy as np

from ..config import Cell, Runtime, Study, cells
from ..config.settings import Experiments, Search

# Operations a second that two CPU cores reach together in these small models (docs/commands.md, "Time and memory").
NOMINAL_FLOPS_PER_SECOND = 1.2e11
SHARD_BYTES_PER_ID = 1.86  # the authors' parquet shards take 77.8 MB for 20,480 rows of 2,049 ids
OVERHEAD = 1.6  # time of a whole study over the time of its trainings
# A rule's share of a training's time.
SHARES = {"pretrain": 1.0, "evaluate": (OVERHEAD - 1) / 2, "dynamics": (OVERHEAD - 1) / 2}
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
    return float(np.interp(math.log(cell.size.d_model), np.log(WIDTHS), shares))


def expected_tokens_per_second(cell: Cell, mode: str) -> float:
    """Return the tokens a second that one H200 would train; more GPUs train as many each, without their messages."""
    return expected_share_of_peak(cell, mode) * H200_FLOPS_PER_SECOND / flops_per_token(cell)


CORES_OF_NOMINAL = 2  # cores that reach the nominal speed together
SAFETY = 3  # times the estimate: a job that the scheduler cuts off costs more than a job that waits longer
TOKENS_READ = 5_000_000  # per checkpoint: BLiMP's 134,000 sentences and as many tokens of texts, rounded up
START_AND_SAVE = 15  # minutes beyond the time limit: imports from a busy disk, saving the last state
LIBRARIES = {"cpu": 800, "cuda": 4000}  # megabytes of host memory that a process takes before the model
CORES_PER_GPU = 4  # one starts kernels without a break; others read batches, copy, compile, and carry NCCL and gloo
MEGABYTE = 2**20


def parameter_count(cell: Cell) -> int:
    """Count the parameters of the cell's model with its adapters, from the shapes alone."""
    size, method = cell.size, cell.method
    shapes = size.linear_shapes
    layer = sum(inputs * outputs for inputs, outputs in shapes.values()) + size.vector_numbers
    adapted = [sum(shapes[name]) for name in method.targets]
    scales = len(adapted) if method.trainable_scale else 0
    layer += (method.rank or method.factor_rank or 0) * sum(adapted) + scales
    if method.factor_rank:  # the factors are in place of the weight
        layer -= sum(inputs * outputs for inputs, outputs in (shapes[name] for name in method.targets))
    last_norm = size.d_model * (2 if size.decoder.biased else 1)
    return size.num_hidden_layers * layer + 2 * cell.model.vocab_size * size.d_model + last_norm


def training_minutes(cell: Cell) -> float:
    """Estimate generously the minutes of the whole training, on the GPUs or cores that it asks for."""
    return _minutes(cell, training_flops(cell)) / cell.runtime.processes


def _minutes(cell: Cell, flops: float) -> float:
    """Estimate generously the minutes that one GPU or one core takes for ``flops``."""
    on_gpu = cell.runtime.device == "cuda"
    speed = LEAST_FLOPS_PER_SECOND if on_gpu else NOMINAL_FLOPS_PER_SECOND / CORES_OF_NOMINAL
    return SAFETY * flops / speed / 60


def pretrain_minutes(cell: Cell) -> int:
    """Return the minutes that one job of the training asks for: its time limit with a margin, or the whole training."""
    limit = cell.train.time_limit
    return math.ceil(limit) + START_AND_SAVE if limit else max(60, math.ceil(training_minutes(cell)))


def reading_minutes(cell: Cell) -> int:
    """Estimate generously the minutes of evaluating a cell's checkpoints, or of taking their spectra."""
    forward = flops_per_token(cell) / 3  # the backward pass is twice the forward one
    checkpoints = 2 * (cell.train.steps // cell.train.checkpoint_every + 1)
    return max(120, math.ceil(_minutes(cell, checkpoints * TOKENS_READ * forward)))


def pretrain_megabytes(cell: Cell) -> int:
    """Return the megabytes of host memory that a training needs on each node.

    On a CPU, the model, gradients, moments and activations count; with GPUs, only a state while it is saved.
    """
    state = 16 * parameter_count(cell)  # float32 weights, gradients and two moments
    on_gpu = cell.runtime.device == "cuda"
    each = state if on_gpu else state + _activation_bytes(cell)
    return cell.runtime.processes_per_node * (_libraries(cell) + math.ceil(SAFETY / 2 * each / MEGABYTE))


def _activation_bytes(cell: Cell) -> int:
    """Estimate the bytes that a micro-batch keeps in float32 for its backward pass."""
    size = cell.size
    numbers_per_layer = 16 * size.d_model + 6 * size.intermediate_size
    rows = micro_batch_rows(cell)
    tokens = rows * cell.model.context_length
    return 4 * tokens * size.num_hidden_layers * numbers_per_layer


def reading_megabytes(cell: Cell, tokens: int) -> int:
    """Return the megabytes of host memory for reading checkpoints.

    A few models count and, on a CPU, the logits of ``tokens`` tokens.
    """
    logits = 0 if cell.runtime.device == "cuda" else 4 * tokens * cell.model.vocab_size
    return _libraries(cell) + math.ceil(SAFETY * (4 * parameter_count(cell) + logits) / MEGABYTE)


def _libraries(cell: Cell) -> int:
    return LIBRARIES["cuda" if cell.runtime.device == "cuda" else "cpu"]


def training_cores(runtime: Runtime) -> int:
    """Return the cores that a training needs on each node: one for a process on the CPU, a few for one with a GPU."""
    return runtime.processes_per_node * (CORES_PER_GPU if runtime.device == "cuda" else 1)
