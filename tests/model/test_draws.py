"""What a method draws comes from the CPU's generator wherever the model lies, so that unlike GPUs draw alike."""

import pytest
import torch
from relora_study.model.relora import ReLoRALinear
from relora_study.train.resets import _kept
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class Copied(TorchDispatchMode):
    """Keeps what is copied from the CPU to another device; `meta` stands for a GPU, and holds no numbers itself."""

    def __init__(self):
        super().__init__()
        self.sources = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        source = {aten.copy_: 1, aten._to_copy: 0}.get(func.overloadpacket)
        if source is not None and args[source].device.type == "cpu" and given.device.type == "meta":
            self.sources.append(args[source])
        return given


def drawn_for(device, draw):
    """What ``draw`` puts on ``device``, and the CPU's generator's state afterwards."""
    torch.manual_seed(11)
    with Copied() as copied:
        result = draw(device)
    (tensor,) = [result] if device == "cpu" else copied.sources
    return tensor, torch.get_rng_state()


@pytest.mark.parametrize("what", ["restart", "moments"])
def test_a_gpu_gets_bit_for_bit_what_a_cpu_draws(make_cell, what):
    method = make_cell("relora", moment_reset="random", moment_reset_fraction=0.5).method
    layers = {device: ReLoRALinear(torch.zeros(20, 12, device=device), method) for device in ("cpu", "meta")}

    def draw(device):
        if what == "moments":
            return _kept(torch.zeros(20, 4, device=device), method)
        layers[device].restart()
        return layers[device].A.detach()

    (ours, state), (theirs, state_of_theirs) = drawn_for("cpu", draw), drawn_for("meta", draw)
    assert torch.equal(ours, theirs) and torch.equal(state, state_of_theirs)
    assert len(ours.unique()) > 1


def test_the_cpus_draws_are_those_of_earlier_versions(make_cell):
    method = make_cell("relora", moment_reset="random", moment_reset_fraction=0.5).method
    layer, expected = ReLoRALinear(torch.zeros(20, 12), method), torch.empty(4, 12)
    torch.manual_seed(3)
    layer.restart()
    kept = _kept(layer.A, method)
    torch.manual_seed(3)
    torch.nn.init.kaiming_uniform_(expected, a=5**0.5)
    assert torch.equal(layer.A, expected) and torch.equal(kept, torch.rand_like(expected) >= 0.5)
