"""The manifest of the token files, `results/data/tokens/manifest.json`: what is in them, and where it comes from."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from .contracts import Contract, read_contract, write_contract


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
