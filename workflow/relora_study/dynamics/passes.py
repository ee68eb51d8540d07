"""What takes a pass of the model: gradients, the effect of a merge on the loss, and hidden states.

Gradients are those with respect to the effective weights on the fixed batch, for every method alike. A scaled merge has
no effect on the loss; an unscaled merge loses part of the update.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..config import Method
from ..model.decoder import by_component, component_names, hidden_states, layers, next_token_loss
from ..model.kernels.swiglu import SwiGLU
from ..model.relora import as_frozen
from .matrices import Factors, Matrices

MICRO_BATCH_TOKENS = 1024


def gradients(model: PreTrainedModel, batch: Tensor, micro_batch: int | None = None) -> Matrices:
    """Return the gradient of the mean cross-entropy (nats a token) on ``batch`` by component, [layers, out, in] each.

    ``batch`` is int64 [sequences, context_length + 1]: each id predicts the next. It runs ``micro_batch`` sequences at
    a time, each part weighted by its tokens, so that the sum is the gradient of the whole batch. The backward pass
    computes layers again, so that memory stays near the size of the model. Afterwards, ``model`` is in training mode,
    and only the weights of the components require gradients.
    """
    model.train()
    # its name since transformers 5.23; envs/train.yaml allows older releases
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    for module in model.modules():
        if isinstance(module, SwiGLU):
            module.computes_again = False
    model.requires_grad_(False)
    names = [name for of_component in component_names(model.config).values() for name in of_component]
    wanted = [model.get_parameter(f"{name}.weight").requires_grad_() for name in names]
    total = [torch.zeros_like(weight) for weight in wanted]
    tokens = batch[:, 1:].numel()
    size = micro_batch or max(1, MICRO_BATCH_TOKENS // batch.shape[1])
    for part in torch.split(batch, size):
        loss = next_token_loss(model, part) * (part[:, 1:].numel() / tokens)
        for summed, gradient in zip(total, torch.autograd.grad(loss, wanted), strict=True):
            summed += gradient
    return by_component(model.config, dict(zip(names, total, strict=True)).__getitem__)


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, batch: Tensor) -> float:
    """Compute the mean cross-entropy (nats a token) of ``batch``, int64 [sequences, context_length + 1]."""
    total = 0.0
    for part in torch.split(batch, max(1, MICRO_BATCH_TOKENS // batch.shape[1])):
        total += next_token_loss(model, part).item() * part[:, 1:].numel()
    return total / batch[:, 1:].numel()


def _merged_scale(method: Method) -> float:
    """Return the factor of B A in the effective weights after a reset; before it, the factor is ``method.scale``."""
    stays = method.merge == "scaled" or (method.merge == "none" and method.restart == "none")
    return method.scale if stays else 1.0 if method.merge == "unscaled" else 0.0


@torch.no_grad()
def merge_effects(
    model: PreTrainedModel, adapters: Mapping[str, Factors], method: Method, batch: Tensor
) -> dict[str, float]:
    """Measure the effect of a merge and restart at this checkpoint: loss_before, loss_after, loss_jump, update_lost.

    ``model`` starts with the effective weights W + s B A, and ends with the merged weights. A scaled merge keeps
    W + s B A. An unscaled merge gives W + B A, and loses (s - 1) / s of the update. No merge gives W, and loses all.
    ``frozen_dtype: bfloat16`` rounds what is merged, which is lost, too. ``update_lost`` is the Frobenius norm of the
    lost part over the norm of s B A, over all adapted weights together.
    """
    before, dropped, whole = mean_loss(model, batch), 0.0, 0.0
    for name, (down, up) in adapters.items():
        weight, product = model.get_submodule(name).weight, up @ down
        change = (_merged_scale(method) - method.scale) * product
        exact = weight + change
        merged = exact if method.merge == "none" else as_frozen(exact, method.frozen_dtype)
        weight.copy_(merged)
        change += merged - exact
        dropped += change.double().square().sum().item()
        whole += (method.scale * product.double()).square().sum().item()
    after = mean_loss(model, batch)
    lost = (dropped / whole) ** 0.5 if whole else float("nan")
    return {"loss_before": before, "loss_after": after, "loss_jump": after - before, "update_lost": lost}


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
