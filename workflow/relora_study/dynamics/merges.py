"""What a merge does to the function: nothing, if it carries the scale; otherwise it loses part of each update."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from ..config import Method
from .gradients import MICRO_BATCH_TOKENS, next_token_loss
from .matrices import Factors


@torch.inference_mode()
def mean_loss(model: LlamaForCausalLM, batch: Tensor) -> float:
    """Mean cross-entropy (nats a token) on ``batch``, int64 [sequences, context_length + 1]."""
    total = 0.0
    for part in torch.split(batch, max(1, MICRO_BATCH_TOKENS // batch.shape[1])):
        total += next_token_loss(model, part).item() * part[:, 1:].numel()
    return total / batch[:, 1:].numel()


def _merged_scale(method: Method) -> float:
    """What B A is times in the weights after a reset, where it was times ``method.scale`` before."""
    stays = method.merge == "scaled" or (method.merge == "none" and method.restart == "none")
    return method.scale if stays else 1.0 if method.merge == "unscaled" else 0.0


@torch.no_grad()
def merge_effects(
    model: LlamaForCausalLM, adapters: Mapping[str, Factors], method: Method, batch: Tensor
) -> dict[str, float]:
    """What merging and restarting at this checkpoint does: loss before and after, their difference, and the share lost.

    ``model`` holds the effective weights W + s B A, and is left with the merged ones: W + s B A, or, for an unscaled
    merge, W + B A, which loses (s - 1) / s of the update, or, without a merge, W, which loses all of it.
    ``update_lost`` is measured: the Frobenius norm of what the merge drops, over that of s B A, all adapted weights
    together.
    """
    before, dropped, whole = mean_loss(model, batch), 0.0, 0.0
    for name, (down, up) in adapters.items():
        weight, product = model.get_submodule(name).weight, up @ down
        change = (_merged_scale(method) - method.scale) * product
        weight += change
        dropped += change.double().square().sum().item()
        whole += (method.scale * product.double()).square().sum().item()
    after = mean_loss(model, batch)
    lost = (dropped / whole) ** 0.5 if whole else float("nan")
    return {"loss_before": before, "loss_after": after, "loss_jump": after - before, "update_lost": lost}
