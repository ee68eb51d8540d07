"""The conformance check of ReLoRA that is written in place: one layer, plain PyTorch, and no library."""

import math
from types import SimpleNamespace

import torch
from torch import Tensor, nn


class LowRank(nn.Linear):
    """A frozen linear layer with an adapter: W x + s B A x."""

    scale = 2.0

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        """Freeze the weight, and begin the first cycle."""
        super().__init__(inputs, outputs, bias=False)
        self.weight.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(rank, inputs))
        self.B = nn.Parameter(torch.empty(outputs, rank))
        self.restart()

    def restart(self) -> None:
        """Draw A, and set B to zero."""
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        nn.init.zeros_(self.B)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        return super().forward(x) + self.scale * x @ self.A.mT @ self.B.mT

    @torch.no_grad()
    def reset(self) -> None:
        """Merge the adapter, and begin the next cycle."""
        self.weight += self.scale * self.B @ self.A
        self.restart()


def training() -> SimpleNamespace:
    """Return what the check needs."""
    model = nn.Sequential(LowRank(12, 24, 4), nn.LayerNorm(24), nn.GELU(), LowRank(24, 12, 4))
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step % 10) / 3))
    x, y = torch.randn(64, 12), torch.randn(64, 12)

    def step() -> None:
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        schedule.step()

    def reset() -> None:
        for layer in (model[0], model[3]):
            layer.reset()
            for factor in (layer.A, layer.B):
                optimizer.state[factor]["exp_avg"].zero_()
                optimizer.state[factor]["exp_avg_sq"].zero_()

    return SimpleNamespace(model=model, optimizer=optimizer, step=step, reset=reset, period=10)
