"""`python -m relora_study.readme`: write the tables of results/README.md that the code declares (`make docs`)."""

import re
from pathlib import Path

from .dynamics import readings
from .storage.files import write_text
from .train import log

README = Path(__file__).parents[2] / "results" / "README.md"
TABLES = {"log.csv": log.document, "dynamics.csv": readings.document}


def made(text: str) -> str:
    """Return ``text``, the content of results/README.md, with each table as its code declares it."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}, made by `make docs` -->\n", "\n<!-- end -->"
        new = begin + table() + end
        text = re.sub(f"(?s){re.escape(begin)}.*?{end}", new.replace("\\", r"\\"), text)
    return text


if __name__ == "__main__":
    write_text(README, made(README.read_text(encoding="utf-8")))
