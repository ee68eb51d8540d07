"""The files of this package that a module runs, computed from import statements.

Rules name these files as inputs, and caches take their hash into their keys. A list kept by hand goes stale.
"""

import ast
import hashlib
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path

PACKAGE = Path(__file__).parent


@cache
def source_files(module: str) -> tuple[Path, ...]:
    """The files that ``module``, such as "evaluate.__main__", may run: its own, and all that it imports, sorted.

    An import counts wherever it stands, inside a function as well. Libraries are left out.
    """
    finder = ModuleFinder(path=[str(PACKAGE.parent)])
    finder.import_hook(f"{PACKAGE.name}.{module}")
    files = (vars(found)["__file__"] for found in finder.modules.values())
    return tuple(sorted(Path(file) for file in files if file))


@cache
def code_version(module: str) -> str:
    """A hash of the code that ``module`` may run: what was measured with other code is measured again.

    Comments and blank lines do not count: they change no number.
    """
    code = [
        f"{file.relative_to(PACKAGE)} {_without_comments(file.read_text(encoding='utf-8'))}"
        for file in source_files(module)
    ]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


@cache
def _without_comments(code: str) -> str:
    return ast.dump(ast.parse(code))
