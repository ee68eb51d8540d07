"""What was seen on the card: a line a check, printed as one table at the end and left in results/tests/gpu.md."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from relora_study.storage.files import write_text

TABLE = Path("results/tests/gpu.md")
COLUMNS = ["check", "case", "seen"]
SEEN: list[tuple[str, str, str]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of this folder where there is no card."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU, or a build of torch without CUDA"))


@pytest.fixture(scope="session")
def seen() -> Callable[[str, str, str], None]:
    """Notes what a check saw in a case."""
    return lambda check, case, what: SEEN.append((check, case, what))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not SEEN:
        return
    card = torch.cuda.get_device_properties(0)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, CUDA {torch.version.cuda}"
    title = f"{card.name}, {card.total_memory / 2**30:.0f} GiB; {versions}"
    text = f"{title}\n\n{pd.DataFrame(SEEN, columns=COLUMNS).to_markdown(index=False, disable_numparse=True)}\n"
    write_text(TABLE, text)
    terminalreporter.write(f"\n{text}\n")
