"""How fast a GPU would train a cell, from shares of its peak that an H200 reached (docs/results/gpu_h200.md)."""

from math import log

import numpy as np

from ..config import Cell
from .operations import flops_per_token

H200_FLOPS_PER_SECOND = 989e12  # the data sheet's peak of dense bfloat16 products
# At the paper's widths, in bfloat16 and micro-batches of 16 sequences. Models this narrow leave most of a GPU idle.
WIDTHS = (96, 384)
SHARES_OF_PEAK = {
    ("full", "eager"): (0.025, 0.140),
    ("full", "compiled"): (0.040, 0.286),
    ("adapters", "eager"): (0.014, 0.086),
    ("adapters", "compiled"): (0.028, 0.145),
}
MODES = ("eager", "compiled")  # `runtime.compile` false or true
LEAST_FLOPS_PER_SECOND = min(min(shares) for shares in SHARES_OF_PEAK.values()) * H200_FLOPS_PER_SECOND


def expected_share_of_peak(cell: Cell, mode: str) -> float:
    """Return the share of an H200's peak for the width of ``cell``: between the measured widths, along log(width)."""
    shares = SHARES_OF_PEAK["adapters" if cell.method.rank else "full", mode]
    return float(np.interp(log(cell.size.d_model), [log(width) for width in WIDTHS], shares))


def expected_tokens_per_second(cell: Cell, mode: str) -> float:
    """Return the tokens a second that one H200 would train; more GPUs train as many each, without their messages."""
    return expected_share_of_peak(cell, mode) * H200_FLOPS_PER_SECOND / flops_per_token(cell)
