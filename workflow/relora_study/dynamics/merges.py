"""Measure the effect of a merge on the loss. A scaled merge has none; an unscaled merge loses part of the update."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..config import Method
from ..model.decoder import next_token_loss
from ..model.relora import as_frozen
from .gradients import MICRO_BATCH_TOKENS
from .matrices import Factors


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
