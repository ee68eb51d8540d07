"""Compare hidden states: the similarity of two checkpoints, and the anisotropy of one."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..model.decoder import hidden_states, layers


@torch.inference_mode()
def layer_states(model: PreTrainedModel, batch: Tensor) -> Tensor:
    """Return the output of each decoder layer on ``batch`` [sequences, context_length + 1]: [layers, tokens, d_model].

    Hooks take it from the layers, because transformers' last ``hidden_states`` has gone through the final norm, which
    rescales each dimension and so changes similarities.
    """
    outputs: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[-1])) for layer in layers(model)]
    try:
        hidden_states(model, batch[:, :-1])
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([state.flatten(0, 1) for state in outputs])


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Compute the linear centred kernel alignment of hidden states [..., tokens, d] to [...].

    Kornblith et al. 2019, equation 3. The result is 1 if ``x`` and ``y`` agree up to rotation, shift and scale, and NaN
    if one of them does not vary over tokens.
    """
    x, y = (states.double() - states.double().mean(-2, keepdim=True) for states in (x, y))
    between = (x.mT @ y).square().sum((-2, -1))
    within = [(states.mT @ states).square().sum((-2, -1)).sqrt() for states in (x, y)]
    return between / (within[0] * within[1])


def mean_cosine(states: Tensor) -> Tensor:
    """Compute the mean cosine of all pairs of different tokens, [..., tokens, d] to [...] (Ethayarajh 2019)."""
    units = torch.nn.functional.normalize(states.double(), dim=-1)
    tokens = units.shape[-2]
    return (units.sum(-2).square().sum(-1) - tokens) / (tokens * (tokens - 1))
