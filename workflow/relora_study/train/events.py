"""Write the training log as TensorBoard's event files, for curves of a training that runs; off by default."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..config import Runtime
from ..errors import UserError

EVENTS = "tensorboard"  # the folder of event files in a cell's folder
SECONDS_TO_A_CURVE = 10  # after which a row is in the file, where TensorBoard sees it


def check_tensorboard(runtime: Runtime) -> None:
    """Raise :class:`UserError` if ``runtime`` asks for event files and the package that writes them is missing."""
    if runtime.tensorboard and find_spec("tensorboard") is None:
        raise UserError(
            "runtime.tensorboard = true: the package tensorboard is not installed; pip install tensorboard,"
            " or set it to false"
        )


class Events:
    """Event files in a cell's folder, with a curve for each column of log.csv."""

    def __init__(self, cell_dir: Path, after: int) -> None:
        """Go on after step ``after``: readers hide later steps of earlier files, which the trainer takes again."""
        from torch.utils.tensorboard import SummaryWriter  # needs a package that only this setting needs

        place = str(cell_dir / EVENTS)
        self._writer: Any = SummaryWriter(place, purge_step=after + 1, flush_secs=SECONDS_TO_A_CURVE)

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Write ``rows`` of numbers, each with its ``step``; a column that is None has no point there."""
        for row in rows:
            for column, value in row.items():
                if column != "step" and value is not None:
                    self._writer.add_scalar(column, value, row["step"])

    def sync(self) -> None:
        """Write what is held back, so that no state outlives the points of its steps."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is held back, and close the file."""
        self._writer.close()
