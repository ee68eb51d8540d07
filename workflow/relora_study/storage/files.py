"""Write outputs so that no reader sees half a file: write beside the place, sync, and rename."""

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ..errors import UserError


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Call ``write`` on a temporary path beside ``path``, then rename the file to ``path``.

    The temporary name holds the process id, because a job that outlives a killed Snakemake may write ``path`` too.
    Raises :class:`OSError` that names ``path`` if the disk refuses, and then leaves no file behind.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    with errors_naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            mode = usual_mode(partial)
            write(partial)
            set_mode(partial, mode)
            sync(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_folder_whole(place: Path, fill: Callable[[Path], Any]) -> None:
    """Call ``fill`` on a temporary folder beside ``place``, then rename the folder to ``place``.

    Only one process at a time may write beside ``place``: half-written folders that killed processes left are removed.
    Raises :class:`OSError` that names ``place`` if the disk refuses, and then leaves no folder behind.
    """
    with errors_naming(place):
        for left in place.parent.glob(".partial-*"):
            shutil.rmtree(left)
        partial = place.with_name(f".partial-{place.name}")
        partial.mkdir(parents=True)
        try:
            fill(partial)
            mode = usual_mode(partial / ".partial-mode")
            for path in partial.iterdir():
                set_mode(path, mode)
                sync(path)
            sync(partial)
            shutil.rmtree(place, ignore_errors=True)
            partial.rename(place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync(place.parent)


def usual_mode(missing: Path) -> int:
    """Return the permissions that a new file gets here, by making ``missing`` and removing it.

    Some libraries (safetensors) ignore the umask and write files that only their owner may read.
    """
    missing.touch()
    try:
        return stat.S_IMODE(missing.stat().st_mode)
    finally:
        missing.unlink()


def set_mode(path: Path, mode: int) -> None:
    """Give ``path`` the permissions ``mode`` if it has others: some network disks refuse every change."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Make an :class:`OSError` name ``path``, if it names no file or only the temporary one."""
    try:
        yield
    except OSError as error:
        if error.filename and ".partial-" not in str(error.filename):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def sync(path: Path) -> None:
    """Wait until the file or folder is on the disk, so that a renamed file survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one piece."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write ``table`` to ``path`` in one piece, floats to nine significant digits (exact for float32)."""
    write_whole(path, lambda partial: table.to_csv(partial, index=False, float_format="%.9g"))


# Columns of readings in which an empty field is a missing number.
NUMBERS = ("value", "loss", "mean_loss", "diverged_at")


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table that :func:`write_csv` wrote. Only an empty number is missing; a domain called NA stays text."""
    return pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in NUMBERS})


def read_result(path: Path) -> pd.DataFrame:
    """Read a table in results/. Raises :class:`UserError`, with the command that makes it, if it cannot be read."""
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; run snakemake {path}") from error


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


class StrictLoader(yaml.SafeLoader):
    """A YAML loader that refuses a key given twice, where PyYAML would silently keep the last."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Compose one mapping. A key that comes from a merge (`<<`) may be given once more, to override it."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in lines:
                where = "in line" if lines[name] == line else f"in lines {lines[name]} and"
                raise UserError(f"key {key.value!r} is given twice, {where} {line}; merge the two")
            lines[name] = line
        return node


def read_yaml(path: Path) -> Any:
    """Read one YAML document. Raises :class:`UserError` if the file is missing, malformed or has a key twice."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of the file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_room(folder: Path, needed: int, purpose: str) -> None:
    """Raise :class:`UserError` if the disk of ``folder`` has less than ``needed`` bytes free for ``purpose``."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder} needs {needed / 1e9:.1f} GB for {purpose}, and {free / 1e9:.1f} GB are free; make room first"
        )


def make_once(folder: Path, name: str, depends_on: Iterable[str], make: Callable[[Path], None]) -> Path:
    """Return ``folder/NAME-KEY.csv``, after calling ``make`` with this path if the file is missing.

    KEY is a hash of ``depends_on``, which lists hashes of everything that decides the file's content. Files of ``name``
    with another key are removed. ``make`` may write further files whose names begin with NAME-KEY, and must write the
    given path last.
    """
    key = hashlib.sha256(" ".join(depends_on).encode()).hexdigest()[:12]
    place = folder / f"{name}-{key}.csv"
    if not place.exists():
        for old in folder.glob(f"{name}-*"):
            if not old.name.startswith(place.stem):  # another process may be writing these
                old.unlink(missing_ok=True)
        make(place)
    return place
