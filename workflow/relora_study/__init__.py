"""ReLoRA against full-rank training of small language models: data, training, evaluation, spectra, report."""

import sys
from types import TracebackType


def _leave(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an uncaught error as Python does, but not Ctrl-C: Snakemake's process tells the user that the run stops."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


# `-m` while Python looks up the module of `python -m relora_study.STAGE`, whose imports take the seconds in which
# Ctrl-C meets no handler yet. A program that imports this package keeps its own hook.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _leave
