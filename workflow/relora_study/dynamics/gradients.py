"""Compute gradients with respect to the effective weights on the fixed batch, for every method alike."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..model.decoder import by_component, component_names, next_token_loss
from ..model.kernels.swiglu import SwiGLU
from .matrices import Matrices

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
