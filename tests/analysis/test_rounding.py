"""Rounding to bfloat16, against PyTorch's."""

import numpy as np
import torch
from relora_study.analysis.evidence import random_product, to_bfloat16


def test_bfloat16_is_torchs_and_its_round_off_is_what_a_product_of_low_rank_shows():
    matrix = np.random.default_rng(0).standard_normal((50, 60)) * 1e3
    theirs = torch.from_numpy(matrix.astype(np.float32)).bfloat16().float().numpy()
    assert (to_bfloat16(matrix) == theirs).all()
    number, share = random_product(96, 384, 16, "bfloat16")
    assert 1e3 < number < 1e4 < 1e7 < random_product(96, 384, 16, "float32")[0] and 0.9 < share < 1.1
