"""Compute from import statements which files of this package a module can run.

Rules name these files as inputs, and caches put their hash into their keys. A list kept by hand would go stale.
"""

import ast
import hashlib
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path

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
