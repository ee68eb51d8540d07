"""Convert shards of token ids to flat, memory-mapped files: streaming, in parallel, in the shards' order."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile

from ..errors import UserError
from ..storage.contracts import Split
from ..storage.files import require_room, sha256, write_csv, write_whole
from .shards import Shards, in_parallel, verify
from .tokens import IdArray

ROWS_AT_A_TIME = 1024


@dataclass(frozen=True)
class ShardLayout:
    """The layout of a shard: ``count`` rows in ``column``, each of at least ``length`` ids below ``vocab_size``.

    ``dtype`` is the type of the ids in the token file.
    """

    column: str
    count: int
    length: int
    vocab_size: int
    dtype: str

    @property
    def bytes(self) -> int:
        """Return the bytes of a shard's ids in the token file."""
        return self.count * self.length * np.dtype(self.dtype).itemsize


def convert(shards: Shards, layout: ShardLayout, output: Path, workers: int) -> Split:
    """Write the ids of ``shards`` in order to ``output``, and list the shards in a .csv beside it.

    Each shard has a fixed place in the file, so that workers can finish in any order. Raises :class:`UserError` that
    names shard and row if a hash, the schema or an id is wrong.
    """
    names, provenance = list(shards.files), []
    require_room(output.parent, layout.bytes * len(names), "token ids")

    def write(partial_file: Path) -> None:
        with partial_file.open("wb") as stream:
            stream.truncate(layout.bytes * len(names))
        work = partial(_convert_shard, shards, layout, partial_file)
        provenance.extend(in_parallel(work, enumerate(names), workers, "converting shards"))

    write_whole(output, write)
    table = pd.DataFrame({"shard": names, "sha256": provenance, "rows": layout.count})
    table["first_row"] = np.arange(len(names)) * layout.count
    write_csv(output.with_suffix(".csv"), table)
    return Split(tokens=len(names) * layout.count * layout.length, sha256=sha256(output))


def _convert_shard(shards: Shards, layout: ShardLayout, output: Path, item: tuple[int, str]) -> str:
    """Write the shard ``item`` = (place, name) into ``output``, and return its SHA-256."""
    place, name = item
    digest = verify(shards.folder / name, shards.files[name].sha256)
    with output.open("r+b") as stream, (shards.folder / name).open("rb") as shard:
        stream.seek(place * layout.bytes)
        for ids in read_rows(shard, name, layout):
            stream.write(ids.tobytes())
    return digest


def read_rows(shard: BinaryIO, name: str, layout: ShardLayout) -> Iterator[IdArray]:
    """Yield the checked rows of a shard as little-endian ids [rows, length], a batch at a time.

    Raises :class:`UserError` if the shard does not have ``layout``.
    """
    file = _open(shard, name, layout.column)
    if file.metadata.num_rows != layout.count:
        raise UserError(
            f"shard {name} has {file.metadata.num_rows} rows, not data.hub_pretokenized.rows_per_shard {layout.count}"
        )
    done = 0
    try:
        for batch in file.iter_batches(ROWS_AT_A_TIME, columns=[layout.column]):
            yield _checked(batch.column(0), name, done, layout)
            done += len(batch)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"shard {name} cannot be read after row {done}: {error}; delete it and run again") from error


def _open(shard: BinaryIO, name: str, column: str) -> ParquetFile:
    """Open a Parquet file, after checking that ``column`` holds lists of integers."""
    try:
        file = ParquetFile(shard)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"shard {name} is not a whole Parquet file ({error}); delete it and run again") from error
    schema = file.schema_arrow
    if column not in schema.names:
        raise UserError(
            f"shard {name} has no column {column!r}; set data.hub_pretokenized.column to one of {schema.names}"
        )
    kind = schema.field(column).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_integer(kind.value_type):
        raise UserError(f"shard {name}: column {column!r} holds {kind}, not lists of integers; name another column")
    return file


def _checked(lists: pa.Array, name: str, first: int, layout: ShardLayout) -> IdArray:
    """Check ``lists``, rows of shard ``name`` from ``first`` on, and return the first ``layout.length`` ids of each."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    if (short := lengths < layout.length).any():
        at = int(short.argmax())
        raise UserError(
            f"shard {name}, row {first + at}: {lengths[at]} ids, fewer than context_length + 1 = {layout.length}"
        )
    cut = pc.list_slice(lists, 0, layout.length, return_fixed_size_list=True).flatten()
    ids = pc.fill_null(cut.cast(pa.int64()), -1).to_numpy(zero_copy_only=False).reshape(-1, layout.length)
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= layout.vocab_size:
        at, where = np.argwhere((ids < 0) | (ids >= layout.vocab_size))[0]
        raise UserError(
            f"shard {name}, row {first + at}: id {ids[at, where]} at position {where} is not below model.vocab_size"
            f" {layout.vocab_size} (missing ids read as -1)"
        )
    checked: IdArray = ids.astype(np.dtype(layout.dtype).newbyteorder("<"))
    return checked
