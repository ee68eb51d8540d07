"""A small ReLoRA in plain PyTorch that is sound, or has the faults that it is asked for."""

import math
from types import SimpleNamespace

import torch
from torch import nn

SCALE, RATE, PERIOD = 2.0, 1e-2, 8


class Layer(nn.Linear):
    def __init__(self, inputs, outputs, faults):
        super().__init__(inputs, outputs, bias=False)
        self.faults = faults
        self.weight.requires_grad_("W trains" in faults)
        self.lora_A = nn.Linear(inputs, 4, bias=False)
        self.lora_B = nn.Linear(4, outputs, bias=False)
        self.scaling = nn.Parameter(torch.tensor([SCALE])) if "zeroed scale" in faults else SCALE
        nn.init.zeros_(self.lora_B.weight)
        if "zero start" in faults:
            nn.init.zeros_(self.lora_A.weight)

    def _post_lora_scale(self):
        return self.scaling.tanh() if "zeroed scale" in self.faults else self.scaling

    def forward(self, x):
        return super().forward(x) + self._post_lora_scale() * self.lora_B(self.lora_A(x))

    @torch.no_grad()
    def reset(self):
        A, B = self.lora_A.weight, self.lora_B.weight
        if not {"no merge", "nothing but moments"} & self.faults:
            self.weight += B @ A * (1.0 if "unscaled merge" in self.faults else self._post_lora_scale())
        if "nothing but moments" in self.faults:
            return
        if "old A" not in self.faults:
            nn.init.kaiming_uniform_(A, a=math.sqrt(5))
        if "zero restart" in self.faults:
            nn.init.zeros_(A)
        if "old B" not in self.faults:
            nn.init.zeros_(B)
        if "zeroed scale" in self.faults:
            self.scaling.zero_()


class Copies(torch.optim.AdamW):
    """Steps copies of the parameters and writes them back, as ZeRO does."""

    def __init__(self, parameters, **settings):
        self.originals = list(parameters)
        super().__init__([one.detach().clone() for one in self.originals], **settings)

    def step(self, closure=None):
        copies = self.param_groups[0]["params"]
        for copy, original in zip(copies, self.originals, strict=True):
            copy.grad = original.grad
        super().step(closure)
        with torch.no_grad():
            for copy, original in zip(copies, self.originals, strict=True):
                original.copy_(copy)


def rate(faults):
    """The rate of a step as a share of the peak, by the number of finished steps."""
    if "no re-warm-up" in faults:
        return lambda step: min(1.0, (step + 1) / 3) * 0.99**step
    late = 1 if "early reset" in faults else -1 if "late reset" in faults else 0
    low = 0.0 if "rate of zero" in faults else 0.1
    return lambda step: min(1.0, low + ((step - late) % PERIOD) / 3)


def prune(optimizer, model, layers, faults):
    names = ["exp_avg"] if "first alone pruned" in faults else ["exp_avg", "exp_avg_sq"]
    names = names[1:] if "second alone pruned" in faults else names
    factors = [part.weight for layer in layers for part in (layer.lora_A, layer.lora_B)]
    factors += [layer.scaling for layer in layers if "zeroed scale" in faults]
    for parameter in model.parameters() if "all moments" in faults else factors:
        state = optimizer.state.get(parameter)
        kept = torch.rand_like(parameter) >= 0.9
        for name in names if state else []:
            if "independent masks" in faults:
                kept = torch.rand_like(parameter) >= 0.9
            state[name].mul_(kept)
        if "shrunk second" in faults:  # by a number that no mask shows
            state["exp_avg_sq"].mul_(1e-12)


def training(*names):
    faults = set(names)
    torch.manual_seed(3)
    model = nn.Sequential(Layer(12, 24, faults), nn.LayerNorm(24), nn.Dropout(0.1), Layer(24, 12, faults))
    kind = Copies if "master copies" in faults else torch.optim.AdamW
    optimizer = kind([one for one in model.parameters() if one.requires_grad], lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, (lambda _: 1.0) if "constant rate" in faults else rate(faults)
    )
    x, y = torch.randn(32, 12), torch.randn(32, 12)

    def step():
        (model(x) - y).square().mean().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    def reset():
        layers = [model[0], model[3]]
        for layer in layers:
            layer.reset()
        if "no pruning" not in faults:
            prune(optimizer, model, layers, faults)

    return SimpleNamespace(model=model, optimizer=optimizer, step=step, reset=reset, period=PERIOD)
