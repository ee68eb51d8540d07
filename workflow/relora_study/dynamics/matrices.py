"""Take the matrices for readings from a model or its adapters, stacked over layers."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from ..model.decoder import layers

# component -> the module of a decoder layer that holds it; w2 is the second matrix of SwiGLU.
MODULES = {"w2": "mlp.down_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj"}

Matrices = dict[str, Tensor]
Factors = tuple[Tensor, Tensor]


def parameters(model: PreTrainedModel, component: str) -> list[Tensor]:
    """List the weight [out, in] of ``component`` in every layer, first to last."""
    weights = (layer.get_submodule(MODULES[component]).weight for layer in layers(model))
    return [weight for weight in weights if isinstance(weight, Tensor)]


def weight_matrices(model: PreTrainedModel) -> Matrices:
    """Copy the model's weights by component, [layers, out, in] each."""
    return {
        component: torch.stack([weight.detach() for weight in parameters(model, component)]) for component in MODULES
    }


def stored_matrices(checkpoint: Path, device: torch.device) -> Matrices:
    """Read the effective weights of the checkpoint in the folder ``checkpoint`` by component, and no other weights.

    Each is [layers, out, in], as from :func:`weight_matrices`.
    """
    with safe_open(checkpoint / "model.safetensors", framework="pt", device=str(device)) as stored:
        layers = sum(1 for name in stored.keys() if name.endswith(f"{MODULES['w2']}.weight"))  # noqa: SIM118
        return {
            component: torch.stack([stored.get_tensor(f"model.layers.{i}.{module}.weight") for i in range(layers)])
            for component, module in MODULES.items()
        }


def adapter_factors(adapters: Mapping[str, Factors], layers: int) -> dict[str, Factors]:
    """Stack adapters by component, A [layers, r, in] and B [layers, out, r], without components that have none.

    ``adapters`` comes from `model.checkpoints.load_adapters`, by the full name of the module.
    """
    names = {component: [f"model.layers.{i}.{module}" for i in range(layers)] for component, module in MODULES.items()}
    return {
        component: (
            torch.stack([adapters[name][0] for name in keys]),
            torch.stack([adapters[name][1] for name in keys]),
        )
        for component, keys in names.items()
        if all(name in adapters for name in keys)
    }


def frozen_base(effective: Matrices, factors: Mapping[str, Factors], scale: float | None) -> Matrices:
    """Return W in float64, from the effective weights W + scale * B A; without an adapter, both are equal."""
    base = {component: matrix.double() for component, matrix in effective.items()}
    for component, (down, up) in factors.items():
        base[component] -= (scale or 0.0) * (up.double() @ down.double())
    return base
