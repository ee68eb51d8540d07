"""The conformance check of PEFT's LoRA with a loop that merges and restarts it."""

from types import SimpleNamespace

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import nn


def training() -> SimpleNamespace:
    """Return what the check needs. PEFT trains adapters alone, and the check finds them by PEFT's names."""
    base = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
    settings = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["0", "2"])
    model = peft.get_peft_model(base, settings)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    x, y = torch.randn(64, 12), torch.randn(64, 12)

    def step() -> None:
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()

    def reset() -> None:
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                layer.get_base_layer().weight.data += layer.get_delta_weight("default")
                layer.reset_lora_parameters("default", init_lora_weights=True)
        optimizer.state.clear()  # the adapters alone train, so this is the adapters' state alone

    return SimpleNamespace(model=model, optimizer=optimizer, step=step, reset=reset)
