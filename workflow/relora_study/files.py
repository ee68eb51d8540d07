"""Whole files or none: every output is written beside its place and renamed into it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from .errors import UserError


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Call ``write`` on a temporary path beside ``path``, then rename it: no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    write(partial)
    partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one piece."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write ``table`` to ``path`` in one piece, floats to nine significant digits (exact for float32)."""
    write_whole(path, lambda partial: table.to_csv(partial, index=False, float_format="%.9g"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_yaml(path: str | Path, value: Any) -> None:
    """Write ``value`` to ``path`` as YAML, keys in their own order."""
    write_text(Path(path), yaml.safe_dump(value, sort_keys=False))


def read_yaml(path: Path) -> Any:
    """Read one YAML document; a missing or malformed file is a :class:`UserError` that names it."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
