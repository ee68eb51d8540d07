"""Hashes that vouch for results: of the code that a module can run, and of large files, remembered on this machine.

Import statements tell the files that a module can run, because a list kept by hand would go stale. Rules name these
files as inputs, and caches put their hash into their keys.
"""

import ast
import hashlib
import os
import platform
import time
from contextlib import suppress
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path

from ..errors import UserError
from .contracts import Contract, read_contract, write_contract
from .files import sha256

PACKAGE = Path(__file__).parents[1]


@cache
def source_files(module: str) -> tuple[Path, ...]:
    """List, sorted, the files of ``module``, such as "evaluate.__main__", and of all modules that it imports.

    Imports of imports and imports inside functions count, too. Libraries are left out.
    """
    finder = ModuleFinder(path=[str(PACKAGE.parent)])
    finder.import_hook(f"{PACKAGE.name}.{module}")
    files = (vars(imported)["__file__"] for imported in finder.modules.values())
    return tuple(sorted(Path(file) for file in files if file))


@cache
def code_version(module: str) -> str:
    """Hash the code that ``module`` can run, so that results of other code are measured again.

    Comments and blank lines do not enter the hash, because they change no number.
    """
    code = [
        f"{file.relative_to(PACKAGE)} {_without_comments(file.read_text(encoding='utf-8'))}"
        for file in source_files(module)
    ]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


@cache
def _without_comments(code: str) -> str:
    return ast.dump(ast.parse(code))


REMEMBERED_FROM = 2**30  # bytes; a smaller file takes a second, and a fresh hash finds what its times do not show
SETTLED = 2.0  # seconds without a change before a hash is remembered: a change within a clock's tick leaves no trace


class KnownHash(Contract):
    """A file as it was when it had this hash."""

    path: str
    size: int
    modified: int
    inode: int
    sha256: str


def has_sha256(path: Path, expected: str) -> bool:
    """Tell whether the file has the SHA-256 ``expected``. A large file is read once on each machine.

    It is read again once its path, size, inode or time of modification differs from what is remembered. A memory that
    is damaged, or that cannot be written, costs the time of reading and nothing else.
    """
    seen, began = _known(path, expected), time.time()
    if seen.size < REMEMBERED_FROM:
        return sha256(path) == expected
    if _remembered(path) == seen:
        return True
    found = sha256(path)
    if _known(path, found) == seen and began - seen.modified / 1e9 > SETTLED:
        with suppress(OSError, RuntimeError):
            write_contract(_place(path), seen)
    return found == expected


def _known(path: Path, digest: str) -> KnownHash:
    now = path.stat()
    return KnownHash(
        path=str(path.resolve()), size=now.st_size, modified=now.st_mtime_ns, inode=now.st_ino, sha256=digest
    )


def _remembered(path: Path) -> KnownHash | None:
    try:
        return read_contract(KnownHash, _place(path), "")
    except (UserError, RuntimeError):
        return None


def _place(path: Path) -> Path:
    """Return the file of what is remembered of ``path``. Raises :class:`RuntimeError` for a user without a home."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    # Machines may share a home, and each has disks of its own.
    key = hashlib.sha256(f"{platform.node()} {path.resolve()}".encode()).hexdigest()[:16]
    return Path(caches) / "relora_study" / f"hash-{key}.json"
