"""Where a decoder of transformers keeps what this package uses: its layers, hidden states, head, and matrices by role.

Every module of the package that looks into a model does it through this one, so that an architecture is known here
and in `relora_study.config.architectures` alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..config.architectures import ARCHITECTURES
from .kernels.cross_entropy import head_cross_entropy


def layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder's layers, first to last."""
    found: nn.ModuleList = model.base_model.layers
    return found


def component_names(config: PreTrainedConfig) -> dict[str, list[str]]:
    """Return the linear map that holds w2, v and o in each layer, by its name in a model of ``config``."""
    known = ARCHITECTURES[config.model_type]
    return {
        component: [f"{known.layers}.{layer}.{part.linear}" for layer in range(config.num_hidden_layers)]
        for component, part in known.components.items()
    }


def by_component(config: PreTrainedConfig, tensor_of: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Stack ``tensor_of`` each linear map over layers, for w2, v and o: [layers, out, n] each.

    A tensor [out, n] has a row for each output of the map; of a map that computes more than v, the other rows go.
    """
    return {
        component: component_rows(config, component, torch.stack([tensor_of(name) for name in names]))
        for component, names in component_names(config).items()
    }


def component_rows(config: PreTrainedConfig, component: str, matrix: Tensor) -> Tensor:
    """Return the rows of ``component`` in ``matrix`` [..., out, n], which is the weight or the B of its linear map."""
    which, of = ARCHITECTURES[config.model_type].components[component].share
    if of == 1:
        return matrix
    blocks = matrix.reshape(*matrix.shape[:-2], -1, of, head_dim(config), matrix.shape[-1])
    return blocks[..., which, :, :].flatten(-3, -2)


def head_dim(config: PreTrainedConfig) -> int:
    """Return the width of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def hidden_states(model: PreTrainedModel, ids: Tensor, **positions: Any) -> Tensor:
    """Return what the head reads, [sequences, tokens, d_model], of ``ids`` [sequences, tokens].

    ``positions`` are `position_ids` and `attention_mask`, as transformers takes them; without them, a token follows the
    token before it and sees all earlier ones.
    """
    states: Tensor = model.base_model(input_ids=ids, use_cache=False, **positions).last_hidden_state
    return states


def head_weight(model: PreTrainedModel) -> nn.Parameter:
    """Return the weight of the output head, [vocabulary, d_model]."""
    weight: nn.Parameter = model.get_output_embeddings().weight
    return weight


def next_token_loss(model: PreTrainedModel, rows: Tensor, fused: bool = False) -> Tensor:
    """Compute the mean cross-entropy (nats a token) of ``rows``, int64 [sequences, tokens + 1].

    Each id predicts the next. ``fused`` has torch.compile join the softmax's passes.
    """
    return head_cross_entropy(hidden_states(model, rows[:, :-1]), head_weight(model), rows[:, 1:], fused)
