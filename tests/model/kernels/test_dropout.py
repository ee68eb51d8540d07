"""The mask keeps its share of the entries, each independently of the others."""

import hashlib

import pytest
import torch
from relora_study.model.kernels import dropout
from relora_study.model.kernels.dropout import keep_mask
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

EARLIER = "7570f2a102917b90be6893c624347e279bdf543c530092be89dc55886c76728b"


class Operations(TorchDispatchMode):
    """Records each operation and the type of what it gives."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        self.seen.append((func, getattr(given, "dtype", None)))
        return given


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


def test_off_the_cpu_each_entry_has_a_float32_of_its_own():
    """On a fake GPU, which has shapes and types and no numbers."""
    with FakeTensorMode(), Operations() as operations:
        keep = keep_mask(torch.empty(5, 7, dtype=torch.bfloat16, device="cuda"), 0.1)
    assert keep.shape == (5, 7) and keep.dtype == torch.bool
    assert [(str(func), dtype) for func, dtype in operations.seen if "rand" in str(func)] == [
        ("aten.rand_like.default", torch.float32)
    ]


def test_a_compiler_traces_the_mask_which_keeps_its_share():
    torch._dynamo.reset()
    traced = torch.compile(keep_mask, backend="aot_eager", fullgraph=True)
    keep = traced(torch.empty(1_000_001), 0.1)
    assert keep.double().mean().item() == pytest.approx(0.9, abs=12e-4)  # four standard errors


def test_the_cpus_draws_are_those_of_earlier_versions():
    """Runs that were begun go on with the masks they would have had."""
    torch.manual_seed(7)
    keep = keep_mask(torch.empty(3, 67), 0.1)
    assert hashlib.sha256(keep.numpy().tobytes()).hexdigest() == EARLIER
