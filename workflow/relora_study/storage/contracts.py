"""The JSON files that stages exchange: manifests of cells and of token files, and what candidates of a search left.

Each is a pydantic model, written and read by two functions.
"""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import UserError
from .files import write_json


class Contract(BaseModel):
    """The typed content of a JSON file. Unknown keys are ignored, so older code reads files of newer code."""

    model_config = ConfigDict(frozen=True)


ContractT = TypeVar("ContractT", bound=BaseModel)


def write_contract(path: Path, content: BaseModel) -> None:
    """Write ``content`` to ``path`` in one piece."""
    write_json(path, content.model_dump())


def read_contract(kind: type[ContractT], path: Path, refusal: str) -> ContractT:
    """Read ``path`` as ``kind``. Raises :class:`UserError` with ``refusal`` if the file is missing or malformed."""
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(refusal) from error


class CellManifest(Contract):
    """How a cell was trained, and how the training ended.

    ``steps`` is the configured number of steps. ``diverged_at`` is the step at which a loss, a gradient or a weight
    was not finite, or None if the training reached its last step. ``tokens`` and ``resets`` count up to the end.
    ``final_sha256`` is the hash of the last checkpoint's weights. ``ended`` is the time (ISO 8601, UTC) at which the
    training's last job ended; manifests of versions before 1.0 have none.
    """

    cell: str
    parameters: int
    trainable_parameters: int
    steps: int
    diverged_at: int | None = None
    tokens: int
    resets: list[int]
    peak_memory_bytes: int
    device: str
    threads: int
    processes: int
    platform: str
    versions: dict[str, str]
    ended: str | None = None
    final_sha256: str


def read_cell_manifest(cell_dir: Path) -> CellManifest:
    """Read the manifest of the cell in ``cell_dir``. Raises :class:`UserError` if it is missing or malformed."""
    path = cell_dir / "manifest.json"
    return read_contract(
        CellManifest,
        path,
        f"{path} is missing or malformed; delete it and run again: finished steps are not trained twice",
    )


def diverged_at(cell_dir: Path) -> int | None:
    """Return the step at which the cell diverged, or None if it did not diverge or has not ended."""
    return read_cell_manifest(cell_dir).diverged_at if (cell_dir / "manifest.json").exists() else None


class Split(Contract):
    """The content of a token file. ``bytes`` counts the texts in UTF-8; for shards, documents and bytes are unknown."""

    documents: int | None = None
    tokens: int
    bytes: int | None = None
    sha256: str


class Files(Contract):
    """How many of the user's files were read, and how many were passed over."""

    read: int
    passed_over: int


class Manifest(Contract):
    """The manifest of the token files: their content and origin.

    ``revision`` is the commit of shards from the Hub. ``files`` exists only with ``data.source: files``, ``validation``
    only with a ``data.validation_fraction``.
    """

    source: str
    revision: str | None = None
    dtype: Annotated[str, Field(pattern="^uint(16|32)$")]
    vocab_size: int
    end_of_text_id: int
    tokenizer_sha256: str
    train: Split
    held_out: Split
    validation: Annotated[Split | None, Field(exclude_if=lambda split: split is None)] = None
    files: Annotated[Files | None, Field(exclude_if=lambda files: files is None)] = None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest beside the token files. It comes last: a folder with a manifest is complete."""
    write_contract(folder / "manifest.json", manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in ``folder``. Raises :class:`UserError` if it is missing or malformed."""
    path = folder / "manifest.json"
    return read_contract(Manifest, path, f"{path} cannot be read; delete {folder} and run again")


class RungResult(Contract):
    """What a candidate, trained with a seed, left at a rung.

    ``step`` is the rung's, or that of the divergence. ``loss`` is the mean over the validation ids in nats a token; it
    is None where the training diverged, and where the candidate was dropped at an earlier rung.
    """

    candidate: str
    seed: int
    step: int
    loss: float | None
    diverged: bool = False
    dropped: bool = False
