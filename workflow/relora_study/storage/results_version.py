"""Mark a results folder with the schema version that made it, and refuse a folder of another version.

Another version can give a file another meaning, so that its numbers would be misread without an error.
"""

from pathlib import Path

from ..errors import UserError
from .files import write_text

MARK = "schema_version"  # the marking file in the results folder


def check_results(results: Path, version: int) -> None:
    """Raise :class:`UserError` if ``results`` has the mark of another version, or trained cells and no mark."""
    mark = results / MARK
    marked = mark.read_text(encoding="utf-8", errors="replace").strip() if mark.exists() else "none"
    if marked != str(version) and (mark.exists() or any((results / "cells").glob("*/manifest.json"))):
        raise UserError(
            f"{results}/ was made with schema version {marked}, and this workflow reads and writes {version}; keep it"
            f" for the release that made it (mv {results} {results}-{marked}; mkdir {results}), and run again"
        )


def mark_results(results: Path, version: int) -> None:
    """Write ``version`` into the marking file of ``results``."""
    write_text(results / MARK, f"{version}\n")
