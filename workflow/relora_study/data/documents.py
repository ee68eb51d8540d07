"""Split documents into training and held-out documents by the hash of each id, without holding the corpus in memory."""

import errno
import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile, ParquetWriter

from ..errors import UserError
from ..progress_lines import progress
from ..storage.files import write_whole

SCHEMA = pa.schema([("id", pa.string()), ("domain", pa.string()), ("text", pa.string())])
PARTS = ("train", "held_out", "validation")
BATCH_CHARACTERS = 2**22  # characters of text in memory at a time, and in a row group
CACHE_KIBIBYTES = 64 * 1024
TABLE = """
    CREATE TABLE documents (hash TEXT, part INTEGER, id TEXT, domain TEXT, digest BLOB UNIQUE, text TEXT);
    CREATE INDEX by_hash ON documents (part, hash);
"""

Item = TypeVar("Item")


class Document(NamedTuple):
    """A text, where it comes from, and whether it may train."""

    id: str
    domain: str
    text: str
    held_out_only: bool = False


def hash_of(identifier: str) -> str:
    """Return the SHA-256 of a document's id, which alone decides the document's place and part."""
    return hashlib.sha256(identifier.encode()).hexdigest()


def split(
    documents: Iterable[Document], held_out_fraction: float, output: Path, validation_fraction: float = 0.0
) -> None:
    """Write train, held_out and validation.parquet (id, domain, text), each ordered by hash: a prefix is a fair sample.

    Without a ``validation_fraction`` there is no validation.parquet. Empty documents and repeated texts are dropped.
    A database on the disk of ``output`` sorts the rest. Raises :class:`UserError` if a part would be empty.
    """
    output.mkdir(parents=True, exist_ok=True)
    wanted = PARTS if validation_fraction else PARTS[:2]
    with _database(output / ".sorting.sqlite") as database:
        _fill(database, documents, held_out_fraction, validation_fraction)
        counts = [_count(database, part) for part in range(len(wanted))]
        for name, count in zip(wanted, counts, strict=True):
            if not count:
                raise UserError(
                    f"{sum(counts)} documents with text leave no {name.replace('_', '-')} document; add documents"
                )
        for part, name in enumerate(wanted):
            rows = database.execute(
                "SELECT id, domain, text FROM documents WHERE part = ? ORDER BY hash, rowid", (part,)
            )
            shown = progress(rows, counts[part], f"writing {name} documents", " documents")
            write_whole(output / f"{name}.parquet", partial(_write, rows=shown))


def part_of(document: Document, hashed: str, held_out_fraction: float, validation_fraction: float) -> int:
    """The number in ``PARTS`` of the part that ``document`` goes to: its id's hash, as a share, decides."""
    share = int(hashed, 16) / 2**256
    if document.held_out_only or share < held_out_fraction:
        return 1
    return 2 if share < held_out_fraction + validation_fraction else 0


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a database with an empty table of documents, in a file that is removed afterwards.

    Raises :class:`OSError` if the disk refuses.
    """
    path.unlink(missing_ok=True)  # a killed process can leave one
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIBIBYTES}"):
                database.execute(f"PRAGMA {pragma}")
            database.executescript(TABLE)
            yield database
    except sqlite3.OperationalError as error:
        full = "full" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path.parent)) from error
    finally:
        path.unlink(missing_ok=True)


def _fill(
    database: sqlite3.Connection, documents: Iterable[Document], held_out_fraction: float, validation_fraction: float
) -> None:
    """Insert the documents whose text is not empty and not in the table yet."""
    database.execute("BEGIN")
    for document in progress(documents, None, "reading documents", " documents"):
        if document.text.strip():
            hashed = hash_of(document.id)
            part = part_of(document, hashed, held_out_fraction, validation_fraction)
            digest = hashlib.sha256(document.text.encode()).digest()
            row = (hashed, part, document.id, document.domain, digest, document.text)
            database.execute("INSERT OR IGNORE INTO documents VALUES (?, ?, ?, ?, ?, ?)", row)
    database.execute("COMMIT")


def _count(database: sqlite3.Connection, part: int) -> int:
    found = database.execute("SELECT count(*) FROM documents WHERE part = ?", (part,))
    return int(found.fetchone()[0])


def _write(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    with ParquetWriter(path, SCHEMA) as writer:
        for batch in batches(rows, lambda row: len(row[2]), BATCH_CHARACTERS):
            columns = [pa.array(column, pa.string()) for column in zip(*batch, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))


@dataclass(frozen=True)
class Stored:
    """Reads the documents that :func:`split` wrote to ``path``, a batch at a time; with ``domains``, only those."""

    path: Path
    domains: frozenset[str] | None = None

    def _columns(self, *names: str) -> Iterator[pa.Table]:
        with ParquetFile(self.path) as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns=["domain", *names])
                if self.domains is not None:
                    table = table.filter(pc.is_in(table["domain"], pa.array(sorted(self.domains), pa.string())))
                yield table

    def texts(self) -> Iterator[str]:
        """Yield the texts in order."""
        for batch in self._columns("text"):
            yield from batch["text"].to_pylist()

    def all_domains(self) -> frozenset[str]:
        """Return every domain that has a document."""
        return frozenset(name for batch in self._columns() for name in batch["domain"].unique().to_pylist())

    def size(self) -> tuple[int, int]:
        """Count the documents, and the bytes of their texts in UTF-8."""
        documents = size = 0
        for batch in self._columns("text"):
            documents += len(batch)
            size += pc.sum(pc.binary_length(batch["text"])).as_py() or 0
        return documents, size


def batches(items: Iterable[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Yield lists of ``items`` in order; a list ends when the sum of its sizes reaches ``most``."""
    batch, total = [], 0
    for item in items:
        batch.append(item)
        total += size(item)
        if total >= most:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
