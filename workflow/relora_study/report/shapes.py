"""The paper's shapes and recipe, as numbers; without pandas, so that Snakemake can read captions quickly."""

from ..config import Cell, Method

RANK, RESET_PERIOD, CONTEXT_LENGTH, VOCAB_SIZE, STEPS = 16, 2000, 2048, 50304, 20000
LEARNING_RATE = 3e-4  # peak
WIDTHS = {"tiny": 96, "small": 384}  # d_model; W2 and O have as many singular values, V a third as many
SHAPE = {"num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4}
SCHEDULES = {  # horizon and resets of the paper's two methods (in its code: linear to 0, and a jagged cosine)
    "full": Method(rank=0, schedule="linear", warmup_steps=2500, horizon_steps=200_000),
    "relora": Method(
        rank=RANK,
        alpha=2 * RANK,
        targets=["q_proj"],
        reset_period=RESET_PERIOD,
        schedule="jagged_cosine",
        warmup_steps=2000,
        rewarmup_steps=100,
        minimum_learning_rate_ratio=0.1,
        horizon_steps=200_000,
    ),
}


def has_papers_shape(cell: Cell) -> bool:
    """Whether a cell's size is the paper's of the same name, at its context and vocabulary."""
    width = WIDTHS.get(cell.size_name, 0)
    shape = {"d_model": width, "intermediate_size": 4 * width, **SHAPE}
    return cell.size.model_dump() == shape and (cell.model.context_length, cell.model.vocab_size) == (
        CONTEXT_LENGTH,
        VOCAB_SIZE,
    )
