"""Token ids on disk: flat, memory-mapped, of the smallest fitting type, with a manifest that vouches for them."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from ..contracts import Contract, read_contract, write_contract
from ..errors import UserError
from ..files import sha256, write_whole

Ids = np.ndarray[Any, np.dtype[Any]]


class Split(Contract):
    """What a file of ids holds; ``bytes`` are of the texts, in UTF-8. Shards of ids do not tell documents and bytes."""

    documents: int | None = None
    tokens: int
    bytes: int | None = None
    sha256: str


class Manifest(Contract):
    """What the token files hold and what made them; ``revision`` is the commit of shards from the Hub."""

    source: str
    revision: str | None = None
    dtype: Annotated[str, Field(pattern="^uint(16|32)$")]
    vocab_size: int
    end_of_text_id: int
    tokenizer_sha256: str
    train: Split
    held_out: Split


def pack(documents: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, dtype: str) -> Ids:
    """All documents' ids in order, an end-of-text id after each: shape [tokens]."""
    if documents.empty:  # which a tokenizer does not take
        return np.empty(0, dtype)
    encoded = tokenizer(documents.text.tolist(), add_special_tokens=False, verbose=False)["input_ids"]
    return np.concatenate([np.asarray([*ids, tokenizer.eos_token_id], dtype=dtype) for ids in encoded])


def write_split(path: Path, ids: Ids, documents: pd.DataFrame, context_length: int) -> Split:
    """Write ``ids`` little-endian to ``path``. Raises :class:`UserError` where they do not fill one sequence."""
    if len(ids) <= context_length:
        raise UserError(f"{path.name} would hold {len(ids)} tokens, fewer than one sequence; add documents")
    write_whole(path, ids.astype(ids.dtype.newbyteorder("<")).tofile)
    size = sum(len(text.encode()) for text in documents.text)
    return Split(documents=len(documents), tokens=len(ids), bytes=size, sha256=sha256(path))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest beside the files, last, so that its presence says that they are whole."""
    write_contract(folder / "manifest.json", manifest)


def read_manifest(folder: Path) -> Manifest:
    """The manifest in ``folder``. Raises :class:`UserError` where it is missing or malformed."""
    path = folder / "manifest.json"
    return read_contract(Manifest, path, f"{path} cannot be read; delete {folder} and run again")


def open_tokens(folder: Path, split: str, check_hash: bool = True) -> Ids:
    """The ids of ``split`` (train or held_out), memory-mapped, shape [tokens].

    Raises :class:`UserError` where the file is not the one of its manifest, by its length or its hash (about a second
    a gigabyte; of a job's processes one checks it).
    """
    manifest = read_manifest(folder)
    path, expected = folder / f"{split}.bin", getattr(manifest, split)
    dtype = np.dtype(manifest.dtype).newbyteorder("<")
    if not path.exists() or path.stat().st_size != expected.tokens * dtype.itemsize:
        raise UserError(
            f"{path} does not hold the {expected.tokens} tokens of its manifest; delete {folder} and run again"
        )
    if check_hash and sha256(path) != expected.sha256:
        raise UserError(f"{path} is damaged: its hash is not its manifest's; delete {folder} and run again")
    return np.memmap(path, dtype=dtype, mode="r")


def row_count(ids: Ids, context_length: int) -> int:
    """How many rows of ``context_length + 1`` ids there are."""
    return len(ids) // (context_length + 1)


def held_out_batch(tokens: Path, sequences: int, context_length: int) -> Ids:
    """The first ``sequences`` rows of the held-out ids, int64 [sequences, context_length + 1].

    The same for every checkpoint and method. Raises :class:`UserError` where the held-out text is too short.
    """
    ids = open_tokens(tokens, "held_out")
    available = row_count(ids, context_length)
    if sequences > available:
        raise UserError(
            f"dynamics.batch_sequences {sequences} is more than the {available} sequences of {tokens / 'held_out.bin'};"
            " lower it or hold more text out (data.held_out_fraction)"
        )
    return np.stack([row(ids, index, context_length) for index in range(sequences)])


def row(ids: Ids, index: int, context_length: int) -> Ids:
    """Row ``index``, int64 [context_length + 1], as the paper's shards hold 2,049: the first ids predict the last."""
    start = index * (context_length + 1)
    return np.asarray(ids[start : start + context_length + 1], dtype=np.int64)
