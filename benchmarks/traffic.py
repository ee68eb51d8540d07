"""What a micro-batch moves on a GPU at the paper's shapes: compiled, against eager; counted, without a GPU.

`make bench-traffic`, or `PYTHONPATH=workflow python benchmarks/traffic.py`.
"""

from pathlib import Path

from common import write_results
from relora_study.config import Cell, cells, read_study
from relora_study.cost.micro_batch import bytes_per_token, micro_batch_kernels
from relora_study.cost.roofline import GPUS, expected_tokens_per_second


def compare(case: str, cell: Cell) -> list[tuple[str, str, str, float, float]]:
    """Rows for one cell; each value is compiled, and its baseline eager."""
    traffic = [bytes_per_token(cell, compiled) / 1e6 for compiled in (True, False)]
    kernels = [float(sum(micro_batch_kernels(cell, compiled).values())) for compiled in (True, False)]
    speeds = {gpu: [expected_tokens_per_second(cell, rates, on) for on in (True, False)] for gpu, rates in GPUS.items()}
    return [
        (case, "traffic", "MB/token", traffic[0], traffic[1]),
        (case, "kernels", "a micro-batch", kernels[0], kernels[1]),
        *((case, f"expected speed on {gpu}", "tokens/s", ours[0], ours[1]) for gpu, ours in speeds.items()),
    ]


if __name__ == "__main__":
    paper = cells(read_study([Path("config.yaml"), Path("workflow/presets/paper.yaml")]))
    names = {"full": "full rank", "relora": "ReLoRA"}
    shown = [
        (f"paper {size}: {names[method]}", f"{size}-{method}-s42") for size in ("tiny", "small") for method in names
    ]
    write_results("traffic", [row for case, name in shown for row in compare(case, paper[name])])
