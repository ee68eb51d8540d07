"""What the layers compute: how alike two checkpoints' activations are, and how one-sided a checkpoint's are."""

import torch
from torch import Tensor
from transformers import LlamaForCausalLM


@torch.inference_mode()
def hidden_states(model: LlamaForCausalLM, batch: Tensor) -> Tensor:
    """What each decoder layer gives on ``batch`` [sequences, context_length + 1]: [layers, tokens, d_model].

    Taken from the layers themselves: the last of transformers' ``hidden_states`` has been through the final norm,
    which weighs each dimension anew and so changes its similarities.
    """
    given: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda *call: given.append(call[-1])) for layer in model.model.layers]
    try:
        model.model(input_ids=batch[:, :-1], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([state.flatten(0, 1) for state in given])


def linear_cka(one: Tensor, other: Tensor) -> Tensor:
    """Linear centred kernel alignment of activations [..., tokens, d] to [...] (Kornblith et al. 2019, equation 3).

    1 where they agree up to rotation, shift and scale. NaN where either does not vary over tokens.
    """
    one, other = (x.double() - x.double().mean(-2, keepdim=True) for x in (one, other))
    between = (one.mT @ other).square().sum((-2, -1))
    within = [(x.mT @ x).square().sum((-2, -1)).sqrt() for x in (one, other)]
    return between / (within[0] * within[1])


def mean_cosine(states: Tensor) -> Tensor:
    """Mean cosine of all pairs of different tokens, [..., tokens, d] to [...] (anisotropy, Ethayarajh 2019)."""
    units = torch.nn.functional.normalize(states.double(), dim=-1)
    tokens = units.shape[-2]
    return (units.sum(-2).square().sum(-1) - tokens) / (tokens * (tokens - 1))
