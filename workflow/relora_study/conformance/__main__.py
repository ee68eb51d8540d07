"""`python -m relora_study.conformance`: check any ReLoRA training code for the faults of public code."""

import math
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer

from ..errors import UserError, refusal
from ..storage.files import write_json
from .observation import observe
from .questions import Finding, findings
from .training import load

SOUND, FAULT, UNUSABLE = 0, 1, 2  # exit codes

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def table(answers: list[Finding]) -> str:
    """Return the answers as a Markdown table."""
    rows = [(one.question, one.verdict, one.evidence, one.mend) for one in answers]
    return str(pd.DataFrame(rows, columns=["question", "verdict", "evidence", "what to mend"]).to_markdown(index=False))


def as_json(answer: Finding) -> dict[str, Any]:
    """Return an answer for a JSON file, with null for numbers that are not finite."""
    numbers = {name: value if math.isfinite(value) else None for name, value in answer.numbers.items()}
    return vars(answer) | {"numbers": numbers}


@app.command()
def check(
    file: Annotated[str, typer.Argument(help="a Python file with a function training(), or file.py:function")],
    output: Annotated[Path | None, typer.Option(help="a JSON file for the answers")] = None,
) -> None:
    """Train three short cycles of the code in FILE and judge its resets (docs/conformance.md).

    The exit code is 0 if no question finds a fault, 1 if one does, and 2 if the file cannot be used.
    """
    torch.manual_seed(0)
    answers = findings(observe(load(file)))
    print(table(answers))
    if output:
        write_json(output, [as_json(answer) for answer in answers])
    raise typer.Exit(FAULT if any(answer.verdict == "fault" for answer in answers) else SOUND)


def main() -> None:
    """Run the command line; what cannot be used ends it with one line, and any other error, too, with exit code 2."""
    try:
        app()
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = refusal(error)
    except Exception:
        traceback.print_exc()
        message = "the check itself failed: please report it"
    print(f"error: {message}", file=sys.stderr)
    sys.exit(UNUSABLE)


if __name__ == "__main__":
    main()
