"""The memory, minutes and cores that a cell's jobs ask a scheduler for."""

import math

from ..config import Cell, Runtime
from .operations import (
    LEAST_FLOPS_PER_SECOND,
    NOMINAL_FLOPS_PER_SECOND,
    flops_per_token,
    micro_batch_rows,
    training_flops,
)

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
