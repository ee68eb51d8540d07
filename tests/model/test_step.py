"""What a training step asks of a GPU, seen without one: the operations that it dispatches."""

import pytest
import torch
from relora_study.train.loop import take_step
from relora_study.train.run import start
from torch.utils._python_dispatch import TorchDispatchMode

CPU, aten = torch.device("cpu"), torch.ops.aten
PRODUCTS = {
    aten.mm: 0,
    aten.bmm: 0,
    aten.addmm: 1,
    aten.addmm_: 1,
    aten.baddbmm: 1,
}  # and the place of the first factor


def a_run(make_cell, method, **runtime):
    cell = make_cell(method, train={"micro_batch_size": 2})
    return start(cell.model_copy(update={"runtime": cell.runtime.model_copy(update=runtime)}), CPU)


def a_batch():
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(0))


class FactorTypes(TorchDispatchMode):
    """Records the types of both factors of every product of matrices; sums of a row's products are none."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        first = PRODUCTS.get(func.overloadpacket)
        if first is not None:
            a, b = args[first : first + 2]
            if min(*a.shape[-2:], b.shape[-1]) > 1:
                self.seen.append((a.dtype, b.dtype))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["full", "relora"])
def test_no_product_of_a_step_in_bfloat16_is_float32_by_float32(make_cell, method):
    run = a_run(make_cell, method, precision="bfloat16")
    with FactorTypes() as types:
        take_step(run, a_batch(), 1)
    assert len(types.seen) > 50 and set(types.seen) == {(torch.bfloat16, torch.bfloat16)}


class NoHostSync(TorchDispatchMode):
    """Raises where the host reads a number, for which it would have to wait for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket is not aten._local_scalar_dense, "the host reads a number in the middle of a step"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["full", "relora", "relora_zero2"])
def test_the_host_waits_for_no_number_in_a_step(make_cell, method, precision):
    run = a_run(make_cell, method, precision=precision)
    with NoHostSync():
        take_step(run, a_batch(), 1)
        take_step(run, a_batch(), 2)
