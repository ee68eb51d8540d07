"""How long a study will take: floating-point operations from the shapes, at a nominal speed."""

from .config import Cell, Study, cells

# Operations a second that two CPU cores reach together in these small models (README, "Time and memory").
NOMINAL_FLOPS_PER_SECOND = 1.2e11
OVERHEAD = 1.6  # evaluation, spectra and report, as a multiple of training


def multiplied_weights(cell: Cell) -> int:
    """The weights that each token is multiplied with: all but the embedding's, which is looked up."""
    size = cell.size
    attention = 2 * size.d_model + 2 * size.num_key_value_heads * size.head_dim
    layer = size.d_model * (attention + 3 * size.intermediate_size)
    return size.num_hidden_layers * layer + size.d_model * cell.model.vocab_size


def training_flops(cell: Cell) -> int:
    """Six operations a weight and token: two forward, four backward (Kaplan et al. 2020, section 2.1)."""
    tokens = cell.train.steps * cell.train.batch_size * cell.model.context_length
    return 6 * multiplied_weights(cell) * tokens


def estimated_minutes(study: Study) -> float:
    """Minutes that the whole study takes on two CPU cores, when nothing is done yet; right within a factor of two."""
    flops = sum(map(training_flops, cells(study).values()))
    return 1 + OVERHEAD * flops / NOMINAL_FLOPS_PER_SECOND / 60
