"""Which schema version of this workflow made a results folder: one of another version is refused, not misread."""

from pathlib import Path

from .errors import UserError
from .files import write_text

MARK = "schema_version"  # a file in the results folder


def check_results(results: Path, version: int) -> None:
    """Raise :class:`UserError` where ``results`` holds cells that another version made, or one that left no mark."""
    mark = results / MARK
    found = mark.read_text(encoding="utf-8", errors="replace").strip() if mark.exists() else "none"
    if found != str(version) and (mark.exists() or any((results / "cells").glob("*/manifest.json"))):
        raise UserError(
            f"{results}/ was made with schema version {found}, and this workflow reads and writes {version}; keep it"
            f" for the release that made it (mv {results} {results}-{found}; mkdir {results}), and run again"
        )


def mark_results(results: Path, version: int) -> None:
    """Leave the mark in ``results``."""
    write_text(results / MARK, f"{version}\n")
