"""The mask keeps its share of the entries, each independently of the others."""

import pytest
import torch
from relora_study.model.kernels import dropout
from relora_study.model.kernels.dropout import keep_mask


def test_the_dropout_mask_keeps_its_share_independently(reference):
    torch.manual_seed(0)
    like = torch.empty(4_000_001)
    keep, plain = keep_mask(like, 0.1), reference(dropout).keep_mask(like, 0.1)
    assert keep.double().mean().item() == pytest.approx(0.9, abs=6e-4)  # four standard errors
    assert plain.double().mean().item() == pytest.approx(0.9, abs=6e-4)
    assert keep.shape == plain.shape and keep.dtype == plain.dtype
    fields = keep[:4_000_000].view(-1, 4).double()
    assert (torch.corrcoef(fields.T) - torch.eye(4)).abs().max() < 5e-3
    assert not torch.equal(keep, keep_mask(like, 0.1))
