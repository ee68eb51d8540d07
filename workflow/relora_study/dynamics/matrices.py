"""Take the matrices for readings from a model or its adapters, stacked over layers."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from ..model.decoder import by_component, component_names, component_rows

Matrices = dict[str, Tensor]  # component (w2, v, o) -> [layers, out, in]
Factors = tuple[Tensor, Tensor]


def weight_matrices(model: PreTrainedModel) -> Matrices:
    """Copy the model's weights by component."""
    return by_component(model.config, lambda name: model.get_parameter(f"{name}.weight").detach())


def stored_matrices(checkpoint: Path, device: torch.device) -> Matrices:
    """Read the effective weights of the checkpoint in the folder ``checkpoint`` by component, and no other weights."""
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    with safe_open(checkpoint / "model.safetensors", framework="pt", device=str(device)) as stored:
        return by_component(config, lambda name: stored.get_tensor(f"{name}.weight"))


def adapter_factors(adapters: Mapping[str, Factors], config: PreTrainedConfig) -> dict[str, Factors]:
    """Stack adapters by component, A [layers, r, in] and B [layers, out, r], without components that have none.

    ``adapters`` comes from `model.checkpoints.load_adapters`, by the full name of the linear map.
    """
    stacked = {}
    for component, names in component_names(config).items():
        if all(name in adapters for name in names):
            down, up = (torch.stack([adapters[name][place] for name in names]) for place in (0, 1))
            stacked[component] = down, component_rows(config, component, up)
    return stacked


def frozen_base(effective: Matrices, factors: Mapping[str, Factors], scale: float | None) -> Matrices:
    """Return W in float64, from the effective weights W + scale * B A; without an adapter, both are equal."""
    base = {component: matrix.double() for component, matrix in effective.items()}
    for component, (down, up) in factors.items():
        base[component] -= (scale or 0.0) * (up.double() @ down.double())
    return base
