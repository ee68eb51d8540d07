"""How long a study will take: floating-point operations from the shapes, at a nominal speed."""

from .config import Cell, Study, cells

# Operations a second that two CPU cores reach together in these small models (README, "Time and memory").
NOMINAL_FLOPS_PER_SECOND = 1.2e11
SHARD_BYTES_PER_ID = 1.86  # of the published parquet shards: 77.8 MB hold 20,480 rows of 2,049 ids
OVERHEAD = 1.6  # evaluation, spectra and report, as a multiple of training
SHARES = {"pretrain": 1.0, "evaluate": (OVERHEAD - 1) / 2, "dynamics": (OVERHEAD - 1) / 2}  # of a training, by rule
IMPORTS = 5.0  # seconds that any job takes


def flops_per_token(cell: Cell) -> int:
    """Floating-point operations of a training step a token: matrix products and attention, forward and backward.

    Two operations a weight in the forward pass, two for the gradient of the input, and two for that of the weight,
    where it trains (Kaplan et al. 2020, section 2.1); attention as if it were not causal, as is usual: scores and
    mixture, 2 * context * width each, three times.
    """
    size, method = cell.size, cell.method
    head = 6 * size.d_model * cell.model.vocab_size
    if method.adapters_only:
        head = 4 * size.d_model * cell.model.vocab_size
    layer = sum(_linear_flops(cell, *shape) for shape in linear_shapes(cell))
    return size.num_hidden_layers * (layer + 12 * cell.model.context_length * size.d_model) + head


def linear_shapes(cell: Cell) -> list[tuple[str, int, int]]:
    """Name, inputs and outputs of a layer's linear maps."""
    width, hidden = cell.size.d_model, cell.size.intermediate_size
    narrow = cell.size.num_key_value_heads * cell.size.head_dim
    attention = [
        ("q_proj", width, width),
        ("k_proj", width, narrow),
        ("v_proj", width, narrow),
        ("o_proj", width, width),
    ]
    return [*attention, ("gate_proj", width, hidden), ("up_proj", width, hidden), ("down_proj", hidden, width)]


def _linear_flops(cell: Cell, name: str, inputs: int, outputs: int) -> int:
    if cell.method.rank and name in cell.method.targets:
        return 4 * inputs * outputs + 6 * cell.method.rank * (inputs + outputs)
    return (4 if cell.method.adapters_only else 6) * inputs * outputs


def training_flops(cell: Cell) -> int:
    """Operations of a cell's whole training."""
    return flops_per_token(cell) * cell.train.steps * cell.train.batch_size * cell.model.context_length


def data_bytes(study: Study) -> tuple[float, int]:
    """About what the study's shards of token ids take on disk, and exactly what the ids do that are made from them.

    The shards' ids are counted as one more than ``model.context_length`` a row, as the published ones have it.
    """
    settings = study.data.hub_pretokenized
    ids = (settings.shards + 1) * settings.rows_per_shard * (study.model.context_length + 1)
    width = {"uint16": 2, "uint32": 4}[study.data.dtype(study.model.vocab_size)]
    return ids * SHARD_BYTES_PER_ID, ids * width


def estimated_minutes(study: Study) -> float:
    """Minutes that the whole study takes on two CPU cores, when nothing is done yet; right within a factor of two."""
    flops = sum(map(training_flops, cells(study).values()))
    return 1 + OVERHEAD * flops / NOMINAL_FLOPS_PER_SECOND / 60


def expected_seconds(rule: str, cell: Cell | None) -> float:
    """Seconds that a job of ``rule`` takes on one of two CPU cores, right within a factor of two or so."""
    share = SHARES.get(rule, 0.0) if cell else 0.0
    return IMPORTS + (2 * share * training_flops(cell) / NOMINAL_FLOPS_PER_SECOND if cell else 0.0)
