"""Read users' documents from .txt, .jsonl and .parquet files, plain or compressed, one document at a time."""

import io
import json
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from ..errors import UserError
from .hub import first_line

DOCUMENTS = (".txt", ".jsonl", ".parquet")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}  # as pyarrow names them
READABLE = f"{', '.join(DOCUMENTS[:-1])} or {DOCUMENTS[-1]} file (also compressed as .gz or .zst)"
HIDDEN, OTHER, AGAIN = "hidden or left by a tool", "of another kind", "linked to what is read already"
LEFT_BY_TOOLS = {"__MACOSX", "__pycache__", "lost+found"}
NAMED_OF_A_KIND = 3  # how many examples a message names


@dataclass
class Listing:
    """The files to read, ordered by path, and the files passed over, by reason.

    A hidden folder counts as one file passed over.
    """

    root: Path
    files: list[Path] = field(default_factory=list)
    passed_over: dict[str, list[Path]] = field(default_factory=dict)

    def pass_over(self, reason: str, path: Path) -> None:
        """Note that ``path`` is not read, and why."""
        self.passed_over.setdefault(reason, []).append(path.relative_to(self.root))

    @property
    def passed_over_count(self) -> int:
        """Count the files that are not read."""
        return sum(map(len, self.passed_over.values()))

    def say(self, setting: str) -> None:
        """Print one line on stderr about the files passed over, if there are any."""
        if self.passed_over:
            kinds = [f"{len(paths)} {reason} ({_examples(paths)})" for reason, paths in self.passed_over.items()]
            sys.stderr.write(
                f"{setting}.path: {self.root}: {len(self.files)} files read, {self.passed_over_count} passed over:"
                f" {', '.join(kinds)}\n"
            )


def _examples(paths: list[Path]) -> str:
    named = ", ".join(map(str, paths[:NAMED_OF_A_KIND]))
    return f"{named}, ..." if len(paths) > NAMED_OF_A_KIND else named


def suffixes(path: Path) -> tuple[str, str | None]:
    """Return the suffixes of the content and of the compression (None without one), in lower case."""
    last = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), last) if last in COMPRESSIONS else (last, None)


def is_hidden(parts: Iterable[str]) -> bool:
    """Tell whether a path of these ``parts`` is hidden or left by a tool: ``.git``, ``._x.txt``, ``__MACOSX``."""
    return any(part.startswith(".") or part in LEFT_BY_TOOLS for part in parts)


def list_documents(root: Path, setting: str, kinds: tuple[str, ...] = DOCUMENTS) -> Listing:
    """List the files of ``kinds`` at or below ``root``, following links, each file and folder once.

    Real folders come before linked folders, so that a file gets its real path if it has one below ``root``.
    Raises :class:`UserError` if there is no file to read, or if a name is not UTF-8; ``setting`` is the section of
    config.yaml that the message names.
    """
    listing = Listing(root)
    read: dict[str, Path] = {}
    for path in _walk(listing):
        if suffixes(path)[0] not in kinds or (path.exists() and not path.is_file()):
            listing.pass_over(OTHER, path)
        elif read.setdefault(os.path.realpath(path), path) != path:
            listing.pass_over(AGAIN, path)
    listing.files = sorted(read.values())
    if not listing.files:
        raise UserError(f"{setting}.path: {root} holds no {READABLE if kinds == DOCUMENTS else f'{kinds[0]} file'}")
    return listing


def _walk(listing: Listing) -> list[Path]:
    """List the files that are not hidden: in real folders first, then links to files, then files in linked folders."""
    if listing.root.is_file():
        return [listing.root]
    plain: list[Path] = []
    linked: list[Path] = []
    behind: list[Path] = []
    folders, seen = deque([(listing.root, False)] if listing.root.is_dir() else []), set()
    while folders:
        folder, behind_link = folders.popleft()
        if (place := os.path.realpath(folder)) in seen:
            listing.pass_over(AGAIN, folder)
            continue
        seen.add(place)
        for path in sorted(folder.iterdir()):
            _require_utf8(path)
            if is_hidden([path.name]):
                listing.pass_over(HIDDEN, path)
            elif not path.is_dir():
                (behind if behind_link else linked if path.is_symlink() else plain).append(path)
            elif behind_link or path.is_symlink():
                folders.append((path, True))
            else:
                folders.appendleft((path, False))
    return [*plain, *linked, *behind]


def _require_utf8(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path.parent} holds {os.fsencode(path.name)!r}, a name that is not UTF-8; rename it"
        ) from error


ROWS_AT_A_TIME = 64
BUFFER_BYTES = 2**20  # bytes of Parquet read at a time: a row group may not fit in memory
MOST_BYTES = 2**27  # bytes of the largest document: each is in memory as a whole
BOM = b"\xef\xbb\xbf"
UTF8 = "texts are UTF-8: convert it (iconv -f ENCODING -t UTF-8)"


class RawDocument(NamedTuple):
    """A value of the column of documents, not checked yet, with its id (file and row) and its domain."""

    id: str
    domain: str
    value: Any


