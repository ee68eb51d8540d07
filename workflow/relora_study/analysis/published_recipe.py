"""The paper's models and recipe as numbers, from arXiv 2509.12960 and the authors' code (Yu-val-weiss/relora-pico)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config import Cell, Method, Report, Size

RANK, RESET_PERIOD, CONTEXT_LENGTH, VOCAB_SIZE, STEPS = 16, 2000, 2048, 50304, 20000
LEARNING_RATE = 3e-4  # peak
WIDTHS = {"tiny": 96, "small": 384}  # d_model
SHAPE = {"num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4}
PARAMETERS, TOKENS = {"tiny": 11_282_784, "small": 64_595_328}, STEPS * 1024 * CONTEXT_LENGTH  # of a cell
SIZES = {
    name: Size.model_validate({"d_model": width, "intermediate_size": 4 * width, **SHAPE})
    for name, width in WIDTHS.items()
}
METHODS = {  # the schedules end at ten times the steps that the paper trains
    "full": Method(rank=0, schedule="linear", warmup_steps=2500, horizon_steps=200_000),
    "relora": Method(
        rank=RANK,
        alpha=2 * RANK,
        targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        reset_period=RESET_PERIOD,
        reset_offset=1,  # the merge follows the step that makes their counter 2,000 k + 1
        schedule="jagged_cosine",
        warmup_steps=2000,
        rewarmup_steps=100,
        minimum_learning_rate_ratio=0.1,
        horizon_steps=200_000,
    ),
}
# With a comma, which no method of a study can have in its name.
LABELS = {"full": "full, published", "relora": "ReLoRA, published"}


@dataclass(frozen=True)
class PublishedCell:
    """A published model, with the fields of a :class:`Cell` that the analysis reads; seed -1 stands for unknown."""

    size_name: str
    method_name: str
    size: Size
    method: Method
    seed: int = -1

    @property
    def name(self) -> str:
        """The name in the column ``cell`` of the long tables."""
        return f"{self.size_name}-{self.method_name}"


Trained = Cell | PublishedCell


def published_cells(sizes: Sequence[str] = tuple(SIZES)) -> dict[str, PublishedCell]:
    """The published models of ``sizes``, by name."""
    models = [PublishedCell(size, LABELS[method], SIZES[size], METHODS[method]) for size in sizes for method in METHODS]
    return {model.name: model for model in models}


def has_papers_shape(cell: Cell) -> bool:
    """Whether ``cell`` has the shape, context length and vocabulary of the paper's size of equal name."""
    return cell.size == SIZES.get(cell.size_name) and (cell.model.context_length, cell.model.vocab_size) == (
        CONTEXT_LENGTH,
        VOCAB_SIZE,
    )


def shows_published(report: Report, cells: Mapping[str, Cell]) -> bool:
    """Whether figures show published curves beside our runs: on request, or where all cells have the paper's shape."""
    fits = report.published == "auto" and all(map(has_papers_shape, cells.values()))
    return fits or report.published == "overlay"
