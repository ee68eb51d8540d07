"""List the files below a user's folder that hold documents, and the files passed over, with the reason."""

import os
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError

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
