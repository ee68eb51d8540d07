"""Whole files or none: every output is written beside its place, synced, and renamed into it."""

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

from .errors import UserError


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Call ``write`` on a temporary path beside ``path``, then rename it: no reader sees half a file.

    The temporary path is this process's own: a job that outlives a killed Snakemake may write the same file.
    Raises :class:`OSError` that names ``path`` where the disk does not take it; nothing is left behind then.
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
    """The same for a folder, which ``fill`` fills. One process at a time may write beside ``place``.

    What killed processes left half written there goes.
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
    """The permissions that the umask and the folder's own rules give a new file, read from one that is made and goes.

    Some libraries (safetensors) write files that their owner alone may read, whatever the umask.
    """
    missing.touch()
    try:
        return stat.S_IMODE(missing.stat().st_mode)
    finally:
        missing.unlink()


def set_mode(path: Path, mode: int) -> None:
    """Give ``path`` the permissions ``mode``, where it has others: some network disks refuse to be asked."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Give an error of the disk the name of the file, where it has none or that of the part that was written."""
    try:
        yield
    except OSError as error:
        if error.filename and ".partial-" not in str(error.filename):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def sync(path: Path) -> None:
    """Wait until the file or folder is on the disk, so that a power cut cannot take what was renamed."""
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


def read_csv(path: Path) -> pd.DataFrame:
    """The table of readings in ``path``, as :func:`write_csv` wrote it: a domain called NA or null stays a word.

    Only an empty ``value`` is missing.
    """
    return pd.read_csv(path, keep_default_na=False, na_values={"value": [""]})


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


class StrictLoader(yaml.SafeLoader):
    """YAML in which a mapping has each key once; PyYAML takes the last and drops the others in silence."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """The mapping that begins here. A key that a merge (`<<`) brings may be given once more: it is overridden."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in lines:
                where = "in line" if lines[name] == line else f"in lines {lines[name]} and"
                raise UserError(f"key {key.value!r} is given twice, {where} {line}; keep one, with all that both hold")
            lines[name] = line
        return node


def read_yaml(path: Path) -> Any:
    """Read one YAML document; a :class:`UserError` names a file that is missing, malformed, or has a key twice."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_room(folder: Path, needed: int, purpose: str) -> None:
    """Raise :class:`UserError` where the disk of ``folder`` has not ``needed`` bytes free for ``purpose``."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder} needs {needed / 1e9:.1f} GB for {purpose}, and {free / 1e9:.1f} GB are free; make room first"
        )


def make_once(folder: Path, name: str, depends_on: Iterable[str], make: Callable[[Path], None]) -> Path:
    """``folder/NAME-KEY.csv``, made by ``make`` unless it is there; what another key left under ``name`` is removed.

    The key is of ``depends_on``: hashes of all that the file's content depends on. ``make`` may write more files
    whose names begin with NAME-KEY, and writes the one it is given last.
    """
    key = hashlib.sha256(" ".join(depends_on).encode()).hexdigest()[:12]
    place = folder / f"{name}-{key}.csv"
    if not place.exists():
        for old in folder.glob(f"{name}-*"):
            if not old.name.startswith(place.stem):  # which another process may be writing
                old.unlink(missing_ok=True)
        make(place)
    return place