def read_documents(listing: Listing, column: str, setting: str) -> Iterator[RawDocument]:
    """Yield the documents in the files of ``listing``, in order; each sub-folder of its root is a domain.

    ``setting`` is the section of config.yaml that names ``column``. Raises :class:`UserError` that names the file, and
    the line or row, if it cannot be read, is not UTF-8, or lacks the column.
    """
    for path in listing.files:
        inside = path.relative_to(listing.root) if path != listing.root else Path(path.name)
        domain = inside.parts[0] if len(inside.parts) > 1 else "files"
        for number, value in enumerate(_values(path, column, f"{setting}.text_column")):
            yield RawDocument(f"{inside}-{number}", domain, value)


def _values(path: Path, column: str, key: str) -> Iterator[Any]:
    kind = suffixes(path)[0]
    try:
        if kind == ".txt":
            yield read_text(path)
        elif kind == ".jsonl":
            yield from (_field(path, line, pair, column, key) for line, pair in read_objects(path))
        else:
            yield from _read_parquet(path, column, key)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from error


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file as bytes, decompressed if its suffix names a compression."""
    compression = suffixes(path)[1]
    if compression is None:
        with path.open("rb") as plain:
            yield plain
    else:
        with pa.input_stream(str(path), compression=COMPRESSIONS[compression]) as stream:
            yield io.BufferedReader(stream)


def read_text(path: Path) -> str:
    """Read a text file without its byte order mark. Raises :class:`UserError` if it is not UTF-8."""
    with opened(path) as stream:
        return decoded(_bounded(stream.read(MOST_BYTES + 1), str(path)), str(path))


def _bounded(content: bytes, place: str) -> bytes:
    if len(content) > MOST_BYTES:
        raise UserError(f"{place} is a document of more than {MOST_BYTES / 1e6:.0f} MB; split it")
    return content


def decoded(content: bytes, place: str) -> str:
    """Decode ``content`` without its byte order mark. Raises :class:`UserError`, with ``place``, if it is not UTF-8.

    UTF-16 without a mark decodes as UTF-8 with many NULs, so a text with a third of NULs is refused, too.
    """
    try:
        text = content.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {place}: byte {error.start} is not UTF-8; {UTF8}") from error
    if text.count("\0") * 3 > len(text):
        raise UserError(f"cannot read {place}: a third of it is NULs, as in UTF-16; {UTF8}")
    return text


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a .jsonl file, each with the number of its line; empty lines are skipped."""
    with opened(path) as stream:
        yield from parse_objects(stream, str(path))


def parse_objects(stream: IO[bytes], place: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of ``stream``, one a line. Raises :class:`UserError` that names ``place`` for a bad line."""
    for number, line in enumerate(iter(lambda: stream.readline(MOST_BYTES + 1), b""), 1):
        text = decoded(_bounded(line, f"{place}, line {number}"), f"{place}, line {number}")
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"cannot read {place}, line {number}: not JSON ({first_line(error)})") from error
        if not isinstance(value, dict):
            raise UserError(
                f"cannot read {place}, line {number}: a {type(value).__name__} instead of an object; write one a line"
            )
        yield number, value


def _field(path: Path, line: int, row: dict[str, Any], column: str, key: str) -> Any:
    if column not in row:
        raise UserError(f"{path}, line {line} has no column {column!r}; set {key} to one of {_shortened(list(row))}")
    return row[column]


def _shortened(names: list[str]) -> str:
    return f"{names!r}" if len(names) <= 20 else f"{names[:20]!r} and {len(names) - 20} more"


def _read_parquet(path: Path, column: str, key: str) -> Iterator[Any]:
    with _seekable(path) as stream:
        file = ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False)
        if column not in (names := file.schema_arrow.names):
            raise UserError(f"{path} has no column {column!r}; set {key} to one of {_shortened(names)}")
        for batch in file.iter_batches(ROWS_AT_A_TIME, columns=[column]):
            try:
                yield from batch.column(0).to_pylist()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"cannot read {path}: column {column!r} holds a text that is not UTF-8; convert it"
                ) from error


@contextmanager
def _seekable(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for seeking; a compressed one is unpacked to a temporary file, because Parquet starts at its end."""
    with opened(path) as stream:
        if suffixes(path)[1] is None:
            yield stream
        else:
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(stream, copy)
                yield copy


def as_text(document: RawDocument, setting: str) -> str:
    """Return the text of ``document``, empty for a missing value. Raises :class:`UserError` if it is not text."""
    if document.value is None:
        return ""
    if not isinstance(document.value, str):
        raise UserError(f"{setting}.text_column: {document.id} holds {document.value!r:.40}, which is no text")
    return require_unicode(document.value, document.id)


def require_unicode(text: str, place: str) -> str:
    """Return ``text``. Raises :class:`UserError` if it has half of a surrogate pair, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: character {error.start} is half of a surrogate pair, which is no text") from error
    return text
